import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.text.long_runs import cut_long_runs


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("abcd", ["abcd"]),
        ("abcde", ["abcd", "e"]),
        ("abcd efgh", ["abcd efgh"]),
        ("ab,cdef", ["ab", ",cde", "f"]),
        ("x      y", ["x    ", "  y"]),
        ("it's-ok", ["it's", "-ok"]),
    ],
)
def test_cut_of_a_long_run_prefers_the_end_of_a_word(text: str, parts: list[str]) -> None:
    assert cut_long_runs(text, 4) == parts


@given(st.text("ab,' \n", max_size=60), st.integers(1, 8))
def test_cut_loses_nothing_and_leaves_no_long_run(text: str, limit: int) -> None:
    parts = cut_long_runs(text, limit)
    assert "".join(parts) == text
    assert all(len(run) <= limit for part in parts for run in re.findall(r"\S+|\s+", part))
