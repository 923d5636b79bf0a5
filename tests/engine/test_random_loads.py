"""Random arrivals, cancels and failures: every request gives what it gives alone, and the books of
slots, cells and saved states balance after every step (``Playbook.check``)."""

import random

import pytest
from fakes.playbook import Playbook, a_request, alone
from fakes.runner import FakeRunner, noisy

from tgi_llama.errors import DecodeAborted, DecodeFailed, InvalidBatch, OutOfCells
from tgi_llama.generation import Failed, GenerationRequest, RequestId, SamplingParameters

MOST_TOKENS = 60
"""Of prompt and output together."""


def request_of(rng: random.Random) -> GenerationRequest:
    """Prompts of few different beginnings, with messages that end with token 1."""
    stem = random.Random(rng.randrange(3))
    prompt = [stem.randrange(2, 6) for _ in range(rng.randrange(1, 40))]
    for position in range(9, len(prompt), 10):
        prompt[position] = 1
    prompt[-1:] = [rng.randrange(2, 6)]
    return a_request(
        prompt,
        max_new_tokens=rng.randrange(1, MOST_TOKENS - len(prompt)),
        sampling=SamplingParameters(seed=rng.randrange(3), temperature=0.5),
        ignore_eos=rng.random() < 0.5,
        prompt_logprobs=rng.random() < 0.1,
    )


def play_of(kind: str, rng: random.Random) -> Playbook:
    """A loop over one of the kinds of memory, small enough that everything runs out."""
    unified = kind.startswith("unified")
    n_cells = rng.choice([64, 100, 150]) if unified else None
    runner = FakeRunner(
        n_slots=6 if unified else 3,
        max_batch_tokens=12,
        script=noisy,
        layout="unified" if unified else "streams",
        can_cut=not kind.endswith("uncuttable"),
        n_cells=n_cells,
        n_bytes_free=rng.choice([None, None, 100]),
    )
    return Playbook(
        runner=runner,
        n_sequences=3,
        cells_per_sequence=MOST_TOKENS,
        n_cells=n_cells or 0,
        cells_are_padded=False,
        max_prefill_tokens=rng.choice([1, 4, 12]),
        cache_ram_bytes=rng.choice([0, 4000, 10**6]),
        fewest_reused=rng.choice([1, 4]),
    )


KINDS = ("streams", "streams uncuttable", "unified", "unified uncuttable")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(16))
def test_random_load_gives_what_each_request_gives_alone(seed: int, kind: str) -> None:
    rng = random.Random(f"{seed} {kind}")
    play = play_of(kind, rng)
    requests: dict[RequestId, GenerationRequest] = {}
    for _ in range(60):
        if rng.random() < 0.4:
            branches = [request_of(rng)] * rng.choice([1, 1, 1, 3])
            requests.update(zip(play.submit_together(branches), branches, strict=True))
        if requests and rng.random() < 0.05:
            play.cancel(rng.choice(list(requests)))
        if rng.random() < 0.1:
            play.runner.failures.append(rng.choice([DecodeAborted("a"), OutOfCells("o"), None]))
        if rng.random() < 0.02:
            play.runner.failures.append(rng.choice([InvalidBatch("i"), DecodeFailed("f")]))
        if not play.scheduler.is_idle or not play.commands.empty():
            play.step()
    play.runner.failures.clear()
    play.run_until_idle()
    play.check_all_over()
    n_whole = 0
    for request_id, request in requests.items():
        expected = alone(request)
        if isinstance(play.events[request_id][-1], Failed):
            assert play.tokens(request_id) == expected[: len(play.tokens(request_id))]
        else:
            n_whole += 1
            assert play.tokens(request_id) == expected
    assert n_whole > len(requests) / 2
