"""Plays requests through a real ``DecodeLoop`` on a ``FakeRunner``, step by step, in one thread."""

import functools
import itertools
import queue
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from fakes.runner import EOS, FakeRunner, FakeVocabulary, noisy, under

from tgi_llama.engine.assembly import EngineOptions, make_loop
from tgi_llama.engine.commands import (
    Answer,
    Cancel,
    CommandQueue,
    LoadAdapter,
    Publication,
    Stop,
    Submit,
    UnloadAdapter,
)
from tgi_llama.engine.decode_loop import DecodeLoop
from tgi_llama.engine.kv_cache import KvPlan, plan_kv
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.placement import Placement
from tgi_llama.engine.prefill_budget import StepBudget
from tgi_llama.engine.sampler import Sampler
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase
from tgi_llama.errors import ShuttingDown
from tgi_llama.generation import (
    AdapterId,
    CacheOutcome,
    Constraint,
    Failed,
    GenerationRequest,
    PlacementReport,
    PromptToken,
    RequestId,
    SamplingParameters,
    StoppingParameters,
    StreamEvent,
    TokenId,
)


def a_request(
    prompt: list[int],
    *,
    max_new_tokens: int = 4,
    sampling: SamplingParameters | None = None,
    stop_strings: tuple[str, ...] = (),
    keep_stop_string: bool = True,
    ignore_eos: bool = False,
    logprobs: bool = False,
    n_top_tokens: int = 0,
    prompt_logprobs: bool = False,
    n_prompt_top_tokens: int = 0,
    constraint: Constraint | None = None,
    shown_controls: frozenset[TokenId] = frozenset(),
    adapter: int | None = None,
) -> GenerationRequest:
    """A greedy request unless ``sampling`` says otherwise."""
    return GenerationRequest(
        prompt_ids=tuple(TokenId(token) for token in prompt),
        sampling=sampling or SamplingParameters(greedy=True),
        stopping=StoppingParameters(
            max_new_tokens=max_new_tokens,
            stop_strings=stop_strings,
            keep_stop_string=keep_stop_string,
            ignore_eos=ignore_eos,
        ),
        logprobs=logprobs,
        n_top_tokens=n_top_tokens,
        prompt_logprobs=prompt_logprobs,
        n_prompt_top_tokens=n_prompt_top_tokens,
        constraint=constraint,
        shown_controls=shown_controls,
        adapter=None if adapter is None else AdapterId(adapter),
    )


class Unbounded:
    """A budget that leaves it to the other limits how much a step computes."""

    def n_tokens(self, n_decode: int, *, n_prompts: int = 0, spent_s: float = 0.0) -> int:  # noqa: ARG002 - the protocol's
        return 10**9

    def target_s(self, n_decode: int, *, n_prompts: int = 0) -> float:  # noqa: ARG002 - the protocol's
        return 1.0

    def spare_s(self, n_decode: int, *, n_prompts: int = 0) -> float:
        return self.target_s(n_decode, n_prompts=n_prompts)

    def step_s(self, n_decode: int) -> float:  # noqa: ARG002 - the protocol's
        return 0.0

    def chunk_s(self, n_tokens: int) -> float:  # noqa: ARG002 - the protocol's
        return 0.0

    def note(self, *, n_decode: int, n_prefill: int, seconds: float) -> None:
        pass


@attrs.define(eq=False)
class Playbook:
    """One decode loop and everything it published. ``step`` checks the invariants each time."""

    runner: FakeRunner = attrs.field(factory=FakeRunner)
    vocabulary: FakeVocabulary = attrs.field(factory=FakeVocabulary)
    n_sequences: int = 0
    """That may run at a time; 0: one for each slot of the runner."""
    cells_per_sequence: int = 256
    n_cells: int = 0
    """Cells in all; 0: enough for every slot."""
    cells_are_padded: bool = True
    """As llama.cpp does it; False: no cell more than asked for."""
    fewest_reused: int = 4
    max_prefill_tokens: int = 8
    cache_ram_bytes: int = 0
    prefix_cache: bool = True
    fast_forward: bool = True
    free_bytes: Callable[[], int] = lambda: sys.maxsize
    budget: StepBudget | None = attrs.field(factory=Unbounded)
    """None: the engine's own, which learns what steps take."""
    publications: list[Publication] = attrs.field(factory=list, init=False)
    events: dict[RequestId, list[StreamEvent]] = attrs.field(init=False)
    answers: dict[int, Answer] = attrs.field(factory=dict, init=False)
    """To commands, by ticket."""
    plan: KvPlan = attrs.field(init=False)
    scheduler: Scheduler = attrs.field(init=False)
    placement: Placement = attrs.field(init=False)
    loop: DecodeLoop = attrs.field(init=False)
    commands: CommandQueue = attrs.field(factory=queue.SimpleQueue, init=False)
    _ids: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        self.events = defaultdict(list)
        self.plan = plan_kv(
            layout=self.runner.layout,
            n_slots=self.n_sequences or self.runner.n_slots,
            cells_per_sequence=self.cells_per_sequence,
            n_cells=self.n_cells or self.runner.n_slots * self.cells_per_sequence,
        )
        self.plan = attrs.evolve(self.plan, n_slots=self.runner.n_slots)
        if not self.cells_are_padded:
            n_cells = self.n_cells or self.runner.n_slots * self.cells_per_sequence
            per_slot = n_cells if self.plan.unified else n_cells // self.runner.n_slots
            self.plan = attrs.evolve(self.plan, n_cells=n_cells, cells_per_slot=per_slot)
        self.loop = make_loop(
            self.runner,
            self.vocabulary,
            self.plan,
            EngineOptions(
                max_prefill_tokens=self.max_prefill_tokens,
                cache_ram_bytes=self.cache_ram_bytes,
                prefix_cache=self.prefix_cache,
                fast_forward=self.fast_forward,
                free_bytes=self.free_bytes,
            ),
            commands=self.commands,
            publish=self._publish,
            budget=self.budget,
        )
        self.scheduler = self.loop.scheduler
        self.placement = self.loop.placement
        self.placement.cache.fewest_reused = self.fewest_reused

    def submit(self, request: GenerationRequest) -> RequestId:
        (request_id,) = self.submit_together([request])
        return request_id

    def submit_together(self, requests: Sequence[GenerationRequest]) -> list[RequestId]:
        """With one command, so that those with the same prompt share it."""
        ids = [RequestId(next(self._ids)) for _ in requests]
        pairs = tuple(zip(ids, requests, strict=True))
        self.commands.put(Submit(pairs, submitted=float(ids[0])))
        return ids

    def load(self, *adapters: int, path: str = "adapter.gguf") -> None:
        """Commands to load the adapters."""
        for adapter in adapters:
            self.commands.put(
                LoadAdapter(ticket=adapter, adapter=AdapterId(adapter), path=Path(path), scale=1.0)
            )

    def unload(self, adapter: int) -> None:
        """Its ticket is -1 less the adapter's number."""
        self.commands.put(UnloadAdapter(ticket=-1 - adapter, adapter=AdapterId(adapter)))

    def cancel(self, request_id: RequestId) -> None:
        self.commands.put(Cancel(request_id))

    def stop(self) -> None:
        self.commands.put(Stop(ShuttingDown("stopping")))

    def step(self) -> bool:
        """One step and what it publishes; every invariant holds after it."""
        going = self.loop.step()
        self.loop.publish_last()
        self.check()
        return going

    def run_until_idle(self, *, max_steps: int = 10_000) -> int:
        """Steps until nothing is left to do; returns the number of steps."""
        for n_steps in range(max_steps):
            if self.scheduler.is_idle and self.commands.empty():
                return n_steps
            self.step()
        raise AssertionError("the loop did not come to an end")

    def check(self) -> None:
        self.scheduler.check_invariants()
        self._check_cells()
        self._check_streams()

    def _check_cells(self) -> None:
        """What the books say of each slot is what is in it."""
        placement = self.placement
        placement.slots.check_invariants()
        placement.cache.check_invariants()
        placement.ledger.check_invariants()
        assert placement.ledger.n_used == self.runner.n_cells_used
        owners = {sequence.slot: sequence for sequence in self.scheduler.running()}
        assert placement.slots.busy == set(owners)
        for slot in range(self.runner.n_slots):
            cells = self.runner.cells[slot]
            assert placement.ledger.length(SlotId(slot)) == len(cells)
            if slot in owners:
                assert len(cells) == owners[slot].n_cached
                assert cells == owners[slot].tokens[: len(cells)], "cells of another prompt"
                adapter = owners[slot].request.adapter
                assert not cells or self.runner.made_with[slot] == adapter
            elif cells:
                assert placement.slots.is_idle(SlotId(slot)), "cells without an owner"
                assert tuple(cells) == placement.cache.tokens(SlotId(slot))
                assert SlotId(slot) in placement.cache.holders(self.runner.made_with[slot])

    def _check_streams(self) -> None:
        for sequence in self.scheduler.running():
            each = sequence
            while each.leader is not None:
                each = each.leader
            assert each.phase is not Phase.WAITING

    def check_all_over(self) -> None:
        """Every request had its one terminal event, and nobody holds anything any more."""
        self.check()
        assert self.scheduler.is_idle
        assert self.placement.slots.n_busy == 0
        assert self.placement.host.pinned_bytes == 0
        assert all(is_terminal(events[-1]) for events in self.events.values())

    def tokens(self, request_id: RequestId) -> list[int]:
        return [e.token.id for e in self.events[request_id] if not isinstance(e, Failed)]

    def prompt_tokens(self, request_id: RequestId) -> tuple[PromptToken, ...]:
        first = self.events[request_id][0]
        assert not isinstance(first, Failed)
        return first.prompt_tokens

    def queued(self) -> list[RequestId]:
        """Those without a slot, in their order."""
        sequences = self.scheduler.sequences()
        return [each.request_id for each in sequences if each.phase is Phase.QUEUED]

    def n_prefilled(self) -> int:
        """Prompt tokens computed so far."""
        return sum(publication.report.n_prefill_tokens for publication in self.publications)

    def n_cached(self, request_id: RequestId) -> int:
        """Of the prompt of a request that has ended well: tokens that came from elsewhere."""
        last = self.events[request_id][-1]
        assert not isinstance(last, Failed)
        assert last.finish is not None
        return last.finish.n_cached_prompt_tokens

    def outcomes(self) -> list[tuple[CacheOutcome, int]]:
        """What the prefix cache had for each prompt, in the order in which it was asked."""
        return [outcome for report in self.placements() for outcome in report.outcomes]

    def n_preempted(self) -> int:
        return sum(report.n_preempted for report in self.placements())

    def placements(self) -> list[PlacementReport]:
        reports = [publication.report.placement for publication in self.publications]
        return [report for report in reports if report is not None]

    def text(self, request_id: RequestId) -> str:
        return "".join(e.delta for e in self.events[request_id] if not isinstance(e, Failed))

    def error(self, request_id: RequestId) -> Exception:
        last = self.events[request_id][-1]
        assert isinstance(last, Failed)
        return last.error

    def reason(self, request_id: RequestId) -> str:
        last = self.events[request_id][-1]
        assert not isinstance(last, Failed)
        assert last.finish is not None
        return last.finish.reason.value

    def _publish(self, publication: Publication) -> None:
        self.publications.append(publication)
        self.answers.update({answer.ticket: answer for answer in publication.answers})
        for request_id, event in publication.events:
            events = self.events[request_id]
            assert not events or not is_terminal(events[-1]), "nothing follows a terminal event"
            events.append(event)


@functools.lru_cache(maxsize=100_000)
def alone(request: GenerationRequest) -> list[int]:
    """The tokens that a request must give with ``noisy`` logits, without any batches and cells.
    Not to be changed."""
    assert not request.stopping.stop_strings
    sampler = Sampler.for_prompt(request.sampling, request.prompt_ids)
    tokens: list[int] = list(request.prompt_ids)
    n_most = len(tokens) + request.stopping.max_new_tokens
    while len(tokens) < n_most:
        tokens.append(sampler.choose(noisy(under(request.adapter, tokens))))
        if tokens[-1] == EOS and not request.stopping.ignore_eos:
            break
    return tokens[len(request.prompt_ids) :]


def is_terminal(event: StreamEvent) -> bool:
    return isinstance(event, Failed) or event.finish is not None
