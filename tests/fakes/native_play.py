"""Not a fake: plays requests through the real loop on a real model."""

import queue
from collections import defaultdict
from collections.abc import Sequence

import attrs
from fakes.native import Loaded

from tgi_llama.builtin.chat_format import PromptRenderer
from tgi_llama.builtin.corpus import held_out_examples
from tgi_llama.engine.decode_loop import CommandQueue, DecodeLoop, Publication, Submit
from tgi_llama.engine.kv_cache import SlotPool
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.generation import (
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
    )


@attrs.frozen
class Played:
    events: list[list[TokenEvent]]
    """In the order of the requests."""
    n_prefilled: int
    """Prompt tokens computed."""


def play(loaded: Loaded, groups: Sequence[Sequence[GenerationRequest]]) -> Played:
    """All requests at the same time, each group submitted together; every one must end well."""
    commands: CommandQueue = queue.SimpleQueue()
    events: dict[RequestId, list[TokenEvent]] = defaultdict(list)
    n_prefilled = 0

    def publish(publication: Publication) -> None:
        nonlocal n_prefilled
        n_prefilled += publication.report.n_prefill_tokens
        for request_id, event in publication.events:
            assert not isinstance(event, Failed), event
            events[request_id].append(event)

    scheduler = Scheduler(
        slots=SlotPool(loaded.plan),
        max_batch_tokens=loaded.runner.max_batch_tokens,
        max_prefill_tokens=24,
        max_outputs=loaded.runner.max_outputs,
    )
    loop = DecodeLoop(loaded.runner, loaded.vocab, scheduler, commands, publish)
    n_requests = 0
    for group in groups:
        ids = [RequestId(n_requests + i) for i in range(len(group))]
        n_requests += len(group)
        commands.put(Submit(tuple(zip(ids, group, strict=True)), submitted=float(ids[0])))
    while not (scheduler.is_idle and commands.empty()):
        loop.step()
        loop.publish_last()
        scheduler.check_invariants()
    return Played([events[RequestId(i)] for i in range(n_requests)], n_prefilled)


def generate(loaded: Loaded, requests: Sequence[GenerationRequest]) -> list[list[TokenEvent]]:
    """The events of requests that have nothing to do with each other."""
    return play(loaded, [[request] for request in requests]).events


NEAR_TIE = 0.5
"""Logits differ by up to 0.14 where attention runs over other cells, as it does in the unified
layout and with other chunk sizes. Beyond a choice as close as this, texts may part."""


def sure_tokens(events: Sequence[TokenEvent]) -> list[int]:
    """The tokens before the first that was nearly another one."""
    sure = []
    for event in events:
        first, second, *_ = (token.logprob or 0.0 for token in event.top_tokens)
        if first - second < NEAR_TIE:
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
