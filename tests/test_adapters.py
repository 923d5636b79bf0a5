"""Loading and unloading by name, at the same time as others and as requests."""

from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from fakes.adapters import adapter_file
from fakes.engine import FakeEngine

from tgi_llama.adapters import Adapters
from tgi_llama.errors import (
    AdapterConflict,
    AdapterError,
    AdapterNotFound,
    ConfigError,
    EngineDead,
    Forbidden,
    ShuttingDown,
    StartError,
    ValidationError,
)
from tgi_llama.generation import (
    AdapterId,
    GenerationRequest,
    SamplingParameters,
    StoppingParameters,
    TokenId,
)
from tgi_llama.models.adapters import AdapterFile


@attrs.define(eq=False)
class Sources:
    """Finds every file, unless ``error`` is set."""

    error: Exception | None = None
    asked: list[tuple[str, str, float]] = attrs.field(factory=list)

    def find(self, name: str, source: str, *, scale: float) -> AdapterFile:
        self.asked.append((name, source, scale))
        if self.error is not None:
            raise self.error
        return AdapterFile(name=name, path=Path(source), scale=scale, root=source, place="here")


@attrs.define(eq=False)
class Play:
    engine: FakeEngine
    sources: Sources
    adapters: Adapters
    observed: list[tuple[str, ...]]
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    def observe(self, names: Iterable[str]) -> None:
        self.observed.append(tuple(names))
        self._news.set()

    async def wait_names(self, *names: str) -> None:
        """Returns when these are the names that can be asked for."""
        while tuple(self.names) != names:
            self._news = trio.Event()
            await self._news.wait()

    async def load(self, name: str, source: str = "/f", *, again: bool = False) -> AdapterId:
        adapter = await self.adapters.load(name, source, scale=1.0, is_reload=again)
        return adapter.id

    @property
    def names(self) -> list[str]:
        assert list(self.adapters.ids) == [one.name for one in self.adapters.all]
        return list(self.adapters.ids)


@pytest.fixture
async def play(nursery: trio.Nursery) -> Play:
    engine, sources = FakeEngine(), Sources()
    adapters = Adapters(
        engine,
        sources,  # type: ignore[arg-type]  # its one method that is used at run time
        "the/model",
        observe=lambda names: made.observe(names),
    )
    made = Play(engine, sources, adapters, [])
    await nursery.start(adapters.run)
    return made


def a_request(adapter: AdapterId) -> GenerationRequest:
    return GenerationRequest(
        prompt_ids=(TokenId(1),),
        sampling=SamplingParameters(),
        stopping=StoppingParameters(max_new_tokens=1),
        adapter=adapter,
    )


# --- at the start ---


async def test_first_ones_are_there_in_their_order(play: Play) -> None:
    await play.adapters.load_first([adapter_file("b"), adapter_file("a")])
    assert play.names == ["b", "a"]
    assert play.observed[-1] == ("b", "a")
    assert len(play.engine.adapters) == 2


async def test_first_that_is_no_adapter_stops_the_start(play: Play) -> None:
    play.engine.adapter_error = AdapterError("wrong shape")
    with pytest.raises(ConfigError, match=r"^a: wrong shape$"):
        await play.adapters.load_first([adapter_file("a")])


async def test_first_with_the_model_s_name_stops_the_start(play: Play) -> None:
    with pytest.raises(ConfigError, match="'the/model' is the name of the model itself"):
        await play.adapters.load_first([adapter_file("the/model")])


# --- load ---


async def test_load_makes_the_name_known(play: Play) -> None:
    adapter = await play.adapters.load("a", "/f", scale=0.5, is_reload=False)
    assert play.adapters.get("a") is adapter
    assert play.adapters.ids["a"] == adapter.id
    assert (adapter.scale, adapter.facts.rank) == (0.5, 8)
    assert play.sources.asked == [("a", "/f", 0.5)]
    assert play.engine.adapters == {adapter.id: (Path("/f"), 0.5)}


async def test_load_of_a_name_that_is_taken_is_a_conflict(play: Play) -> None:
    first = await play.load("a")
    with pytest.raises(AdapterConflict, match="'a' is loaded; `load_inplace`"):
        await play.load("a")
    with pytest.raises(AdapterConflict, match="the name of the model itself"):
        await play.load("the/model")
    assert dict(play.adapters.ids) == {"a": first}


@pytest.mark.parametrize("name", ["", "a b", "tgi"])
async def test_load_of_a_name_that_nobody_could_ask_for_is_refused(play: Play, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await play.load(name)
    assert caught.value.field == "lora_name"


@pytest.mark.parametrize("again", [False, True])
async def test_load_while_it_is_being_loaded_is_a_conflict(
    play: Play, nursery: trio.Nursery, again: bool
) -> None:
    play.engine.adapter_gate = trio.Event()
    nursery.start_soon(play.load, "a")
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(AdapterConflict, match="'a' is being loaded"):
        await play.load("a", again=again)
    with pytest.raises(AdapterConflict, match="'a' is being loaded"):
        await play.adapters.unload("a")
    assert play.names == [], "it cannot be used yet"
    play.engine.adapter_gate.set()
    await play.wait_names("a")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("no file"), AdapterError),
        (StartError("no room"), AdapterError),
        (Forbidden("elsewhere"), Forbidden),
        (RuntimeError("a defect"), RuntimeError),
    ],
)
async def test_load_of_what_is_not_found_leaves_nothing(
    play: Play, error: Exception, expected: type[Exception]
) -> None:
    play.sources.error = error
    with pytest.raises(expected, match=str(error)):
        await play.load("a")
    play.sources.error = None
    await play.load("a")


@pytest.mark.parametrize("error", [AdapterError("wrong shape"), EngineDead("dead")])
async def test_load_that_fails_leaves_nothing(play: Play, error: Exception) -> None:
    play.engine.adapter_error = error  # type: ignore[assignment]  # both are RequestError
    with pytest.raises(type(error), match=str(error)):
        await play.load("a")
    play.engine.adapter_error = None
    await play.load("a")
    assert play.names == ["a"]


async def test_load_whose_client_has_gone_is_finished(play: Play, nursery: trio.Nursery) -> None:
    play.engine.adapter_gate = trio.Event()
    with trio.CancelScope() as scope:
        nursery.start_soon(_cancel_when_blocked, scope)
        await play.load("a")
    assert scope.cancelled_caught
    play.engine.adapter_gate.set()
    await play.wait_names("a")


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


# --- reload ---


async def test_reload_takes_the_name_and_frees_the_old_one_when_it_can(play: Play) -> None:
    before = await play.load("a")
    with play.engine.open_streams([a_request(before)]):
        after = await play.load("a", "/g", again=True)
        assert dict(play.adapters.ids) == {"a": after}
        assert set(play.engine.adapters) == {before, after}
    await trio.testing.wait_all_tasks_blocked()
    assert set(play.engine.adapters) == {after}


async def test_reload_that_fails_leaves_the_old_one(play: Play) -> None:
    before = await play.load("a")
    play.engine.adapter_error = AdapterError("cut off")
    with pytest.raises(AdapterError):
        await play.load("a", again=True)
    assert dict(play.adapters.ids) == {"a": before}
    assert play.engine.unloading == []


async def test_reload_of_what_is_not_there_loads_it(play: Play) -> None:
    await play.load("a", again=True)
    assert play.names == ["a"]


# --- unload ---


async def test_unload_takes_the_name_at_once_and_waits_for_requests(
    play: Play, nursery: trio.Nursery
) -> None:
    adapter = await play.load("a")
    done = trio.Event()

    async def unload() -> None:
        await play.adapters.unload("a")
        done.set()

    with play.engine.open_streams([a_request(adapter)]):
        nursery.start_soon(unload)
        await trio.testing.wait_all_tasks_blocked()
        assert play.names == []
        assert not done.is_set()
        with pytest.raises(AdapterNotFound):
            await play.adapters.unload("a")
        after = await play.load("a")
        assert set(play.engine.adapters) == {adapter, after}
    await done.wait()
    assert set(play.engine.adapters) == {after}
    assert play.engine.unloading == [adapter]


async def test_unload_of_what_is_not_there_says_so(play: Play) -> None:
    with pytest.raises(AdapterNotFound, match="there is no adapter 'a'"):
        await play.adapters.unload("a")


async def test_unload_whose_client_has_gone_is_finished(play: Play, nursery: trio.Nursery) -> None:
    adapter = await play.load("a")
    with play.engine.open_streams([a_request(adapter)]), trio.CancelScope() as scope:
        nursery.start_soon(_cancel_when_blocked, scope)
        await play.adapters.unload("a")
    assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()
    assert play.engine.adapters == {}


async def test_ids_that_were_read_stay_as_they_were(play: Play) -> None:
    before = play.adapters.ids
    await play.load("a")
    assert dict(before) == {}


# --- the end ---


async def test_errand_of_a_server_that_stops_ends_with_it() -> None:
    engine = FakeEngine(adapter_gate=trio.Event())
    adapters = Adapters(engine, Sources(), "m")  # type: ignore[arg-type]
    outcomes: list[str] = []

    async def load(name: str) -> None:
        try:
            await adapters.load(name, "/f", scale=1.0, is_reload=False)
        except ShuttingDown:
            outcomes.append(name)

    async with trio.open_nursery() as callers:
        async with trio.open_nursery() as nursery:
            await nursery.start(adapters.run)
            callers.start_soon(load, "waiting")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        callers.start_soon(load, "late")
    assert sorted(outcomes) == ["late", "waiting"]
