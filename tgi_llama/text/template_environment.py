"""The Jinja set-up that chat templates are written for: that of the ``transformers`` library.

Templates come with models, so they are not trusted: they run in Jinja's immutable sandbox, without
a loader, and see plain data only.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import pass_context
from markupsafe import EscapeFormatter, Markup

from .template_code import MeteredCodeGenerator, MeteredContext, check_source, check_tree
from .template_guards import (
    build_mapping,
    call_method,
    is_method,
    may_call,
    metered_filters,
    metered_tests,
    time_text,
)
from .template_meter import LimitExceeded, Meter, TemplateLimits, bounded_concat

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

    @pass_context
    def __call__(self, context: MeteredContext, /, *args: object, **kwargs: object) -> object:
        return build_mapping(context.meter, args, kwargs)

    @pass_context
    def fromkeys(
        self, context: MeteredContext, keys: Iterable[object], value: object = None
    ) -> object:
        return build_mapping(context.meter, (((key, value) for key in keys),), {})


class _Namespace(jinja2.utils.Namespace):
    """``namespace`` without underscore names, which would reach into Python, and that does not
    print what it holds: it may hold itself."""

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


@pass_context
def _namespace(context: MeteredContext, /, *args: object, **kwargs: object) -> _Namespace:
    attributes = build_mapping(context.meter, args, kwargs)
    for name in attributes:
        _refuse_underscore(name)
    return _Namespace(attributes)


@pass_context
def _cycler(context: MeteredContext, *items: object) -> jinja2.utils.Cycler:
    context.meter.weight(items)
    return jinja2.utils.Cycler(*items)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: the name starts with an underscore")


def _raise_exception(message: object) -> None:
    raise TemplateRaised(str(message))


_WITH_ARGUMENTS = (jinja2.nodes.Call, jinja2.nodes.Filter, jinja2.nodes.Test)

_MAX_FIELDS = 10_000
"""Of one format."""


class _Formatter(SandboxedFormatter):
    """Of ``str.format``, for one call."""

    def __init__(self, environment: "_Environment", **kwargs: Any) -> None:
        super().__init__(environment, **kwargs)
        self._limits = environment.limits
        self._n_characters = 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        if re.search(r"\d{4}", format_spec):
            raise LimitExceeded("the template formats with too large widths")
        text = super().format_field(value, format_spec)
        self._n_characters += len(text)
        if self._n_characters > self._limits.max_characters:
            raise LimitExceeded("the template formats too long a text")
        return text


class _EscapingFormatter(_Formatter, EscapeFormatter):
    """For texts that are marked as safe."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with limits for what templates do and a list of what they may call."""

    code_generator_class = MeteredCodeGenerator
    context_class = MeteredContext
    limits = TemplateLimits()

    def concat(self, pieces: Iterable[str]) -> str:
        """Of blocks, which know nothing of a meter."""
        return bounded_concat(pieces, self.limits)

    intercepted_binops = frozenset(("*", "**", "%"))  # by the code generator

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        check_source(source)
        tree = super()._parse(source, name, filename)
        check_tree(tree)
        node: Any
        for node in tree.find_all(_WITH_ARGUMENTS):
            if node.dyn_args is not None:  # a text as arguments is one for each character
                listed = jinja2.nodes.Filter(node.dyn_args, "list", [], [], None, None)
                node.dyn_args = listed.set_lineno(node.lineno)
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja's, which looks for an attribute first and asks whether it is safe, but quick for
        what templates do most: an object's key, and a method that they may call."""
        kind = type(obj)
        if kind is dict and attribute not in _NAMES_OF_OBJECTS:
            value = obj.get(attribute, _MISSING)
            return self.undefined(obj=obj, name=attribute) if value is _MISSING else value
        if is_method(kind, attribute) or (kind is _LoopContext and attribute in _LOOP_FACTS):
            return getattr(obj, attribute)
        if kind is _Namespace and not attribute.startswith("_"):
            value = getattr(obj, attribute, _MISSING)
            if type(value) in _PLAIN_TYPES:
                return value
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As Jinja's, which looks for an attribute where there is no such key."""
        if type(obj) is dict and type(argument) is str and argument not in _NAMES_OF_OBJECTS:
            value = obj.get(argument, _MISSING)
            return self.undefined(obj=obj, name=argument) if value is _MISSING else value
        return super().getitem(obj, argument)

    def call(__self, __context: MeteredContext, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N805
        meter = __context.meter
        kind = type(__obj)
        if kind is BuiltinMethodType or kind is MethodType:
            if may_call(__obj):
                kwargs.pop("_loop_vars", None)
                kwargs.pop("_block_vars", None)
                return call_method(meter, __obj, args, kwargs)
            if kind is BuiltinMethodType or not isinstance(__obj.__self__, _OWNERS):
                raise SecurityError(f"the method {__obj.__name__!r} cannot be called")
        meter.tick()
        if kind is jinja2.runtime.Macro:
            if __obj.catch_varargs:
                meter.weight(args)
            if __obj.catch_kwargs:
                meter.weight(kwargs)
            return __context.call(__obj, *args, **kwargs)
        if not isinstance(__obj, _CALLABLE) and callable(__obj):
            raise SecurityError(f"a {type(__obj).__name__} cannot be called")
        return meter.checked(__context.call(__obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text, takes_mapping = value.__self__, value.__name__ == "format_map"
        if text.count("{") > _MAX_FIELDS:
            raise LimitExceeded(f"the template formats more than {_MAX_FIELDS} fields")

        def formatted(*args: Any, **kwargs: Any) -> str:
            if takes_mapping:
                (kwargs,) = args
                args = ()
            if isinstance(text, Markup):
                return Markup(
                    _EscapingFormatter(self, escape=text.escape).vformat(text, args, kwargs)
                )
            return _Formatter(self).vformat(text, args, kwargs)

        return formatted


_MISSING = object()

_PLAIN_TYPES = frozenset((str, bool, int, float, type(None), list, dict))

_LoopContext = jinja2.runtime.LoopContext

_LOOP_FACTS = frozenset(("depth", "first", "index", "index0", "last", "length", "previtem"))
"""Those that templates ask for most."""

_NAMES_OF_OBJECTS = frozenset(dir(dict))

_OWNERS = (jinja2.runtime.LoopContext, jinja2.utils.Cycler, _Dict, GenerationBlock)
"""Of methods that may be called, besides the values that are in ``template_guards``."""

_CALLABLE = (
    FunctionType,  # ours, and str.format
    MethodType,  # as above
    jinja2.runtime.BlockReference,
    jinja2.runtime.LoopContext,
    jinja2.runtime.Undefined,  # it raises an error that says what is missing
    jinja2.utils.Joiner,
    _Dict,
)


def build_environment(now: Clock, limits: TemplateLimits) -> jinja2.Environment:
    """``now`` is what ``strftime_now`` tells, in local time. Templates of this environment are
    rendered with ``render`` and a meter of these limits."""
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # it would compute without limits
        extensions=[GenerationBlock, jinja2.ext.loopcontrols],
    )
    environment.limits = limits
    environment.filters = metered_filters()
    environment.tests = metered_tests()
    environment.globals |= {
        "cycler": _cycler,
        "dict": _Dict(),
        "joiner": lambda sep=", ": jinja2.utils.Joiner(sep),
        "namespace": _namespace,
        "raise_exception": _raise_exception,
        "strftime_now": lambda format: time_text(now(), format),  # noqa: A006
    }
    del environment.globals["lipsum"]  # makes random text
    return environment


def render(template: jinja2.Template, variables: dict[str, object], meter: Meter) -> str:
    """Raises LimitExceeded and what the template raises, with its lines in the traceback."""
    context = template.new_context(variables)
    assert isinstance(context, MeteredContext)
    context.meter = meter
    try:
        return bounded_concat(template.root_render_func(context), meter.limits)
    except Exception:
        template.environment.handle_exception()


def plain_data(value: object) -> object:
    """A copy made of what JSON knows, so that a template can reach nothing else.

    Raises TypeError for anything that JSON does not know.
    """
    if value is None or type(value) in (str, bool, int, float):
        return value
    # exact types first: to ask for an abstract one takes longer than the copy
    if type(value) is dict:
        return {str(key): plain_data(item) for key, item in value.items()}
    if type(value) is list:
        return [plain_data(item) for item in value]
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
