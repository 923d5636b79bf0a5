"""One request inside the engine, from the queue to its last token."""

import enum

import attrs

from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.prompt_scores import PromptScores
from tgi_llama.engine.sampler import Sampler
from tgi_llama.generation import GenerationRequest, RequestId, TokenId
from tgi_llama.text.output import OutputText


class Phase(enum.Enum):
    """Where a sequence stands. It only ever moves downwards through this list, and may go to
    FINISHED from each."""

    QUEUED = enum.auto()
    """No slot yet."""
    FORKING = enum.auto()
    """Has an empty slot; a sibling computes the prompt that both have."""
    PREFILL = enum.auto()
    """Has a slot; some of its prompt is not computed yet."""
    DECODE = enum.auto()
    """One token per step."""
    FINISHED = enum.auto()
    """Its terminal event is made; owns nothing."""


@attrs.define(eq=False)
class Family:
    """Sequences that were submitted together and differ in their samplers only, so that what one of
    them computes of the prompt is good for all. They need the same number of cells."""

    members: "list[Sequence]" = attrs.field(factory=list)
    """The unfinished ones, in the order in which they were submitted."""

    def first(self, phase: Phase) -> "Sequence | None":
        """The first member in that phase."""
        return next((member for member in self.members if member.phase is phase), None)


@attrs.define(eq=False, kw_only=True)
class Sequence:
    """The mutable state of one request. Decode thread only."""

    request_id: RequestId
    request: GenerationRequest
    sampler: Sampler
    text: OutputText
    family: Family | None = None
    """None for a sequence that was submitted alone."""
    scores: PromptScores | None = None
    """Where prompt logprobs are wanted; siblings share them."""
    submitted: float
    """Seconds on ``time.perf_counter``'s clock, like the two below."""
    started: float = 0.0
    first_token: float = 0.0
    phase: Phase = Phase.QUEUED
    slot: SlotId | None = None
    n_cached: int = 0
    """Tokens whose cells are computed."""
    n_generated: int = 0
    last_token: TokenId | None = None
    """Chosen, but not decoded yet."""

    @property
    def n_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def n_cells_needed(self) -> int:
        """Cells in the worst case. The last token is never decoded, so it needs none."""
        return self.n_prompt + self.request.stopping.max_new_tokens - 1

    @property
    def n_prompt_left(self) -> int:
        return self.n_prompt - self.n_cached

    def pending(self, n_tokens: int) -> tuple[TokenId, ...]:
        """The next ``n_tokens`` tokens to decode."""
        if self.phase is Phase.PREFILL:
            return self.request.prompt_ids[self.n_cached : self.n_cached + n_tokens]
        assert n_tokens == 1
        assert self.last_token is not None
        return (self.last_token,)
