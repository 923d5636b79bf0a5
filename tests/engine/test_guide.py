"""A sequence's guide and the threads that compute its masks."""

import threading
from collections.abc import Iterator

import pytest
from fakes.letter_grammars import N_VOCAB, RuleGrammar
from fakes.runner import EOS

from tgi_llama.engine.guide import Guide
from tgi_llama.engine.mask_worker import MaskPool
from tgi_llama.errors import GenerationError
from tgi_llama.generation import TokenId


@pytest.fixture
def pool() -> Iterator[MaskPool]:
    pool = MaskPool()
    yield pool
    pool.close()


def evens(tokens: tuple[int, ...]) -> set[int]:
    """Two even tokens from 2 on, then the end."""
    return set(range(2, N_VOCAB, 2)) if len(tokens) < 2 else {EOS}


def tokens_of(guide: Guide) -> set[int]:
    bits = guide.mask()
    return {token for token in range(N_VOCAB) if bits[token >> 3] >> (token & 7) & 1}


def test_masks_of_several_guides_are_computed_on_other_threads(pool: MaskPool) -> None:
    states = [RuleGrammar(evens).start() for _ in range(5)]
    guides = [Guide(state, N_VOCAB) for state in states]
    pool.compute(guides)
    for guide in guides:
        assert tokens_of(guide) == evens(())
    users = [user for state in states for user in state.users]
    assert len(users) == 5, "no mask was computed twice"
    assert threading.get_ident() not in users


def test_two_masks_are_computed_at_the_same_time(pool: MaskPool) -> None:
    both = threading.Barrier(2)
    grammar = RuleGrammar(evens, lambda _tokens: void(both.wait(timeout=30)))
    guides = [Guide(grammar.start(), N_VOCAB) for _ in range(2)]
    pool.compute(guides)
    assert all(tokens_of(guide) == evens(()) for guide in guides)


def test_lent_state_is_not_here_until_its_mask_is(pool: MaskPool) -> None:
    gate = threading.Event()
    guide = Guide(RuleGrammar(evens, lambda _tokens: void(gate.wait(30))).start(), N_VOCAB)
    assert guide.is_here()
    pool.compute([guide])
    assert not guide.is_here()
    assert not guide.is_here(0.001)
    assert not guide.is_complete
    gate.set()
    assert guide.is_here(None)
    assert guide.allows(TokenId(2))
    assert not guide.allows(TokenId(3))


def test_failure_on_the_pool_s_thread_is_raised_where_the_state_is_used(pool: MaskPool) -> None:
    def fail(_tokens: tuple[int, ...]) -> None:
        raise GenerationError("too complex")

    guide, healthy = (Guide(RuleGrammar(evens, before).start(), N_VOCAB) for before in (fail, void))
    pool.compute([guide, healthy])
    for _ in range(2):
        with pytest.raises(GenerationError, match="too complex"):
            guide.allows(TokenId(2))
    with pytest.raises(GenerationError, match="too complex"):
        guide.mask()
    assert tokens_of(healthy) == evens(())


def test_panic_on_the_pool_s_thread_fails_its_sequence_and_ends_no_thread(pool: MaskPool) -> None:
    class Panic(BaseException):  # as native code raises it
        pass

    def panic(_tokens: tuple[int, ...]) -> None:
        raise Panic("index out of bounds")

    broken = [Guide(RuleGrammar(evens, panic).start(), N_VOCAB) for _ in range(4)]
    healthy = Guide(RuleGrammar(evens).start(), N_VOCAB)
    pool.compute([*broken, healthy])
    assert healthy.is_here(30.0)
    assert tokens_of(healthy) == evens(())
    for guide in broken:
        with pytest.raises(GenerationError, match="index out of bounds"):
            guide.mask()


def test_mask_follows_the_tokens_taken() -> None:
    guide = Guide(RuleGrammar(evens).start(), N_VOCAB)
    assert tokens_of(guide) == evens(())
    guide.take(TokenId(4))
    assert not guide.is_complete
    guide.take(TokenId(4))
    assert guide.is_complete
    assert tokens_of(guide) == {EOS}
    with pytest.raises(GenerationError, match="refuses"):
        guide.take(TokenId(4))


def test_forced_tokens_are_taken_up_to_the_most() -> None:
    stop = RuleGrammar(lambda tokens: {len(tokens) + 5} if len(tokens) < 6 else {EOS})
    guide = Guide(stop.start(), N_VOCAB)
    assert guide.take_forced(4) == [5, 6, 7, 8]
    assert not guide.is_complete
    assert guide.take_forced(0) == []
    assert guide.take_forced(9) == [9, 10]
    assert guide.is_complete


def test_avoided_tokens_may_come_only_where_nothing_else_may() -> None:
    grammar = RuleGrammar(lambda tokens: {EOS, 5} if len(tokens) < 1 else {EOS})
    guide = Guide(grammar.start(), N_VOCAB, avoided=[EOS])
    assert tokens_of(guide) == {5}
    assert not guide.allows(EOS)
    guide.take(TokenId(5))
    assert guide.allows(EOS)
    assert tokens_of(guide) == {EOS}


def test_next_mask_is_wanted_early_where_the_last_was_needed() -> None:
    guide = Guide(RuleGrammar(lambda _tokens: {2, 4}).start(), N_VOCAB)
    assert guide.wants_mask_early, "the first is the most expensive"
    guide.allows(TokenId(2))
    guide.take(TokenId(2))
    assert not guide.wants_mask_early
    guide.mask()
    guide.take(TokenId(2))
    assert guide.wants_mask_early
    always = Guide(RuleGrammar(lambda _tokens: {2, 4}).start(), N_VOCAB, always_masks=True)
    always.take(TokenId(2))
    assert always.wants_mask_early


def test_closed_pool_has_no_threads_left() -> None:
    before = threading.active_count()
    pool = MaskPool()
    pool.close()
    guide = Guide(RuleGrammar(evens).start(), N_VOCAB)
    pool.compute([guide])
    assert threading.active_count() == before + 2
    pool.close()
    assert threading.active_count() == before
    assert guide.is_here(), "what was lent is computed before"


def void(_value: object) -> None:
    """For callbacks whose result does not matter."""
