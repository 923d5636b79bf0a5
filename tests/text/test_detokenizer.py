import codecs
import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.generation import TokenId
from tgi_llama.text.detokenizer import Detokenizer


@attrs.frozen
class PieceList:
    """A vocabulary whose token i has the i-th piece."""

    pieces: tuple[bytes, ...]

    def piece(self, token: TokenId) -> bytes:
        return self.pieces[token]


def detokenize(*pieces: bytes) -> list[str]:
    detokenizer = Detokenizer(PieceList(pieces))
    return [detokenizer.step(TokenId(i)) for i in range(len(pieces))]


def decode_without_tail(data: bytes) -> str:
    """What Python makes of the bytes when an incomplete character at the end is dropped."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=False)


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ((b" Hello", b" world"), [" Hello", " world"]),
        ((b" ", b" "), [" ", " "]),
        ((b"\xf0", b"\x9f\xa6", b"\x99!"), ["", "", "\N{LLAMA}!"]),
        ((b"a\xc3", b"\xa9b\xc3", b"\xbc"), ["a", "\N{LATIN SMALL LETTER E WITH ACUTE}b", "ü"]),
        ((b"\xff", b"a"), ["\N{REPLACEMENT CHARACTER}", "a"]),
        ((b"\xe2\x82", b"a"), ["", "\N{REPLACEMENT CHARACTER}a"]),
        ((b"\xc3", b"\xc3\xa9"), ["", "\N{REPLACEMENT CHARACTER}é"]),
        ((b"\xed\xa0\x80",), ["\N{REPLACEMENT CHARACTER}" * 3]),
        ((b"\xef\xbb\xbfx",), ["\N{ZERO WIDTH NO-BREAK SPACE}x"]),
        ((b"", b"x"), ["", "x"]),
        ((b"x\xf0\x9f\xa6",), ["x"]),
    ],
)
def test_step_with_characters_cut_anywhere_returns_whole_characters(
    pieces: tuple[bytes, ...], texts: list[str]
) -> None:
    assert detokenize(*pieces) == texts


@given(st.lists(st.one_of(st.binary(max_size=5), st.text(max_size=3).map(str.encode)), max_size=20))
def test_step_with_any_bytes_in_any_pieces_equals_decoding_at_once(pieces: list[bytes]) -> None:
    assert "".join(detokenize(*pieces)) == decode_without_tail(b"".join(pieces))


@given(st.text(max_size=30), st.data())
def test_step_with_valid_text_cut_anywhere_loses_nothing(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    bounds = [0, *cuts, len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(bounds)]
    assert "".join(detokenize(*pieces)) == text


def test_decoder_matches_replace_where_the_end_is_complete() -> None:
    data = b"ok \xff\xc3( \xf0\x28\x8c\x28"
    assert "".join(detokenize(*(bytes([byte]) for byte in data))) == data.decode("utf-8", "replace")


def test_peek_inside_a_character_changes_nothing() -> None:
    detokenizer = Detokenizer(PieceList((b"\xc3", b"\xa9", b"x")))
    assert detokenizer.step(TokenId(0)) == ""
    assert detokenizer.peek(TokenId(2)) == "\N{REPLACEMENT CHARACTER}x"
    assert detokenizer.peek(TokenId(1)) == "é"
    assert detokenizer.step(TokenId(1)) == "é"
