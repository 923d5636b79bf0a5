"""``tgi-llama`` in a process that SIGINT ends, also where tests run in the background and whatever
they start ignores it."""

import sys

_PROGRAM = (
    "import signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from tgi_llama.cli import main\n"
    "main()"
)

INTERRUPTIBLE = (sys.executable, "-c", _PROGRAM)
"""Arguments come behind it."""
