"""The LoRA adapters that are served, by name: loaded at the start, loaded and unloaded at run time.

Theory of operation
-------------------
``Adapters`` gives every loading an id of its own (``generation.AdapterId``), which the engine knows
it by; a name leads to the id of its newest loading. What is done at run time is an errand for
``Adapters.run``, so that a client that goes away leaves nothing half done. A name appears when its
adapter can be used, and disappears before the engine is told to let go of it: a request has either
been submitted with the id before, and is finished with it, or finds no such name.

All of it belongs to the Trio thread. Validation workers read ``ids``, a mapping that is never
changed, only replaced.
"""

import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from tgi_llama.errors import (
    AdapterConflict,
    AdapterError,
    AdapterNotFound,
    ConfigError,
    ShuttingDown,
    StartError,
    ValidationError,
)
from tgi_llama.generation import AdapterFacts, AdapterId
from tgi_llama.models.adapters import AdapterFile, AdapterSources
from tgi_llama.options.lora import NAME_RULE, is_name

_log = logging.getLogger(__name__)

_MOST_SHOWN = 200
"""Characters of a name that a client made up: no adapter has more."""

T = TypeVar("T")


class AdapterEngine(Protocol):
    """What is used of ``engine.engine.Engine``."""

    async def load_adapter(
        self, adapter: AdapterId, path: Path, *, scale: float = 1.0
    ) -> AdapterFacts:
        """Raises AdapterError for a file that is no adapter of this model."""
        ...

    async def unload_adapter(self, adapter: AdapterId) -> None:
        """Waits until no request uses it, then frees it."""
        ...


@attrs.frozen(kw_only=True)
class Adapter:
    """One that requests can ask for."""

    id: AdapterId
    name: str
    root: str
    """``AdapterFile.root``."""
    scale: float
    facts: AdapterFacts
    loaded_at: int
    """Unix time in seconds."""


@attrs.define(eq=False)
class _Errand(Generic[T]):
    """One call for ``Adapters.run``. The caller waits for ``handled`` and then asks for the
    result."""

    call: Callable[[], Awaitable[T]]
    future: "Future[T]" = attrs.field(factory=Future)
    handled: trio.Event = attrs.field(factory=trio.Event)

    async def execute(self) -> None:
        """Makes the call and keeps what it returned or raised."""
        try:
            self.future.set_result(await self.call())
        except Exception as error:  # the boundary of the request that waits for it
            self.future.set_exception(error)
        finally:
            self.handled.set()

    def result(self) -> T:
        """Raises what the call raised, or ShuttingDown where it was cut short."""
        if not self.future.done():
            raise ShuttingDown("the server is shutting down")
        return self.future.result()


@attrs.define(eq=False)
class Adapters:
    """See the top of this module."""

    engine: AdapterEngine
    sources: AdapterSources
    model_id: str
    """The served model's own name, which no adapter can have."""
    observe: Callable[[Iterable[str]], None] = lambda _names: None
    """Told the names that there are, whenever they have changed."""
    ids: Mapping[str, AdapterId] = attrs.field(factory=dict, init=False)
    """The adapters that a request can ask for. Any thread may read it, and should do so once."""
    _loaded: dict[str, Adapter] = attrs.field(factory=dict, init=False)
    _loading: set[str] = attrs.field(factory=set, init=False)
    _next_id: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1), init=False)
    # Without a buffer an errand is handed over only while ``run`` takes some.
    _send: "trio.MemorySendChannel[_Errand[object]]" = attrs.field(init=False)
    _receive: "trio.MemoryReceiveChannel[_Errand[object]]" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs errands until cancelled. Callers who still wait then get ShuttingDown."""
        with self._receive:
            async with trio.open_nursery() as nursery:
                task_status.started()
                async for errand in self._receive:
                    nursery.start_soon(errand.execute)

    @property
    def all(self) -> tuple[Adapter, ...]:
        """In the order in which they were loaded."""
        return tuple(self._loaded.values())

    def get(self, name: str) -> Adapter | None:
        return self._loaded.get(name)

    async def load_first(self, files: Iterable[AdapterFile]) -> None:
        """Loads what the options name, before anything is served. Raises ConfigError about the
        first that cannot be."""
        for file in files:
            if file.name == self.model_id:
                raise ConfigError(f"{file.place}: {file.name!r} is the name of the model itself")
            try:
                await self._load(file.name, partial(_given, file), is_reload=False)
            except AdapterError as error:
                raise ConfigError(f"{file.place}: {error}") from error

    async def load(self, name: str, source: str, *, scale: float, is_reload: bool) -> Adapter:
        """Loads one more, or, as a reload, what takes the place of one. A reload changes nothing
        for requests that are running: these finish with what they began with.

        Raises AdapterError, also for what ``sources`` cannot find; Forbidden; AdapterConflict where
        the name is taken; EngineDead; ShuttingDown.
        """
        find = partial(self.sources.find, name, source, scale=scale)
        return await self._run(partial(self._load, name, find, is_reload=is_reload))

    async def unload(self, name: str) -> None:
        """Takes the name away at once; returns when the requests that use the adapter have ended
        and its memory is free. Raises AdapterNotFound, AdapterConflict while it is being loaded,
        EngineDead, ShuttingDown."""
        await self._run(partial(self._unload, name))

    async def _load(
        self, name: str, find: Callable[[], AdapterFile], *, is_reload: bool
    ) -> Adapter:
        self._check_free(name, is_reload=is_reload)
        self._loading.add(name)
        try:
            adapter = await self._load_file(await self._found(find))
        finally:
            self._loading.discard(name)
        before = self._loaded.get(name)
        self._publish({**self._loaded, name: adapter})
        if before is not None:  # nobody has to wait for those who still use it
            await self._send.send(_Errand(partial(self._free, before)))
        return adapter

    async def _load_file(self, file: AdapterFile) -> Adapter:
        adapter_id = AdapterId(next(self._next_id))
        try:
            facts = await self.engine.load_adapter(adapter_id, file.path, scale=file.scale)
        except AdapterError as error:
            _log.warning("adapter %s could not be loaded: %s", file.name, error)
            raise
        _log.info(
            "adapter %s: loaded %s, scale=%g, n_bytes=%d",
            file.name,
            file.path,
            file.scale,
            facts.n_bytes,
        )
        return Adapter(
            id=adapter_id,
            name=file.name,
            root=file.root,
            scale=file.scale,
            facts=facts,
            loaded_at=int(time.time()),
        )

    async def _unload(self, name: str) -> None:
        if name in self._loading:
            raise AdapterConflict(f"the adapter {name!r} is being loaded")
        adapter = self._loaded.get(name)
        if adapter is None:
            raise AdapterNotFound(f"there is no adapter {name[:_MOST_SHOWN]!r}")
        self._publish({key: one for key, one in self._loaded.items() if key != name})
        await self._free(adapter)

    async def _free(self, adapter: Adapter) -> None:
        await self.engine.unload_adapter(adapter.id)
        _log.info("adapter %s: unloaded", adapter.name)

    async def _found(self, find: Callable[[], AdapterFile]) -> AdapterFile:
        try:
            return await trio.to_thread.run_sync(find, abandon_on_cancel=True)
        except (ConfigError, StartError) as error:
            raise AdapterError(str(error)) from error

    def _check_free(self, name: str, *, is_reload: bool) -> None:
        if not is_name(name):
            raise ValidationError(f"`lora_name` must have {NAME_RULE}", field="lora_name")
        if name == self.model_id:
            raise AdapterConflict(f"{name!r} is the name of the model itself")
        if name in self._loading:
            raise AdapterConflict(f"the adapter {name!r} is being loaded")
        if name in self._loaded and not is_reload:
            raise AdapterConflict(
                f"the adapter {name!r} is loaded; `load_inplace` loads it again, in its place"
            )

    def _publish(self, loaded: dict[str, Adapter]) -> None:
        self._loaded = loaded
        self.ids = MappingProxyType({name: one.id for name, one in loaded.items()})
        self.observe(loaded)

    async def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Has ``run`` make the call, and returns or raises what it does. Cancelling the caller
        leaves a call that has begun to finish by itself."""
        errand = _Errand(call)
        try:
            await self._send.send(errand)  # type: ignore[arg-type]  # ``run`` ignores what T is
        except trio.BrokenResourceError:
            raise ShuttingDown("the server is shutting down") from None
        await errand.handled.wait()
        return errand.result()


def _given(file: AdapterFile) -> AdapterFile:
    """A search for what has been found."""
    return file
