"""Where converted models are kept."""

import tempfile
from pathlib import Path

import pytest

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.options.model_cache import model_cache


def test_model_cache_given_is_taken_as_it_is() -> None:
    assert model_cache(Path("here")) == Path("here")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/a"}, "/xdg"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/a"}, "/home/a/.cache"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/a"}, "/home/a/.cache"),
        ({"XDG_CACHE_HOME": "", "HOME": "no-home"}, tempfile.gettempdir()),
    ],
)
def test_model_cache_default_is_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert model_cache(None) == Path(folder) / "tgi_llama" / "models"
    assert Config().model_cache == model_cache(None)


def test_quantize_is_checked_with_the_other_options() -> None:
    assert Config(quantize="Q4-K").quantize == "q4_k_m"
    with pytest.raises(ConfigError, match="importance matrix"):
        Config(quantize="iq1_s")
