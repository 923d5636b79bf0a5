"""Asks a running server what the reference computed, and measures how far it is off."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import attrs
import httpx

N_STEPS = 64


class Expected(TypedDict):
    """One prompt in the reference's ``expected.json``."""

    text: str
    ids: list[int]
    logprobs: list[float]
    """Of the ids after the first."""
    answer: list[int]
    answer_logprobs: list[float]
    margin: float


def read_expected(folder: Path) -> list[Expected]:
    expected: list[Expected] = json.loads((folder / "expected.json").read_text())
    return expected


@attrs.frozen
class Comparison:
    """Of one prompt."""

    same_prompt: bool
    n_same: int
    """Tokens of the answer before the first that is another."""
    prompt_error: float
    """The largest difference of a prompt token's logprob."""
    answer_error: float
    """The same of the answer's tokens that are equal."""


async def compare(
    client: httpx.AsyncClient, expected: Expected, *, adapter: str | None = None
) -> Comparison:
    parameters = {
        "adapter_id": adapter,
        "max_new_tokens": N_STEPS,
        "do_sample": False,
        "details": True,
        "decoder_input_details": True,
    }
    ask = {"inputs": expected["text"], "parameters": parameters}
    response = await client.post("/generate", json=ask)
    response.raise_for_status()
    details = response.json()["details"]
    prompt, answer = details["prefill"], details["tokens"]
    pairs = zip((token["id"] for token in answer), expected["answer"], strict=False)
    n_same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(answer))
    return Comparison(
        same_prompt=[token["id"] for token in prompt] == expected["ids"],
        n_same=n_same,
        prompt_error=_largest(prompt[1:], expected["logprobs"]),
        answer_error=_largest(answer[:n_same], expected["answer_logprobs"][:n_same]),
    )


def _largest(tokens: Sequence[dict[str, float]], expected: Sequence[float]) -> float:
    found = (token["logprob"] for token in tokens)
    return max((abs(a - b) for a, b in zip(found, expected, strict=True)), default=0.0)
