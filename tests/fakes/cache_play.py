"""Playbooks of slots and cells: small memories of all kinds, and requests that begin alike."""

import sys
from collections.abc import Callable, Iterable, Mapping

import attrs
from fakes.playbook import Playbook, Unbounded, a_request, alone
from fakes.runner import FakeRunner, noisy

from tgi_llama.engine.model_runner import SavedState, SlotId
from tgi_llama.generation import CacheOutcome, GenerationRequest, RequestId, SamplingParameters


@attrs.define(eq=False)
class RefusingRunner(FakeRunner):
    """Methods named in ``refused`` do not work, as the protocol allows them."""

    refused: set[str] = attrs.field(factory=set)
    n_refusals: int = 0

    def truncate(self, slot: SlotId, length: int) -> bool:
        if 0 < length < self.length(slot) and self._refuses("truncate"):
            return False
        return super().truncate(slot, length)

    def copy(self, source: SlotId, target: SlotId, length: int) -> bool:
        return not self._refuses("copy") and super().copy(source, target, length)

    def save(self, slot: SlotId) -> SavedState | None:
        return None if self._refuses("save") else super().save(slot)

    def restore(self, slot: SlotId, state: SavedState) -> bool:
        return not self._refuses("restore") and super().restore(slot, state)

    def _refuses(self, name: str) -> bool:
        self.n_refusals += name in self.refused
        return name in self.refused


@attrs.define(eq=False)
class SavingRunner(RefusingRunner):
    """Tells of each save, on a clock that only saving and restoring move."""

    clock: list[float] = attrs.field(factory=lambda: [0.0])
    seconds: float = 0.0
    """What a save takes, and a restore."""
    saved: list[int] = attrs.field(factory=list)
    """Lengths."""
    on_save: Callable[[int], None] = lambda _n_saved: None

    def save(self, slot: SlotId) -> SavedState | None:
        self.clock[0] += self.seconds
        self.saved.append(self.length(slot))
        self.on_save(len(self.saved))
        return super().save(slot)

    def restore(self, slot: SlotId, state: SavedState) -> bool:
        self.clock[0] += self.seconds
        return super().restore(slot, state)


@attrs.define(eq=False)
class Budget(Unbounded):
    """What the test sets."""

    now: int = 10**9
    seconds: float = 1.0
    spent_s: list[float] = attrs.field(factory=list)
    """What was said to be gone of each step."""

    def n_tokens(self, n_decode: int, *, n_prompts: int = 0, spent_s: float = 0.0) -> int:  # noqa: ARG002 - the protocol's
        self.spent_s.append(spent_s)
        return self.now

    def target_s(self, n_decode: int, *, n_prompts: int = 0) -> float:  # noqa: ARG002 - the protocol's
        return self.seconds


def a_play(
    *,
    layout: str = "streams",
    n_slots: int = 4,
    n_sequences: int = 0,
    n_cells: int | None = None,
    can_cut: bool = True,
    max_batch: int = 16,
    max_prefill: int = 128,
    cache_ram: int = 0,
    n_bytes_free: int | None = None,
    prefix_cache: bool = True,
    budget: Unbounded | None = None,
    refused: Iterable[str] = (),
    free_bytes: Callable[[], int] = lambda: sys.maxsize,
) -> Playbook:
    """``n_cells``: as many, unpadded; None: enough for all."""
    runner = RefusingRunner(
        n_slots=n_slots,
        max_batch_tokens=max_batch,
        script=noisy,
        layout=layout,
        can_cut=can_cut,
        n_cells=n_cells,
        n_bytes_free=n_bytes_free,
        refused=set(refused),
    )
    return Playbook(
        runner=runner,
        n_sequences=n_sequences,
        n_cells=n_cells or 0,
        cells_per_sequence=n_cells or 256,
        cells_are_padded=n_cells is None,
        max_prefill_tokens=max_prefill,
        cache_ram_bytes=cache_ram,
        prefix_cache=prefix_cache,
        free_bytes=free_bytes,
        budget=budget or Unbounded(),
    )


def wants(
    prompt: list[int],
    n: int = 4,
    *,
    seed: int = 0,
    prompt_logprobs: bool = False,
    adapter: int | None = None,
) -> GenerationRequest:
    """A request that gives exactly ``n`` tokens."""
    return a_request(
        prompt,
        max_new_tokens=n,
        sampling=SamplingParameters(seed=seed),
        ignore_eos=True,
        prompt_logprobs=prompt_logprobs,
        adapter=adapter,
    )


def own(number: int, n_tokens: int) -> list[int]:
    """Tokens that begin like no other number's, and end no message."""
    return [2 + number, *(2 + (number * 7 + i) % 60 for i in range(n_tokens - 1))]


STEM = own(0, 40)
"""What prompts have in common."""


def with_tail(number: int, *, n_tail: int = 8) -> list[int]:
    """The stem and something that no other number has."""
    return STEM + own(30 + number, n_tail)


def played(play: Playbook, *requests: GenerationRequest) -> list[RequestId]:
    """Each is submitted when the one before has ended."""
    ids = []
    for request in requests:
        ids.append(play.submit(request))
        play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    return ids


def probe(play: Playbook, prompt: list[int]) -> list[tuple[CacheOutcome, int]]:
    """Where the prompt is taken from now."""
    n_before = len(play.outcomes())
    played(play, wants(prompt, 1))
    return play.outcomes()[n_before:]


def slots_of(play: Playbook, ids: Iterable[RequestId]) -> list[int | None]:
    """None for one without a slot."""
    found = [play.scheduler.find(request_id) for request_id in ids]
    return [sequence.slot if sequence else None for sequence in found]


def assert_given(play: Playbook, requests: Mapping[RequestId, GenerationRequest]) -> None:
    """Each has ended well, with what it gives alone."""
    for request_id, request in requests.items():
        assert play.tokens(request_id) == alone(request)
