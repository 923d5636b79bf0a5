"""Which LoRA adapters requests may have: loaded and freed between decodes.

Theory of operation
-------------------
An adapter is loaded as soon as its command is taken; reading the file holds the running streams up.
It is freed when its command has come and no unfinished sequence has it any more; from the command
on, no request gets it. With it goes all that was computed with it: idle slots and saved states. So
an id, once freed, is nowhere; the same file loaded again has another one.
"""

import logging

import attrs

from tgi_llama.engine.commands import Answer, LoadAdapter, UnloadAdapter
from tgi_llama.engine.model_runner import ModelRunner
from tgi_llama.engine.placement import Placement
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.errors import AdapterError
from tgi_llama.generation import AdapterFacts, AdapterId

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class LoadedAdapters:
    """Decode thread only."""

    runner: ModelRunner
    scheduler: Scheduler
    placement: Placement
    _loaded: set[AdapterId] = attrs.field(factory=set, init=False)
    """Those that requests may have."""
    _leaving: list[UnloadAdapter] = attrs.field(factory=list, init=False)
    """Still used by somebody."""
    _answers: list[Answer] = attrs.field(factory=list, init=False)

    def has(self, adapter: AdapterId) -> bool:
        """Whether a new request may have it."""
        return adapter in self._loaded

    def load(self, command: LoadAdapter) -> None:
        result: AdapterFacts | AdapterError
        try:
            result = self.runner.load_adapter(command.adapter, command.path, scale=command.scale)
            self._loaded.add(command.adapter)
        except AdapterError as error:
            result = error
        except Exception as error:  # the boundary of one command: it must not end the thread
            _log.warning("loading the adapter %s failed: %r", command.path, error)
            result = AdapterError(f"loading the adapter {command.path} failed: {error}")
        self._answers.append(Answer(command.ticket, result))

    def unload(self, command: UnloadAdapter) -> None:
        if command.adapter not in self._loaded:
            self._answers.append(Answer(command.ticket))
            return
        self._loaded.remove(command.adapter)
        self._leaving.append(command)
        self.settle()

    def settle(self) -> None:
        """Frees what was to go and is not used any more."""
        if not self._leaving:
            return
        used = {each.request.adapter for each in self.scheduler.sequences()}
        for command in [each for each in self._leaving if each.adapter not in used]:
            self._leaving.remove(command)
            self.placement.forget_adapter(command.adapter)
            self.runner.free_adapter(command.adapter)
            self._answers.append(Answer(command.ticket))

    def take_answers(self) -> tuple[Answer, ...]:
        """What has been done since the last call."""
        if not self._answers:
            return ()
        answers, self._answers = tuple(self._answers), []
        return answers
