"""Not a fake: plays requests through the real loop on a real model."""

import queue
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import attrs
from fakes.native import Loaded

from tgi_llama.builtin.chat_format import PromptRenderer
from tgi_llama.builtin.corpus import held_out_examples
from tgi_llama.engine.assembly import EngineOptions, make_loop
from tgi_llama.engine.commands import (
    Answer,
    Cancel,
    CommandQueue,
    LoadAdapter,
    Publication,
    Submit,
    UnloadAdapter,
)
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.generation import (
    AdapterId,
    CacheOutcome,
    Constraint,
    Failed,
    GenerationRequest,
    RequestId,
    SamplingParameters,
    StoppingParameters,
    TokenEvent,
)


def prompts(n: int) -> list[str]:
    """Questions the model was not trained on, of all its skills."""
    renderer = PromptRenderer()
    examples = held_out_examples(7, n_per_skill=4)
    return [renderer.prompt(example) for example in examples][:n]


def native_request(
    loaded: Loaded,
    prompt: str,
    *,
    sampling: SamplingParameters | None = None,
    max_new_tokens: int = 40,
    stop_strings: tuple[str, ...] = (),
    keep_stop_string: bool = True,
    n_top_tokens: int = 0,
    logprobs: bool = False,
    prompt_logprobs: bool = False,
    constraint: Constraint | None = None,
    adapter: AdapterId | None = None,
) -> GenerationRequest:
    """A greedy request unless ``sampling`` says otherwise."""
    return GenerationRequest(
        prompt_ids=tuple(loaded.vocab.encode(prompt, add_special=True)),
        sampling=sampling or SamplingParameters(greedy=True),
        stopping=StoppingParameters(
            max_new_tokens=max_new_tokens,
            stop_strings=stop_strings,
            keep_stop_string=keep_stop_string,
        ),
        n_top_tokens=n_top_tokens,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        constraint=constraint,
        adapter=adapter,
    )


class NativePlay:
    """A decode loop on the real model, step by step. What an earlier one has left is cleared."""

    def __init__(self, loaded: Loaded, options: EngineOptions | None = None) -> None:
        self.events: dict[RequestId, list[TokenEvent]] = defaultdict(list)
        self.cancelled: set[RequestId] = set()
        self.n_prefilled = 0
        """Prompt tokens computed."""
        self.n_preempted = 0
        self.answers: dict[int, Answer] = {}
        """To commands, by ticket."""
        self.n_switches = 0
        self.outcomes: Counter[CacheOutcome] = Counter()
        self._n_requests = 0
        self._commands: CommandQueue = queue.SimpleQueue()
        self._loop = make_loop(
            loaded.runner,
            loaded.vocab,
            loaded.plan,
            options or EngineOptions(max_prefill_tokens=24),
            commands=self._commands,
            publish=self._publish,
        )
        self.placement = self._loop.placement
        for slot in range(loaded.plan.n_slots):
            loaded.runner.clear(SlotId(slot))

    def submit(self, requests: Sequence[GenerationRequest]) -> list[RequestId]:
        """Together."""
        ids = [RequestId(self._n_requests + i) for i in range(len(requests))]
        self._n_requests += len(ids)
        pairs = tuple(zip(ids, requests, strict=True))
        self._commands.put(Submit(pairs, submitted=float(ids[0])))
        return ids

    def load(self, adapter: AdapterId, path: Path, *, scale: float = 1.0) -> None:
        """Not answered before the next step."""
        self._commands.put(LoadAdapter(ticket=adapter, adapter=adapter, path=path, scale=scale))

    def unload(self, adapter: AdapterId) -> None:
        """Its ticket is -1 less the adapter's number."""
        self._commands.put(UnloadAdapter(ticket=-1 - adapter, adapter=adapter))

    def cancel(self, request_id: RequestId) -> None:
        self.cancelled.add(request_id)
        self._commands.put(Cancel(request_id))

    @property
    def n_cached(self) -> int:
        """Prompt tokens that the requests which have ended well did not compute."""
        finished = [events[-1].finish for events in self.events.values() if events]
        return sum(finish.n_cached_prompt_tokens for finish in finished if finish is not None)

    @property
    def is_idle(self) -> bool:
        return self._loop.scheduler.is_idle and self._commands.empty()

    def step(self) -> None:
        self._loop.step()
        self._loop.publish_last()
        self._loop.scheduler.check_invariants()

    def run_until_idle(self, *, max_steps: int = 10_000) -> int:
        """The number of steps it took. Threads that computed masks have ended then."""
        for n_steps in range(max_steps):
            if self.is_idle:
                self._loop.grammars.close()
                return n_steps
            self.step()
        raise AssertionError("the loop did not come to an end")

    def _publish(self, publication: Publication) -> None:
        report = publication.report
        self.answers.update({answer.ticket: answer for answer in publication.answers})
        self.n_switches += report.n_switches
        self.n_prefilled += report.n_prefill_tokens
        if report.placement is not None:
            self.n_preempted += report.placement.n_preempted
            self.outcomes.update(outcome for outcome, _ in report.placement.outcomes)
        for request_id, event in publication.events:
            if not isinstance(event, Failed):
                self.events[request_id].append(event)
            else:
                assert request_id in self.cancelled, event


@attrs.frozen
class Played:
    events: list[list[TokenEvent]]
    """In the order of the requests."""
    n_prefilled: int
    """Prompt tokens computed."""


def play(
    loaded: Loaded,
    groups: Sequence[Sequence[GenerationRequest]],
    *,
    options: EngineOptions | None = None,
) -> Played:
    """All requests at the same time, each group submitted together; every one must end well."""
    native = NativePlay(loaded, options)
    ids = [request_id for group in groups for request_id in native.submit(group)]
    native.run_until_idle()
    return Played([native.events[request_id] for request_id in ids], native.n_prefilled)


def generate(loaded: Loaded, requests: Sequence[GenerationRequest]) -> list[list[TokenEvent]]:
    """The events of requests that have nothing to do with each other."""
    return play(loaded, [[request] for request in requests]).events


NEAR_TIE = 0.5
"""Logits differ by up to 0.14 where attention runs over other cells, as it does in the unified
layout and with other chunk sizes. Beyond a choice as close as this, texts may part."""


def sure_tokens(events: Sequence[TokenEvent], *, near_tie: float = NEAR_TIE) -> list[int]:
    """The tokens before the first that was nearly another one."""
    sure = []
    for event in events:
        first, second, *_ = (token.logprob or 0.0 for token in event.top_tokens)
        if first - second < near_tie:
            break
        sure.append(event.token.id)
    return sure


def assert_same_where_sure(
    first: Sequence[Sequence[TokenEvent]], second: Sequence[Sequence[TokenEvent]]
) -> None:
    n_sure = 0
    for one, other in zip(first, second, strict=True):
        sure = sure_tokens(one)
        n_sure += len(sure)
        assert [event.token.id for event in other][: len(sure)] == sure
    assert n_sure > 4 * len(first)
