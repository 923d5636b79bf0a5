"""Wire values that differ in a few places: the bytes between those places are made once.

A token of a stream is a few bytes in an object that is the same for every token. To build that
object, turn it into dicts and write them costs tens of microseconds with the cold caches that a
decode leaves. The wire types stay the one description of it: a pattern is made by writing a real
value with stand-ins in the places that will differ, and is therefore as right as they are.

    number, text = integer_stand_in(), text_stand_in()
    chunk = pattern(Chunk(created=number, text=text), number, text)
    chunk % (int(time.time()), dump_text("hello"))
"""

import secrets

from tgi_llama.generation import Token, TokenId

from .converter import dump


def integer_stand_in() -> int:
    """Nobody can guess it, so that no text of a client is taken for it."""
    return secrets.randbits(62) | 1 << 62


def text_stand_in() -> str:
    return secrets.token_hex(16)


def token_stand_in() -> Token:
    return Token(TokenId(integer_stand_in()), text_stand_in(), None, False)


def pattern(value: object, *stand_ins: object) -> bytes:
    """A format for ``%``: the JSON of ``value`` with other values for the stand-ins, which are part
    of it once each, in this order. An integer is filled in as an ``int``, everything else as its
    JSON in bytes."""
    rest = dump(value)
    parts: list[bytes] = []
    for stand_in in stand_ins:
        before, found, rest = rest.partition(dump(stand_in))
        assert found, "the stand-ins are parts of the value, in this order"
        parts += [_constant(before), b"%d" if isinstance(stand_in, int) else b"%b"]
    return b"".join([*parts, _constant(rest)])


def _constant(data: bytes) -> bytes:
    return data.replace(b"%", b"%%")
