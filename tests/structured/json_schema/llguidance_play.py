"""What llguidance makes of a schema that ``normalise`` wrote, over a vocabulary of single bytes."""

import json
import random

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from tgi_llama.structured.json_schema.normalise import COMPILE_OPTIONS, normalise

END = 256
CLOSERS = b'"}]'


class _Bytes:
    eos_token_id = END
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (END,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


TOKENIZER = LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])


class CompileError(Exception):
    """llguidance refused what ``normalise`` wrote."""


def compile_written(schema: object) -> LLMatcher:
    """A matcher of compact JSON by a schema that is normalised already."""
    grammar = LLMatcher.grammar_from_json_schema(
        json.dumps(schema), overrides={**COMPILE_OPTIONS, "whitespace_flexible": False}
    )
    matcher = LLMatcher(TOKENIZER, grammar, log_level=0)
    if matcher.is_error():
        raise CompileError(matcher.get_error())
    return matcher


def compile_schema(schema: object) -> LLMatcher:
    return compile_written(normalise(schema, field="schema").schema)


def accepts(matcher: LLMatcher, value: object) -> bool:
    """Whether the compact form is accepted from its first byte to the end."""
    return accepts_text(matcher, json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def accepts_text(matcher: LLMatcher, text: str) -> bool:
    data = list(text.encode())
    play = matcher.deep_copy()
    return play.try_consume_tokens(data) == len(data) and play.is_accepting()


def generate(matcher: LLMatcher, rng: random.Random, max_bytes: int = 100) -> bytes | None:
    """Random legal bytes up to an end; after ``max_bytes`` the way out, None if it is long.

    Raises AssertionError where the grammar leads into a dead end.
    """
    play, out = matcher.deep_copy(), bytearray()
    while len(out) < 3 * max_bytes:
        legal = _legal(play)
        # In a dead end llguidance's mask has the end alone.
        assert legal != [END] or play.is_accepting(), f"a dead end after {bytes(out)!r}"
        hurries = len(out) > max_bytes
        if END in legal and (len(legal) == 1 or hurries or rng.random() < 0.3):
            return bytes(out)
        token = _chosen([token for token in legal if token != END], rng, hurries=hurries)
        assert play.consume_token(token), play.get_error()
        out.append(token)
    return None


def _chosen(legal: list[int], rng: random.Random, *, hurries: bool) -> int:
    closers = [token for token in legal if token in CLOSERS]
    if closers and (hurries or rng.random() < 0.2):
        return rng.choice(closers)
    ascii_ones = [token for token in legal if 32 <= token < 127]
    return rng.choice(ascii_ones if ascii_ones and rng.random() < 0.9 else legal)


def _legal(matcher: LLMatcher) -> list[int]:
    mask = matcher.compute_bitmask()
    return [token for token in range(END + 1) if mask[token >> 3] >> (token & 7) & 1]
