"""How many tokens of prompts a step may compute: as many as its time allows.

Theory of operation
-------------------
Every running stream waits for the whole step, so the step's length is what its client sees between
two tokens. A step takes about

    base(sequences that decode) + tokens of prompts x cost of a token

and both are learned from the steps themselves. The base comes from steps without prompts, for each
number of sequences. What a step with prompts takes beyond it is the cost of its prompt tokens.

A token costs less in a large chunk than in a small one (on a GPU much less: a chunk has a least
duration). What it costs in a chunk of some size is told by the last chunks of that size or larger,
so every chunk counts for all smaller sizes too: when the machine slows down, all sizes know. Small
pieces, such as a prompt's end, say nothing about large ones. Where a size is not known, the next
smaller one that is known tells its cost, which is too much rather than too little. So a budget
grows by what it learns on the way. It could stop growing where the least duration of a chunk is
most of its cost; therefore an unknown size is also tried if it would fit were half of the cost of
the size below it such a duration. What was not confirmed for a while is unknown again.

Noise: the base is the median of its last 9 steps, a token's cost the third largest of its last 9
chunks. Two outliers, a neighbour on the same CPU for example, change nothing; a real slowdown
counts after three steps, a speed-up after seven. Rather above the middle than in the middle: with
costs that vary, half of the steps would else take too long.

Context length is no input. A chunk costs more far behind in a long prompt, but its neighbours do as
well, so the cost follows.
"""

import bisect
from collections import deque
from typing import Protocol

import attrs

CHUNK_SIZES = (8, 16, 24, *(n << octave for octave in range(3, 11) for n in (4, 5, 6)))
"""8 to 6144, mostly a quarter or a third apart: llama.cpp builds a new graph for every new shape of
a batch, so there should be few."""

_START = 64
"""Where too little is known: 0.2 s on the slowest machine that was measured."""
_N_KEPT = 9
_N_TRUSTED = 3
"""Chunks that must have told a size's cost: one of them may be an outlier."""
_N_TRUSTED_BASES = 5
"""More, since a base that is too large makes prompt tokens seem to cost nothing."""
_STALE_AFTER = 48
"""A size is unknown again after that many chunks that were all smaller."""
_GROWTH = 2
"""How many times larger than all known sizes a budget may be: whatever misled it, it takes three
such steps before it can go further."""
_FIXED_SHARE = 0.5
"""Of a chunk's cost, supposed when the next size is tried. Where nothing is fixed, such a chunk
takes a third too long if it has 16 tokens, a fifth if it has 24, and a seventh or less beyond."""


_ALONE_FACTOR = 6.0
"""How many steps of one token a chunk may take where nobody decodes: small chunks read the weights
too often, large ones hold up whoever comes next."""


_BESIDE_S = 0.22
"""What 64 tokens of a prompt take beside six streams of the 0.5 B shape on two cores, behind a
thousand others. Less would mean smaller chunks, which are half as quick (docs/performance.md)."""

_MANY_STREAMS = 12
_MANY_S = 0.4
"""Where at least twelve sequences decode or have prompts to compute, a step may take 0.4 s. Small
chunks are slow, and what that costs all of them is more than the wait: 16 streams of the 0.5 B
shape made 0.91 of llama-server's tokens with 150 ms, and 1.01 with 400."""


class StepBudget(Protocol):
    """What the scheduler asks; ``PrefillBudget`` says what the methods mean."""

    def n_tokens(self, n_decode: int, *, n_prompts: int = 0, spent_s: float = 0.0) -> int: ...

    def target_s(self, n_decode: int, *, n_prompts: int = 0) -> float: ...

    def spare_s(self, n_decode: int, *, n_prompts: int = 0) -> float: ...

    def step_s(self, n_decode: int) -> float: ...

    def chunk_s(self, n_tokens: int) -> float: ...

    def note(self, *, n_decode: int, n_prefill: int, seconds: float) -> None: ...


@attrs.frozen(kw_only=True)
class PrefillBudgetStatistics:
    """What the last budget was made of."""

    n_tokens: int
    target_s: float
    base_s: float
    token_s: float | None
    """What a prompt token costs in a chunk of ``n_tokens``; None while that is not known."""


@attrs.define(eq=False)
class _Recent:
    """The last measurements of one quantity."""

    values: deque[float] = attrs.field(factory=lambda: deque(maxlen=_N_KEPT))
    newest: int = 0
    """Number of the chunk that the last one is from."""

    def middle(self) -> float:
        return sorted(self.values)[len(self.values) // 2]

    def upper(self) -> float:
        """Exceeded by two of nine, and by one of three."""
        return sorted(self.values)[(len(self.values) - 1) * 3 // 4]


@attrs.define(eq=False)
class PrefillBudget:
    """Learns what steps cost, and says how many prompt tokens the next one may have. Pure state;
    decode thread only.

    Without a target it is ``automatic_factor`` times what a step takes without prompts, at least
    ``min_target_s``, and at least 0.4 s where many sequences run. Where nothing decodes no stream
    waits, but a newcomer does: there it is ``alone_s``, and more for models that take long for a
    token.
    """

    _target_s: float | None
    _min_target_s: float = attrs.field(default=_BESIDE_S, kw_only=True)
    _automatic_factor: float = attrs.field(default=3.0, kw_only=True)
    _alone_s: float = attrs.field(default=0.15, kw_only=True)
    _bases: dict[int, _Recent] = attrs.field(factory=dict, init=False)
    """Seconds of steps without prompts, by the number of sequences that decoded."""
    _trusted: list[int] = attrs.field(factory=list, init=False)
    """The keys of ``_bases`` with enough values, ascending."""
    _costs: dict[int, _Recent] = attrs.field(factory=dict, init=False)
    """Seconds a prompt token in chunks of at least the key; the keys are 1 and CHUNK_SIZES."""
    _n_chunks: int = attrs.field(default=0, init=False)
    _last: PrefillBudgetStatistics | None = attrs.field(default=None, init=False)

    def note(self, *, n_decode: int, n_prefill: int, seconds: float) -> None:
        """A step took ``seconds``: it decoded ``n_decode`` sequences and computed ``n_prefill``
        tokens of one prompt or several. To be told of every step that worked, whatever its size."""
        if n_prefill > 0:
            self._note_chunk(n_prefill, max(0.0, seconds - self._base_s(n_decode)))
        elif n_decode > 0:
            base = self._bases.setdefault(n_decode, _Recent())
            base.values.append(seconds)
            if len(base.values) == _N_TRUSTED_BASES:
                bisect.insort(self._trusted, n_decode)

    def n_tokens(self, n_decode: int, *, n_prompts: int = 0, spent_s: float = 0.0) -> int:
        """The largest of CHUNK_SIZES that keeps a step with ``n_decode`` decoding sequences within
        the target; the smallest if none does, so that prompts always get on. ``n_prompts``: the
        sequences whose prompts are to be computed; ``spent_s``: what has gone of the step's time
        for other things."""
        target_s = self.target_s(n_decode, n_prompts=n_prompts)
        base_s = self._base_s(n_decode)
        n_tokens, token_s = self._largest_within(target_s - base_s - spent_s)
        self._last = PrefillBudgetStatistics(
            n_tokens=n_tokens, target_s=target_s, base_s=base_s, token_s=token_s
        )
        return n_tokens

    def target_s(self, n_decode: int, *, n_prompts: int = 0) -> float:
        """How long a step with ``n_decode`` decoding sequences may take, whatever holds them up,
        while ``n_prompts`` others have prompts to be computed."""
        if n_decode == 0:
            return max(self._alone_s, _ALONE_FACTOR * self._base_s(1))
        if self._target_s is not None:
            return self._target_s
        least_s = self._min_target_s
        if n_decode + n_prompts >= _MANY_STREAMS:
            least_s = max(least_s, _MANY_S)
        return max(least_s, self._automatic_factor * self._base_s(n_decode))

    def spare_s(self, n_decode: int, *, n_prompts: int = 0) -> float:
        """How much of the target a step without prompts leaves."""
        return max(0.0, self.target_s(n_decode, n_prompts=n_prompts) - self._base_s(n_decode))

    def step_s(self, n_decode: int) -> float:
        """What a step takes that decodes so many sequences, without prompts; 0 where nothing is
        known."""
        return self._base_s(n_decode)

    def chunk_s(self, n_tokens: int) -> float:
        """What so many tokens of one sequence add to a step; 0 where nothing is known."""
        sizes = CHUNK_SIZES[: bisect.bisect_right(CHUNK_SIZES, n_tokens)]
        costs = (self._known_token_s(size) for size in (*reversed(sizes), 1))
        return n_tokens * next((cost for cost in costs if cost is not None), 0.0)

    def statistics(self) -> PrefillBudgetStatistics | None:
        """None before the first budget."""
        return self._last

    def _base_s(self, n_decode: int) -> float:
        """Between two numbers of sequences that were measured, on the line through them; outside,
        the nearest. 0 before anything was measured, and where nothing decodes."""
        if n_decode == 0 or not self._trusted:
            return 0.0
        index = bisect.bisect_left(self._trusted, n_decode)
        low = self._trusted[max(index - 1, 0)]
        high = self._trusted[min(index, len(self._trusted) - 1)]
        low_s, high_s = self._bases[low].middle(), self._bases[high].middle()
        if n_decode >= high or low == high:
            return high_s
        if n_decode <= low:
            return low_s
        return low_s + (high_s - low_s) * (n_decode - low) / (high - low)

    def _note_chunk(self, n_tokens: int, seconds: float) -> None:
        self._n_chunks += 1
        for size in (1, *CHUNK_SIZES[: bisect.bisect_right(CHUNK_SIZES, n_tokens)]):
            cost = self._costs.setdefault(size, _Recent())
            if self._is_stale(cost):
                cost.values.clear()
            cost.values.append(seconds / n_tokens)
            cost.newest = self._n_chunks

    def _is_stale(self, cost: _Recent) -> bool:
        return self._n_chunks - cost.newest > _STALE_AFTER

    def _known_token_s(self, size: int) -> float | None:
        cost = self._costs.get(size)
        if cost is None or len(cost.values) < _N_TRUSTED or self._is_stale(cost):
            return None
        return cost.upper()

    def _largest_within(self, seconds: float) -> tuple[int, float | None]:
        """The size, and what each of its tokens is supposed to cost."""
        token_s = self._known_token_s(1)  # every chunk tells it
        if token_s is None:
            return _START, None
        best, best_s = CHUNK_SIZES[0], token_s
        limit = best
        for size in CHUNK_SIZES:
            known_s = self._known_token_s(size)
            if known_s is not None:
                token_s, limit = known_s, _GROWTH * size
            if size * token_s <= seconds and size <= limit:
                best, best_s = size, token_s
        return self._one_larger(best, best_s, seconds), best_s

    def _one_larger(self, size: int, token_s: float, seconds: float) -> int:
        """The next size if that is worth a try, else the given one."""
        larger = next((each for each in CHUNK_SIZES if each > size), size)
        if self._known_token_s(size) is None or self._known_token_s(larger) is not None:
            return size
        hoped_s = token_s * (_FIXED_SHARE * size + (1 - _FIXED_SHARE) * larger)
        return larger if hoped_s <= seconds else size
