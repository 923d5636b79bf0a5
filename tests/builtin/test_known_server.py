"""What the built-in model is taught about this server is so."""

import attrs
import pytest

from tgi_llama.builtin.skills.server_options import OPTIONS, Option
from tgi_llama.config import Config

FIELDS = attrs.fields_dict(Config)
WORDED = {
    "--model-id": "the built-in model",
    "--max-batch-size": "the number of threads",
    "--n-threads": "the number of CPUs",
    "--max-physical-batch-total-tokens": "512",
    "--cors-allow-origin": "any",
}
"""Defaults that are worked out at the start; docs/options.md words them like this."""


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_option_exists_and_has_the_default_that_is_taught(option: Option) -> None:
    default = FIELDS[option.name.removeprefix("--").replace("-", "_")].default
    if option.name in WORDED:
        assert default in (None, ())
        assert option.default == WORDED[option.name]
        return
    if default in (None, ()):
        assert option.default == "not set"
    elif isinstance(default, bool):
        assert option.default == ("on" if default else "off")
    else:
        assert option.default == (f"{default:g}" if isinstance(default, float) else str(default))
