"""The body of the decode thread: commands in, one step after the other, reports out.

Theory of operation
-------------------
This thread alone owns the model runner, the scheduler and every sequence; nothing here is locked.
The Trio side talks to it through a queue of frozen commands and hears from it through ``publish``,
called once per step with all the step's events (never once per token).

One step: take the commands that wait, give out slots, plan, build the batch, publish what the step
before made, decode, then for each row choose a token, detokenise it, look for stop strings, and
note what ended. Publishing comes right before the decode, because it wakes the Trio thread, which
then wants the interpreter lock: here we are about to let go of it for long. Only the wait for a
command when there is nothing to do blocks.

Every submitted request gets exactly one terminal event: a ``TokenEvent`` with ``finish``, or a
``Failed``. A failure is confined to the sequences it concerns; ``_decode`` says which those are.
"""

import logging
import queue
from collections.abc import Callable
from collections.abc import Sequence as Seq
from time import perf_counter

import attrs

from tgi_llama.engine.batch import Chunk, StepPlan, build_batch
from tgi_llama.engine.family import SharedPrompts, Submitted, relatives
from tgi_llama.engine.model_runner import Logits, ModelRunner, Vocabulary
from tgi_llama.engine.prompt_scores import PromptScores
from tgi_llama.engine.sampler import Sampler, likeliest, log_sum_exp
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Family, Sequence
from tgi_llama.errors import (
    DecodeAborted,
    DecodeFailed,
    GenerationError,
    InvalidBatch,
    OutOfCells,
    RequestCancelled,
    RequestError,
)
from tgi_llama.generation import (
    Failed,
    Finish,
    FinishReason,
    GenerationRequest,
    PromptToken,
    RequestId,
    StepReport,
    StreamEvent,
    Timings,
    Token,
    TokenEvent,
    TokenId,
)
from tgi_llama.text.output import OutputText

_log = logging.getLogger(__name__)


@attrs.frozen
class Submit:
    """Requests that came together. Neighbours with the same prompt share its computation."""

    requests: tuple[Submitted, ...]
    submitted: float
    """Seconds on ``time.perf_counter``'s clock."""


@attrs.frozen
class Cancel:
    request_id: RequestId


@attrs.frozen
class Stop:
    """Ends the thread at the next step boundary; unfinished requests fail with ``error``."""

    error: RequestError


Command = Submit | Cancel | Stop
CommandQueue = queue.SimpleQueue[Command]


@attrs.frozen
class Publication:
    """All that one step has to tell the Trio side."""

    events: tuple[tuple[RequestId, StreamEvent], ...]
    report: StepReport


Publish = Callable[[Publication], None]
"""Hands a publication to the other side. Must not block and must not raise."""


@attrs.define
class _Stopwatch:
    """Where the time of one step went, in seconds."""

    started: float
    decode: float = 0.0
    sampling: float = 0.0
    text: float = 0.0
    n_tokens: int = 0
    """Tokens chosen."""
    failed: bool = False
    device_failed: bool = False


@attrs.define(eq=False)
class DecodeLoop:
    """Made and used on the decode thread only."""

    runner: ModelRunner
    vocabulary: Vocabulary
    scheduler: Scheduler
    commands: CommandQueue
    publish: Publish
    _shared_prompts: SharedPrompts = attrs.field(init=False)
    _events: list[tuple[RequestId, StreamEvent]] = attrs.field(factory=list, init=False)
    """Of the step that is being computed."""
    _unpublished: Publication | None = attrs.field(default=None, init=False)
    """Of the step before."""
    _stop: Stop | None = attrs.field(default=None, init=False)
    _step_began: float = attrs.field(default=0.0, init=False)
    """Where the last report ended, so that taking commands and publishing count as well."""

    def __attrs_post_init__(self) -> None:
        self._shared_prompts = SharedPrompts(self.runner, self.scheduler)

    def run(self) -> None:
        """Steps until a ``Stop`` arrives. An exception means that the runner is broken."""
        try:
            while self.step():
                pass
        finally:
            self.publish_last()

    def step(self) -> bool:
        """Waits for a command when idle, then computes one step. False after ``Stop``."""
        if self.scheduler.is_idle:
            self.publish_last()
            self._apply(self.commands.get())
            self._step_began = perf_counter()
        watch = _Stopwatch(started=self._step_began)
        self._take_commands()
        if self._stop is not None:
            self._fail_all(self._stop.error)
            self._finish_step(StepPlan(()), [], watch)
            return False
        for sequence in self.scheduler.admit():
            if sequence.family is not None:
                self._shared_prompts.settle(sequence)
        plan = self.scheduler.schedule()
        prefill = [chunk.n_tokens for chunk in plan.chunks if chunk.is_prefill]
        if plan.chunks:
            self._compute(plan.chunks, watch)
        self._finish_step(plan, prefill, watch)
        return True

    def publish_last(self) -> None:
        """Publishes what the last step made, if that has not been done."""
        if self._unpublished is not None:
            publication, self._unpublished = self._unpublished, None
            self.publish(publication)

    # Commands

    def _take_commands(self) -> None:
        while self._stop is None:
            try:
                command = self.commands.get_nowait()
            except queue.Empty:
                return
            self._apply(command)

    def _apply(self, command: Command) -> None:
        match command:
            case Submit():
                for group in relatives(command.requests):
                    self._submit(group, command.submitted)
            case Cancel(request_id):
                sequence = self.scheduler.find(request_id)
                if sequence is not None:
                    self._fail(sequence, RequestCancelled("the client went away"))
            case Stop():
                self._stop = command

    def _submit(self, group: Seq[Submitted], submitted: float) -> None:
        family = Family() if len(group) > 1 else None
        scores: PromptScores | None = None
        for request_id, request in group:
            try:
                self._check_tokens(request.prompt_ids)
                if request.prompt_logprobs and scores is None:
                    scores = PromptScores(
                        self.vocabulary,
                        request.prompt_ids,
                        n_top_tokens=request.n_prompt_top_tokens,
                    )
                sequence = self._sequence(request_id, request, submitted)
                sequence.family, sequence.scores = family, scores
                self.scheduler.submit(sequence)
            except Exception as error:  # the boundary of one request: it must not end the thread
                self._events.append((request_id, Failed(GenerationError(str(error)))))

    def _check_tokens(self, prompt_ids: Seq[TokenId]) -> None:
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self.vocabulary.n_vocab:
            raise ValueError(f"a token id outside 0 <= id < {self.vocabulary.n_vocab}")

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
            ),
            submitted=submitted,
        )

    # One step

    def _compute(self, chunks: tuple[Chunk, ...], watch: _Stopwatch) -> None:
        """Decodes the chunks and takes what they yield."""
        now = perf_counter()
        for chunk in chunks:
            if chunk.sequence.started == 0.0:
                chunk.sequence.started = now
        rows = self._decode(chunks, watch)
        if rows is None:
            return
        for chunk, row in zip(chunks, rows, strict=True):
            sequence, yields_token = chunk.sequence, chunk.yields_token
            if sequence.scores is not None and not self._score(chunk, row, watch):
                continue
            is_leader = chunk.is_prefill and sequence.family is not None
            self.scheduler.advance(chunk)
            if yields_token:
                # The leader may end with this token, so the others get their copies first.
                forked = self._shared_prompts.fork(sequence) if is_leader else ()
                self._take_token(sequence, row, watch)
                for member in forked:
                    member.started = sequence.started  # this prompt was theirs as well
                    self._take_token(member, row, watch)

    def _decode(self, chunks: tuple[Chunk, ...], watch: _Stopwatch) -> Seq[int] | None:
        """Decodes; returns each chunk's row, or None after dealing with a failure.

        What fails and what is tried again, by llama.cpp's return code:

        * out of cells (1): the newest sequence of the batch fails, the next step tries the rest;
        * aborted (2): what the step added is cut off, and the next step does it again;
        * invalid (-1): each chunk is decoded alone, so only the culprit fails;
        * failed (-2, -3): the cells of the batch are unknown, so all its sequences fail.
        """
        batch, rows = build_batch(chunks)
        self.publish_last()
        started = perf_counter()
        try:
            self.runner.decode(batch)
        except OutOfCells as error:
            newest = max((chunk.sequence for chunk in chunks), key=_age)
            self._fail(newest, GenerationError(f"no cells are left: {error}"))
        except DecodeAborted as error:
            for chunk in chunks:
                self._rewind(chunk.sequence, error)
        except InvalidBatch as error:
            if len(chunks) == 1:
                self._fail(chunks[0].sequence, GenerationError(f"invalid batch: {error}"))
            else:
                for chunk in chunks:
                    self._compute((chunk,), watch)
        except DecodeFailed as error:
            watch.device_failed = True
            for chunk in chunks:
                failure = GenerationError(f"decoding failed: {error}")
                self._fail(chunk.sequence, failure, cells_known=False)
        else:
            watch.decode += perf_counter() - started
            return rows
        watch.decode += perf_counter() - started
        watch.failed = True
        return None

    def _rewind(self, sequence: Sequence, error: DecodeAborted) -> None:
        assert sequence.slot is not None
        if not self.runner.truncate(sequence.slot, sequence.n_cached):
            failure = GenerationError(f"decoding was aborted: {error}")
            self._fail(sequence, failure, cells_known=False)

    def _score(self, chunk: Chunk, row: int, watch: _Stopwatch) -> bool:
        """Scores the prompt tokens that follow those of the chunk, whose last row is ``row``. False
        after the sequence failed over it."""
        scores = chunk.sequence.scores
        assert scores is not None
        if scores.is_complete:
            return True
        started = perf_counter()
        try:
            for scored_row in range(row + 1 - chunk.n_outputs, row + 1):
                if not scores.is_complete:
                    scores.add(self.runner.logits(scored_row))
        except Exception as error:  # the boundary of one request: its bad row must not stop others
            failure = GenerationError(f"scoring the prompt failed: {error}")
            self._fail(chunk.sequence, failure)
            return False
        watch.sampling += perf_counter() - started
        return True

    def _take_token(self, sequence: Sequence, row: int, watch: _Stopwatch) -> None:
        """Chooses the sequence's next token and makes its event."""
        started = perf_counter()
        try:
            logits = self.runner.logits(row)
            chosen = sequence.sampler.choose(logits)
            logprob, top = _logprobs(sequence.request, logits, chosen)
            sampled = perf_counter()
            watch.sampling += sampled - started
            if sequence.n_generated == 0:
                sequence.first_token = sampled
            self.scheduler.append(sequence, chosen)
            watch.n_tokens += 1
            self._emit(sequence, chosen, logprob, top)
            watch.text += perf_counter() - sampled
        except Exception as error:  # the boundary of one request: its bad row must not stop others
            _log.warning("request %d failed after decoding: %r", sequence.request_id, error)
            self._fail(sequence, GenerationError(f"choosing the next token failed: {error}"))

    def _emit(
        self,
        sequence: Sequence,
        chosen: TokenId,
        logprob: float | None,
        top: tuple[tuple[TokenId, float], ...],
    ) -> None:
        """Makes the token's event, and ends the sequence if this was its last."""
        is_control = self.vocabulary.is_control
        top_tokens = tuple(
            Token(other, sequence.text.peek(other), value, is_control(other))
            for other, value in top
        )
        piece = sequence.text.push(chosen)
        delta = piece.delta
        reason = self._finish_reason(sequence, chosen, stopped=piece.stopped)
        finish = None
        if reason is not None:
            if not piece.stopped:
                delta += sequence.text.finish()
            finish = Finish(
                reason=reason, n_generated=sequence.n_generated, timings=_timings(sequence)
            )
        token = Token(chosen, piece.token_text, logprob, is_control(chosen))
        prompt_tokens: tuple[PromptToken, ...] = ()
        if sequence.scores is not None and sequence.n_generated == 1:
            prompt_tokens = sequence.scores.tokens
        event = TokenEvent(
            token=token,
            top_tokens=top_tokens,
            delta=delta,
            finish=finish,
            prompt_tokens=prompt_tokens,
        )
        self._events.append((sequence.request_id, event))
        if finish is not None:
            self._release(sequence)

    def _finish_reason(
        self, sequence: Sequence, chosen: TokenId, *, stopped: bool
    ) -> FinishReason | None:
        """End of generation comes before length, and length before a stop string."""
        stopping = sequence.request.stopping
        if self.vocabulary.is_end_of_generation(chosen) and not stopping.ignore_eos:
            return FinishReason.EOS_TOKEN
        if sequence.n_generated >= stopping.max_new_tokens:
            return FinishReason.LENGTH
        return FinishReason.STOP_SEQUENCE if stopped else None

    # Ends

    def _fail(self, sequence: Sequence, error: RequestError, *, cells_known: bool = True) -> None:
        self._events.append((sequence.request_id, Failed(error)))
        self._release(sequence, cells_known=cells_known)

    def _fail_all(self, error: RequestError) -> None:
        for sequence in list(self.scheduler.sequences()):
            self._fail(sequence, type(error)(str(error)), cells_known=False)
        self._refuse_waiting(error)

    def _refuse_waiting(self, error: RequestError) -> None:
        """Requests that were submitted after the ``Stop`` was posted get their event as well."""
        while True:
            try:
                command = self.commands.get_nowait()
            except queue.Empty:
                return
            if isinstance(command, Submit):
                self._events += [
                    (request_id, Failed(type(error)(str(error))))
                    for request_id, _ in command.requests
                ]

    def _release(self, sequence: Sequence, *, cells_known: bool = True) -> None:
        if sequence.family is not None:
            self._shared_prompts.end(sequence, cells_known=cells_known)
            return
        slot = sequence.slot
        self.scheduler.finish(sequence)
        if slot is not None:
            self.runner.clear(slot)

    # Reports

    def _finish_step(self, plan: StepPlan, prefill: list[int], watch: _Stopwatch) -> None:
        if plan.chunks or self._events:
            self.publish_last()  # a step that decoded nothing has not
            events, self._events = tuple(self._events), []
            self._unpublished = Publication(events, self._report(plan, prefill, watch))

    def _report(self, plan: StepPlan, prefill: list[int], watch: _Stopwatch) -> StepReport:
        scheduler = self.scheduler
        self._step_began = perf_counter()
        return StepReport(
            n_decode_sequences=len(plan.chunks) - len(prefill),
            n_prefill_sequences=len(prefill),
            n_prefill_tokens=sum(prefill),
            n_generated_tokens=watch.n_tokens,
            n_joined=plan.n_joined,
            n_queued=scheduler.n_queued,
            n_running=scheduler.n_running,
            n_reserved_cells=scheduler.slots.n_reserved,
            decode_failed=watch.failed,
            device_failed=watch.device_failed,
            step_s=self._step_began - watch.started,
            decode_s=watch.decode,
            sampling_s=watch.sampling,
            text_s=watch.text,
        )


def _logprobs(
    request: GenerationRequest, logits: Logits, chosen: TokenId
) -> tuple[float | None, tuple[tuple[TokenId, float], ...]]:
    """The chosen token's logprob and the likeliest tokens', where the request wants them."""
    if not request.logprobs and request.n_top_tokens == 0:
        return None, ()
    norm = log_sum_exp(logits)
    top: tuple[tuple[TokenId, float], ...] = ()
    if request.n_top_tokens > 0:
        ids = likeliest(logits, request.n_top_tokens)
        top = tuple((TokenId(int(i)), float(logits[i]) - norm) for i in ids)
    return float(logits[chosen]) - norm, top


def _age(sequence: Sequence) -> tuple[float, RequestId]:
    return sequence.submitted, sequence.request_id


def _timings(sequence: Sequence) -> Timings:
    return Timings(
        submitted=sequence.submitted,
        started=sequence.started,
        first_token=sequence.first_token,
        finished=perf_counter(),
    )
