"""JSON paths that errors name, for example ``grammar.value.properties.name`` or ``...["a b"]``."""

import json
import re

NAME = re.compile(r"[$A-Za-z_][$\w-]*", re.ASCII)
LONGEST_NAME = 80


def child(path: str, key: str | int) -> str:
    """The path of a member or an item."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    key = key if len(key) <= LONGEST_NAME else f"{key[:LONGEST_NAME]}…"
    return f"{path}.{key}" if NAME.fullmatch(key) else f"{path}[{json.dumps(key)}]"
