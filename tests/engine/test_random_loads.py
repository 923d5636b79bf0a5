"""Random arrivals, cancels and failures: every request gives what it gives alone, and the books of
slots, cells and saved states balance after every step (``Playbook.check``)."""

import random
from collections import Counter
from collections.abc import Mapping

import attrs
import pytest
from fakes.cache_play import SavingRunner, own, wants
from fakes.playbook import Playbook, Unbounded, a_request, alone
from fakes.random_load import KINDS, run_random_load
from fakes.runner import noisy

from tgi_llama.engine import slot_cells
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.errors import DecodeAborted, OutOfCells
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


def short_request_of(rng: random.Random) -> GenerationRequest:
    """With a prompt that begins like few others."""
    return wants(own(rng.randrange(50), rng.randrange(1, 12)), rng.randrange(1, 30))


def play_of(kind: str, rng: random.Random, *, budget: Unbounded | None = None) -> Playbook:
    """A loop over one of the kinds of memory, small enough that everything runs out."""
    unified = kind.startswith("unified")
    n_cells = rng.choice([64, 100, 150]) if unified else None
    runner = SavingRunner(
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
        budget=budget or Unbounded(),
    )


def assert_given_or_failed(play: Playbook, requests: Mapping[RequestId, GenerationRequest]) -> None:
    """What each gives alone, most of them to the end."""
    n_whole = 0
    for request_id, request in requests.items():
        expected = alone(request)
        if isinstance(play.events[request_id][-1], Failed):
            assert play.tokens(request_id) == expected[: len(play.tokens(request_id))]
        else:
            n_whole += 1
            assert play.tokens(request_id) == expected
    assert n_whole > len(requests) / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(16))
def test_random_load_gives_what_each_request_gives_alone(seed: int, kind: str) -> None:
    rng = random.Random(f"{seed} {kind}")
    play = play_of(kind, rng)
    requests = run_random_load(play, rng, request_of)
    assert_given_or_failed(play, requests)


@attrs.define(eq=False)
class Moody(Unbounded):
    """Says something else each time it is asked."""

    rng: random.Random

    def n_tokens(self, n_decode: int, *, n_prompts: int = 0, spent_s: float = 0.0) -> int:  # noqa: ARG002 - the protocol's
        return self.rng.choice([8, 16, 64])

    def target_s(self, n_decode: int, *, n_prompts: int = 0) -> float:  # noqa: ARG002 - the protocol's
        return self.rng.choice([0.0, 0.01, 1.0, 100.0])


@attrs.define(eq=False)
class Waiting:
    """How many steps that worked each sequence has been without a token since it began to decode.
    ``Scheduler`` promises eight at most."""

    play: Playbook
    n_steps: Counter[Sequence] = attrs.field(factory=Counter)

    def step(self) -> None:
        decoding = {
            each: each.n_generated
            for each in self.play.scheduler.running()
            if each.phase is Phase.DECODE
        }
        n_before = len(self.play.publications)
        self.play.step()
        reports = [each.report for each in self.play.publications[n_before:]]
        if any(report.decode_failed for report in reports):
            return
        for each, n_generated in decoding.items():
            is_waiting = each.phase is Phase.DECODE and each.n_generated == n_generated
            self.n_steps[each] = self.n_steps[each] + 1 if is_waiting else 0
            assert self.n_steps[each] <= 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(16))
def test_random_load_with_little_time_and_memory_gives_what_each_request_gives_alone(
    seed: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets change from step to step, what moves cells takes long or fails, and idle slots are
    saved ahead."""
    rng = random.Random(f"{seed} {kind} short")
    play = play_of(kind, rng, budget=Moody(rng))
    runner = play.runner
    assert isinstance(runner, SavingRunner)
    monkeypatch.setattr(slot_cells, "perf_counter", lambda: runner.clock[0])
    waiting = Waiting(play)
    requests: dict[RequestId, GenerationRequest] = {}
    for _ in range(4):
        for number in range(50):
            runner.seconds = rng.choice([0.0, 0.001, 0.1])
            runner.refused = {name for name in ("save", "restore", "copy") if rng.random() < 0.1}
            if number < 15 and rng.random() < 0.4:
                ask = rng.choice([request_of, short_request_of])
                branches = [ask(rng)] * rng.choice([1, 1, 1, 3])
                requests.update(zip(play.submit_together(branches), branches, strict=True))
            if requests and rng.random() < 0.05:
                play.cancel(rng.choice(list(requests)))
            if rng.random() < 0.05:
                runner.failures.append(rng.choice([DecodeAborted("a"), OutOfCells("o"), None]))
            if not play.scheduler.is_idle or not play.commands.empty():
                waiting.step()
        while not play.scheduler.is_idle:
            waiting.step()
        while rng.random() < 0.9 and play.placement.save_ahead():
            play.check()
    runner.failures.clear()
    play.run_until_idle()
    play.check_all_over()
    assert_given_or_failed(play, requests)
