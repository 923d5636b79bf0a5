"""One option of ``Config`` as click takes it: its spellings, its variables, what values it has."""

import os
import re
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.types import OptionHelpExtra

from tgi_llama import platforms
from tgi_llama.options.option import Option


class ConfigOption(click.Option):
    """The click option of one field of ``Config``."""

    def __init__(self, option: Option) -> None:
        is_switch = option.kind is bool
        super().__init__(
            _declarations(option),
            type=_type_of(option),
            is_flag=is_switch,
            multiple=option.is_repeatable,
            default=None,
            envvar=option.variables or None,
            metavar=None if is_switch else f"<{option.unit}>",
            help=_help_of(option),
        )
        self.option = option

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:  # noqa: ARG002  # click's
        """Nothing: the help text says the default and the range already, in our words."""
        return {}

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Adds the off switch's variable: ``DISABLE_MMAP=true`` is ``USE_MMAP=false``."""
        value = super().resolve_envvar_value(ctx)
        variable = self.option.off_variable
        off_value = os.environ.get(variable) if variable else None
        if not off_value:
            return value
        hint = f"environment variable '{variable}'"
        try:
            is_off = _Switch().convert(off_value, None, ctx)
        except click.BadParameter as error:
            raise click.BadParameter(error.message, ctx, param_hint=hint) from error
        if value is not None and _Switch().convert(value, self, ctx) is is_off:
            message = f"it contradicts {self.option.variables[0]}"
            raise click.BadParameter(message, ctx, param_hint=hint)
        return "false" if is_off else "true"

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Names the variable too where the value came from the environment."""
        hint = super().get_error_hint(ctx)
        variable = self._variable(ctx) if ctx is not None else None
        return f"{hint} (environment variable '{variable}')" if variable else hint

    def _variable(self, ctx: click.Context) -> str | None:
        """The variable that the value came from, if it came from one."""
        source = ctx.get_parameter_source(self.option.name)
        if source is ParameterSource.ENVIRONMENT:
            return next(name for name in self.option.variables if os.environ.get(name))
        if source is ParameterSource.DEFAULT_MAP:
            start: platforms.Start = ctx.obj
            return start.told[self.option.name].variable
        return None


def _declarations(option: Option) -> list[str]:
    flag = f"{option.flag}/{option.off_switch}" if option.off_switch else option.flag
    return [option.name, flag, *option.aliases]


def _type_of(option: Option) -> "click.ParamType[Any]":
    if option.choices:
        return _Spelling(option.choices, case_sensitive=False)
    if option.kind is bool:
        return _Switch()
    if option.is_amount:
        return _Text(option)
    if option.kind is int:
        return _Integer(min=option.minimum, max=option.maximum)
    if option.kind is float:
        return _Number(min=option.minimum, max=option.maximum)
    if option.kind is Path:
        any_path = option.is_any_path
        return click.Path(exists=not any_path, dir_okay=any_path, path_type=Path)
    return _Text(option)


def _help_of(option: Option) -> str:
    facts = [f"default: {option.shown_default}"]
    if option.shown_range:
        facts.append(option.shown_range)
    return f"{option.help} [{'; '.join(facts)}]"


class _Spelling(click.Choice[str]):
    """Choices in which a dash is as good as an underscore: TGI writes ``q8-0``, llama.cpp ``q8_0``.

    The value is the choice as ``config`` spells it.
    """

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        return super().normalize_choice(str(choice), ctx).replace("-", "_")


class _Switch(click.types.BoolParamType):
    """On or off; a text only where it comes from the environment."""

    def convert(
        self, value: bool | str, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        try:
            return bool(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"expected true or false, got {value!r}.", param, ctx)


class _Integer(click.IntRange):
    name = "whole number"


class _Number(click.FloatRange):
    name = "number"


class _Text(click.types.StringParamType):
    """A text that matches the option's pattern."""

    def __init__(self, option: Option) -> None:
        self._option = option

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        text = str(value)
        if re.fullmatch(self._option.pattern, text) is None:
            found = "" if self._option.secret else f", got {text!r}"
            self.fail(f"expected {self._option.expected}{found}.", param, ctx)
        return text

    def split_envvar_value(self, rv: str) -> list[str]:
        """A variable holds one value of a repeatable option, as in TGI: a key may hold a space."""
        return [rv]
