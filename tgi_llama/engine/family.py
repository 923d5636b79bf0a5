"""Siblings share a prompt: it is computed once and its cells go from slot to slot.

Theory of operation
-------------------
The branches of ``n`` and ``best_of`` are sequences of their own, with their own samplers, terminal
events and cancels. A ``Family`` ties those together that were submitted at once and have the same
prompt. Their cells come about in one of four ways:

* the first to get a slot computes the prompt as every sequence does: the leader;
* a sibling that gets a slot meanwhile waits (FORKING) until the prompt's end. Then the leader's
  cells are copied, and both choose their first token from the same row of logits (``fork``);
* a sibling that gets a slot later copies those of one that decodes already, cuts them back to the
  prompt without its last token, and computes that token again for its logits (``settle``);
* a sibling that is still queued when another ends takes over that one's slot, cut back in the same
  way (``end``). So more branches than slots cost one prompt as well.

Copies are whole, because llama.cpp ends the process on a copy of a part of a stream. In the streams
layout they happen at the start of the next decode, before it writes; so a source may be cut,
cleared and used again right after. Where a model's memory cannot be cut (recurrent states), the
prompt is computed again.
"""

from collections.abc import Iterable
from itertools import groupby

import attrs

from tgi_llama.engine.model_runner import ModelRunner
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.generation import GenerationRequest, RequestId

Submitted = tuple[RequestId, GenerationRequest]


def relatives(submitted: Iterable[Submitted]) -> list[list[Submitted]]:
    """The groups that can be families: neighbours whose requests have the same prompt, ask for the
    same facts about it and need as many cells."""
    return [list(group) for _, group in groupby(submitted, key=_traits)]


def _traits(submitted: Submitted) -> tuple[object, ...]:
    _, request = submitted
    return (
        request.prompt_ids,
        request.prompt_logprobs,
        request.n_prompt_top_tokens,
        request.stopping.max_new_tokens,
    )


@attrs.define(eq=False)
class SharedPrompts:
    """Moves the cells of prompts between siblings. Decode thread only."""

    runner: ModelRunner
    scheduler: Scheduler

    def settle(self, newcomer: Sequence) -> None:
        """A member has got a slot. If a sibling decodes already, gives it that one's prompt."""
        assert newcomer.family is not None
        source = newcomer.family.first(Phase.DECODE)
        if (
            newcomer.phase is not Phase.PREFILL
            or source is None
            or newcomer.n_prompt == 1
            or not self.scheduler.slots.plan.is_worth_copying(newcomer.n_prompt)
        ):
            return
        assert source.slot is not None
        assert newcomer.slot is not None
        self.runner.copy(source.slot, newcomer.slot, source.n_cached)
        newcomer.n_cached = self._cut(newcomer, newcomer.n_prompt - 1)

    def fork(self, leader: Sequence) -> list[Sequence]:
        """The leader's prompt is computed. Gives it to the siblings that wait for it, and returns
        them: they choose their first tokens from the leader's row."""
        assert leader.family is not None
        assert leader.slot is not None
        waiting = [member for member in leader.family.members if member.phase is Phase.FORKING]
        for member in waiting:
            assert member.slot is not None
            self.runner.copy(leader.slot, member.slot, leader.n_cached)
            member.n_cached = leader.n_cached
            member.phase = Phase.DECODE
        return waiting

    def end(self, sequence: Sequence, *, cells_known: bool) -> None:
        """Takes a member out, in any phase. Its slot goes to a sibling that can use what is in it,
        unless the state of its cells is unknown."""
        assert sequence.family is not None
        successor = self.scheduler.successor(sequence) if cells_known else None
        slot = sequence.slot
        if successor is not None:
            n_cached = self._cut(sequence, min(sequence.n_cached, sequence.n_prompt - 1))
            self.scheduler.replace(sequence, successor, n_cached=n_cached)
            return
        self.scheduler.finish(sequence)
        if slot is not None:
            self.runner.clear(slot)
        self.scheduler.promote(sequence.family)

    def _cut(self, owner: Sequence, length: int) -> int:
        """Cuts the owner's slot back to ``length`` cells, or to none where that cannot be done.
        Returns how many are left."""
        assert owner.slot is not None
        if self.runner.truncate(owner.slot, length):
            return length
        self.runner.clear(owner.slot)
        return 0
