"""Several generations of one prompt: what they share and in what they differ."""

import itertools
import json

import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.generation import SamplingParameters
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

Branches = tuple[PreparedGeneration, ...]


def validator() -> Validator:
    seeds = itertools.count(100)
    limits = Limits(max_input_tokens=64, max_total_tokens=96, max_best_of=4)
    return Validator(limits, ByteTokenizer(), TaggedTemplates(), draw_seed=lambda: next(seeds))


def generate(**parameters: object) -> Branches:
    body = json.dumps({"inputs": "abc", "parameters": parameters}).encode()
    return validator().generate(parse(GenerateRequest, body), streaming=False)


def chat(**fields: object) -> Branches:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return validator().chat(parse(ChatRequest, json.dumps(body).encode()))


def complete(**fields: object) -> Branches:
    body = json.dumps({"prompt": "hi", **fields}).encode()
    return validator().completion(parse(CompletionRequest, body))


def seeds(branches: Branches) -> list[int | None]:
    assert [b.request.sampling.seed for b in branches] == [b.reported_seed for b in branches]
    return [b.reported_seed for b in branches]


def places(branches: Branches) -> list[tuple[int, int]]:
    return [(one.index, one.branch) for one in branches]


def test_generate_best_of_gives_branches_with_seeds_of_their_own() -> None:
    branches = generate(best_of=3, do_sample=True)
    assert seeds(branches) == [100, 101, 102]
    assert places(branches) == [(0, 0), (0, 1), (0, 2)]
    assert {(one.n_branches, one.n_shown) for one in branches} == {(3, 1)}
    assert len({one.request.prompt_ids for one in branches}) == 1


def test_generate_best_of_branches_can_be_compared() -> None:
    assert all(one.request.logprobs for one in generate(best_of=2, do_sample=True))


@pytest.mark.parametrize("best_of", [0, 1, None])
def test_generate_best_of_one_or_none_is_one_generation(best_of: int | None) -> None:
    (only,) = generate(best_of=best_of, do_sample=True, seed=5)
    assert (only.n_branches, only.n_shown, only.reported_seed) == (1, 1, 5)


def test_generate_best_of_without_a_field_that_makes_tgi_sample_stays_greedy() -> None:
    branches = generate(best_of=2, temperature=1.0)
    assert [one.request.sampling for one in branches] == [SamplingParameters(greedy=True)] * 2
    assert [one.reported_seed for one in branches] == [None, None]


def test_chat_n_shows_every_branch() -> None:
    branches = chat(n=3)
    assert places(branches) == [(0, 0), (0, 1), (0, 2)]
    assert {(one.n_branches, one.n_shown) for one in branches} == {(3, 3)}
    assert seeds(branches) == [100, 101, 102]
    assert not any(one.request.logprobs for one in branches)


def test_chat_first_branch_has_the_seed_that_was_sent() -> None:
    assert seeds(chat(n=3, seed=7)) == [7, 8, 9]
    assert seeds(chat(seed=7)) == [7]


def test_chat_seeds_of_branches_stay_within_64_bits() -> None:
    assert seeds(chat(n=2, seed=2**64 - 1)) == [2**64 - 1, 0]


def test_chat_greedy_branches_have_no_seed() -> None:
    branches = chat(n=2, temperature=0, seed=3)
    assert [one.request.sampling for one in branches] == [SamplingParameters(greedy=True)] * 2


def test_completion_branches_of_a_prompt_stand_together() -> None:
    branches = complete(prompt=["a", "b"], n=2, seed=10)
    assert places(branches) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [one.prompt for one in branches] == ["a", "a", "b", "b"]
    assert seeds(branches) == [10, 11, 10, 11]


@pytest.mark.parametrize(
    ("fields", "n_branches", "n_shown", "logprobs"),
    [
        ({}, 1, 1, False),
        ({"best_of": 1}, 1, 1, False),
        ({"best_of": 3}, 3, 1, True),
        ({"best_of": 3, "n": 2}, 3, 2, True),
        ({"n": 3}, 3, 3, False),
        ({"n": 3, "best_of": None}, 3, 3, False),
    ],
)
def test_completion_best_of_computes_logprobs_without_showing_them(
    fields: dict[str, object], n_branches: int, n_shown: int, logprobs: bool
) -> None:
    branches = complete(**fields)
    assert len(branches) == n_branches
    assert {(one.n_branches, one.n_shown) for one in branches} == {(n_branches, n_shown)}
    assert {one.request.logprobs for one in branches} == {logprobs}
    assert not any(one.logprobs for one in branches)


def test_completion_streamed_may_have_as_many_branches_as_it_shows() -> None:
    assert len(complete(n=2, best_of=2, stream=True)) == 2
