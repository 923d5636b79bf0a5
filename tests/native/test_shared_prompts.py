"""Branches of one prompt on the real built-in model: each is what it would be alone."""

from collections.abc import Sequence

import attrs
import pytest
from fakes.native import Load, Loaded
from fakes.native_play import assert_same_where_sure, generate, native_request, play, prompts

from tgi_llama.generation import GenerationRequest, SamplingParameters, TokenEvent

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])


QUESTION = prompts(7)[6]
"""With a system prompt: long enough to be worth sharing."""


def branches(loaded: Loaded, n: int, *, max_new_tokens: int = 12) -> list[GenerationRequest]:
    """The same question, greedily once and then warmly with one seed each."""
    request = native_request(loaded, QUESTION, max_new_tokens=max_new_tokens, logprobs=True)
    hot = [SamplingParameters(temperature=3.0, top_p=0.98, seed=2**63 + i) for i in range(1, n)]
    return [request, *(attrs.evolve(request, sampling=sampling) for sampling in hot)]


@LAYOUTS
@pytest.mark.parametrize("n_slots", [1, 2, 8])
def test_branches_give_what_each_gives_alone(load: Load, layout: str, n_slots: int) -> None:
    """Fewer slots than branches, and more. Nothing else runs, so the shapes of all decodes are
    alike and the logits equal."""
    with load(kv_layout=layout, max_batch_size=n_slots) as loaded:
        requests = branches(loaded, 5)
        alone = [generate(loaded, [request])[0] for request in requests]
        played = play(loaded, [requests])
    together = [played.events[i] for i in range(len(requests))]
    for one, other in zip(alone, together, strict=True):
        assert [event.token.id for event in other] == [event.token.id for event in one]
        assert [event.token.logprob for event in other] == pytest.approx(
            [event.token.logprob for event in one], abs=0.02
        )
    assert len({tuple(event.token.id for event in events) for events in alone}) > 2
    n_others = len(requests) - 1
    assert played.n_prefilled == len(requests[0].prompt_ids) + n_others, "each its last token"


@LAYOUTS
def test_branch_with_a_late_slot_gives_what_it_gives_alone(load: Load, layout: str) -> None:
    with load(kv_layout=layout, max_batch_size=2) as loaded:
        short = native_request(loaded, "1, 2, 3", max_new_tokens=4)
        requests = branches(loaded, 2, max_new_tokens=30) if layout == "streams" else twins(loaded)
        alone = [generate(loaded, [request])[0] for request in requests]
        played = play(loaded, [[short], requests])
    assert_same(alone, played.events[1:], layout)
    assert played.n_prefilled == len(short.prompt_ids) + len(requests[0].prompt_ids) + 1


@LAYOUTS
def test_branches_among_strangers_neither_see_nor_leave_anything(load: Load, layout: str) -> None:
    """More branches than slots, between requests that come before and after."""
    with load(kv_layout=layout, max_batch_size=3) as loaded:
        first, last = (
            native_request(loaded, text, max_new_tokens=8, n_top_tokens=2)
            for text in ("12 + 7 =", "Count from 1 to")
        )
        requests = branches(loaded, 7) if layout == "streams" else twins(loaded) * 3
        alone = [generate(loaded, [request])[0] for request in (first, *requests, last)]
        played = play(loaded, [[first], requests, [last]])
    assert_same(alone, played.events, layout)


def twins(loaded: Loaded) -> list[GenerationRequest]:
    """Greedy, so that it can be seen how sure the model was."""
    return [native_request(loaded, QUESTION, max_new_tokens=30, n_top_tokens=2)] * 2


def assert_same(
    alone: Sequence[Sequence[TokenEvent]], found: Sequence[Sequence[TokenEvent]], layout: str
) -> None:
    """To the last token, but in the unified layout: there the cells of strangers change the order
    in which attention adds up."""
    if layout == "unified":
        assert_same_where_sure(alone, found)
        return
    for one, other in zip(alone, found, strict=True):
        assert [event.token.id for event in other] == [event.token.id for event in one]
