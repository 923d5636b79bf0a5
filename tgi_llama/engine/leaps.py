"""How many of its forced tokens a sequence computes in one step.

Tokens that a grammar forces are known, so a step can compute any number of them. In the unified
layout, and where nobody else is served, that always pays: a token more in a physical batch costs
less than a step. In the streams layout a run of another length is a physical batch of its own, and
so a pass over the weights, for which all others wait. Beside seven streams of the 0.5 B shape four
to twelve more tokens take as long as that many tokens of an ordinary step; from
``FEWEST_IN_STREAMS`` on it pays to *leap* (docs/performance.md). Fewer are computed one a step,
like other tokens but without a choice.
"""

from collections.abc import Sequence as Seq

import attrs

from tgi_llama.engine.batch import Chunk
from tgi_llama.engine.sequence import Sequence

FEWEST_IN_STREAMS = 16


@attrs.define
class Room:
    """What a step has left for tokens beyond one for each sequence."""

    n_tokens: int
    n_rows: int


def with_leaps(served: Seq[Sequence], *, fewest: int, room: Room) -> list[Chunk]:
    """The chunks of sequences that decode: a token each, and of those that have at least ``fewest``
    forced ones besides, as many as there is room for, which is taken from ``room``."""
    chunks = []
    for sequence in served:
        n_leapt = min(sequence.n_left - 1, room.n_tokens)
        if sequence.wants_rows:
            n_leapt = min(n_leapt, room.n_rows)
        if n_leapt < fewest:
            n_leapt = 0
        chunks.append(Chunk(sequence, 1 + n_leapt))
        room.n_tokens -= n_leapt
        room.n_rows -= n_leapt if sequence.wants_rows else 0
    return chunks
