import gc
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.hub import FakeHub, running_hub

from tgi_llama.models.hub import Hub
from tgi_llama.models.hub_errors import Patience

_DROPPED = "ignore:unclosed <socket:ResourceWarning"
"""huggingface_hub drops the connections of transfers that broke, and the garbage collection closes
them: at any time, so maybe in a test that has nothing to do with it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "fake_hub" in item.fixturenames:
            item.add_marker(pytest.mark.filterwarnings(_DROPPED))


@pytest.fixture(scope="module", autouse=True)
def dropped_connections() -> Iterator[None]:
    """None are left to other modules."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between tries, ours and those of huggingface_hub; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def make_hub(fake_hub: FakeHub, tmp_path: Path, pauses: list[float]) -> Callable[..., Hub]:
    """Clients of the local hub that share a cache. No time passes but in pauses."""

    def make(*, n_tries: int = 4, **settings: object) -> Hub:
        patience = Patience(n_tries=n_tries, pause=pauses.append, clock=lambda: sum(pauses))
        values = {"cache": tmp_path / "cache", "endpoint": fake_hub.url, "patience": patience}
        return Hub(**(values | settings))

    return make
