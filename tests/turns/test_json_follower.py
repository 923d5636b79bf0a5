import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.turns.json_follower import JsonFollower

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        return False
    return True


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_read_a_value_character_by_character_ends_with_it(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    follower = JsonFollower()
    for character in text:
        assert not follower.is_complete
        assert follower.read(character) == 1
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    assert follower.is_complete != is_number
    assert follower.read(" ") == 0 or not is_number
    assert follower.is_complete


@given(st.text('{}[]:,"\\ \n01.e+-truefalsn', max_size=12))
def test_read_any_text_agrees_with_json(text: str) -> None:
    follower = JsonFollower()
    n_read = follower.read(text + " ")
    is_whole = follower.is_complete and not (text + " ")[n_read:].strip()
    assert is_whole == is_json(text)


@given(VALUES, st.data())
def test_read_in_pieces_is_as_at_once(value: object, data: st.DataObject) -> None:
    text = json.dumps(value) + "}"
    place = data.draw(st.integers(0, len(text)))
    whole, pieces = JsonFollower(), JsonFollower()
    first = pieces.read(text[:place])
    second = pieces.read(text, first) if not pieces.is_complete else first
    assert second == whole.read(text)
    assert pieces.is_complete == whole.is_complete


@pytest.mark.parametrize(
    ("text", "n_read"),
    [
        ('{"a": 01}', 7),
        ('{"a": 1,}', 8),
        ('{"a" 1}', 5),
        ("{a: 1}", 1),
        ("[1 2]", 3),
        ('["\\x"]', 3),
        ('["\n"]', 2),
        ('["\\u12g4"]', 6),
        ("[1.]", 3),
        ("[trux]", 4),
        ("[}", 1),
        ("nan", 1),
        ("-x", 1),
    ],
)
def test_read_broken_json_stops_before_what_breaks_it(text: str, n_read: int) -> None:
    follower = JsonFollower()
    assert follower.read(text) == n_read
    assert follower.is_broken
    assert not follower.is_complete


def test_read_deep_nesting_is_no_problem() -> None:
    follower = JsonFollower()
    follower.read("[" * 100_000 + "]" * 100_000)
    assert follower.is_complete
