"""Spellings of control tokens in texts, and parts of them at a text's edges."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.text.spellings import Spellings, cut_at_controls

CHATML = Spellings(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>"])


def test_spellings_are_found_in_order() -> None:
    text = "a<|im_end|>\n<|im_start|></s><|im_sta"
    assert [text[slice(*span)] for span in CHATML.find(text)] == [
        "<|im_end|>",
        "<|im_start|>",
        "</s>",
    ]
    assert CHATML.occur_in(text)
    assert not CHATML.occur_in("<|im_end|<|im_start>")


def test_leftmost_and_longest_spelling_is_found() -> None:
    spellings = Spellings(["ab", "abcd", "bcdef"])
    assert spellings.find("abcdef ab") == [(0, 4), (7, 9)]


def test_no_spellings_are_never_found() -> None:
    for none in (Spellings([]), Spellings([""])):
        assert none.find("a") == []
        assert not none.occur_in("a")
        assert not none.has_open_edge("a <")
        assert not none.has_open_edge("")


@given(spellings=st.lists(st.text("ab<|>.*\n", min_size=1, max_size=5)), text=st.text("ab<|>.*\n"))
def test_tree_finds_what_plain_alternatives_find(spellings: list[str], text: str) -> None:
    longest_first = sorted(set(spellings), key=len, reverse=True)
    plain = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    assert Spellings(spellings).find(text) == [match.span() for match in plain.finditer(text)]


@pytest.mark.parametrize(
    "text",
    ["a <", "a <|im_end|", "<|im ", "|> b", " end|>", "|im_end|", "|", "a<|im_start|><"],
)
def test_part_of_a_spelling_at_an_edge_is_open(text: str) -> None:
    assert CHATML.has_open_edge(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "im_end", "user", "a < b", "a |> b", "<|im_end|>", "im", "function", "x" * 99],
)
def test_words_and_whole_spellings_are_not_open(text: str) -> None:
    assert not CHATML.has_open_edge(text)


@given(first=st.text("<|im_end> "), second=st.text("<|im_end> "))
def test_texts_that_make_a_spelling_together_have_an_open_edge(first: str, second: str) -> None:
    together = first.strip() + second.strip()
    middle = len(first.strip())
    joined = [s for s in CHATML.find(together) if s[0] < middle < s[1]]
    if joined and not re.fullmatch(r"\w*", first.strip()[joined[0][0] :]):
        assert CHATML.has_open_edge(first) or CHATML.has_open_edge(second)


@given(text=st.text("a<>"), is_literal=st.lists(st.booleans(), min_size=99, max_size=99))
def test_parts_join_to_the_text_and_are_cut_at_controls_only(
    text: str, is_literal: list[bool]
) -> None:
    found = Spellings(["<>"]).find(text)
    literals = {span for span, literal in zip(found, is_literal, strict=False) if literal}
    parts = cut_at_controls(text, found, literals)
    assert "".join(part for part, _ in parts) == text
    assert all(part for part, _ in parts)
    position = 0
    for part, literal in parts:
        inside = [s for s in found if position <= s[0] and s[1] <= position + len(part)]
        assert all((span in literals) == literal for span in inside)
        # A cut in a word would change its tokens.
        cuts = {position, position + len(part)} - {0, len(text)}
        ends = {end for span in found if span not in literals for end in span}
        assert cuts <= ends
        position += len(part)
