"""The Compose file of docs/deploy: valid, and true to the server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tgi_llama import lifecycle
from tgi_llama.config import Config, options

compose_spec = pytest.importorskip(
    "compose_spec", reason="compose-spec has no wheel for this processor"
)

_FILE = Path(__file__).parents[2] / "docs" / "deploy" / "compose.yaml"
_MARGIN_S = 4
"""What a container may take to end beside what is reckoned with: freeing the model."""


def _compose() -> dict[str, Any]:
    """With the defaults of variables, and without the fragment that the services are made of."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", lambda found: found[1], _FILE.read_text())
    loaded = yaml.safe_load(text)
    return {name: value for name, value in loaded.items() if not name.startswith("x-")}


def _services() -> Iterator[dict[str, Any]]:
    yield from _compose()["services"].values()


def test_compose_file_is_valid() -> None:
    compose = compose_spec.PyCompose.from_yaml(yaml.safe_dump(_compose()))
    assert sorted(compose.service_names()) == ["cpu", "gpu"]


def test_compose_validator_finds_what_is_wrong() -> None:
    compose = _compose()
    compose["services"]["cpu"]["stop_grace_periods"] = "1s"
    with pytest.raises(ValueError, match="stop_grace_periods"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose))


def test_compose_variables_are_options() -> None:
    known = {variable for option in options() for variable in option.variables}
    for service in _services():
        assert set(service["environment"]) - {"HF_TOKEN"} <= known


def test_compose_services_have_the_time_that_the_server_takes_to_end() -> None:
    end_s = Config().graceful_termination_timeout + lifecycle._LAST_WORDS_S
    for service in _services():
        seconds = float(service["stop_grace_period"].removesuffix("s"))
        assert seconds >= end_s + _MARGIN_S


def test_compose_services_publish_the_default_port() -> None:
    port = Config().port
    assert all(service["ports"] == [f"{port}:{port}"] for service in _services())
