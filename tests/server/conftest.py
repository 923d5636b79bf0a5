"""``make_site``: the real application over a scripted engine."""

import pytest
from fakes.site import build_site

from tgi_llama.server import listener


@pytest.fixture
async def make_site(nursery):
    sites = []

    async def make(*args, **kwargs):
        sites.append(await build_site(nursery, *args, **kwargs))
        return sites[-1]

    yield make
    for site in sites:
        await site.close()


@pytest.fixture
def n_short(monkeypatch):
    """How many parts went the short way, so far."""
    counts = []
    write_part = listener._Connection.write_part

    def counted(self, data):
        counts.append(len(data))
        return write_part(self, data)

    monkeypatch.setattr(listener._Connection, "write_part", counted)
    return lambda: len(counts)
