"""Renders conversations with a model's chat template."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import cast

import attrs
import jinja2
import jinja2.meta
from jinja2.exceptions import TemplateSyntaxError

from tgi_llama.errors import ConfigError, TemplateError

from .template_dialects import (
    CallLayout,
    described,
    find_layout,
    simplified,
    wants_tools_in_system_message,
    with_object_arguments,
    with_tools_in_system_message,
)
from .template_environment import (
    Clock,
    TemplateRaised,
    build_environment,
    plain_data,
    render,
)
from .template_errors import (
    RENDER_ERRORS,
    TEMPLATE_NAME,
    describe_render_error,
    describe_syntax_error,
)
from .template_meter import LimitExceeded, Meter, TemplateLimits

Message = Mapping[str, object]
Tool = Mapping[str, object]

_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
"""Under which a message's reasoning comes; templates read one of the first two."""

_MARK = "TheMessageGoesOnHere5d1c "
"""Put behind the last message to find its end in the prompt. The space at the end shows whether the
template keeps white space there."""


@attrs.frozen(eq=False)
class ChatTemplate:
    """One compiled template. Immutable, so any number of threads may render at once."""

    source: str
    bos_token: str | None = attrs.field(kw_only=True, default=None)
    eos_token: str | None = attrs.field(kw_only=True, default=None)
    more_tokens: Mapping[str, str] = attrs.field(kw_only=True, factory=dict)
    """Other special tokens by variable name, such as ``unk_token``. Tokens that a model does not
    have are undefined, so they render as nothing."""
    origin: str = attrs.field(kw_only=True, default="chat template")
    """Where the source comes from, for messages."""
    now: Clock = attrs.field(kw_only=True, default=datetime.now)
    limits: TemplateLimits = attrs.field(kw_only=True, factory=TemplateLimits)
    variables: frozenset[str] = attrs.field(init=False)
    """Variables that the template reads, ``tools`` for example."""
    _compiled: jinja2.Template = attrs.field(init=False)
    _has_message_tools: bool = attrs.field(init=False)
    """Tools are looked for in the system message."""
    _layout: CallLayout = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Raises ConfigError naming origin, line and column where the source is not a template, and
        with the reason where it is beyond the limits."""
        environment = build_environment(self.now, self.limits)
        try:
            code = environment.compile(self.source, filename=TEMPLATE_NAME)
            tree = environment.parse(self.source)
        except TemplateSyntaxError as error:
            description = describe_syntax_error(environment, self.source, error)
            raise ConfigError(f"{self.origin}: not a template: {description}") from error
        except LimitExceeded as error:
            raise ConfigError(f"{self.origin}: {error}") from error
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            # nested deeper than Python can compile, or a number that it does not read
            raise ConfigError(f"{self.origin}: not a template: {error}") from error
        compiled = environment.template_class.from_code(environment, code, environment.globals)
        variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
        has_message_tools = wants_tools_in_system_message(self.source)
        object.__setattr__(self, "_compiled", compiled)
        object.__setattr__(self, "_has_message_tools", has_message_tools)
        if has_message_tools:
            variables |= {"tools"}
        object.__setattr__(self, "variables", variables)
        object.__setattr__(self, "_layout", self._find_layout())

    def _find_layout(self) -> CallLayout:
        """What the template makes of small conversations. Raises ConfigError where it takes too
        much for these."""
        meter = Meter(self.limits)
        variables: dict[str, object] = {**self._special_tokens(), "documents": None, "tools": []}

        def render(chat: list[dict[str, object]]) -> str:
            try:
                return self._render_plainly(chat, variables, meter)
            except TemplateError as error:
                if isinstance(error.__cause__, LimitExceeded):
                    raise ConfigError(f"{self.origin}: {error}") from error
                raise

        with contextlib.suppress(TemplateError):
            render([{"role": "user", "content": "Hi"}])
        return find_layout(render) if "tool_calls" in self.source else CallLayout()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        **kwargs: object,
    ) -> str:
        """The prompt for a conversation. ``kwargs`` become variables of the template, such as
        ``documents``, and win over the special tokens.

        ``continue_final_message``: True ends the prompt inside the last message, without a
        generation prompt, for the model to write on; False never does; None is TGI's rule: it does
        where the last message is the assistant's and appears in the prompt as it is, and white
        space at the end is removed.

        Raises TemplateError, with TGI's message after ``Template error:``, where the template
        refuses the conversation or fails.
        """
        meter = Meter(self.limits)
        chat = [self._as_known(message) for message in messages]
        variables: dict[str, object] = {
            "documents": None,
            **self._special_tokens(),
            **_plain_object(kwargs),
            "tools": _plain(tools),
            "add_generation_prompt": add_generation_prompt,
        }
        if continue_final_message:
            variables["add_generation_prompt"] = False
            return self._render_continued(chat, variables, meter)
        prompt = self._render(chat, variables, meter)
        if continue_final_message is None and chat and chat[-1].get("role") == "assistant":
            return self._cut_implicitly(prompt, chat, variables, meter)
        return prompt

    def _as_known(self, message: Message) -> dict[str, object]:
        """A plain copy in the layout that the template expects."""
        return self._layout.lay_out(self._with_known_role(_with_reasoning(message)))

    def _with_known_role(self, message: dict[str, object]) -> dict[str, object]:
        """``developer`` is OpenAI's newer word for ``system``, which most models have not learnt
        and many templates refuse; one that speaks of it keeps it."""
        if message.get("role") == "developer" and "developer" not in self.source:
            return {**message, "role": "system"}
        return message

    def _special_tokens(self) -> dict[str, str]:
        named = {"bos_token": self.bos_token, "eos_token": self.eos_token, **self.more_tokens}
        return {name: token for name, token in named.items() if token is not None}

    def _render(
        self, chat: list[dict[str, object]], variables: Mapping[str, object], meter: Meter
    ) -> str:
        tools = cast("Sequence[Tool] | None", variables.get("tools"))
        if self._has_message_tools and tools:
            chat = with_tools_in_system_message(chat, tools)
        try:
            return self._render_plainly(chat, variables, meter)
        except TemplateError as error:
            if isinstance(error.__cause__, TemplateRaised | LimitExceeded):
                raise  # on purpose, or to no purpose
            for other_chat, other_tools in self._easier(chat, tools):
                with contextlib.suppress(TemplateError):
                    other = {**variables, "tools": other_tools}
                    return self._render_plainly(other_chat, other, meter)
            raise

    def _easier(
        self, chat: list[dict[str, object]], tools: Sequence[Tool] | None
    ) -> Iterator[tuple[list[dict[str, object]], Sequence[Tool] | None]]:
        """What a template may take that has failed on the request as it is; the smallest changes
        first."""
        with_objects = chat
        if not self._layout.arguments_are_text:
            with_objects = with_object_arguments(chat)
            if with_objects != chat:
                yield with_objects, tools
        before: Sequence[Tool] = tools or ()
        for easier in (described, simplified):
            changed = easier(before)
            if changed != before:
                yield with_objects, changed
            before = changed

    def _render_plainly(
        self, chat: list[dict[str, object]], variables: Mapping[str, object], meter: Meter
    ) -> str:
        try:
            return render(self._compiled, {**variables, "messages": chat}, meter)
        except RENDER_ERRORS as error:
            raise TemplateError(describe_render_error(error)) from error

    def _render_continued(
        self, chat: list[dict[str, object]], variables: Mapping[str, object], meter: Meter
    ) -> str:
        """The prompt up to the end of the last message's text."""
        text = _final_text(chat)
        if text is None:
            raise TemplateError("continue_final_message: the last message has no text to continue")
        prompt = self._render(_with_mark(chat), variables, meter)
        position = prompt.rfind(_MARK.rstrip())
        if position < 0 or text.strip() not in prompt:
            raise TemplateError(
                "continue_final_message: the template does not show the last message as it is"
            )
        keeps_space = prompt.startswith(_MARK, position)
        return prompt[:position] if keeps_space else prompt[:position].rstrip()

    def _cut_implicitly(
        self,
        prompt: str,
        chat: list[dict[str, object]],
        variables: Mapping[str, object],
        meter: Meter,
    ) -> str:
        """TGI's rule: cut after the last occurrence of the last message. A short message may also
        occur in what follows it ("a" in "assistant"), so a mark tells where it really is."""
        text = _final_text(chat)
        if text is None or text not in prompt:
            return prompt
        if text:
            marked = self._render(_with_mark(chat), variables, meter)
            before = marked[: max(marked.rfind(_MARK.rstrip()), 0)]
            if before.endswith(text):
                return before.rstrip()
        return prompt[: prompt.rfind(text) + len(text)].rstrip()


def _plain(value: object) -> object:
    try:
        return plain_data(value)
    except RecursionError as error:
        raise TemplateError("invalid operation: the request is nested too deep") from error


def _plain_object(value: Mapping[str, object]) -> dict[str, object]:
    return cast("dict[str, object]", _plain(value))


def _with_reasoning(message: Message) -> dict[str, object]:
    """A plain copy that has its reasoning under each name that templates read."""
    copy = _plain_object(message)
    found = (copy[name] for name in _REASONING_NAMES if copy.get(name) is not None)
    reasoning = next(found, None)
    if reasoning is None:
        return copy
    return {"thinking": reasoning, **copy, "reasoning_content": reasoning}


def _last_text_part(content: object) -> dict[str, object] | None:
    parts = content if isinstance(content, list) else []
    return next((part for part in reversed(parts) if isinstance(part.get("text"), str)), None)


def _final_text(chat: list[dict[str, object]]) -> str | None:
    """The text of the last message, of its last text part where it has parts."""
    content = chat[-1].get("content") if chat else None
    if isinstance(content, str):
        return content
    part = _last_text_part(content)
    return None if part is None else str(part["text"])


def _with_mark(chat: list[dict[str, object]]) -> list[dict[str, object]]:
    """A copy with the mark behind the text of the last message, which must have one."""
    last = _plain_object(chat[-1])
    part = _last_text_part(last["content"])
    if part is None:
        last["content"] = f"{last['content']}{_MARK}"
    else:
        part["text"] = f"{part['text']}{_MARK}"
    return [*chat[:-1], last]


@attrs.frozen(eq=False)
class ChatTemplates:
    """The templates of a model: one for all conversations, perhaps another for those with tools."""

    default: ChatTemplate
    tool_use: ChatTemplate | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The text of the one for tools first."""
        if self.tool_use is None:
            return (self.default.source,)
        return (self.tool_use.source, self.default.source)

    @property
    def reads_tools(self) -> bool:
        """Whether the template for conversations with tools tells the model of them."""
        return "tools" in (self.tool_use or self.default).variables

    def select(self, tools: Sequence[Tool] | None) -> ChatTemplate:
        """The template for a conversation with these tools; an empty list is none."""
        return self.tool_use if tools and self.tool_use is not None else self.default

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        **kwargs: object,
    ) -> str:
        """As ``ChatTemplate.render``, with the template that ``select`` gives."""
        return self.select(tools).render(
            messages,
            tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **kwargs,
        )
