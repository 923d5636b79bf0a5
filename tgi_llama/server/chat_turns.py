"""A chat's answer as its parser sees it: content, reasoning and tool calls, streamed or whole.

Where a generation has no parser its text is the content; ``ChatFrames`` and ``whole_turn`` see to
that.
"""

import logging
import secrets
from collections.abc import Sequence

import attrs

from tgi_llama.generation import FinishReason
from tgi_llama.metrics import Metrics
from tgi_llama.turns.json_follower import JsonFollower
from tgi_llama.turns.parts import (
    CallArguments,
    CallBegin,
    Content,
    ParserFactory,
    Reasoning,
    TurnParser,
    TurnPart,
)
from tgi_llama.wire.openai_responses import (
    ChatDelta,
    ChatMessage,
    FunctionCall,
    FunctionCallDelta,
    OpenAiFinishReason,
    ToolCall,
    ToolCallDelta,
)

from .generations import Collected

_log = logging.getLogger(__name__)

_FINISH_REASONS: dict[FinishReason, OpenAiFinishReason] = {
    FinishReason.LENGTH: "length",
    FinishReason.EOS_TOKEN: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
}


def finish_reason(reason: FinishReason) -> OpenAiFinishReason:
    """Of a text without tool calls."""
    return _FINISH_REASONS[reason]


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class AnswerReader:
    """Reads the turn of one generation, piece by piece."""

    def __init__(self, make_parser: ParserFactory) -> None:
        self._parser: TurnParser = make_parser()
        self._last_arguments: list[str] = []
        """Of the call that began last."""

    @property
    def failure(self) -> str | None:
        """Why markup was given out as content."""
        return self._parser.failure

    def push(self, delta: str, *, is_last: bool) -> Sequence[TurnPart]:
        """What is known by this piece of text and was not before; no two parts in a row are of one
        kind."""
        parts = self._parser.push(delta)
        if is_last:
            parts = [*parts, *self._parser.finish()]
        for part in parts:
            if isinstance(part, CallBegin):
                self._last_arguments = []
            elif isinstance(part, CallArguments):
                self._last_arguments.append(part.text)
        return parts if len(parts) < 2 else _joined(parts)

    def finish_reason(self, reason: FinishReason) -> OpenAiFinishReason:
        """A client may execute the calls of a turn that ended with ``tool_calls``, so none of them
        may have been cut off by a stop string."""
        if reason is not FinishReason.LENGTH and self._parser.n_calls and self._is_call_whole():
            return "tool_calls"
        return finish_reason(reason)

    def _is_call_whole(self) -> bool:
        follower = JsonFollower()
        for piece in self._last_arguments:
            follower.read(piece)
        return follower.is_complete

    def report(self, metrics: Metrics) -> None:
        """Call once, at the end; Trio thread."""
        if self.failure is not None:
            _log.warning(
                "a tool call could not be read and was given out as text: %s", self.failure
            )
            metrics.tool_parse_failed()


def _joined(parts: Sequence[TurnPart]) -> list[TurnPart]:
    joined: list[TurnPart] = []
    for part in parts:
        last = joined[-1] if joined else None
        match last, part:
            case Content(), Content():
                joined[-1] = Content(last.text + part.text)
            case Reasoning(), Reasoning():
                joined[-1] = Reasoning(last.text + part.text)
            case CallArguments(), CallArguments() if last.index == part.index:
                joined[-1] = CallArguments(part.index, last.text + part.text)
            case _:
                joined.append(part)
    return joined


def delta_of(part: TurnPart) -> ChatDelta:
    """The piece of a streamed turn. Of a call, ``CallBegin`` brings a new id."""
    match part:
        case Content():
            return ChatDelta(content=part.text)
        case Reasoning():
            return ChatDelta(reasoning_content=part.text)
        case CallBegin():
            call = ToolCallDelta(
                index=part.index,
                id=new_call_id(),
                type="function",
                function=FunctionCallDelta(name=part.name, arguments=""),
            )
        case CallArguments():
            function = FunctionCallDelta(arguments=part.text)
            call = ToolCallDelta(index=part.index, function=function)
    return ChatDelta(tool_calls=(call,))


@attrs.define(eq=False)
class _Call:
    name: str
    pieces: list[str] = attrs.field(factory=list)

    def made(self) -> ToolCall:
        function = FunctionCall(name=self.name, arguments="".join(self.pieces))
        return ToolCall(id=new_call_id(), function=function)


@attrs.frozen(kw_only=True)
class WholeTurn:
    """A finished generation as a message."""

    message: ChatMessage
    finish_reason: OpenAiFinishReason
    reader: AnswerReader | None
    """None where there was nothing to take apart."""

    def report(self, metrics: Metrics) -> None:
        """As ``AnswerReader.report``."""
        if self.reader is not None:
            self.reader.report(metrics)


def whole_turn(result: Collected) -> WholeTurn:
    """Any thread."""
    reason = result.finish.reason
    if result.prepared.make_parser is None:
        message = ChatMessage(content=result.text)
        return WholeTurn(message=message, finish_reason=finish_reason(reason), reader=None)
    reader = AnswerReader(result.prepared.make_parser)
    last = len(result.deltas) - 1
    parts = [
        part
        for index, delta in enumerate(result.deltas)
        for part in reader.push(delta, is_last=index == last)
    ]
    return WholeTurn(
        message=_message(parts), finish_reason=reader.finish_reason(reason), reader=reader
    )


def _message(parts: Sequence[TurnPart]) -> ChatMessage:
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[_Call] = []
    for part in parts:
        match part:
            case Content():
                content.append(part.text)
            case Reasoning():
                reasoning.append(part.text)
            case CallBegin():
                calls.append(_Call(part.name))
            case CallArguments():
                calls[-1].pieces.append(part.text)
    text = "".join(content)
    return ChatMessage(
        content=text or (None if calls else ""),
        reasoning_content="".join(reasoning) or None,
        tool_calls=tuple(call.made() for call in calls),
    )
