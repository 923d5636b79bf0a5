"""From requests to sequences, on the decode thread."""

from collections.abc import Callable

import attrs

from tgi_llama.engine.commands import Submit
from tgi_llama.engine.constrained import Grammars
from tgi_llama.engine.model_runner import Vocabulary
from tgi_llama.engine.prompt_scores import PromptScores
from tgi_llama.engine.sampler import Sampler
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Sequence
from tgi_llama.errors import GenerationError
from tgi_llama.generation import AdapterId, Failed, GenerationRequest, RequestId
from tgi_llama.text.output import OutputText


@attrs.frozen(eq=False, kw_only=True)
class Intake:
    """Decode thread only."""

    vocabulary: Vocabulary
    scheduler: Scheduler
    grammars: Grammars
    cells_per_slot: int
    has_adapter: Callable[[AdapterId], bool]

    def submit(self, command: Submit) -> list[tuple[RequestId, Failed]]:
        """Queues a sequence for each request. Returns the ends of those that cannot be computed."""
        scores: PromptScores | None = None
        ends = []
        for request_id, request in command.requests:
            try:
                self._check(request)
                sequence = self._sequence(request_id, request, command.submitted)
                if request.prompt_logprobs:
                    if scores is None or not scores.are_of(request):
                        scores = PromptScores.for_request(self.vocabulary, request)
                    sequence.scores = scores
                self.grammars.start(sequence)
                self.scheduler.submit(sequence)
            except Exception as error:  # the boundary of one request: it must not end the thread
                ends.append((request_id, Failed(GenerationError(str(error)))))
        return ends

    def _check(self, request: GenerationRequest) -> None:
        """ValueError for a request that could not be computed, or never get its cells."""
        prompt_ids = request.prompt_ids
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self.vocabulary.n_vocab:
            raise ValueError(f"a token id outside 0 <= id < {self.vocabulary.n_vocab}")
        n_cells = len(prompt_ids) + request.stopping.max_new_tokens - 1
        if n_cells > self.cells_per_slot:
            raise ValueError(f"the request needs {n_cells} cells, a slot has {self.cells_per_slot}")
        if request.adapter is not None and not self.has_adapter(request.adapter):
            raise ValueError("the request's adapter is not loaded")

    def _sequence(
        self, request_id: RequestId, request: GenerationRequest, submitted: float
    ) -> Sequence:
        return Sequence(
            request_id=request_id,
            request=request,
            sampler=Sampler.for_prompt(request.sampling, request.prompt_ids),
            text=OutputText(
                self.vocabulary,
                stop_strings=request.stopping.stop_strings,
                keep_stop_string=request.stopping.keep_stop_string,
                shown_controls=request.shown_controls,
            ),
            submitted=submitted,
        )
