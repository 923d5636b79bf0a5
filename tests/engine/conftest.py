from collections.abc import Iterator

import pytest
from fakes.playbook import Playbook


@pytest.fixture
def plays() -> Iterator[list[Playbook]]:
    """Those whose threads are to be ended."""
    plays: list[Playbook] = []
    yield plays
    for play in plays:
        play.loop.grammars.close()
