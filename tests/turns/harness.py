"""What the tests of every format share: reading a text in all ways of cutting it, and checking that
the parts that come out keep the promises of ``turns.parts``."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence

import attrs

from tgi_llama.turns.json_follower import JsonFollower
from tgi_llama.turns.parts import (
    CallArguments,
    CallBegin,
    Content,
    ParserFactory,
    Reasoning,
    TurnPart,
)


@attrs.frozen
class Call:
    name: str
    arguments: str
    """As given out: JSON, or the beginning of it where the text was cut off."""

    @property
    def value(self) -> object:
        return json.loads(self.arguments)


@attrs.frozen
class Turn:
    """A whole turn, as a client that collects the parts sees it."""

    content: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    failed: bool = False


@attrs.define
class Collector:
    """Puts parts together and checks their order."""

    content: str = ""
    reasoning: str = ""
    names: list[str] = attrs.field(factory=list)
    arguments: list[str] = attrs.field(factory=list)
    _follower: JsonFollower = attrs.field(factory=JsonFollower)
    """Of the arguments of the call that began last."""

    def take(self, parts: Iterable[TurnPart]) -> None:
        for part in parts:
            match part:
                case Content():
                    assert part.text
                    self.content += part.text
                case Reasoning():
                    assert part.text
                    assert not self.names, "reasoning after a call"
                    self.reasoning += part.text
                case CallBegin():
                    assert part.index == len(self.names)
                    self.names.append(part.name)
                    self.arguments.append("")
                    self._follower = JsonFollower()
                case CallArguments():
                    assert part.text
                    assert part.index == len(self.names) - 1, "not the call that began last"
                    self.arguments[-1] += part.text
                    assert self._follower.read(part.text) == len(part.text), "not JSON"

    def turn(self, *, failed: bool) -> Turn:
        calls = tuple(map(Call, self.names, self.arguments))
        return Turn(self.content, calls, self.reasoning, failed)


def read(make_parser: ParserFactory, pieces: Iterable[str]) -> Turn:
    """The turn that the pieces make."""
    parser = make_parser()
    collector = Collector()
    for piece in pieces:
        collector.take(parser.push(piece))
        assert parser.n_calls == len(collector.names)
    collector.take(parser.finish())
    assert parser.n_calls == len(collector.names)
    assert parser.finish() == []
    return collector.turn(failed=parser.failure is not None)


def ways_to_cut(text: str, *, n_random: int = 20, seed: int = 0) -> Iterator[Sequence[str]]:
    """In one piece, at every single place, into characters, and at random."""
    yield [text]
    yield list(text)
    for position in range(1, len(text)):
        yield [text[:position], text[position:]]
    generator = random.Random(seed)
    for _ in range(n_random):
        places = sorted(generator.choices(range(len(text) + 1), k=generator.randint(2, 12)))
        yield [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def check_reading(make_parser: ParserFactory, text: str, expected: Turn) -> None:
    """However the text is cut into pieces, it is read as ``expected``; a call's arguments are
    JSON unless the reading failed."""
    for pieces in ways_to_cut(text):
        turn = read(make_parser, pieces)
        assert turn == expected, pieces
    if not expected.failed:
        for call in expected.calls:
            assert isinstance(call.value, dict)


def check_cut_off(make_parser: ParserFactory, text: str, marks: Sequence[str] = ()) -> None:
    """The text ends after each of its characters: all that was given out remains the beginning of
    what the whole text gives, except for markup that came to nothing, which is content and a
    failure. Of ``marks`` none is ever in the content of a reading that did not fail."""
    whole = read(make_parser, [text])
    for end in range(len(text)):
        cut = read(make_parser, [text[:end]])
        assert whole.reasoning.startswith(cut.reasoning.rstrip()) or not whole.reasoning, end
        assert len(cut.calls) <= len(whole.calls)
        for given, full in zip(cut.calls, whole.calls, strict=False):
            assert given.name == full.name
            assert full.arguments.startswith(given.arguments)
        if not cut.failed:
            assert not any(mark in cut.content for mark in marks), end
