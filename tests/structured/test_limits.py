"""Hostile grammars: refused in time, or harmless."""

import time

import pytest
from fakes.grammars import Bench

from tgi_llama.errors import GenerationError
from tgi_llama.generation import GrammarState, TokenId
from tgi_llama.structured.grammar import (
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)

ANSWER_S = 2.0
STEPS_S = 1.0
N_STEPS = 30


def regex(pattern: str) -> Grammar:
    return RegexGrammar(pattern=pattern, field="f")


def schema(value: object) -> Grammar:
    return JsonSchemaGrammar(schema=value, field="f")


def lark(text: str) -> Grammar:
    return LarkGrammar(text=text, field="f")


HOSTILE = {
    "nested counts": regex("(a{1,1000}){1,1000}"),
    "nested counts of anything": regex("(.{1,1000}){1,1000}"),
    "counts of letters": regex(r"(\w{1,1000}){1,1000}x"),
    "backtracking": regex("(.*a){50}"),
    "a window": regex("(.|\n)*a(.|\n){30}"),
    "many windows": regex("|".join(f"[a-z]*{c}[a-z]{{{20 + ord(c) % 16}}}" for c in "abcdefgh")),
    "optional parts": regex("(a?){200}a{200}"),
    "unicode classes": regex(r"(?i)(\p{Lu}{1,30}|\w\W){1,300}"),
    "a long forced text": regex("a{1000000}"),
    "a constant in many places": schema(
        {
            "$defs": {"long": {"const": "y" * 3_000}},
            "properties": {f"p{i}": {"$ref": "#/$defs/long"} for i in range(700)},
            "required": [f"p{i}" for i in range(700)],
            "additionalProperties": False,
        }
    ),
    "a constant many times": schema(
        {"type": "array", "items": {"const": "y" * 3_000}, "minItems": 900}
    ),
    "a word many times": lark(
        "start: r0\n" + "".join(f"r{i}: r{i + 1} r{i + 1}\n" for i in range(10)) + "r10: WORD\n"
        f'WORD: "{"y" * 3_000}"'
    ),
    "a schema many times": lark(
        "start: r0\n"
        + "".join(f"r{i}: r{i + 1} r{i + 1}\n" for i in range(10))
        + f'r10: %json {{"const": "{"y" * 3_000}"}}'
    ),
    "a longer forced text": regex("((a{1000}){1000}){1000}"),
    "words": regex("|".join(f"word{i}" for i in range(20_000))),
    "parentheses": regex("(" * 20_000 + "a" + ")" * 20_000),
    "large minLength": schema({"type": "string", "minLength": 10**9}),
    "large minItems": schema({"type": "array", "minItems": 10**9}),
    "many properties": schema(
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(10_000)}}
    ),
    "a long enum": schema({"enum": [f"value{i}" for i in range(15_000)]}),
    "an enum of objects": schema({"enum": [{"a": i} for i in range(10_000)]}),
    "a large multiple": schema({"type": "integer", "multipleOf": 1_000_003}),
    "multiples together": schema(
        {"allOf": [{"type": "integer", "multipleOf": k} for k in (97, 89, 83)]}
    ),
    "patterns together": schema(
        {"allOf": [{"type": "string", "pattern": f"x{i}"} for i in range(100)]}
    ),
    "a long constant": schema({"const": "y" * 100_000}),
    "ambiguity": lark('start: e\ne: e e | "a" | e e e'),
    "rules that double": lark(
        "start: r0\n"
        + "".join(f"r{i}: r{i + 1} r{i + 1} | r{i + 1}\n" for i in range(500))
        + 'r500: "a"'
    ),
    "rules that may be empty": lark(
        "start: r0\n"
        + "".join(f"r{i}: r{i + 1}? r{i + 1}? r{i + 1}?\n" for i in range(60))
        + 'r60: "a"?'
    ),
    "intersections": lark(
        "start: A\nA: " + " & ".join(f"/(?s:.*){c}(?s:.{{{ord(c) % 16}}})/" for c in "abcdefgh")
    ),
    "a complement": lark("start: A\nA: ~/(.|\\n)*(a.{12}b|c.{9}d)(.|\\n)*/ & /(?s:.)*/"),
    "GBNF groups": lark("root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000),
    "GBNF rules": lark(
        'root ::= "a"\n'
        + "".join(f'r{i} ::= "x" [a-z]+ (r{i + 1} | "z")*\n' for i in range(300))
        + 'r300 ::= "q"'
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammar_is_answered_in_time_and_its_steps_are_bounded(
    bench: Bench, name: str
) -> None:
    started = time.perf_counter()
    constraint, refusal = bench.answer(HOSTILE[name])
    assert time.perf_counter() - started < ANSWER_S
    if constraint is None:
        assert refusal is not None
        assert (refusal.field or "").startswith("f")
        return
    started = time.thread_time()
    failure = walk(bench, constraint.start())
    assert failure is None or "cannot be followed any further" in failure
    assert time.thread_time() - started < STEPS_S


def walk(bench: Bench, state: GrammarState) -> str | None:
    """Why the state could not go on."""
    try:
        for _ in range(N_STEPS):
            allowed = bench.mask(state)
            if state.is_complete:
                break
            state.take(TokenId(max(allowed)))
    except GenerationError as error:
        return str(error)
    return None


def test_rule_that_adds_up_to_a_long_text_ends_its_sequence(bench: Bench) -> None:
    long = "y" * 7_000
    state = bench.compiler.compile(lark(f'start: e\ne: "x" e "{long}" | "z"')).start()
    for token in bench.tokens("x") * 10:
        state.take(token)
    state.take(bench.tokens("z")[0])
    with pytest.raises(GenerationError, match="bytes at once"):
        state.forced()


def test_what_cannot_force_much_is_forced(bench: Bench) -> None:
    record = {
        "type": "object",
        "properties": {
            "children": {"type": "array", "items": {"$ref": "#"}},
            "when": {"type": "string", "format": "date-time"},
            "kind": {"enum": ["first", "second"]},
        },
        "required": ["children", "when", "kind"],
    }
    grammars = [
        schema(record),
        lark('start: "first" list\nlist: "(" (list | WORD) ")"\nWORD: /[a-z]{1,20}/'),
        regex(r"first: \d{4}-\d{2}-\d{2}, [A-Z]{2,3}"),
    ]
    for grammar in grammars:
        assert len(bench.text(list(bench.compiler.compile(grammar).start().forced()))) >= 5
