"""Examples as token ids with the replies marked, in batches of similar length."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

import attrs
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .chat_format import TURN_END, PromptRenderer
from .examples import Example

MAX_TOKENS = 640  # longer examples are left out
N_POOLED = 4096  # examples sorted by length at a time


@attrs.frozen
class EncodedExample:
    """Token ids, and for each whether it belongs to a reply (and so is learned)."""

    skill: str
    ids: tuple[int, ...]
    in_reply: tuple[bool, ...]


@attrs.frozen(eq=False)
class Batch:
    """Inputs, the tokens that follow them, and which of those count; all (batch, positions)."""

    inputs: Tensor
    targets: Tensor
    wanted: Tensor


class ExampleEncoder:
    """Encodes examples exactly as a server would: the prompt by itself, then the reply."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._renderer = PromptRenderer()

    def encode(self, example: Example, *, all_turns: bool) -> EncodedExample:
        """Marks the last reply, or with `all_turns` every turn of the assistant."""
        ids: list[int] = []
        in_reply: list[bool] = []
        done = ""
        for prompt, reply in self._turns(example, all_turns=all_turns):
            for text, learned in ((prompt.removeprefix(done), False), (reply, True)):
                piece = self._tokenizer.encode(text, add_special_tokens=False).ids
                ids += piece
                in_reply += [learned] * len(piece)
            done = prompt + reply
        return EncodedExample(example.skill, tuple(ids), tuple(in_reply))

    def _turns(self, example: Example, *, all_turns: bool) -> Iterator[tuple[str, str]]:
        if all_turns:
            for i, message in enumerate(example.messages):
                if message.role == "assistant":
                    earlier = attrs.evolve(example, messages=example.messages[:i])
                    yield self._renderer.prompt(earlier), message.content + TURN_END
        yield self._renderer.prompt(example), example.reply + TURN_END


def padded(n_positions: int) -> int:
    """A slightly larger length, one of few: kernels are compiled anew for every new shape."""
    step = 8 if n_positions < 128 else 16
    return -(-n_positions // step) * step


def collate(examples: Sequence[EncodedExample]) -> Batch:
    """One batch, padded on the right with token 0."""
    n_positions = padded(max(len(example.ids) for example in examples) - 1)
    inputs = torch.zeros((len(examples), n_positions), dtype=torch.long)
    targets = torch.zeros_like(inputs)
    wanted = torch.zeros_like(inputs, dtype=torch.bool)
    for row, example in enumerate(examples):
        n = len(example.ids) - 1
        inputs[row, :n] = torch.tensor(example.ids[:-1])
        targets[row, :n] = torch.tensor(example.ids[1:])
        wanted[row, :n] = torch.tensor(example.in_reply[1:])
    return Batch(inputs, targets, wanted)


def batches(
    examples: Iterable[EncodedExample], *, tokens_per_batch: int, rng: random.Random
) -> Iterator[Batch]:
    """Batches of about `tokens_per_batch` tokens, padding included, in random order.

    A batch holds examples of one length, so mostly of one skill: a step should add up several.
    """
    stream = (example for example in examples if len(example.ids) <= MAX_TOKENS)
    while pool := sorted(itertools.islice(stream, N_POOLED), key=lambda e: len(e.ids)):
        groups: list[list[EncodedExample]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * padded(len(example.ids) - 1) > tokens_per_batch:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        yield from (collate(group) for group in groups)
