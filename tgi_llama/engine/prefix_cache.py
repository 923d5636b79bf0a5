"""Where the beginning of a prompt can come from. Pure state: it moves no cells and knows no clock.

Theory of operation
-------------------
Cells depend only on the tokens up to theirs and on the LoRA adapter that they were computed with.
So two prompts that begin alike can share the cells of the beginning, if they have one adapter or
none. Everything that has cells is in one radix tree under its adapter and its tokens: busy slots
under their prompts, idle slots and saved states under all they hold. For a new prompt, ``find``
picks

* a slot, busy or idle, that has the longest beginning: copy it, or take the slot over;
* a saved state in host memory, where none of the slots has as much: restore it;
* a sequence that is just computing a longer beginning: wait for it. So what several requests
  share is computed once, even when they come at the same moment (single flight), and the branches
  of ``n`` and ``best_of`` need no mechanism of their own.

One token at least is left to be computed, for its row of logits.

Some models' memory cannot be cut (recurrent states, sliding windows): there a slot or state is of
use only as a whole, where the prompt goes on exactly at its end.

A prompt whose logprobs are wanted needs all its rows of logits, and cells from elsewhere have none.
It is computed, unless a branch of the same call does that already.
"""

from collections.abc import Callable, Iterator

import attrs

from tgi_llama.engine.host_cache import HostCache, HostEntry
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.radix_tree import Match, RadixTree
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.generation import AdapterId, CacheOutcome, TokenId

Holder = SlotId | HostEntry

_WORTH_WAITING = 16
"""Tokens that waiting for another sequence must save beyond what can be had at once."""


@attrs.frozen
class Resident:
    """The first ``length`` cells of a slot."""

    slot: SlotId
    length: int


@attrs.frozen
class Stored:
    """The first ``length`` cells of a saved state."""

    entry: HostEntry
    length: int


@attrs.frozen
class Pending:
    """What another sequence will have computed when it has ``length`` cells."""

    leader: Sequence
    length: int


Source = Resident | Stored | Pending


@attrs.frozen
class Finding:
    source: Source | None
    outcome: CacheOutcome


@attrs.define(eq=False, kw_only=True)
class PrefixCache:
    """Who has cells for which tokens. Decode thread only."""

    can_cut: bool
    """Whether any beginning of what has been computed can be kept."""
    shortest_copy: Callable[[SlotId], int]
    """``ModelRunner.shortest_copy``. A slot that is taken over could sometimes be cut further, but
    which one that will be is decided later."""
    fewest_reused: int
    """Shorter beginnings are not worth their copy."""
    host: HostCache
    is_enabled: bool = True
    """False: every prompt is computed in full."""
    _tree: RadixTree[Holder] = attrs.field(factory=RadixTree, init=False)
    _owners: dict[SlotId, Sequence] = attrs.field(factory=dict, init=False)
    """Of busy slots."""

    def __attrs_post_init__(self) -> None:
        self.host.evicted = self._tree.remove

    # What has cells

    def own(self, slot: SlotId, sequence: Sequence) -> None:
        """The sequence has the slot now. What was known of an idle slot is forgotten."""
        self.forget(slot)
        self._owners[slot] = sequence
        self._tree.insert(slot, sequence.tokens, key=sequence.request.adapter)

    def retire(self, slot: SlotId, length: int) -> None:
        """The slot's sequence has ended and left that many cells, at least one."""
        sequence = self._owners.pop(slot)
        n_known = self.n_tokens(slot)
        if length < n_known:
            self._tree.cut(slot, length)
        else:
            self._tree.extend(slot, sequence.tokens[n_known:length])

    def relocate(self, idle: SlotId, empty: SlotId) -> None:
        """What the idle slot held is in the empty one now."""
        tokens, key = self.tokens(idle), self._tree.key(idle)
        self._tree.remove(idle)
        self._tree.insert(empty, tokens, key=key)

    def forget(self, slot: SlotId) -> None:
        """The slot has no cells any more. No harm where it is not known."""
        if slot in self._tree:
            self._tree.remove(slot)
        self._owners.pop(slot, None)

    def store(self, slot: SlotId, entry: HostEntry) -> None:
        """The entry holds what the slot holds. Older states that are a beginning of it go, where a
        part of it can stand in for them."""
        tokens, key = self.tokens(slot)[: entry.state.length], self._tree.key(slot)
        if self.can_cut:
            for match in list(self._tree.matches(tokens, key=key)):
                other = match.holder
                if (
                    isinstance(other, HostEntry)
                    and match.length == other.state.length
                    and other.n_pins == 0
                ):
                    self.drop(other)
        self._tree.insert(entry, tokens, key=key)

    def holders(self, adapter: AdapterId | None) -> tuple[Holder, ...]:
        """All that has cells computed with the adapter, and is known."""
        return self._tree.holders(adapter)

    def drop(self, entry: HostEntry) -> None:
        """Forgets a saved state that is known here."""
        self._tree.remove(entry)
        self.host.remove(entry)

    def tokens(self, holder: Holder) -> tuple[TokenId, ...]:
        """The tokens under which the holder is known."""
        return self._tree.tokens(holder)

    def n_tokens(self, slot: SlotId) -> int:
        """How many tokens the slot is known under."""
        return self._tree.length(slot)

    def n_known_elsewhere(self, slot: SlotId, length: int) -> int:
        """How many of the slot's first ``length`` cells could be had from somebody else."""
        matches = self._tree.matches(self.tokens(slot)[:length], key=self._tree.key(slot))
        return max((self._usable(each) for each in matches if each.holder != slot), default=0)

    # What a prompt can use

    def find(self, sequence: Sequence) -> Finding:
        """Where to take the beginning of the sequence's tokens from."""
        if not self.is_enabled:
            return Finding(None, CacheOutcome.OFF)
        if sequence.scores is not None and not sequence.scores.is_complete:
            leader = self._scoring(sequence)
            if leader is None:
                return Finding(None, CacheOutcome.LOGPROBS)
            return Finding(Pending(leader, sequence.n_reusable), CacheOutcome.SLOT)
        return self._best(sequence)

    def _best(self, sequence: Sequence) -> Finding:
        now: Resident | Stored | None = None
        later: Pending | None = None
        is_cut_short = False
        outcome = CacheOutcome.UNKNOWN
        tokens, adapter = sequence.tokens[: sequence.n_reusable], sequence.request.adapter
        for match in self._tree.matches(tokens, key=adapter):
            if match.length < self.fewest_reused:
                outcome = CacheOutcome.SHORT
                break
            if now is not None and match.length < now.length:
                break
            owner = self._owners.get(match.holder) if isinstance(match.holder, int) else None
            if owner is sequence:
                continue
            usable = self._usable(match)
            source = _source(match.holder, usable)
            if usable >= self.fewest_reused and (
                now is None or self._rank(source) > self._rank(now)
            ):
                now = source
            elif owner is None:
                is_cut_short = True
            if owner is not None and later is None and usable < match.length:
                later = self._pending(owner, match.length, sequence)
        if later is not None and later.length >= (now.length if now else 0) + _WORTH_WAITING:
            return Finding(later, CacheOutcome.SLOT)
        if now is not None:
            is_stored = isinstance(now, Stored)
            return Finding(now, CacheOutcome.HOST if is_stored else CacheOutcome.SLOT)
        return Finding(None, CacheOutcome.UNCUTTABLE if is_cut_short else outcome)

    def _usable(self, match: Match[Holder]) -> int:
        """How many cells of the match can be had at once."""
        holder = match.holder
        if isinstance(holder, HostEntry):
            n_cells = holder.state.length
            shortest = 0 if self.can_cut else n_cells
        else:
            owner = self._owners.get(holder)
            n_cells = owner.n_cached if owner is not None else self.n_tokens(holder)
            shortest = 0 if self.can_cut or n_cells == 0 else self.shortest_copy(holder)
        usable = min(match.length, n_cells)
        return usable if usable >= shortest else 0

    def _rank(self, source: Resident | Stored) -> tuple[int, bool, int]:
        """Longer is better; of equals what is in a slot; and of those the one with the fewest cells
        beyond, since what is copied is the whole slot."""
        if isinstance(source, Stored):
            return source.length, False, -source.entry.state.length
        return source.length, True, -self.n_tokens(source.slot)

    def _pending(self, owner: Sequence, length: int, sequence: Sequence) -> Pending | None:
        """Waiting for the owner, unless it has passed the place already or waits itself for the
        sequence."""
        if any(each is sequence for each in _leaders(owner)):
            return None
        is_on_its_way = owner.phase in (Phase.PREFILL, Phase.WAITING) and owner.n_cached < length
        return Pending(owner, length) if is_on_its_way else None

    def _scoring(self, sequence: Sequence) -> Sequence | None:
        """The branch of the same call that computes the prompt and its logprobs."""
        for owner in self._owners.values():
            is_branch = owner is not sequence and owner.scores is sequence.scores
            if is_branch and owner.phase is Phase.PREFILL:
                return owner
        return None

    def check_invariants(self) -> None:
        """Raises AssertionError when the books do not balance. For tests."""
        self._tree.check_invariants()
        self.host.check_invariants()
        for entry in self.host.entries():
            assert entry.n_pins or entry in self._tree, "a state that nobody can find"


def _source(holder: Holder, length: int) -> Resident | Stored:
    return Stored(holder, length) if isinstance(holder, HostEntry) else Resident(holder, length)


def _leaders(sequence: Sequence) -> Iterator[Sequence]:
    """The sequence, whom it waits for, whom that one waits for, ..."""
    leader: Sequence | None = sequence
    while leader is not None:
        yield leader
        leader = leader.leader
