"""Memory that cannot be cut: what is saved on the way, and what a failed decode takes along."""

import pytest
from fakes.cache_play import (
    STEM,
    a_play,
    assert_given,
    own,
    played,
    probe,
    wants,
)
from fakes.playbook import alone
from fakes.runner import EOS

from tgi_llama.errors import DecodeAborted, DecodeFailed
from tgi_llama.generation import CacheOutcome, Failed

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])
MEMORIES = pytest.mark.parametrize("can_cut", [True, False])


def chat(*messages: list[int]) -> list[int]:
    """Messages that end with the end-of-turn token."""
    return [token for message in messages for token in (*message, EOS)]


SYSTEM = own(1, 20)


@LAYOUTS
def test_next_turn_of_a_chat_computes_only_what_is_new(layout: str) -> None:
    """The slot was left where the answer ended."""
    play = a_play(layout=layout, can_cut=False, cache_ram=10**6)
    prompt = chat(SYSTEM, own(5, 20))
    for number in range(3):
        turn = wants(prompt)
        before = play.n_prefilled()
        played(play, turn)
        n_new = len(prompt) if number == 0 else 1 + 1 + 20 + 1
        assert play.n_prefilled() - before == n_new
        prompt = chat([*prompt, *alone(turn)], own(6 + number, 20))
    play.check_all_over()


@LAYOUTS
def test_other_chat_starts_behind_the_first_message_that_both_have(layout: str) -> None:
    play = a_play(layout=layout, can_cut=False, cache_ram=10**6)
    played(play, wants(chat(SYSTEM, own(5, 20))))
    assert probe(play, chat(SYSTEM, own(6, 20))) == [(CacheOutcome.HOST, 21)]
    play.check_all_over()


def test_changed_last_message_starts_before_it() -> None:
    play = a_play(can_cut=False, cache_ram=10**6)
    messages = [SYSTEM, own(5, 20), own(6, 20)]
    played(play, wants([*chat(*messages), 9]))
    lengths = sorted(len(entry.tokens) for entry in play.placement.host.entries())
    assert lengths == [21, 63], "the first message, and all but the last token: a message ends"
    other = wants([*chat(*messages), *own(7, 5)])
    assert probe(play, list(other.prompt_ids)) == [(CacheOutcome.HOST, 63)]


def test_same_prompt_again_computes_its_last_token_only() -> None:
    play = a_play(can_cut=False, cache_ram=10**6)
    played(play, wants(STEM), wants(own(9, 20)))
    assert probe(play, STEM) == [(CacheOutcome.HOST, 39)]


def test_checkpoints_need_the_host_cache() -> None:
    play = a_play(can_cut=False, cache_ram=0)
    played(play, wants(chat(SYSTEM, own(5, 20))))
    assert play.placement.host.n_entries == 0
    assert probe(play, chat(SYSTEM, own(6, 20))) == [(CacheOutcome.UNCUTTABLE, 0)]


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_prompt_is_not_divided_for_checkpoints_that_nobody_keeps(prefix_cache: bool) -> None:
    play = a_play(can_cut=False, max_batch=64, prefix_cache=prefix_cache)
    played(play, wants(chat(SYSTEM, own(5, 20))))
    assert play.runner.batches[0].tokens.shape[0] == 42


def test_beginning_that_another_computes_is_shared_without_the_host_cache_too() -> None:
    play = a_play(can_cut=False, max_batch=64)
    requests = [wants([*STEM, *own(5 + i, 9)]) for i in range(3)]
    ids = [play.submit(request) for request in requests]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.outcomes() == [(CacheOutcome.UNKNOWN, 0), *[(CacheOutcome.SLOT, 40)] * 2]


def test_prompt_of_one_token_has_no_checkpoint() -> None:
    play = a_play(can_cut=False, cache_ram=10**6)
    played(play, wants([5], 3), wants([5], 3))
    assert play.placement.host.n_entries == 0
    play.check_all_over()


@LAYOUTS
@pytest.mark.parametrize("n_before", range(2, 12))
def test_failed_decode_that_loses_all_cells_fails_those_of_its_batch_only(
    layout: str, n_before: int
) -> None:
    """Of two prompts one is computed at a time; an idle slot loses its cells as well."""
    play = a_play(layout=layout, can_cut=False, max_batch=8, cache_ram=10**6)
    played(play, wants(STEM))
    requests = [wants(own(5 + i, 30), 3) for i in range(3)]
    ids = [play.submit(request) for request in requests]
    n_decoded = len(play.runner.batches)
    play.runner.failures.extend([None] * n_before + [DecodeFailed("lost")])
    play.run_until_idle()
    failed = play.runner.batches[n_decoded + n_before]
    ended = [i for i in ids if isinstance(play.events[i][-1], Failed)]
    assert len(ended) == len(failed.runs)
    assert_given(play, {i: r for i, r in zip(ids, requests, strict=True) if i not in ended})
    play.check_all_over()


@LAYOUTS
@MEMORIES
@pytest.mark.parametrize("n_before", range(12))
def test_aborted_decode_fails_nobody(can_cut: bool, layout: str, n_before: int) -> None:
    play = a_play(layout=layout, can_cut=can_cut, max_batch=8, cache_ram=10**6)
    requests = [wants(own(5 + i, 20), 4) for i in range(3)]
    ids = [play.submit(request) for request in requests]
    play.runner.failures.extend([None] * n_before + [DecodeAborted("stop")])
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()
