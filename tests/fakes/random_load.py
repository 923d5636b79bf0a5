"""Arrivals, cancels and failures at random."""

import random
from collections.abc import Callable

from fakes.playbook import Playbook

from tgi_llama.errors import DecodeAborted, DecodeFailed, InvalidBatch, OutOfCells
from tgi_llama.generation import GenerationRequest, RequestId

KINDS = ("streams", "streams uncuttable", "unified", "unified uncuttable")
"""Of memory, for the tests' parameters."""


def run_random_load(
    play: Playbook, rng: random.Random, make_request: Callable[[random.Random], GenerationRequest]
) -> dict[RequestId, GenerationRequest]:
    """Sixty times perhaps a new request, alone or with branches, perhaps a cancel, perhaps a decode
    that fails, and a step; then on until all have ended. The requests that were submitted."""
    requests: dict[RequestId, GenerationRequest] = {}
    for _ in range(60):
        if rng.random() < 0.4:
            branches = [make_request(rng)] * rng.choice([1, 1, 1, 3])
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
    return requests
