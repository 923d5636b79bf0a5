"""``make_site``: the real application over a scripted engine."""

import pytest
from fakes.site import build_site


@pytest.fixture
async def make_site(nursery):
    sites = []

    async def make(*args, **kwargs):
        sites.append(await build_site(nursery, *args, **kwargs))
        return sites[-1]

    yield make
    for site in sites:
        await site.close()
