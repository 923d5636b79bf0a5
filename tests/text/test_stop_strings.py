import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.text.stop_strings import StopMatcher


def run(stop_strings: list[str], pieces: list[str], *, keep: bool) -> tuple[list[str], bool]:
    """What each push shows, the flushed rest last where nothing stopped the text."""
    matcher = StopMatcher(stop_strings, keep=keep)
    shown = []
    for piece in pieces:
        visible = matcher.push(piece)
        shown.append(visible.text)
        if visible.stopped:
            return shown, True
    return [*shown, matcher.flush()], False


def reference(stop_strings: list[str], text: str, *, keep: bool) -> tuple[str, bool]:
    """The definition: the first moment at which the text ends with a stop string."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stop_strings if stop and text[:end].endswith(stop)]
        if ending:
            return (text[:end] if keep else text[: end - max(map(len, ending))]), True
    return text, False


@pytest.mark.parametrize(
    ("stops", "pieces", "kept", "cut"),
    [
        (["stop"], ["a st", "op b"], ["a st", "op"], ["a ", ""]),
        (["stop"], ["a stop b"], ["a stop"], ["a "]),
        (["\n\n"], ["x\n", "\ny"], ["x\n", "\n"], ["x", ""]),
        (["b"], ["a", "b"], ["a", "b"], ["a", ""]),
        (["aab"], ["aa", "ab"], ["aa", "ab"], ["", "a"]),
        (["abcd", "bc"], ["abcd"], ["abc"], ["a"]),
        (["c", "bc"], ["abc"], ["abc"], ["a"]),
        (["é\N{LLAMA}"], ["é", "\N{LLAMA}!"], ["é", "\N{LLAMA}"], ["", ""]),
        (["abab", "babc"], ["aba", "bc"], ["aba", "b"], ["", ""]),
    ],
)
def test_push_with_a_stop_string_stops_at_its_end(
    stops: list[str], pieces: list[str], kept: list[str], cut: list[str]
) -> None:
    assert run(stops, pieces, keep=True) == (kept, True)
    assert run(stops, pieces, keep=False) == (cut, True)


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (["stop"], ["a s", "tone"], ["a ", "stone", ""]),
        (["stop"], ["a sto"], ["a ", "sto"]),
        (["aab"], ["aaa", "c"], ["a", "aac", ""]),
        ([], ["any", "thing"], ["any", "thing", ""]),
        ([""], ["any"], ["any", ""]),
        (["xyz", "yq"], ["xy", "2"], ["", "xy2", ""]),
    ],
)
def test_push_without_a_match_holds_back_only_what_may_become_one(
    stops: list[str], pieces: list[str], shown: list[str]
) -> None:
    assert run(stops, pieces, keep=False) == (shown, False)


def test_push_with_keep_holds_nothing_back() -> None:
    assert run(["stop"], ["a sto", "ne"], keep=True) == (["a sto", "ne", ""], False)


def test_push_of_nothing_shows_nothing() -> None:
    assert run(["stop"], ["", "st", "", "op"], keep=False) == (["", "", "", ""], True)


def test_push_after_a_stop_is_refused() -> None:
    matcher = StopMatcher(["x"], keep=True)
    assert matcher.push("x").stopped
    with pytest.raises(AssertionError):
        matcher.push("y")


@given(
    st.lists(st.text("ab", max_size=4), max_size=4),
    st.lists(st.text("abc", max_size=4), max_size=15),
    st.booleans(),
)
def test_push_with_any_cut_equals_the_naive_search(
    stops: list[str], pieces: list[str], keep: bool
) -> None:
    shown, stopped = run(stops, pieces, keep=keep)
    assert ("".join(shown), stopped) == reference(stops, "".join(pieces), keep=keep)


@given(st.lists(st.text("ab", max_size=4), max_size=3), st.lists(st.text("abc", max_size=4)))
def test_push_without_keep_never_shows_what_it_would_have_to_take_back(
    stops: list[str], pieces: list[str]
) -> None:
    matcher = StopMatcher(stops, keep=False)
    text = shown = ""
    for piece in pieces:
        text += piece
        visible = matcher.push(piece)
        shown += visible.text
        if visible.stopped:
            return
        held = text[len(shown) :]
        assert text == shown + held
        assert not held or any(stop.startswith(held) for stop in stops)


def test_push_with_a_huge_stop_string_of_one_letter_stays_linear() -> None:
    n = 100_000  # a quadratic search would take minutes
    matcher = StopMatcher(["a" * n + "b"], keep=False)
    for _ in range(n // 10):
        assert matcher.push("a" * 10).text == ""
    assert matcher.push("a").text == "a"
    visible = matcher.push("b")
    assert (visible.text, visible.stopped) == ("", True)
