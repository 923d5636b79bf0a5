"""Cuts text whose words are so long that matching them could exhaust a thread's stack."""

import itertools
import re
from collections.abc import Iterator

_RUN = re.compile(r"\S+|\s+")
_WORD_END = re.compile(r"\w(?=[^\w\s'])")
"""A letter or digit before punctuation: nearly every pre-tokenizer ends a word there."""


def cut_long_runs(text: str, limit: int) -> list[str]:
    """Cuts ``text`` so that no part holds more than ``limit`` characters in a row without a change
    between white space and anything else. The parts concatenate to ``text``.

    A run is cut after a word where it has one, so that most texts fall into the same words as
    before. Costs one pass, and nothing more for text without such runs.
    """
    cuts = [0, *_cuts(text, limit), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(cuts)]


def _cuts(text: str, limit: int) -> Iterator[int]:
    if len(text) <= limit:
        return
    for run in _RUN.finditer(text):
        start, stop = run.span()
        while stop - start > limit:
            start = _last_word_end(text, start, start + limit)
            yield start


def _last_word_end(text: str, start: int, stop: int) -> int:
    """The last end of a word in ``text[start:stop]``, or ``stop`` without one."""
    ends = [match.end() for match in _WORD_END.finditer(text, start, stop)]
    return ends[-1] if ends else stop
