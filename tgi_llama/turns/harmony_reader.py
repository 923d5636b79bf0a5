"""Reads turns in the harmony format of gpt-oss: messages with a header each, ``<|channel|>final
<|message|>...``, where the header says who the message is for."""

import re
from typing import NamedTuple

from .formats import read_content
from .incoming import Steps
from .markup_reader import BrokenMarkup
from .parts import TurnRequest
from .reader import TurnReader

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CONSTRAIN, CALL, RETURN = "<|constrain|>", "<|call|>", "<|return|>"
MARKS = (START, CHANNEL, MESSAGE, END, CONSTRAIN, CALL, RETURN)

ENDS = (END, CALL, RETURN, START, CHANNEL)
"""What ends a message; the last two where its own end is missing."""
_TOOLS = "functions."
"""The namespace of the client's tools."""
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_LONGEST_HEADER = 300
"""Characters. What has none of a header's marks for so long is no header."""
_BETWEEN = "\n\n"
"""Between two messages of one kind."""


class Header(NamedTuple):
    text: str
    """As it stands in the turn."""
    channel: str
    recipient: str | None


class HarmonyScript:
    """A script for ``TurnReader``."""

    def __init__(self, request: TurnRequest, opened: Header | None = None) -> None:
        """``opened``: of the message that the turn begins in the middle of."""
        self._request = request
        self._opened = opened
        self._has_content = False
        self._has_reasoning = False

    def __call__(self, reader: TurnReader) -> Steps[None]:
        if self._opened is not None:
            yield from self._message(reader, self._opened._replace(text=""))
        while (yield from reader.incoming.next_character()):
            reader.begin_markup()
            header = yield from _header(reader)
            if header is None:
                return
            yield from self._message(reader, header)

    def _message(self, reader: TurnReader, header: Header) -> Steps[None]:
        """What follows the header, and the mark that ends it."""
        if header.recipient is not None:
            yield from self._call(reader, header.recipient)
        elif header.channel == "analysis":
            yield from self._reasoning(reader, header)
        else:
            yield from self._content(reader)
        yield from reader.incoming.takes_one_of((END, CALL, RETURN))

    def _call(self, reader: TurnReader, recipient: str) -> Steps[None]:
        reader.begin_call(recipient.removeprefix(_TOOLS))
        yield from reader.arguments(reader.write_arguments)
        reader.end_call()
        yield from reader.incoming.take_space()

    def _reasoning(self, reader: TurnReader, header: Header) -> Steps[None]:
        reader.incoming.forget()
        if not self._request.split_reasoning:
            reader.write(header.text)
            yield from reader.write_until(ENDS)
            reader.write(END)
            return
        if self._has_reasoning:
            reader.think(_BETWEEN)
        self._has_reasoning = True
        yield from reader.reasoning_until(ENDS)

    def _content(self, reader: TurnReader) -> Steps[None]:
        reader.incoming.forget()
        if self._has_content:
            reader.write(_BETWEEN)
        self._has_content = True
        yield from read_content(reader, self._request, ENDS)


def _header(reader: TurnReader) -> Steps[Header | None]:
    """Reads over ``<|message|>``; None where the text ends before, which says nothing. The
    header's parts come in several orders: the recipient before or behind the channel, the type of
    the content with or without ``<|constrain|>``."""
    pieces: list[str] = []

    def add(piece: str) -> None:
        pieces.append(piece)
        if sum(map(len, pieces)) > _LONGEST_HEADER:
            raise BrokenMarkup("no message begins here")

    while True:
        mark = yield from reader.take_until(MARKS, add)
        if mark is None:
            if not "".join(pieces).lstrip().startswith((START, CHANNEL, "to=")):
                raise BrokenMarkup("no message begins here")
            return None
        if mark in (END, CALL, RETURN):
            raise BrokenMarkup(f"{mark} before a message")
        yield from reader.expect(mark)
        add(mark)
        if mark == MESSAGE:
            break
    return _read_header("".join(pieces))


def open_header(prompt_end: str) -> Header | None:
    """Of the assistant's message that the prompt leaves open, for the model to write on; None where
    the turn begins with a header of its own. A call is never left open."""
    message = prompt_end[prompt_end.rfind(START) :].removeprefix(f"{START}assistant")
    text, mark, body = message.partition(MESSAGE)
    header = _read_header(f"{text}{mark}")
    is_open = mark and not any(end in body for end in ENDS)
    return header if is_open and text.startswith(CHANNEL) and header.recipient is None else None


def _read_header(text: str) -> Header:
    """``text`` ends with ``<|message|>``."""
    channel = text.partition(CHANNEL)[2].strip().split(maxsplit=1) or [""]
    found = _RECIPIENT.search(text)
    recipient = None if found is None else found.group(1)
    name = re.split(r"[\s<]", channel[0], maxsplit=1)[0]
    return Header(text, name, None if recipient == "assistant" else recipient)
