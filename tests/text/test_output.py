import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.generation import TokenId
from tgi_llama.text.output import OutputText, Piece

EOS = TokenId(0)
CONTROL = TokenId(1)
ODD_EOG = TokenId(2)
"""Ends the generation without being a control token."""
N_SPECIAL = 3


@attrs.frozen
class FakeVocabulary:
    pieces: tuple[bytes, ...]

    def piece(self, token: TokenId) -> bytes:
        return (b"</s>", b"<|im_end|>", b"<end>", *self.pieces)[token]

    def is_control(self, token: TokenId) -> bool:
        return token in (EOS, CONTROL)

    def is_end_of_generation(self, token: TokenId) -> bool:
        return token in (EOS, ODD_EOG)


def ordinary(index: int) -> TokenId:
    return TokenId(N_SPECIAL + index)


def push_all(output: OutputText, *tokens: TokenId) -> list[Piece]:
    return [output.push(token) for token in tokens]


def test_push_without_stop_strings_shows_each_token() -> None:
    output = OutputText(FakeVocabulary((b" a", b"\xc3", b"\xa9")))
    pieces = push_all(output, *(ordinary(i) for i in range(3)))
    assert pieces == [
        Piece(" a", " a", stopped=False),
        Piece("", "", stopped=False),
        Piece("é", "é", stopped=False),
    ]
    assert output.finish() == ""


@pytest.mark.parametrize(
    ("token", "spelling"), [(EOS, "</s>"), (CONTROL, "<|im_end|>"), (ODD_EOG, "<end>")]
)
def test_push_of_a_control_token_shows_its_spelling_in_the_token_only(
    token: TokenId, spelling: str
) -> None:
    output = OutputText(FakeVocabulary(()))
    assert output.push(token) == Piece(spelling, "", stopped=False)


@pytest.mark.parametrize("keep", [True, False])
def test_push_of_a_shown_control_token_makes_text_of_it(keep: bool) -> None:
    output = OutputText(
        FakeVocabulary((b" a",)),
        stop_strings=("> a",),
        keep_stop_string=keep,
        shown_controls={EOS, CONTROL},
    )
    assert output.peek(CONTROL) == "<|im_end|>"
    pieces = push_all(output, EOS, ODD_EOG, CONTROL, ordinary(0))
    assert [piece.token_text for piece in pieces] == ["</s>", "<end>", "<|im_end|>", " a"]
    text = "".join(piece.delta for piece in pieces)
    assert text == ("</s><|im_end|> a" if keep else "</s><|im_end|")
    assert pieces[-1].stopped


def test_push_with_kept_stop_string_inside_a_token_cuts_token_and_delta() -> None:
    output = OutputText(FakeVocabulary((b"on st", b"op it")), stop_strings=("stop",))
    assert push_all(output, ordinary(0), ordinary(1)) == [
        Piece("on st", "on st", stopped=False),
        Piece("op", "op", stopped=True),
    ]


def test_push_with_cut_stop_string_keeps_the_token_text_whole() -> None:
    output = OutputText(
        FakeVocabulary((b"on st", b"op it")), stop_strings=("stop",), keep_stop_string=False
    )
    assert push_all(output, ordinary(0), ordinary(1)) == [
        Piece("on st", "on ", stopped=False),
        Piece("op it", "", stopped=True),
    ]
    assert output.finish() == ""


def test_finish_returns_held_text_and_drops_an_incomplete_character() -> None:
    output = OutputText(
        FakeVocabulary((b"so st", b"\xf0\x9f")), stop_strings=("stop",), keep_stop_string=False
    )
    assert [piece.delta for piece in push_all(output, ordinary(0), ordinary(1), EOS)] == [
        "so ",
        "",
        "",
    ]
    assert output.finish() == "st"


def test_push_of_a_control_token_spelled_like_a_stop_string_stops_and_releases() -> None:
    output = OutputText(
        FakeVocabulary((b"a <",)), stop_strings=("<|im_end|>",), keep_stop_string=False
    )
    assert push_all(output, ordinary(0), CONTROL) == [
        Piece("a <", "a ", stopped=False),
        Piece("<|im_end|>", "<", stopped=True),
    ]


def test_push_around_a_control_token_matches_as_if_it_were_not_there() -> None:
    output = OutputText(FakeVocabulary((b"st", b"op")), stop_strings=("stop",))
    assert push_all(output, ordinary(0), CONTROL, ordinary(1))[-1].stopped


def test_peek_gives_the_alternative_without_taking_it() -> None:
    output = OutputText(FakeVocabulary((b"\xc3", b"\xa9", b" no")))
    output.push(ordinary(0))
    assert output.peek(ordinary(1)) == "é"
    assert output.peek(CONTROL) == "<|im_end|>"
    assert output.push(ordinary(1)).token_text == "é"


@given(
    st.lists(st.sampled_from([b"a", b"b", b"ab", b"\xc3", b"\xa9", b" "]), max_size=15),
    st.lists(st.text("abé ", max_size=3), max_size=3),
    st.booleans(),
)
def test_deltas_concatenate_to_the_visible_text(
    pieces: list[bytes], stops: list[str], keep: bool
) -> None:
    output = OutputText(FakeVocabulary(tuple(pieces)), stop_strings=stops, keep_stop_string=keep)
    token_text = delta = ""
    for index in range(len(pieces)):
        piece = output.push(ordinary(index))
        token_text += piece.token_text
        delta += piece.delta
        if piece.stopped:
            break
    else:
        delta += output.finish()
        assert delta == token_text
    if keep:
        assert delta == token_text
    assert token_text.startswith(delta)
