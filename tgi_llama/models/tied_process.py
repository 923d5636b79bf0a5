"""Runs a Python program that ends when whoever started it does.

Started as a file, by any Python, with a script's path or ``-m`` and a module's name, and the
program's arguments. It imports nothing of ours. Standard input is a pipe whose other end the parent
holds and never writes to: it hangs up when the parent is gone, however it went.
"""

import os
import runpy
import select
import sys
import threading
from pathlib import Path


def main() -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    what = sys.argv[1]
    if what == "-m":
        sys.argv = sys.argv[2:]
        del sys.path[0]  # this file's folder, whose modules are none of the program's business
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[1:]
        sys.path[0] = str(Path(what).parent)  # as if the script had been started directly
        runpy.run_path(what, run_name="__main__")


def _end_with_the_parent() -> None:
    hang_up = select.poll()
    hang_up.register(sys.stdin, 0)
    hang_up.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
