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
command when there is nothing to do blocks; before it, idle slots are saved whose cells would take
too long later.

Every submitted request gets exactly one terminal event: a ``TokenEvent`` with ``finish``, or a
``Failed``. A failure is confined to the sequences it concerns; ``_deal_with`` says which those are.
"""

import logging
import queue
from collections.abc import Sequence as Seq
from time import perf_counter

import attrs

from tgi_llama.engine.batch import Chunk, StepPlan, build_batch
from tgi_llama.engine.commands import (
    Cancel,
    Command,
    CommandQueue,
    LoadAdapter,
    Publication,
    Publish,
    Stop,
    Submit,
    UnloadAdapter,
)
from tgi_llama.engine.constrained import Grammars
from tgi_llama.engine.intake import Intake
from tgi_llama.engine.loaded_adapters import LoadedAdapters
from tgi_llama.engine.model_runner import ModelRunner, Vocabulary
from tgi_llama.engine.placement import Placement
from tgi_llama.engine.sampler import Scratch
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Sequence, age
from tgi_llama.engine.stopwatch import Stopwatch
from tgi_llama.engine.token_events import choose, forced_events, make_event
from tgi_llama.errors import (
    DecodeAborted,
    DecodeError,
    GenerationError,
    InvalidBatch,
    OutOfCells,
    RequestCancelled,
    RequestError,
)
from tgi_llama.generation import AdapterId, Failed, RequestId, StepReport, StreamEvent

_log = logging.getLogger(__name__)

_NOTED_EVERY = 4
"""The budget learns the duration of steps without prompts from every fourth of them."""


_PATIENCE_S = 0.002
"""How long a step waits for masks that are late. Nearly all take less than 0.3 ms, and they have
had all of the decode."""


@attrs.define(eq=False, kw_only=True)
class DecodeLoop:
    """Made and used on the decode thread only."""

    runner: ModelRunner
    vocabulary: Vocabulary
    scheduler: Scheduler
    placement: Placement
    grammars: Grammars
    adapters: LoadedAdapters
    intake: Intake
    commands: CommandQueue
    publish: Publish
    _scratch: Scratch = attrs.field(factory=Scratch, init=False)
    _events: list[tuple[RequestId, StreamEvent]] = attrs.field(factory=list, init=False)
    """Of the step that is being computed."""
    _unpublished: Publication | None = attrs.field(default=None, init=False)
    """Of the step before."""
    _adapter: AdapterId | None = attrs.field(default=None, init=False)
    """That the last decode was computed with."""
    _stop: Stop | None = attrs.field(default=None, init=False)
    _n_steps: int = attrs.field(default=0, init=False)
    _step_began: float = attrs.field(default=0.0, init=False)
    """Where the last report ended, so that taking commands and publishing count as well."""

    def run(self) -> None:
        """Steps until a ``Stop`` arrives. An exception means that the runner is broken."""
        try:
            while self.step():
                pass
        finally:
            self.publish_last()
            self.grammars.close()

    def step(self) -> bool:
        """Waits for a command when idle, then computes one step. False after ``Stop``."""
        if self.scheduler.is_idle:
            self.publish_last()
            self._use_idle_time()
            self._apply(self.commands.get())
            self._step_began = perf_counter()
        self._n_steps += 1
        watch = Stopwatch(started=self._step_began)
        self._take_commands()
        if self._stop is not None:
            self._fail_all(self._stop.error)
            self._finish_step(StepPlan(()), [], watch)
            return False
        placing = perf_counter()
        plan = self.placement.plan_step()
        watch.placement = perf_counter() - placing
        prefill = [chunk.n_tokens for chunk in plan.chunks if chunk.is_prefill]
        if plan.chunks:
            self._compute(plan.chunks, watch)
            # Turns of one step each would always have the same group's noted.
            takes_turns = self.scheduler.takes_turns
            is_noted = prefill or takes_turns or self._n_steps % _NOTED_EVERY == 0
            if is_noted and not watch.failed and not plan.n_leapt:
                self.scheduler.note(
                    n_decode=len(plan.chunks) - len(prefill),
                    n_prefill=sum(prefill),
                    seconds=max(0.0, watch.decode - watch.switch),
                )
            if takes_turns:
                step_s = perf_counter() - watch.started
                self.scheduler.groups.spend(step_s, switch_s=watch.switch)
        self.adapters.settle()
        self._finish_step(plan, prefill, watch)
        return True

    def publish_last(self) -> None:
        """Publishes what the last step made, if that has not been done."""
        if self._unpublished is not None:
            publication, self._unpublished = self._unpublished, None
            self.publish(publication)

    def _use_idle_time(self) -> None:
        """Saves what could not be saved beside streams, until nothing is left or a command has
        come: that one waits for one state at most."""
        n_before = self.placement.host.n_entries
        while self.commands.empty() and self.placement.save_ahead():
            pass
        if self.placement.host.n_entries != n_before:
            watch = Stopwatch(started=perf_counter())
            self.publish(Publication((), self._report(StepPlan(()), [], watch)))

    # Commands

    def _take_commands(self) -> None:
        while self._stop is None and not self.commands.empty():
            self._apply(self.commands.get_nowait())  # nobody else takes any

    def _apply(self, command: Command) -> None:
        match command:
            case Submit():
                self._events += self.intake.submit(command)
            case Cancel(request_id):
                sequence = self.scheduler.find(request_id)
                if sequence is not None:
                    self._fail(sequence, RequestCancelled("the client went away"))
            case LoadAdapter():
                self.adapters.load(command)
            case UnloadAdapter():
                self.adapters.unload(command)
            case Stop():
                self._stop = command

    # One step

    def _compute(self, chunks: tuple[Chunk, ...], watch: Stopwatch) -> None:
        """Decodes the chunks and takes what they yield."""
        now = perf_counter()
        for chunk in chunks:
            if chunk.sequence.started == 0.0:
                chunk.sequence.started = now
        rows = self._decode(chunks, watch)
        if rows is None:
            return
        late: list[tuple[Chunk, int]] = []
        for chunk, row in zip(chunks, rows, strict=True):
            guide = chunk.sequence.guide
            if guide is not None and chunk.yields_token and not guide.is_here():
                late.append((chunk, row))
            else:
                self._take_chunk(chunk, row, watch)
        if late:
            self._take_late(late, watch)
        self.placement.step_worked()

    def _take_chunk(self, chunk: Chunk, row: int, watch: Stopwatch) -> None:
        """Takes what a chunk yields, whose last row is ``row``."""
        sequence, yields_token = chunk.sequence, chunk.yields_token
        if sequence.scores is not None and not self._score(chunk, row, watch):
            return
        self.scheduler.advance(chunk)
        self.placement.computed(sequence, chunk.n_tokens)
        if sequence.n_forced and not self._tell_forced(sequence, row, watch):
            return
        if yields_token:
            self._take_token(sequence, row, watch)

    def _take_late(self, late: list[tuple[Chunk, int]], watch: Stopwatch) -> None:
        """The masks that these need are not there yet. Others are not to wait for one of many
        milliseconds: after ``_PATIENCE_S`` the sequence goes without a token, and the next step
        computes the last one's row again. Where nobody else runs or cells cannot be cut, it waits.
        """
        started = perf_counter()
        until = started + _PATIENCE_S
        for chunk, row in late:
            guide, sequence = chunk.sequence.guide, chunk.sequence
            assert guide is not None
            is_here = guide.is_here(max(0.0, until - perf_counter()))
            if not is_here and self.scheduler.n_running > 1:
                kept = Chunk(sequence, chunk.n_tokens - 1)
                if self.placement.drop_last(sequence, kept.n_tokens):
                    if kept.n_tokens > 0:
                        self._take_chunk(kept, row - 1, watch)
                    continue
            guide.is_here(None)
            watch.masks += perf_counter() - started
            self._take_chunk(chunk, row, watch)
            started = perf_counter()
        watch.masks += perf_counter() - started

    def _decode(self, chunks: tuple[Chunk, ...], watch: Stopwatch) -> Seq[int] | None:
        """Decodes; returns each chunk's row, or None after dealing with a failure."""
        batch, rows = build_batch(chunks)
        self.publish_last()
        self.grammars.compute_masks()
        failure: DecodeError | None = None
        started = perf_counter()
        try:
            self.runner.decode(batch)
        except DecodeError as error:
            failure = error
        watch.decode += perf_counter() - started
        if failure is None:
            if batch.adapter != self._adapter:
                self._note_switch(batch.adapter, watch)
            return rows
        watch.failed = True
        self._deal_with(failure, chunks, watch)
        return None

    def _note_switch(self, adapter: AdapterId | None, watch: Stopwatch) -> None:
        """The decode was computed with another adapter than the one before."""
        self._adapter = adapter
        watch.n_switches += 1
        watch.switch += self.runner.switch_s
        self.scheduler.groups.changed(self.runner.switch_s)

    def _deal_with(self, error: DecodeError, chunks: tuple[Chunk, ...], watch: Stopwatch) -> None:
        """What fails and what is tried again, by llama.cpp's return code:

        * out of cells (1): an idle slot or the newest sequence gives its cells up, and the next
          step tries again; a sequence that is alone fails;
        * aborted (2): what the step added is cut off, and the next step does it again;
        * invalid (-1): each chunk is decoded alone, so only the culprit fails;
        * failed (-2, -3): the cells of the batch are unknown, so all its sequences fail.
        """
        match error:
            case OutOfCells():
                if not self.placement.out_of_cells(sum(chunk.n_tokens for chunk in chunks)):
                    newest = max((chunk.sequence for chunk in chunks), key=age)
                    self._fail(newest, GenerationError(f"no cells are left: {error}"))
            case DecodeAborted():
                for chunk in chunks:
                    self.placement.rewind(chunk.sequence)
                self.placement.reconcile()
            case InvalidBatch() if len(chunks) == 1:
                self._fail(chunks[0].sequence, GenerationError(f"invalid batch: {error}"))
            case InvalidBatch():
                for chunk in chunks:
                    if chunk.sequence.slot is not None:  # it may have had to leave for another
                        self._compute((chunk,), watch)
            case _:  # DecodeFailed
                watch.device_failed = True
                for chunk in chunks:
                    failure = GenerationError(f"decoding failed: {error}")
                    self._fail(chunk.sequence, failure, cells_known=False)
                self.placement.reconcile()

    def _score(self, chunk: Chunk, row: int, watch: Stopwatch) -> bool:
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
                    scores.add(self.runner.logits(scored_row), self._scratch)
        except Exception as error:  # the boundary of one request: its bad row must not stop others
            failure = GenerationError(f"scoring the prompt failed: {error}")
            self._fail(chunk.sequence, failure, cells_known=False)  # the chunk's are not counted
            return False
        watch.sampling += perf_counter() - started
        return True

    def _take_token(self, sequence: Sequence, row: int, watch: Stopwatch) -> None:
        """Chooses the sequence's next token, makes its event, and ends the sequence if this was its
        last."""
        started = perf_counter()
        guide = sequence.guide
        try:
            choice = choose(sequence, self.runner.logits(row), self._scratch)
            sampled = perf_counter()
            watch.sampling += sampled - started
            if sequence.n_generated == 0:
                sequence.first_token = sampled
            self.scheduler.append(sequence, choice.token)
            watch.n_tokens += 1
            if guide is not None:
                self.grammars.take(sequence, choice.token)
            event = make_event(self.vocabulary, sequence, choice)
            self._events.append((sequence.request_id, event))
            if event.finish is not None:
                self.placement.release(sequence)
            elif guide is not None:
                self.grammars.look_ahead(sequence)
        except Exception as error:  # the boundary of one request: its bad row must not stop others
            self._fail_after_decoding(sequence, error)
            return
        watch.text += perf_counter() - sampled
        if sequence.ends_forced and not sequence.wants_rows:
            self._tell_forced(sequence, row, watch)

    def _tell_forced(self, sequence: Sequence, row: int, watch: Stopwatch) -> bool:
        """Makes the events of forced tokens that are due. ``row`` is that of the last cell. False
        after the sequence ended with one of them."""
        logits = self.runner.logits
        try:
            for event in forced_events(self.vocabulary, sequence, logits, row, self._scratch):
                watch.n_tokens += 1
                watch.n_forced += 1
                self._events.append((sequence.request_id, event))
                if event.finish is not None:
                    self.placement.release(sequence)
                    return False
        except Exception as error:  # the boundary of one request: its bad row must not stop others
            self._fail_after_decoding(sequence, error)
            return False
        return True

    # Ends

    def _fail_after_decoding(self, sequence: Sequence, error: Exception) -> None:
        _log.warning("request %d failed after decoding: %r", sequence.request_id, error)
        self._fail(sequence, GenerationError(f"choosing the next token failed: {error}"))

    def _fail(self, sequence: Sequence, error: RequestError, *, cells_known: bool = True) -> None:
        self._events.append((sequence.request_id, Failed(error)))
        self.placement.release(sequence, cells_known=cells_known)

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

    # Reports

    def _finish_step(self, plan: StepPlan, prefill: list[int], watch: Stopwatch) -> None:
        answers = self.adapters.take_answers()
        if plan.chunks or self._events or answers:
            self.publish_last()  # a step that decoded nothing has not
            events, self._events = tuple(self._events), []
            self._unpublished = Publication(events, self._report(plan, prefill, watch), answers)

    def _report(self, plan: StepPlan, prefill: list[int], watch: Stopwatch) -> StepReport:
        scheduler, grammars = self.scheduler, self.grammars
        masks_s, grammars.seconds = watch.masks + grammars.seconds, 0.0
        self._step_began = perf_counter()
        return StepReport(
            n_decode_sequences=len(plan.chunks) - len(prefill),
            n_prefill_sequences=len(prefill),
            n_prefill_tokens=sum(prefill),
            n_generated_tokens=watch.n_tokens,
            n_joined=self.placement.log.take_joined(),
            n_queued=scheduler.n_queued,
            n_running=scheduler.n_running,
            n_reserved_cells=scheduler.n_reserved_cells,
            decode_failed=watch.failed,
            device_failed=watch.device_failed,
            step_s=self._step_began - watch.started,
            decode_s=watch.decode,
            sampling_s=watch.sampling,
            text_s=watch.text,
            mask_s=masks_s,
            n_forced_tokens=watch.n_forced,
            placement_s=watch.placement,
            n_switches=watch.n_switches,
            switch_s=watch.switch,
            prefill_budget=plan.prefill_budget,
            placement=self.placement.log.take_report(),
        )
