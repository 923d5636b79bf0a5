"""Random arrivals, cancels and failures of sequences with grammars and without: texts match their
grammars to the end, and what a sequence says depends on nothing but its request."""

import functools
import json
import random
import re
from functools import partial

import attrs
import jsonschema
import pytest
from fakes.letter_grammars import RealGrammar, letter_vocabulary
from fakes.playbook import Playbook, a_request
from fakes.random_load import KINDS, run_random_load
from fakes.runner import EOS, FakeRunner, noisy, under

from tgi_llama.engine.guide import Guide
from tgi_llama.engine.sampler import Sampler, log_sum_exp
from tgi_llama.generation import (
    Failed,
    GenerationRequest,
    RequestId,
    SamplingParameters,
    TokenEvent,
    TokenId,
)

MOST_TOKENS = 80
"""Of prompt and output together."""

REGEXES = ("[a-f]{3,9}", "(abcdef|abcxyz|q)-[0-9]+", "a*b?", "(true|false),(null|none)[01]{4}z")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["ann", "anna", "bob"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@functools.cache
def grammars() -> dict[str, RealGrammar]:
    of_regexes = {regex: RealGrammar.of_regex(regex) for regex in REGEXES}
    return of_regexes | {"schema": RealGrammar.of_schema(json.dumps(SCHEMA))}


def name_of(request: GenerationRequest) -> str | None:
    return next((name for name, each in grammars().items() if each is request.constraint), None)


def assert_text_is_whole(text: str, name: str) -> None:
    if name == "schema":
        jsonschema.validate(json.loads(text), SCHEMA)
    else:
        assert re.fullmatch(name, text), (name, text)


SAMPLINGS = (
    SamplingParameters(greedy=True),
    SamplingParameters(temperature=1.5),
    SamplingParameters(temperature=2.0, top_p=0.9),
    SamplingParameters(top_k=4, repetition_penalty=1.2),
)


def request_of(
    rng: random.Random, *, most_choices: int = len(SAMPLINGS), n_adapters: int = 0
) -> GenerationRequest:
    stem = random.Random(rng.randrange(3))
    prompt = [stem.randrange(2, 6) for _ in range(rng.randrange(1, 30))]
    prompt[-1:] = [rng.randrange(2, 6)]
    name = rng.choice([None, *grammars(), "schema", "schema"])
    sampling = attrs.evolve(rng.choice(SAMPLINGS[:most_choices]), seed=rng.randrange(3))
    return a_request(
        prompt,
        max_new_tokens=rng.choice([rng.randrange(1, 12), MOST_TOKENS - len(prompt)]),
        sampling=sampling,
        ignore_eos=rng.random() < 0.3,
        logprobs=rng.random() < 0.4,
        prompt_logprobs=rng.random() < 0.1,
        constraint=None if name is None else grammars()[name],
        adapter=(rng.randrange(1 + n_adapters) or None) if n_adapters else None,
    )


def alone(request: GenerationRequest, *, fast_forward: bool) -> list[TokenId]:
    """What the request must give with ``noisy`` logits, without any batches and cells."""
    sampler = Sampler.for_prompt(request.sampling, request.prompt_ids)
    stopping = request.stopping
    guide = None
    if request.constraint is not None:
        avoided = [EOS] if stopping.ignore_eos else []
        guide = Guide(request.constraint.start(), 64, avoided=avoided)
    prompt, tokens = list(request.prompt_ids), list[TokenId]()
    while len(tokens) < stopping.max_new_tokens:
        n_left = stopping.max_new_tokens - len(tokens)
        forced = guide.take_forced(n_left) if guide is not None and fast_forward else []
        for token in forced:
            sampler.remember(token)
        tokens += forced
        if len(forced) == n_left or (guide is not None and tokens and guide.is_complete):
            break
        row = noisy(under(request.adapter, [*prompt, *tokens]))
        tokens.append(sampler.choose(row, guide=guide))
        if tokens[-1] == EOS and not (stopping.ignore_eos and guide is None):
            break
        if guide is not None and tokens[-1] != EOS:
            guide.take(tokens[-1])
            if guide.is_complete:
                break
    return tokens


def assert_logprobs(play: Playbook, request_id: RequestId, request: GenerationRequest) -> None:
    """Those of each token's own row, forced or not."""
    tokens = list(request.prompt_ids)
    for event in play.events[request_id]:
        assert isinstance(event, TokenEvent)
        expected = logprob(request, tokens, event.token.id)
        assert event.token.logprob == pytest.approx(expected, abs=1e-5)
        tokens.append(event.token.id)


def assert_prompt_logprobs(
    play: Playbook, request_id: RequestId, request: GenerationRequest
) -> None:
    prompt = list(request.prompt_ids)
    expected = [logprob(request, prompt[:at], prompt[at]) for at in range(1, len(prompt))]
    found = [token.logprob for token in play.prompt_tokens(request_id)]
    assert found[0] is None
    assert found[1:] == pytest.approx(expected, abs=1e-5)


def logprob(request: GenerationRequest, tokens: list[TokenId], token: TokenId) -> float:
    row = noisy(under(request.adapter, tokens))
    return float(row[token]) - log_sum_exp(row)


def play_of(kind: str, rng: random.Random, *, fast_forward: bool = True) -> Playbook:
    """A loop over one of the kinds of memory, small enough that everything runs out."""
    unified = kind.startswith("unified")
    n_cells = rng.choice([90, 120, 200]) if unified else None
    runner = FakeRunner(
        n_slots=6 if unified else 3,
        max_batch_tokens=rng.choice([8, 24]),
        n_prompt_rows=rng.choice([1, 3, 20]),
        script=noisy,
        layout="unified" if unified else "streams",
        can_cut=not kind.endswith("uncuttable"),
        n_cells=n_cells,
        n_bytes_free=rng.choice([None, None, 100]),
    )
    play = Playbook(
        runner=runner,
        vocabulary=letter_vocabulary(),
        n_sequences=3,
        cells_per_sequence=MOST_TOKENS,
        n_cells=n_cells or 0,
        cells_are_padded=False,
        max_prefill_tokens=rng.choice([1, 4, 24]),
        cache_ram_bytes=rng.choice([0, 4000, 10**6]),
        fewest_reused=rng.choice([1, 4]),
        prefix_cache=rng.random() < 0.8,
        fast_forward=fast_forward,
    )
    play.scheduler.fewest_leapt = rng.choice([1, 2, 6])
    return play


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("n_adapters", [0, 2])
def test_random_load_gives_what_each_request_gives_alone(
    seed: int, kind: str, n_adapters: int, plays: list[Playbook]
) -> None:
    rng = random.Random(f"{seed} {kind}")
    play = play_of(kind, rng, fast_forward=rng.random() < 0.8)
    plays.append(play)
    if n_adapters:
        play.load(*range(1, 1 + n_adapters))
    requests = run_random_load(play, rng, partial(request_of, n_adapters=n_adapters))
    assert (play.runner.n_switches > 2) == (n_adapters > 0)
    n_whole = 0
    for request_id, request in requests.items():
        expected = alone(request, fast_forward=play.fast_forward)
        if isinstance(play.events[request_id][-1], Failed):
            assert play.tokens(request_id) == expected[: len(play.tokens(request_id))]
            assert "choosing" not in str(play.error(request_id))
            continue
        n_whole += 1
        assert play.tokens(request_id) == expected
        if request.logprobs:
            assert_logprobs(play, request_id, request)
        if request.prompt_logprobs:
            assert_prompt_logprobs(play, request_id, request)
        name = name_of(request)
        if name is not None and play.reason(request_id) == "eos_token":
            assert_text_is_whole(play.text(request_id), name)
    assert n_whole > len(requests) / 2


@pytest.mark.parametrize("seed", range(10))
def test_greedy_text_is_the_same_without_fast_forward(seed: int, plays: list[Playbook]) -> None:
    """Every text has one way to be written in letters, so forced tokens are what the model would
    have had to choose."""
    requests = [request_of(random.Random(f"{seed} {i}"), most_choices=1) for i in range(12)]
    texts = []
    for fast_forward in (True, False):
        play = play_of("unified", random.Random(seed), fast_forward=fast_forward)
        plays.append(play)
        ids = [play.submit(request) for request in requests]
        play.run_until_idle()
        texts.append([(play.text(each), play.reason(each)) for each in ids])
        n_forced = sum(each.report.n_forced_tokens for each in play.publications)
        assert (n_forced > 0) == fast_forward
    assert texts[0] == texts[1]
