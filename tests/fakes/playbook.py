"""Plays requests through a real ``DecodeLoop`` on a ``FakeRunner``, step by step, in one thread."""

import itertools
import queue
from collections import defaultdict
from collections.abc import Sequence

import attrs
from fakes.runner import FakeRunner, FakeVocabulary

from tgi_llama.engine.decode_loop import Cancel, CommandQueue, DecodeLoop, Publication, Stop, Submit
from tgi_llama.engine.kv_cache import SlotPool, plan_kv
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.errors import ShuttingDown
from tgi_llama.generation import (
    Failed,
    GenerationRequest,
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
    )


@attrs.define(eq=False)
class Playbook:
    """One decode loop and everything it published. ``step`` checks the invariants each time."""

    runner: FakeRunner = attrs.field(factory=FakeRunner)
    vocabulary: FakeVocabulary = attrs.field(factory=FakeVocabulary)
    layout: str = "streams"
    cells_per_sequence: int = 256
    n_cells: int = 0
    """Cells in all; 0: enough for every slot."""
    max_prefill_tokens: int = 8
    publications: list[Publication] = attrs.field(factory=list, init=False)
    events: dict[RequestId, list[StreamEvent]] = attrs.field(init=False)
    scheduler: Scheduler = attrs.field(init=False)
    loop: DecodeLoop = attrs.field(init=False)
    commands: CommandQueue = attrs.field(factory=queue.SimpleQueue, init=False)
    _ids: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        self.events = defaultdict(list)
        plan = plan_kv(
            layout=self.layout,
            n_slots=self.runner.n_slots,
            cells_per_sequence=self.cells_per_sequence,
            n_cells=self.n_cells or self.runner.n_slots * self.cells_per_sequence,
        )
        self.scheduler = Scheduler(
            slots=SlotPool(plan),
            max_batch_tokens=self.runner.max_batch_tokens,
            max_prefill_tokens=self.max_prefill_tokens,
            max_outputs=self.runner.max_outputs,
        )
        self.loop = DecodeLoop(
            self.runner, self.vocabulary, self.scheduler, self.commands, self._publish
        )

    def submit(self, request: GenerationRequest) -> RequestId:
        (request_id,) = self.submit_together([request])
        return request_id

    def submit_together(self, requests: Sequence[GenerationRequest]) -> list[RequestId]:
        """With one command, so that those with the same prompt share it."""
        ids = [RequestId(next(self._ids)) for _ in requests]
        pairs = tuple(zip(ids, requests, strict=True))
        self.commands.put(Submit(pairs, submitted=float(ids[0])))
        return ids

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
        for events in self.events.values():
            n_terminal = sum(is_terminal(event) for event in events)
            assert n_terminal <= 1
            assert n_terminal == 0 or is_terminal(events[-1]), "nothing follows a terminal event"
        owned = {sequence.slot for sequence in self.scheduler.sequences()}
        for slot, tokens in self.runner.cells.items():
            assert slot in owned or not tokens, "cells without an owner"
        for sequence in self.scheduler.sequences():
            if sequence.slot is not None:
                cells = self.runner.cells[sequence.slot]
                assert len(cells) == sequence.n_cached
                prompt = list(sequence.request.prompt_ids)
                assert cells[: len(prompt)] == prompt[: len(cells)]

    def check_all_over(self) -> None:
        """Every request had its one terminal event, and nothing is held any more."""
        self.check()
        assert self.scheduler.is_idle
        assert self.scheduler.slots.n_busy == 0
        assert self.runner.n_cells_used == 0
        assert all(is_terminal(events[-1]) for events in self.events.values())

    def tokens(self, request_id: RequestId) -> list[int]:
        return [e.token.id for e in self.events[request_id] if not isinstance(e, Failed)]

    def prompt_tokens(self, request_id: RequestId) -> tuple[PromptToken, ...]:
        first = self.events[request_id][0]
        assert not isinstance(first, Failed)
        return first.prompt_tokens

    def n_prefilled(self) -> int:
        """Prompt tokens computed so far."""
        return sum(publication.report.n_prefill_tokens for publication in self.publications)

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
        for request_id, event in publication.events:
            self.events[request_id].append(event)


def is_terminal(event: StreamEvent) -> bool:
    return isinstance(event, Failed) or event.finish is not None
