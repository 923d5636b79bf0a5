"""The configuration: one frozen value of all options, which ``options/`` describes.

Option names are the field names with dashes, environment names the same in upper case. Values that
depend on others (threads, batch sizes) are worked out here, and texts that may come from a file
are read here: whoever holds a ``Config`` sees final values only.
"""

import attrs

from tgi_llama.options.batch import BatchOptions
from tgi_llama.options.checks import check
from tgi_llama.options.http import HttpOptions
from tgi_llama.options.llama_cpp import LlamaCppOptions
from tgi_llama.options.log import LogOptions
from tgi_llama.options.lora import LoraOptions
from tgi_llama.options.model import ModelOptions
from tgi_llama.options.no_effect import NoEffectOptions
from tgi_llama.options.option import Option, options_of
from tgi_llama.options.request import RequestOptions


@attrs.frozen(kw_only=True)
class Config(
    # The fields of the last come first. Values are worked out in this order, so that batch sizes
    # can follow from threads.
    NoEffectOptions,
    LogOptions,
    HttpOptions,
    BatchOptions,
    RequestOptions,
    LlamaCppOptions,
    LoraOptions,
    ModelOptions,
):
    """All options with their final values. Raises ConfigError where they contradict each other.

    The command line checks each value's own syntax and names the option or variable; ranges and
    choices are checked here again, since they also bind the values that were worked out.
    """

    def __attrs_post_init__(self) -> None:
        check(self, options())

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each option that was given although it changes nothing."""
        return tuple(
            f"{option.flag} has no effect: {option.no_effect}"
            for option in options()
            if option.no_effect and getattr(self, option.name) != option.default
        )


def options() -> tuple[Option, ...]:
    """All options in the order in which they are shown."""
    return options_of(Config)
