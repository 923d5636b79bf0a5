import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.turns.json_strings import decode_some


def decode(pieces: list[str]) -> tuple[str, str, bool]:
    """Decoded text, what is left behind the string, whether it broke."""
    waiting, text = "", ""
    for index, piece in enumerate(pieces):
        waiting += piece
        decoded = decode_some(waiting)
        waiting = waiting[decoded.n_read :]
        text += decoded.text
        if decoded.is_complete or decoded.is_broken:
            return text, waiting + "".join(pieces[index + 1 :]), decoded.is_broken
    return text, waiting, False


@given(st.text(), st.booleans())
def test_decode_some_character_by_character_gives_the_string(text: str, ascii_only: bool) -> None:
    encoded = json.dumps(text, ensure_ascii=ascii_only)[1:]
    assert decode([*encoded, "x"]) == (text, "x", False)
    assert decode([encoded + "x"]) == (text, "x", False)


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ('\\ud83d"', "\ufffd"),
        ('\\udE00"', "\ufffd"),
        ('\\ud83da"', "\ufffda"),
        ('\\ud83d\\n"', "\ufffd\n"),
        ('\\ud83d\\u0041"', "\ufffdA"),
        ('\\ud83d\\ud83d\\ude00"', "\ufffd\N{GRINNING FACE}"),
        ('\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    ],
)
def test_decode_some_half_of_a_pair_is_the_replacement_character(encoded: str, text: str) -> None:
    assert decode([encoded]) == (text, "", False)
    assert decode(list(encoded)) == (text, "", False)


@pytest.mark.parametrize("encoded", ["a\nb", "\\x", "\\u12x4", "\\ud83d\\ux", "\\ud83d\x00"])
def test_decode_some_what_no_string_can_hold_is_broken(encoded: str) -> None:
    assert decode([encoded])[2]
    assert decode(list(encoded))[2]


@pytest.mark.parametrize("end", ["\\", "\\u", "\\u00", "\\ud83d", "\\ud83d\\", "\\ud83d\\ud"])
def test_decode_some_an_incomplete_escape_waits(end: str) -> None:
    assert decode(["ab" + end]) == ("ab", end, False)
