"""How an option of the command line is described: the vocabulary ``config.Config`` is written in.

The command line, the environment, ``--help`` and ``docs/options.md`` are all made from these
descriptions. Nothing here knows a particular option.
"""

import enum
import types
import typing
from collections.abc import Callable
from typing import Any, Required, TypedDict, TypeVar, Unpack, cast

import attrs

T = TypeVar("T")

INT32_MAX = 2**31 - 1
"""Largest count of tokens or bytes: llama.cpp counts in 32-bit integers."""

_METADATA_KEY = "option"


class Group(enum.Enum):
    """Headings of ``--help`` and ``docs/options.md``, in their order."""

    MODEL = "Model"
    ADAPTERS = "LoRA adapters"
    CONVERSION = "Models in safetensors, which are converted"
    GPU = "GPUs"
    LLAMA_CPP = "Processors and memory"
    BATCH = "Batching"
    REQUEST = "Limits of one request"
    STRUCTURE = "Grammars, tools and control tokens"
    HTTP = "HTTP server"
    LOGS = "Logs"
    NO_EFFECT = "Accepted for compatibility, without effect"


@attrs.frozen(kw_only=True)
class Option:
    """One option. ``name``, ``annotation`` and ``default`` are filled in from its field."""

    help: str
    """What it does: whole sentences, plain text."""
    group: Group
    default_text: str | None = None
    """How to describe a default that is worked out from other options."""
    unit: str | None = None
    """What the value counts or is; shown in place of the value. None for switches."""
    minimum: int | None = None
    maximum: int = INT32_MAX
    choices: tuple[str, ...] = ()
    pattern: str = r"(?s:.+)"
    """Regular expression that a free text must match as a whole."""
    expected: str = "a text that is not empty"
    """What ``pattern`` asks for, in words."""
    aliases: tuple[str, ...] = ()
    """Further spellings. A long one is also read from the environment."""
    off_switch: str | None = None
    """The option that turns this switch off, for example ``--disable-mmap``."""
    has_variable: bool = True
    """Whether the environment is read."""
    is_amount: bool = False
    """A number that is given as a text which matches ``pattern``; ``maximum`` does not apply."""
    is_any_path: bool = False
    """A path that may be a folder's and need not exist; others are those of files."""
    secret: bool = False
    """Never shown: left out of the configuration's ``repr``."""
    no_effect: str | None = None
    """Why giving the option changes nothing; the reason is logged as a warning."""

    name: str = ""
    annotation: object = None
    default: object = None

    @property
    def flag(self) -> str:
        """Its preferred spelling, for example ``--max-input-tokens``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variables(self) -> tuple[str, ...]:
        """Names in the environment, the preferred one first; without the off switch's."""
        if not self.has_variable:
            return ()
        long_aliases = (alias for alias in self.aliases if alias.startswith("--"))
        return tuple(_variable(flag) for flag in (self.flag, *long_aliases))

    @property
    def off_variable(self) -> str | None:
        """Name in the environment of the off switch."""
        return _variable(self.off_switch) if self.off_switch else None

    @property
    def kind(self) -> type:
        """The type of one value: ``str`` for ``str | None`` and for ``tuple[str, ...]``."""
        inner = [
            argument
            for argument in typing.get_args(self.annotation)
            if isinstance(argument, type) and argument is not types.NoneType
        ]
        return inner[0] if inner else cast(type, self.annotation)

    @property
    def is_repeatable(self) -> bool:
        return typing.get_origin(self.annotation) is tuple

    @property
    def shown_default(self) -> str:
        if self.default_text is not None:
            return self.default_text
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return "unset" if self.default in (None, ()) else str(self.default)

    @property
    def shown_range(self) -> str | None:
        """The range of a number in words, for example ``at least 1``; None where it goes
        without saying."""
        if self.minimum is None or (self.minimum == 0 and self.maximum == INT32_MAX):
            return None
        if self.maximum == INT32_MAX:
            return f"at least {self.minimum}"
        return f"{self.minimum} to {self.maximum}"

    def allows(self, number: float) -> bool:
        """Whether the number is in the range."""
        small_enough = self.is_amount or number <= self.maximum
        return small_enough and (self.minimum is None or number >= self.minimum)


class Description(TypedDict, total=False):
    """The arguments of ``Option`` that a field's author writes."""

    help: Required[str]
    group: Required[Group]
    default_text: str
    unit: str
    minimum: int
    maximum: int
    choices: tuple[str, ...]
    pattern: str
    expected: str
    aliases: tuple[str, ...]
    off_switch: str
    has_variable: bool
    is_amount: bool
    is_any_path: bool
    secret: bool
    no_effect: str


def described(
    default: T,
    *,
    resolve: Callable[[T, Any], T] | None = None,
    **description: Unpack[Description],
) -> T:
    """An attrs field that carries its description; typed as the default, as ``attrs.field`` is.

    ``resolve`` gets the given value and the object under construction, whose earlier fields are
    set, and returns the final value.
    """
    option = Option(**description)
    return attrs.field(
        default=default,
        converter=attrs.Converter(resolve, takes_self=True) if resolve else None,
        repr=not option.secret,
        metadata={_METADATA_KEY: option},
    )


def derived(resolve: Callable[[int | None, Any], int], **description: Unpack[Description]) -> int:
    """A number that has no default of its own: ``resolve`` is called as in ``described``, with
    None where nothing was given."""
    return cast(int, described(None, resolve=resolve, **description))


def amount(
    resolve: Callable[[str | int | None, Any], int | None], **description: Unpack[Description]
) -> int | None:
    """A number that people write as a text, for example ``2GiB``. ``resolve`` is called as in
    ``derived``, also takes the number itself, and may leave None to whoever knows more."""
    description["is_amount"] = True
    return described(None, resolve=resolve, **description)


def options_of(cls: type[attrs.AttrsInstance]) -> tuple[Option, ...]:
    """The options of a class written with ``described`` and ``derived``, in field order."""
    return tuple(
        attrs.evolve(
            field.metadata[_METADATA_KEY],
            name=field.name,
            annotation=field.type,
            default=field.default,
        )
        for field in attrs.fields(cls)
    )


def _variable(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_").upper()
