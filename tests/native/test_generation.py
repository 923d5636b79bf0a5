"""The decode loop on the real built-in model."""

import codecs
from collections.abc import Sequence

import pytest
from fakes.native import Load, Loaded
from fakes.native_play import assert_same_where_sure, generate, native_request, prompts

from tgi_llama.generation import FinishReason, GenerationRequest, SamplingParameters

N_PARALLEL = 16


def texts(loaded: Loaded, requests: Sequence[GenerationRequest]) -> list[str]:
    return ["".join(e.delta for e in events) for events in generate(loaded, requests)]


def test_parallel_streams_give_what_each_gives_alone(load: Load) -> None:
    with load(kv_layout="streams", max_batch_size=N_PARALLEL) as loaded:
        requests = [native_request(loaded, prompt) for prompt in prompts(N_PARALLEL)]
        assert len(requests) == N_PARALLEL
        alone = [texts(loaded, [one])[0] for one in requests]
        together = texts(loaded, requests)
    assert together == alone
    assert len(set(alone)) > N_PARALLEL // 2, "the prompts ask for different things"


def test_parallel_sequences_in_the_unified_layout_give_what_each_gives_alone(load: Load) -> None:
    with load(kv_layout="unified", max_batch_size=N_PARALLEL) as loaded:
        requests = [
            native_request(loaded, prompt, n_top_tokens=2) for prompt in prompts(N_PARALLEL)
        ]
        alone = [generate(loaded, [one])[0] for one in requests]
        assert_same_where_sure(alone, generate(loaded, requests))


def test_layouts_and_chunk_sizes_do_not_change_the_answers(load: Load) -> None:
    answers = []
    for options in (
        {"kv_layout": "streams"},
        {"kv_layout": "unified"},
        {"kv_layout": "streams", "max_physical_batch_total_tokens": 8},
    ):
        with load(**options) as loaded:
            requests = [native_request(loaded, prompt, n_top_tokens=2) for prompt in prompts(6)]
            answers.append(generate(loaded, requests))
    assert_same_where_sure(answers[0], answers[1])
    assert_same_where_sure(answers[0], answers[2])


def test_unified_layout_with_too_few_cells_for_all_serves_them_in_turn(load: Load) -> None:
    with load(
        kv_layout="unified", max_batch_size=8, max_batch_total_tokens=512, max_total_tokens=512
    ) as loaded:
        requests = [native_request(loaded, prompt, n_top_tokens=2) for prompt in prompts(8)]
        alone = [generate(loaded, [one])[0] for one in requests]
        assert_same_where_sure(alone, generate(loaded, requests))


def test_greedy_is_deterministic_over_contexts(load: Load) -> None:
    answers = []
    for _ in range(2):
        with load() as loaded:
            answers.append(texts(loaded, [native_request(loaded, prompt) for prompt in prompts(4)]))
    assert answers[0] == answers[1]


def test_seed_decides_the_sampled_tokens(load: Load) -> None:
    def hot(seed: int) -> SamplingParameters:
        return SamplingParameters(temperature=3.0, top_p=0.95, seed=seed)

    with load() as loaded:
        (prompt,) = prompts(1)

        def answer(seed: int) -> str:
            return texts(loaded, [native_request(loaded, prompt, sampling=hot(seed))])[0]

        assert answer(2**63 + 5) == answer(2**63 + 5)
        assert len({answer(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("prompt", ["你好 🙂🦙 ñandú — ", "日本語", "é"])
def test_text_is_the_bytes_of_the_tokens_whatever_the_model_says(load: Load, prompt: str) -> None:
    """Sampled at a temperature at which the model babbles, characters in pieces included."""
    with load() as loaded:
        sampling = SamplingParameters(temperature=50.0, seed=3)
        (events,) = generate(
            loaded, [native_request(loaded, prompt, sampling=sampling, max_new_tokens=100)]
        )
        shown = b"".join(
            loaded.vocab.piece(event.token.id) for event in events if not event.token.special
        )
        text = "".join(event.delta for event in events)
    # An incremental decoder that is not told of the end drops an incomplete last character.
    assert text == codecs.getincrementaldecoder("utf-8")("replace").decode(shown)
    assert len(text) > 20


@pytest.mark.parametrize("keep", [True, False])
def test_stop_string_at_any_place_of_an_answer_ends_it_there(load: Load, keep: bool) -> None:
    with load() as loaded:
        for prompt in prompts(2):
            (whole,) = texts(loaded, [native_request(loaded, prompt)])
            for start in range(0, max(1, len(whole) - 3), 7):
                stop = whole[start : start + 3]
                if not stop:
                    continue
                one = native_request(loaded, prompt, stop_strings=(stop,), keep_stop_string=keep)
                (events,) = generate(loaded, [one])
                text = "".join(event.delta for event in events)
                at = whole.index(stop)
                assert text == (whole[: at + len(stop)] if keep else whole[:at])
                finish = events[-1].finish
                assert finish is not None
                assert finish.reason in (FinishReason.STOP_SEQUENCE, FinishReason.LENGTH)
