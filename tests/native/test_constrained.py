"""Sequences with grammars on the built-in model, and on tiny ones of every kind of memory."""

import json
import random
from collections.abc import Sequence

import attrs
import jsonschema
import pytest
from fakes.memory_walk import EXACT, random_tokens
from fakes.native import Load, Loaded, LoadTiny
from fakes.native_play import NativePlay, native_request, prompts

from tgi_llama.engine.assembly import EngineOptions
from tgi_llama.generation import (
    Constraint,
    FinishReason,
    GenerationRequest,
    SamplingParameters,
    StoppingParameters,
    TokenEvent,
    TokenId,
)
from tgi_llama.llama.grammar_vocab import read_grammar_vocabulary
from tgi_llama.structured.grammar import JsonSchemaGrammar
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.ll_compiler import LlGrammarCompiler
from tgi_llama.structured.trial import Trial

SCHEMA = {
    "type": "object",
    "properties": {
        "conclusion": {"enum": ["yes", "no"]},
        "reasons": {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 2},
        "certainty": {"type": "integer", "minimum": 0, "maximum": 100},
    },
    "required": ["conclusion", "reasons", "certainty"],
    "additionalProperties": False,
}

SAMPLINGS = (
    SamplingParameters(greedy=True),
    SamplingParameters(temperature=5.0, seed=1),
    SamplingParameters(temperature=2.0, top_p=0.9, seed=2),
    SamplingParameters(top_k=20, repetition_penalty=1.3, seed=3),
)


def constraint_of(loaded: Loaded, schema: dict[str, object] = SCHEMA) -> Constraint:
    with Trial(GrammarLimits()) as trial:
        compiler = LlGrammarCompiler(read_grammar_vocabulary(loaded.vocab), trial)
        return compiler.compile(JsonSchemaGrammar(schema=schema, field="schema"))


def requests_of(loaded: Loaded, n: int) -> list[GenerationRequest]:
    grammar = constraint_of(loaded)
    return [
        native_request(
            loaded,
            prompt,
            sampling=SAMPLINGS[place % len(SAMPLINGS)],
            max_new_tokens=150,
            logprobs=place % 2 == 0,
            n_top_tokens=2,
            constraint=grammar,
        )
        for place, prompt in enumerate(prompts(n))
    ]


def played(
    loaded: Loaded, requests: Sequence[GenerationRequest], *, fast_forward: bool = True
) -> list[list[TokenEvent]]:
    options = EngineOptions(max_prefill_tokens=24, fast_forward=fast_forward)
    play = NativePlay(loaded, options)
    ids = play.submit(requests)
    play.run_until_idle()
    return [play.events[each] for each in ids]


def assert_logprobs(
    loaded: Loaded, request: GenerationRequest, events: Sequence[TokenEvent], *, within: float
) -> None:
    """Those that the same tokens have in a prompt."""
    tokens = tuple(event.token.id for event in events)
    again = attrs.evolve(
        request,
        prompt_ids=request.prompt_ids + tokens,
        constraint=None,
        prompt_logprobs=True,
        stopping=StoppingParameters(max_new_tokens=1),
    )
    (first,) = played(loaded, [again])[0]
    expected = [each.logprob for each in first.prompt_tokens[-len(tokens) :]]
    found = [event.token.logprob for event in events]
    assert found == pytest.approx(expected, abs=within)


def texts(events: Sequence[TokenEvent]) -> list[str]:
    return [event.token.text for event in events]


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_texts_are_valid_by_their_schema(load: Load, layout: str) -> None:
    with load(kv_layout=layout, max_batch_size=8) as loaded:
        requests = requests_of(loaded, 8)
        together = played(loaded, requests)
        alone = [played(loaded, [request])[0] for request in requests]
    for events in together:
        finish = events[-1].finish
        assert finish is not None
        assert finish.reason is FinishReason.EOS_TOKEN
        assert finish.n_generated == len(events)
        jsonschema.validate(json.loads("".join(event.delta for event in events)), SCHEMA)
    if layout == "streams":  # there logits do not depend on who else is in the batch
        assert [texts(each) for each in alone] == [texts(each) for each in together]


def test_logprobs_are_those_of_the_same_tokens_in_a_prompt(load: Load) -> None:
    """Forced tokens have rows of their own, however many a step computes."""
    with load(kv_layout="unified", max_batch_size=4) as loaded:
        requests = requests_of(loaded, 3)[::2]
        for request, events in zip(requests, played(loaded, requests), strict=True):
            assert_logprobs(loaded, request, events, within=0.02)


def test_fast_forward_takes_fewer_steps(load: Load) -> None:
    with load(max_batch_size=2) as loaded:
        request = attrs.evolve(requests_of(loaded, 1)[0], logprobs=False, n_top_tokens=0)
        n_steps = []
        for fast_forward in (True, False):
            play = NativePlay(
                loaded, EngineOptions(max_prefill_tokens=64, fast_forward=fast_forward)
            )
            play.submit([request])
            n_steps.append(play.run_until_idle())
    assert n_steps[0] < 0.8 * n_steps[1]


LONG_NAMES = {
    "type": "object",
    "properties": {
        "the conclusion that follows from all of this": {"enum": ["yes", "no"]},
        "how certain that is, as a number from 0 to 100": {"type": "integer", "maximum": 100},
        "reasons": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 4},
    },
    "required": [
        "the conclusion that follows from all of this",
        "how certain that is, as a number from 0 to 100",
    ],
    "additionalProperties": False,
}
"""Enough forced tokens for leaps beside others."""


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba", "jamba", "lfm2"])
def test_memory_of_any_kind_goes_on_after_leaps_and_preemptions(
    load_tiny: LoadTiny, name: str, layout: str
) -> None:
    """Cells are right if logprobs are: each token's is compared with that of the whole text as a
    prompt. In the unified layout four times as many cells are wanted as there are."""
    rng = random.Random(f"{name} {layout}")
    stem = random_tokens(rng, 60)
    sizes: dict[str, object] = {"max_batch_size": 3}
    if layout == "unified":
        sizes = {"max_batch_size": 8, "max_batch_total_tokens": 256}
        sizes |= {"max_total_tokens": 256, "max_input_tokens": 200}
    with load_tiny(name, kv_layout=layout, **sizes, **EXACT) as loaded:
        constraint = constraint_of(loaded, LONG_NAMES)
        requests = [
            GenerationRequest(
                prompt_ids=tuple(TokenId(token) for token in stem[: 20 * (place % 4)] + own),
                sampling=attrs.evolve(SAMPLINGS[place % len(SAMPLINGS)], seed=place),
                stopping=StoppingParameters(max_new_tokens=150),
                logprobs=True,
                constraint=constraint,
            )
            for place, own in enumerate(random_tokens(rng, 30) for _ in range(10))
        ]
        play = NativePlay(loaded, EngineOptions(max_prefill_tokens=64, cache_ram_bytes=10**8))
        ids = play.submit(requests)
        n_steps = play.run_until_idle()
        events = [play.events[each] for each in ids]
        for request, found in zip(requests, events, strict=True):
            finish = found[-1].finish
            assert finish is not None
            if finish.reason is FinishReason.EOS_TOKEN:
                jsonschema.validate(json.loads("".join(e.delta for e in found)), LONG_NAMES)
            assert_logprobs(loaded, request, found, within=0.06)
    if layout == "streams":
        assert n_steps < sum(len(found) for found in events) / 3, "three a step without leaps"
    else:
        assert play.n_preempted > 1
