"""Not a fake: random cuts, copies and states on a real model, checked against computing it anew."""

import random
from collections import Counter

import attrs
import numpy as np
from fakes.native import Loaded

from tgi_llama.engine.model_runner import Batch, Logits, Run, SavedState, SlotId
from tgi_llama.errors import OutOfCells
from tgi_llama.generation import AdapterId

EXACT: dict[str, object] = {"flash_attention": False, "type_k": "f32", "type_v": "f32"}
"""Without these, sums in 16 bits make logits depend on which cells attention runs over."""

CHUNK = 32
"""Tokens of a batch. The physical batch is part of what a sliding window's memory must hold, so the
smaller it is, the sooner cells are used again."""

Tokens = tuple[int, ...]


def a_batch(*parts: tuple[int, int, Tokens], adapter: AdapterId | None = None) -> Batch:
    """Of each part the slot, the position and the tokens, the last of which gives a row."""
    tokens = np.concatenate([np.array(part[2], dtype=np.int32) for part in parts])
    runs = (Run(SlotId(slot), start, len(added), n_outputs=1) for slot, start, added in parts)
    return Batch(tokens, tuple(runs), adapter)


def add(loaded: Loaded, slot: int, tokens: Tokens, *, adapter: AdapterId | None = None) -> Logits:
    """Goes on in the slot, in chunks that end where ``CHUNK`` divides the position; returns a copy
    of the last row."""
    runner = loaded.runner
    while True:
        start = runner.length(SlotId(slot))
        n = CHUNK - start % CHUNK
        part, tokens = tokens[:n], tokens[n:]
        runner.decode(a_batch((slot, start, part), adapter=adapter))
        if not tokens:
            return runner.logits(len(part) - 1).copy()


def random_tokens(rng: random.Random, n: int) -> Tokens:
    return tuple(rng.randrange(3, 2000) for _ in range(n))


@attrs.define(eq=False)
class Walk:
    """Knows what every slot should hold, and checks lengths after each operation and logits after
    each decode."""

    loaded: Loaded
    reference: Loaded
    """The same model, in which everything is computed from its beginning."""
    rng: random.Random
    tolerance: float
    adapters: tuple[AdapterId | None, ...] = (None,)
    """Each slot's cells are computed with one of them, which both models have loaded."""
    counts: "Counter[str]" = attrs.field(factory=Counter)
    _held: dict[int, Tokens] = attrs.field(init=False)
    _made_with: dict[int, AdapterId | None] = attrs.field(factory=dict, init=False)
    """The adapters of those that hold something."""
    _saved: list[tuple[SavedState, Tokens, AdapterId | None]] = attrs.field(
        factory=list, init=False
    )

    def __attrs_post_init__(self) -> None:
        self._held = dict.fromkeys(range(self.loaded.plan.n_slots), ())

    def step(self) -> None:
        operation = self.rng.choice(
            [self._decode] * 5 + [self._copy, self._save, self._restore, self._cut]
        )
        operation(SlotId(self.rng.choice(list(self._held))))
        for slot, tokens in self._held.items():
            assert self.loaded.runner.length(SlotId(slot)) == len(tokens), operation.__name__

    def _decode(self, _slot: SlotId) -> None:
        parts: list[tuple[int, int, Tokens]] = []
        room = CHUNK
        adapter = self.adapters[0]
        if len(self.adapters) > 1:
            adapter = self.rng.choice(self.adapters)
        for slot in self.rng.sample(list(self._held), self.rng.randint(1, len(self._held))):
            start = len(self._held[slot])
            if start and self._made_with[slot] != adapter:
                continue
            n = min(self.rng.choice([1, self.rng.randint(8, CHUNK)]), room)
            if 0 < n <= self.loaded.plan.cells_per_slot - start:
                room -= n
                parts.append((slot, start, random_tokens(self.rng, n)))
        if not parts:
            return
        try:
            self.loaded.runner.decode(a_batch(*parts, adapter=adapter))
        except OutOfCells:
            self._forget(SlotId(parts[0][0]))
            self.counts["out of cells"] += 1
            return
        row = -1
        for slot, _, tokens in parts:
            self._held[slot] += tokens
            self._made_with[slot] = adapter
            row += len(tokens)
        # One is enough, and computing it anew is what takes the time.
        self.reference.runner.clear(SlotId(0))
        expected = add(self.reference, 0, self._held[slot], adapter=adapter)
        worst = float(np.abs(self.loaded.runner.logits(row) - expected).max())
        assert worst < self.tolerance, f"slot {slot} with {len(self._held[slot])} positions"

    def _copy(self, source: SlotId) -> None:
        target = SlotId(self.rng.choice([slot for slot in self._held if slot != source]))
        self._forget(target)
        present = len(self._held[source])
        if present:
            length = self.rng.choice([present, max(1, present - 5), self.rng.randint(1, present)])
            done = self.loaded.runner.copy(source, target, length)
            self.counts["copy" if done else "no copy"] += 1
            if done:
                self._held[target] = self._held[source][:length]
                self._made_with[target] = self._made_with[source]

    def _cut(self, slot: SlotId) -> None:
        present = len(self._held[slot])
        length = self.rng.choice([max(0, present - 5), self.rng.randint(0, present)])
        promised = length in (0, present) or length >= self.loaded.runner.shortest_cut(slot)
        done = self.loaded.runner.truncate(slot, length)
        assert done == promised
        self.counts["cut" if done else "no cut"] += 1
        if done:
            self._held[slot] = self._held[slot][:length]

    def _save(self, slot: SlotId) -> None:
        if self._held[slot]:
            size = self.loaded.runner.saved_size(slot)
            state = self.loaded.runner.save(slot)
            assert state is not None
            assert (state.n_bytes, state.length) == (size, len(self._held[slot]))
            saved = (state, self._held[slot], self._made_with[slot])
            self._saved = [*self._saved[-4:], saved]

    def _restore(self, slot: SlotId) -> None:
        if self._saved:
            self._forget(slot)
            state, tokens, adapter = self.rng.choice(self._saved)
            done = self.loaded.runner.restore(slot, state)
            self.counts["restored" if done else "not restored"] += 1
            if done:
                self._held[slot] = tokens
                self._made_with[slot] = adapter

    def _forget(self, slot: SlotId) -> None:
        self.loaded.runner.clear(slot)
        self._held[slot] = ()
