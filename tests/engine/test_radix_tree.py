"""The tree against a plain list of sequences, and the cases that it was made for."""

from collections.abc import Hashable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tgi_llama.engine.radix_tree import Match, RadixTree
from tgi_llama.generation import TokenId

Tokens = list[TokenId]


def ids(*tokens: int) -> Tokens:
    return [TokenId(token) for token in tokens]


def n_common(one: Tokens, other: Tokens) -> int:
    unequal = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unequal, min(len(one), len(other)))


def tree_of(**sequences: Sequence[int]) -> RadixTree[str]:
    tree: RadixTree[str] = RadixTree()
    for holder, tokens in sequences.items():
        tree.insert(holder, ids(*tokens))
    tree.check_invariants()
    return tree


def found(tree: RadixTree[str], *tokens: int) -> list[tuple[str, int]]:
    return [(match.holder, match.length) for match in tree.matches(ids(*tokens))]


def test_matches_of_an_empty_tree_are_none() -> None:
    assert found(RadixTree(), 1, 2) == []


def test_matches_come_longest_first_and_equals_in_order_of_insertion() -> None:
    tree = tree_of(a=[1, 2], b=[1, 2, 3, 4], c=[1, 9], d=[1, 2, 3, 5], e=[7], f=[1, 2, 3])
    assert found(tree, 1, 2, 3, 4, 5) == [("b", 4), ("d", 3), ("f", 3), ("a", 2), ("c", 1)]


def test_matches_of_a_prompt_that_ends_inside_an_edge_have_its_length() -> None:
    assert found(tree_of(a=[1, 2, 3, 4]), 1, 2) == [("a", 2)]


def test_matches_of_equal_sequences_are_both_found() -> None:
    tree = tree_of(a=[1, 2], b=[1, 2])
    tree.remove("a")
    assert found(tree, 1, 2, 3) == [("b", 2)]


def test_matches_under_another_key_are_never_found() -> None:
    tree: RadixTree[str] = RadixTree()
    tree.insert("base", ids(1, 2))
    tree.insert("tuned", ids(1, 2, 3), key="lora")
    assert list(tree.matches(ids(1, 2, 3))) == [Match("base", 2)]
    assert list(tree.matches(ids(1, 2, 3), key="lora")) == [Match("tuned", 3)]
    assert list(tree.matches(ids(1, 2, 3), key="unknown")) == []


def test_matches_compare_whole_tokens_although_bytes_of_others_agree() -> None:
    assert found(tree_of(a=[1, 256 + 7], b=[2]), 1, 7) == [("a", 1)]


def test_insert_of_a_known_holder_is_refused() -> None:
    tree = tree_of(a=[1])
    with pytest.raises(ValueError, match="'a' is in the tree already"):
        tree.insert("a", ids(2))
    assert tree.tokens("a") == (1,)


def test_insert_of_an_empty_sequence_matches_once_it_is_extended() -> None:
    tree = tree_of(a=[])
    assert found(tree, 1) == []
    tree.extend("a", ids(1, 2))
    assert found(tree, 1) == [("a", 1)]


def test_extend_along_a_younger_sequence_keeps_the_order_of_insertion() -> None:
    tree = tree_of(a=[1], b=[1, 2, 3])
    tree.extend("a", ids(2, 3))
    tree.check_invariants()
    assert found(tree, 1, 2, 3) == [("a", 3), ("b", 3)]


def test_cut_inside_a_shared_edge_leaves_the_others_as_they_are() -> None:
    tree = tree_of(a=[1, 2, 3, 4], b=[1, 2, 3, 4, 5])
    tree.cut("a", 2)
    tree.check_invariants()
    assert (tree.tokens("a"), tree.tokens("b")) == ((1, 2), (1, 2, 3, 4, 5))


@pytest.mark.parametrize("length", [-1, 3])
def test_cut_to_what_is_not_there_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"cannot cut the sequence of 'a' to {length} tokens"):
        tree_of(a=[1, 2]).cut("a", length)


def test_remove_of_the_last_holder_leaves_no_node() -> None:
    tree = tree_of(a=[1, 2], b=[1, 3])
    tree.remove("a")
    tree.remove("b")
    assert len(tree) == 0
    assert tree._roots == {}


def test_unknown_holder_is_a_key_error() -> None:
    tree = tree_of(a=[1])
    for call in (tree.remove, tree.tokens, lambda h: tree.cut(h, 0), lambda h: tree.extend(h, [])):
        with pytest.raises(KeyError):
            call("b")
    assert "b" not in tree
    assert "a" in tree


alphabet = st.sampled_from(ids(0, 1, 300))
short = st.lists(alphabet, max_size=7)
keys = st.sampled_from([None, "lora"])


class AgainstPlainLists(RuleBasedStateMachine):
    """Does the same to the tree and to a dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.tree: RadixTree[int] = RadixTree()
        self.plain: dict[int, tuple[Hashable, Tokens]] = {}
        self.n_inserted = 0

    @rule(tokens=short, key=keys)
    def insert(self, tokens: Tokens, key: Hashable) -> None:
        self.tree.insert(self.n_inserted, tokens, key=key)
        self.plain[self.n_inserted] = (key, tokens)
        self.n_inserted += 1

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), more=short)
    def extend(self, data: st.DataObject, more: Tokens) -> None:
        holder = data.draw(st.sampled_from(sorted(self.plain)))
        self.tree.extend(holder, more)
        key, tokens = self.plain[holder]
        self.plain[holder] = (key, tokens + more)

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.plain)))
        key, tokens = self.plain[holder]
        length = data.draw(st.integers(0, len(tokens)))
        self.tree.cut(holder, length)
        self.plain[holder] = (key, tokens[:length])

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.plain)))
        self.tree.remove(holder)
        del self.plain[holder]

    @rule(tokens=short, key=keys)
    def match(self, tokens: Tokens, key: Hashable) -> None:
        self.compare(tokens, key)

    def compare(self, tokens: Tokens, key: Hashable) -> None:
        lengths = {
            holder: n_common(own, tokens)
            for holder, (own_key, own) in self.plain.items()
            if own_key == key
        }
        expected = sorted(
            (Match(holder, length) for holder, length in lengths.items() if length),
            key=lambda match: (-match.length, match.holder),
        )
        assert list(self.tree.matches(tokens, key=key)) == expected

    @invariant()
    def agrees(self) -> None:
        self.tree.check_invariants()
        assert len(self.tree) == len(self.plain)
        for holder, (key, tokens) in self.plain.items():
            assert self.tree.tokens(holder) == tuple(tokens)
            assert self.tree.length(holder) == len(tokens)
            self.compare(tokens, key)


TestAgainstPlainLists = AgainstPlainLists.TestCase
TestAgainstPlainLists.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
