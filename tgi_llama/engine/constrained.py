"""What the decode loop does for sequences that have a grammar, beyond choosing under its mask.

Theory of operation
-------------------
After a token was chosen the grammar's state takes it. What must come next, because the grammar
leaves no choice, is appended to the sequence at once (``Sequence.force``): those tokens are
computed like a prompt's, by one step or several (``leaps``), and their events are made when the
rows before them are there. So a choice is only made where there is one, and the state is always
ahead of what clients have been told. Forced tokens draw no random numbers, so how many a step
computes changes no result.

Then the mask of the state that was reached is computed while llama.cpp works (``guide``).
"""

from time import perf_counter

import attrs

from tgi_llama.engine.guide import Guide
from tgi_llama.engine.mask_worker import MaskPool
from tgi_llama.engine.model_runner import Vocabulary
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Sequence
from tgi_llama.generation import TokenId


@attrs.define(eq=False)
class Grammars:
    """Decode thread only. Whatever concerns a sequence raises GenerationError where its grammar's
    state is broken; then that sequence fails."""

    vocabulary: Vocabulary
    scheduler: Scheduler
    fast_forward: bool = True
    """False: forced tokens are chosen like others."""
    seconds: float = 0.0
    """Spent since somebody last set it to zero."""
    pool: MaskPool = attrs.field(factory=MaskPool)
    _due: list[Guide] = attrs.field(factory=list, init=False)
    """Whose masks are to be computed with the next decode."""

    def start(self, sequence: Sequence) -> None:
        """Gives a new sequence its guide, if its request has a grammar, and the tokens that its
        text has to begin with."""
        constraint = sequence.request.constraint
        if constraint is None:
            return
        avoids_end = sequence.request.stopping.ignore_eos
        sequence.guide = Guide(
            constraint.start(),
            self.vocabulary.n_vocab,
            always_masks=sequence.sampler.always_masks,
            avoided=self.vocabulary.end_of_generation_ids() if avoids_end else (),
        )
        self.look_ahead(sequence)

    def take(self, sequence: Sequence, token: TokenId) -> None:
        """The token was chosen for the sequence, which has a guide. To be called before its event
        is made, which tells whether the text is complete."""
        assert sequence.guide is not None
        started = perf_counter()
        if not self.vocabulary.is_end_of_generation(token):
            sequence.guide.take(token)
        self.seconds += perf_counter() - started

    def look_ahead(self, sequence: Sequence) -> None:
        """Appends what must come next, and sees to the mask of what may come after that."""
        guide = sequence.guide
        assert guide is not None
        started = perf_counter()
        n_most = sequence.request.stopping.max_new_tokens - sequence.n_generated
        forced = guide.take_forced(n_most) if self.fast_forward else []
        if forced:
            for token in forced:
                sequence.sampler.remember(token)
            sequence.force(forced, is_end=len(forced) == n_most or guide.is_complete)
            self.scheduler.note_forced(sequence)
        if guide.wants_mask_early and not sequence.ends_forced:
            self._due.append(guide)
        self.seconds += perf_counter() - started

    def compute_masks(self) -> None:
        """To be called right before a decode."""
        if self._due:
            self.pool.compute(self._due)
            self._due.clear()

    def close(self) -> None:
        """Ends the threads that compute masks."""
        self.pool.close()
