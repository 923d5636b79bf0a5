#!/usr/bin/env python3
"""Stands for the ``docker`` command where no container can be run: ``docker run`` of our image
starts the server on this machine with what the image and the options give it, and nothing else.

What the image has is told by variables of the test: ``IMAGE_COMMAND`` (words of its entrypoint),
``IMAGE_ENVIRONMENT`` (a JSON object). A volume's folder in the container is replaced by the one on
this machine, wherever a path in the arguments or in the image's variables begins with it. Any
option that is not known here ends with an error, so that a command cannot be carried out half.
"""

import argparse
import json
import os
import sys

PORT = "3000"  # where the image serves


def main() -> None:
    parser = argparse.ArgumentParser(prog="docker")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", allow_abbrev=False)
    run.add_argument("-p", dest="ports", action="append", default=[])
    run.add_argument("-e", dest="variables", action="append", default=[])
    run.add_argument("-v", dest="volumes", action="append", default=[])
    run.add_argument(
        "--gpus", choices=["all"]
    )  # there are none: the server must start all the same
    run.add_argument("image", choices=["tgi-llamacpp"])
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    assert options.ports == [f"{PORT}:{PORT}"], options.ports
    volumes = [volume.split(":") for volume in options.volumes]

    def on_host(text: str) -> str:
        for outside, inside in volumes:
            assert os.path.isdir(outside), outside
            if text == inside or text.startswith(inside + "/"):
                return outside + text[len(inside) :]
        return text

    environment = json.loads(os.environ["IMAGE_ENVIRONMENT"])
    environment = {name: on_host(value) for name, value in environment.items()}
    for variable in options.variables:
        name, has_value, value = variable.partition("=")
        environment[name] = value if has_value else os.environ[name]
    command = os.environ["IMAGE_COMMAND"].split()
    command += [on_host(argument) for argument in options.arguments]
    sys.stdout.flush()
    os.execve(command[0], command, environment)


main()
