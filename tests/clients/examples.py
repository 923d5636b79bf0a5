"""Runs the examples of documents and compares answers with those that are printed there."""

import json
import re
import subprocess

ADDRESS = re.compile(r"(http://)?localhost:(3000|8080)\b")


def at(url: str, text: str) -> str:
    return ADDRESS.sub(url, text)


def curl(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout
    return done.stdout


def events(text: str) -> list[object]:
    """``[DONE]`` stays a text."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def assert_like(got: object, expected: object, path: str = "") -> None:
    """The same keys in the same order and the same types. A list may be longer or shorter, but not
    empty where the other is not; its entries look like those of the example."""
    assert kind(got) == kind(expected), f"{path}: {got!r} is not like {expected!r}"
    if isinstance(expected, dict):
        if "x" in expected:  # the keys are tokens
            return
        assert list(got) == list(expected), path
        for key in expected:
            assert_like(got[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert bool(got) == bool(expected), path
        for index, entry in enumerate(got):
            example = expected[min(index, len(expected) - 1)]
            assert_like(entry, example, f"{path}[{index}]")


def kind(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return repr(value) if value is None else "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__
