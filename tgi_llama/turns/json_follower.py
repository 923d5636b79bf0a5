"""Follows one JSON value while its text arrives in pieces.

The text is read one character at a time by a small automaton, so where the pieces are cut does not
matter, and what has been read at any moment is the beginning of valid JSON (RFC 8259). The insides
of strings, which are most of a call's arguments, are skipped by a regular expression.
"""

import enum
import re

_SPACE = " \t\n\r"
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = frozenset("0123456789abcdefABCDEF")
_WORDS = {"t": "rue", "f": "alse", "n": "ull"}

# What may follow in a number, by where it stands in it. A number may end where "" leads somewhere.
_DIGITS = "0123456789"
_NUMBER = {
    "sign": {"0": "zero", **dict.fromkeys(_DIGITS[1:], "integer")},
    "zero": {".": "point", "e": "e", "E": "e"},
    "integer": {**dict.fromkeys(_DIGITS, "integer"), ".": "point", "e": "e", "E": "e"},
    "point": dict.fromkeys(_DIGITS, "fraction"),
    "fraction": {**dict.fromkeys(_DIGITS, "fraction"), "e": "e", "E": "e"},
    "e": {"+": "e sign", "-": "e sign", **dict.fromkeys(_DIGITS, "exponent")},
    "e sign": dict.fromkeys(_DIGITS, "exponent"),
    "exponent": dict.fromkeys(_DIGITS, "exponent"),
}
_NUMBER_ENDS = frozenset(("zero", "integer", "fraction", "exponent"))
_NUMBER_STARTS = {"-": "sign", **_NUMBER["sign"]}


class _Next(enum.Enum):
    """What may come next."""

    VALUE = enum.auto()
    VALUE_OR_END = enum.auto()
    KEY = enum.auto()
    KEY_OR_END = enum.auto()
    COLON = enum.auto()
    COMMA_OR_END = enum.auto()
    IN_STRING = enum.auto()
    ESCAPE = enum.auto()
    HEX = enum.auto()
    IN_NUMBER = enum.auto()
    IN_WORD = enum.auto()
    NOTHING = enum.auto()


class JsonFollower:
    """Mutable, one per value."""

    def __init__(self) -> None:
        self._next = _Next.VALUE
        self._open: list[str] = []
        """The brackets that are open, ``{`` and ``[``; a list, so that no depth is too deep."""
        self._in_key = False
        self._rest = ""
        """What is missing of a word."""
        self._n_hex = 0
        self._number = ""
        self.is_broken = False

    @property
    def is_complete(self) -> bool:
        """The value has ended. A number that stands alone ends with the character after it."""
        return self._next is _Next.NOTHING

    def read(self, text: str, position: int = 0) -> int:
        """Reads on from ``position``; returns where it stopped: at the end of the text, behind the
        end of the value, or at the character that breaks it."""
        while position < len(text) and self._next is not _Next.NOTHING:
            if self._next is _Next.IN_STRING:
                match = _PLAIN.match(text, position)
                assert match is not None  # it may be empty
                position = match.end()
                if position == len(text):
                    break
            if self._next is _Next.IN_NUMBER and self._ends_number(text[position]):
                continue
            if not self._step(text[position]):
                self.is_broken = True
                break
            position += 1
        return position

    def _step(self, character: str) -> bool:
        """False where the character may not come next."""
        match self._next:
            case _Next.IN_STRING:
                return self._in_string(character)
            case _Next.ESCAPE:
                self._next = _Next.HEX if character == "u" else _Next.IN_STRING
                self._n_hex = 0
                return character in '"\\/bfnrtu'
            case _Next.HEX:
                self._n_hex += 1
                if self._n_hex == 4:
                    self._next = _Next.IN_STRING
                return character in _HEX
            case _Next.IN_WORD:
                expected, self._rest = self._rest[0], self._rest[1:]
                if not self._rest:
                    self._end_value()
                return character == expected
            case _Next.IN_NUMBER:
                self._number = _NUMBER[self._number].get(character, "")
                return self._number != ""
            case _:
                return character in _SPACE or self._structure(character)

    def _in_string(self, character: str) -> bool:
        if character == "\\":
            self._next = _Next.ESCAPE
        elif character == '"':
            if self._in_key:
                self._next, self._in_key = _Next.COLON, False
            else:
                self._end_value()
        else:
            return False  # a control character
        return True

    def _structure(self, character: str) -> bool:
        match self._next, character:
            case ((_Next.VALUE | _Next.VALUE_OR_END), _) if self._begins_value(character):
                return True
            case ((_Next.KEY | _Next.KEY_OR_END), '"'):
                self._next, self._in_key = _Next.IN_STRING, True
            case _Next.COLON, ":":
                self._next = _Next.VALUE
            case _Next.COMMA_OR_END, ",":
                self._next = _Next.KEY if self._open[-1] == "{" else _Next.VALUE
            case ((_Next.KEY_OR_END | _Next.COMMA_OR_END), "}") if self._open[-1] == "{":
                self._open.pop()
                self._end_value()
            case ((_Next.VALUE_OR_END | _Next.COMMA_OR_END), "]") if self._open[-1] == "[":
                self._open.pop()
                self._end_value()
            case _:
                return False
        return True

    def _begins_value(self, character: str) -> bool:
        if character == '"':
            self._next = _Next.IN_STRING
        elif character in "{[":
            self._open.append(character)
            self._next = _Next.KEY_OR_END if character == "{" else _Next.VALUE_OR_END
        elif character in _WORDS:
            self._next, self._rest = _Next.IN_WORD, _WORDS[character]
        elif character in _NUMBER_STARTS:
            self._next, self._number = _Next.IN_NUMBER, _NUMBER_STARTS[character]
        else:
            return False
        return True

    def _ends_number(self, character: str) -> bool:
        if self._number not in _NUMBER_ENDS or character in _NUMBER[self._number]:
            return False
        self._end_value()
        return True

    def _end_value(self) -> None:
        self._next = _Next.COMMA_OR_END if self._open else _Next.NOTHING
