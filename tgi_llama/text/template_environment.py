"""The Jinja set-up that chat templates are written for: that of the ``transformers`` library.

Templates come with models, so they are not trusted: they run in Jinja's immutable sandbox, without
a loader, and see plain data only.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

Clock = Callable[[], datetime]


class TemplateRaised(jinja2.TemplateError):
    """The template called ``raise_exception``."""


class GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}...{% endgeneration %}`` marks what the model writes, for training. Here it
    renders its body; what is assigned inside stays inside, as in a macro."""

    tags = {"generation"}  # noqa: RUF012  Jinja reads a plain class attribute

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_render_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _render_body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """``dict`` as templates use it, without the type behind it."""

    def __call__(self, *args: object, **kwargs: object) -> dict[object, object]:
        return cast("dict[object, object]", dict(*args, **kwargs))

    def fromkeys(self, keys: Sequence[object], value: object = None) -> dict[object, object]:
        return dict.fromkeys(keys, value)


class _Namespace(jinja2.utils.Namespace):
    """``namespace`` without underscore names, which would reach into Python."""

    def __init__(*args: object, **kwargs: object) -> None:  # so that a key may be called "self"
        self, *rest = args
        attributes = cast("dict[object, object]", dict(*rest, **kwargs))
        for name in attributes:
            _refuse_underscore(name)
        assert isinstance(self, jinja2.utils.Namespace)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace cannot hold {name!r}: the name starts with an underscore"
        )


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML and sorts keys."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> None:
    raise TemplateRaised(str(message))


def build_environment(now: Clock = datetime.now) -> ImmutableSandboxedEnvironment:
    """``now`` is what ``strftime_now`` tells, in local time."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationBlock, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: now().strftime(format)  # noqa: A006
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


def plain_data(value: object) -> object:
    """A copy made of what JSON knows, so that a template can reach nothing else.

    Raises TypeError for anything that JSON does not know.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain_data(item) for item in value]
    raise TypeError(f"a template cannot be given a {type(value).__name__}")
