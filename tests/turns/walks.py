"""Walks through a format's grammar with llguidance itself, over a small vocabulary: all bytes, some
words that cut across the marks, and control tokens."""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from tgi_llama.structured.grammar import (
    ChoiceGrammar,
    CompositeGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)
from tgi_llama.turns.parts import TurnFormat, TurnPlan, TurnRequest

from .harness import Turn, read

WORDS = (
    " the", "hello", "\n\n", '{"', '": "', '": ', '"}', "}}", '"}}', "name", '", "', "arguments",
    '{"name": "', "<|", "|>", "</", "tool", "_call", "call>", "[", "[{", "}]", "]\n", ">>>",
    "<tool_call>", "</tool_call>", "<think>", "</think>", "function", "<function=", "parameters",
    "[TOOL", "\n<", "é", "日本", "get_", "weather", "no_tool", " {", "```", "json\n",
)  # fmt: skip

_SPACE = r"[ \n]{1,4}"
_N_BYTES = 256
_CLOSING = b'"}]/>'


class _Vocabulary:
    def __init__(self, controls: Sequence[str], words: Sequence[str]) -> None:
        texts = [*words, *controls, "<end>"]
        self.tokens = [bytes([byte]) for byte in range(_N_BYTES)] + [t.encode() for t in texts]
        self.n_ordinary = _N_BYTES + len(words)
        self.special_token_ids = list(range(self.n_ordinary, len(self.tokens)))
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


class Walker:
    """Compiles grammars over a vocabulary with these control tokens and ``words``: ordinary tokens
    beside those of all tests."""

    def __init__(self, controls: Sequence[str] = (), words: Sequence[str] = ()) -> None:
        self._vocabulary = _Vocabulary(controls, [*WORDS, *words])
        first = self._vocabulary.n_ordinary
        self.controls: Mapping[str, int] = {
            text: first + index for index, text in enumerate(controls)
        }
        self._weights = [self._weight(token) for token in range(len(self._vocabulary.tokens))]
        self._tokenizer = LLTokenizer(TokenizerWrapper(self._vocabulary), slices=[])

    def compile(self, grammar: Grammar) -> LLMatcher:
        text = _serialized(grammar)
        error = LLMatcher.validate_grammar(text, self._tokenizer)
        assert not error, error
        return LLMatcher(self._tokenizer, text)

    def accepts(self, grammar: Grammar, text: str) -> bool:
        """Whether the whole text, with control tokens as tokens, is what the grammar asks for."""
        matcher = self.compile(grammar)
        tokens = self._tokens(text)
        return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())

    def walk(self, grammar: Grammar, *, seed: int, n_tokens: int = 400) -> tuple[str, bool]:
        """A random text that the grammar allows, and whether it is complete. Characters that close
        something are likelier than others, or most walks would never end."""
        matcher, generator = self.compile(grammar), random.Random(seed)
        taken: list[int] = []
        while len(taken) < n_tokens:
            allowed = _bits(matcher.compute_bitmask())
            assert allowed, "nothing is allowed"
            weights = [self._weights[token] for token in allowed]
            token = generator.choices(allowed, weights if any(weights) else None)[0]
            if token == self._vocabulary.eos_token_id:
                return self._text(taken), True
            assert matcher.consume_token(token), matcher.get_error()
            taken.append(token)
            if matcher.is_stopped():
                assert not matcher.is_error(), matcher.get_error()
                return self._text(taken), True
        return self._text(taken), False

    def _weight(self, token: int) -> int:
        if token >= self._vocabulary.n_ordinary:
            return 40
        if token >= _N_BYTES:
            return 6
        return 40 if token in _CLOSING else int(token < 128)

    def _text(self, tokens: Sequence[int]) -> str:
        # A walk that is cut off may end in the middle of a character.
        return b"".join(map(self._vocabulary.tokens.__getitem__, tokens)).decode(errors="ignore")

    def _tokens(self, text: str) -> list[int]:
        if not self.controls:
            return list(text.encode())
        pieces = re.split(f"({'|'.join(map(re.escape, self.controls))})", text)
        return [
            token
            for piece in pieces
            for token in ([self.controls[piece]] if piece in self.controls else piece.encode())
        ]


def check_walks(
    turn_format: TurnFormat, request: TurnRequest, walker: Walker, *, n_walks: int = 25
) -> list[Turn]:
    """What the grammar allows, the format's own parser reads without failure, with arguments that
    are valid by the tool's schema; returns the turns of the complete walks."""
    plan = turn_format.plan(request)
    assert plan.grammar is not None
    turns = []
    for seed in range(n_walks):
        text, is_complete = walker.walk(plan.grammar, seed=seed)
        turn = _check_text(plan, request, text, is_complete=is_complete)
        if is_complete:
            turns.append(turn)
    assert turns, "no walk came to its end"
    return turns


def _check_text(plan: TurnPlan, request: TurnRequest, text: str, *, is_complete: bool) -> Turn:
    assert plan.make_parser is not None
    turn = read(plan.make_parser, [text])
    if not is_complete:
        return turn
    assert not turn.failed, text
    assert read(plan.make_parser, text) == turn  # in single characters
    schemas = {tool.name: tool.parameters for tool in request.tools}
    for call in turn.calls:
        assert isinstance(call.value, dict), text
        schema = schemas[call.name]
        Draft202012Validator({} if schema is None else schema).validate(call.value)
    assert turn.calls or not request.must_call, text
    assert request.parallel or len(turn.calls) <= 1, text
    return turn


def _bits(mask: bytes) -> list[int]:
    return [
        8 * index + bit
        for index, byte in enumerate(mask)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    ]


def _serialized(grammar: Grammar) -> str:
    match grammar:
        case CompositeGrammar():
            parts = list(_parts(grammar))
            return json.dumps({"grammars": [{"lark_grammar": grammar.lark}, *parts]})
        case _:
            return json.dumps({"grammars": [_part(grammar)]})


def _parts(grammar: CompositeGrammar) -> Iterator[dict[str, object]]:
    for name, part in grammar.parts:
        yield {"name": name, **_part(part)}


def _part(grammar: Grammar) -> dict[str, object]:
    match grammar:
        case JsonSchemaGrammar():
            schema = {} if grammar.schema is True else grammar.schema
            assert isinstance(schema, dict)
            guidance = {"whitespace_flexible": False, "whitespace_pattern": _SPACE}
            return {"json_schema": {**schema, "x-guidance": guidance}}
        case RegexGrammar():
            return {"lark_grammar": f"start: /{grammar.pattern}/"}
        case ChoiceGrammar():
            return {"lark_grammar": f"start: {' | '.join(map(json.dumps, grammar.choices))}"}
        case LarkGrammar():
            return {"lark_grammar": grammar.text}
        case CompositeGrammar():
            raise AssertionError("a part of a part")
