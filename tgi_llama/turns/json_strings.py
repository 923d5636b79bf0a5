"""Decodes a JSON string while its text arrives in pieces. Pure functions."""

import json
import re
from typing import NamedTuple

_SOME = re.compile(
    r"""(?: [^"\\\x00-\x1f]
          | \\ ["\\/bfnrt]
          | \\u (?: [0-9a-ce-fA-CE-F][0-9a-fA-F]{3} | [dD][0-7c-fC-F][0-9a-fA-F]{2} )
          | \\u [dD][89abAB][0-9a-fA-F]{2} \\u [dD][c-fC-F][0-9a-fA-F]{2}
          )*""",
    re.VERBOSE,
)
_LONE_HALF = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?=[^\\]|\\[^u]|\\u[^dD]|\\u[dD][^c-fC-F])", re.VERBOSE
)
_OPEN_ESCAPE = re.compile(
    r"""\\ (?: u (?: [0-9a-fA-F]{0,3}
                   | [dD][89abAB][0-9a-fA-F]{2} (?: \\ (?: u (?: [dD] (?: [c-fC-F] [0-9a-fA-F]?
                                                             )? )? )? )?
                   ) )? \Z""",
    re.VERBOSE,
)
_HALVES = re.compile("[\ud800-\udfff]")


class Decoded(NamedTuple):
    """What could be decoded of the rest of a string."""

    text: str
    """Half of a pair of surrogates that comes without the other is U+FFFD."""
    n_read: int
    """Characters of the JSON text that were read, the closing quote included."""
    is_complete: bool
    is_broken: bool
    """What follows cannot stand in a string."""


def decode_some(text: str) -> Decoded:
    """Decodes from inside of a string, behind its opening quote or where the last call stopped. An
    escape that has not arrived as a whole is left for the next call."""
    position, found = 0, []
    while True:
        match = _SOME.match(text, position)
        assert match is not None  # it may be empty
        found.append(_HALVES.sub("\ufffd", json.loads(f'"{match.group()}"')))
        position = match.end()
        half = _LONE_HALF.match(text, position)
        if half is None:
            break
        found.append("\ufffd")
        position = half.end()
    decoded = "".join(found)
    if position == len(text) or _OPEN_ESCAPE.match(text, position):
        return Decoded(decoded, position, is_complete=False, is_broken=False)
    if text[position] == '"':
        return Decoded(decoded, position + 1, is_complete=True, is_broken=False)
    return Decoded(decoded, position, is_complete=False, is_broken=True)
