"""The training loop, for the built-in model and for adapters of it."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs
import torch
from torch import nn
from torch.nn import functional

from .batches import Batch, EncodedExample, collate
from .chat_format import SPECIAL_TOKENS, TURN_END
from .model import Llama

log = logging.getLogger(__name__)

BATCHES_PER_STEP = 4  # of different lengths, so that a step sees several skills
END_TOKEN = SPECIAL_TOKENS.index(TURN_END)
END_WEIGHT = 5.0  # where a list ends is one token in a hundred, and the hardest of them
WARM_UP_STEPS = 60
COOL_DOWN_SHARE = 0.6  # of all steps; the rate falls to nothing in a straight line
REPORT_EVERY_STEPS = 50
CHECK_EVERY_STEPS = 250


@attrs.frozen(eq=False)
class Trainee:
    """What is trained. Parameters of the model that do not ask for gradients stay as they are."""

    model: Llama
    optimizers: tuple[torch.optim.Optimizer, ...]
    """With their full learning rates."""

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        return tuple(weight for weight in self.model.parameters() if weight.requires_grad)


def rate_at(step: int, n_steps: int) -> float:
    """The share of the full learning rate at a step: up, level, then down to zero."""
    left = (n_steps - step) / (COOL_DOWN_SHARE * n_steps)
    return min(1.0, (step + 1) / WARM_UP_STEPS, left)


def gradients(trainee: Trainee, batch: Batch) -> tuple[float, tuple[torch.Tensor, ...]]:
    """Summed loss of the reply tokens, and its gradient for each parameter.

    Matrices are multiplied in bfloat16. May run in several threads at a time.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = trainee.model(batch.inputs, batch.wanted)
    weights = torch.ones(logits.shape[1])
    weights[END_TOKEN] = END_WEIGHT
    targets = batch.targets[batch.wanted]
    loss = functional.cross_entropy(logits, targets, weight=weights, reduction="sum")
    return loss.item(), torch.autograd.grad(loss, trainee.parameters)


def train(
    trainee: Trainee,
    stream: Iterator[Batch],
    *,
    n_steps: int,
    rate: float,
    n_threads: int,
    check: Callable[[], None],
) -> int:
    """Trains in place, reporting loss and speed; calls `check` now and then.

    Returns the number of tokens trained on, padding included.

    Each thread works on a batch of its own: on a busy machine that is faster than sharing every
    operation, where all threads wait for the slowest. Gradients are added in the order of the
    batches, so the result does not depend on which thread was first.
    """
    parameters, optimizers = trainee.parameters, trainee.optimizers
    full_rates = [rate * optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started, n_seen, losses = time.monotonic(), 0, 0.0
    with ThreadPoolExecutor(n_threads) as pool:
        for step in range(n_steps):
            for optimizer, full_rate in zip(optimizers, full_rates, strict=True):
                optimizer.param_groups[0]["lr"] = full_rate * rate_at(step, n_steps)
            group = list(itertools.islice(stream, BATCHES_PER_STEP))
            results = list(pool.map(lambda batch: gradients(trainee, batch), group))
            n_replied = sum(int(batch.wanted.sum()) for batch in group)
            for i, parameter in enumerate(parameters):
                parameter.grad = torch.stack([grads[i] for _, grads in results]).sum(0) / n_replied
            for optimizer in optimizers:
                optimizer.step()
            losses += sum(loss for loss, _ in results) / n_replied
            n_seen += sum(batch.inputs.numel() for batch in group)
            if (step + 1) % REPORT_EVERY_STEPS == 0:
                mean = losses / REPORT_EVERY_STEPS
                _report(step + 1, n_steps, loss=mean, n_seen=n_seen, started=started)
                losses = 0.0
            if (step + 1) % CHECK_EVERY_STEPS == 0:
                check()
    return n_seen


def _report(done: int, n_steps: int, *, loss: float, n_seen: int, started: float) -> None:
    elapsed_s = time.monotonic() - started
    left_min = elapsed_s / done * (n_steps - done) / 60
    log.info(
        "step %d/%d  loss %.4f  %.0f tokens/s  %.1f min left",
        done, n_steps, loss, n_seen / elapsed_s, left_min,
    )  # fmt: skip


@torch.no_grad()
def check_exact(model: nn.Module, checked: Sequence[EncodedExample]) -> None:
    """Logs how many held-out replies would be exact, skill by skill.

    When every token of the right reply is the likeliest one, greedy decoding gives just that reply.
    """
    exact: dict[str, list[bool]] = {}
    for example in checked:
        batch = collate([example])
        best = model(batch.inputs, batch.wanted).argmax(-1)
        right = bool((best == batch.targets[batch.wanted]).all())
        exact.setdefault(example.skill, []).append(right)
    shares = (f"{skill} {100 * sum(r) / len(r):.0f}%" for skill, r in exact.items())
    log.info("held-out replies exact: %s", ", ".join(shares))
