"""The routes that the built-in model is taught."""

import pytest

from tgi_llama.builtin.skills.server_options import ROUTES


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_route_that_the_model_knows_exists(make_site, route):
    site = await make_site()
    rules = site.app.url_map.iter_rules()
    assert any(rule.rule == route.path and route.method in rule.methods for rule in rules)
