"""One request inside the engine, from the queue to its last token."""

import enum
from collections.abc import Sequence as Seq

import attrs

from tgi_llama.engine.guide import Guide
from tgi_llama.engine.host_cache import HostEntry
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.prompt_scores import PromptScores
from tgi_llama.engine.sampler import Sampler
from tgi_llama.generation import GenerationRequest, RequestId, TokenId
from tgi_llama.text.output import OutputText


class Phase(enum.Enum):
    """Where a sequence stands. It moves downwards through this list, back to QUEUED when it has to
    give up its cells for others, and to FINISHED from anywhere."""

    QUEUED = enum.auto()
    """No slot."""
    WAITING = enum.auto()
    """Has an empty slot; another sequence computes what both begin with."""
    PREFILL = enum.auto()
    """Has a slot; some of its known tokens have no cells yet."""
    DECODE = enum.auto()
    """One token per step."""
    FINISHED = enum.auto()
    """Its terminal event is made; owns nothing."""


@attrs.define(eq=False, kw_only=True)
class Sequence:
    """The mutable state of one request. Decode thread only."""

    request_id: RequestId
    request: GenerationRequest
    sampler: Sampler
    text: OutputText
    guide: Guide | None = None
    """Where a grammar says what may be generated."""
    scores: PromptScores | None = None
    """Where prompt logprobs are wanted; branches of one prompt share them."""
    submitted: float
    """Seconds on ``time.perf_counter``'s clock, like the two below."""
    started: float = 0.0
    first_token: float = 0.0
    was_preempted: bool = False
    """Whether it ever had to leave its slot."""
    n_passed: int = 0
    """How many have got a slot before it while it was the first in the queue."""
    has_joined: bool = False
    """Whether it has ever had a slot."""
    phase: Phase = Phase.QUEUED
    slot: SlotId | None = None
    tokens: list[TokenId] = attrs.field(init=False)
    """The prompt and what was generated; the last ones may have no cells yet."""
    n_forced: int = 0
    """Of ``tokens`` the last so many are those that the grammar forces and no event has told of.
    The row of logits before a token tells its logprob, so its event is made with that row."""
    ends_forced: bool = False
    """Whether the last of the forced tokens is the last of the generation: it needs no cell."""
    n_cached: int = 0
    """Tokens whose cells are computed: the first ones."""
    n_reused: int = 0
    """Prompt tokens whose cells came from elsewhere when the sequence got its first slot."""
    checkpoints: tuple[int, ...] = ()
    """Ascending positions at which a chunk of the prompt has to end, because the cells are saved
    there; only where the model's memory cannot be cut afterwards."""
    leader: "Sequence | None" = None
    """While WAITING: who computes the common beginning."""
    join_at: int = 0
    """While WAITING: how many of the leader's cells to wait for."""
    saved: HostEntry | None = None
    """While QUEUED: the cells it had before others needed their place."""

    def __attrs_post_init__(self) -> None:
        self.tokens = list(self.request.prompt_ids)

    @property
    def n_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def n_generated(self) -> int:
        """Those that events have told of."""
        return len(self.tokens) - len(self.request.prompt_ids) - self.n_forced

    @property
    def n_left(self) -> int:
        """Known tokens that need cells and have none. At least one while the sequence runs: a token
        can only be chosen after the one before has been computed."""
        return len(self.tokens) - self.n_cached - self.ends_forced

    @property
    def wants_rows(self) -> bool:
        """Whether something is told of the row of logits before each token."""
        return self.request.logprobs or self.request.n_top_tokens > 0

    @property
    def n_cells_needed(self) -> int:
        """Cells in the worst case. The last token is never decoded, so it needs none."""
        return self.n_prompt + self.request.stopping.max_new_tokens - 1

    @property
    def n_reusable(self) -> int:
        """The most cells that may come from elsewhere: one token must be computed for its row of
        logits, the last one that events have told of."""
        return len(self.tokens) - self.n_forced - 1

    def force(self, tokens: Seq[TokenId], *, is_end: bool) -> None:
        """These come next. ``is_end``: and nothing after them."""
        self.tokens += tokens
        self.n_forced += len(tokens)
        self.ends_forced = is_end and self.n_forced > 0


def age(sequence: Sequence) -> tuple[float, int]:
    """Newer sequences have the larger one."""
    return sequence.submitted, sequence.request_id
