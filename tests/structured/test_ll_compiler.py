"""The compiler: errors and their fields, the cache, limits, and what is counted."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.grammars import Bench

from tgi_llama.errors import GrammarNotCompiled, ValidationError
from tgi_llama.generation import GrammarOutcome, TokenId
from tgi_llama.structured.compiler import known_only, may_compile
from tgi_llama.structured.grammar import (
    ChoiceGrammar,
    CompositeGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.ll_compiler import LlGrammarCompiler
from tgi_llama.structured.trial import Trial

OpenBench = Callable[[str], Bench]

LETTERS = RegexGrammar(pattern="[a-z]+", field="guided_regex")


class Counted:
    """A compiler with what it reported."""

    def __init__(self, bench: Bench, trial: Trial, **options: int) -> None:
        self.outcomes: list[GrammarOutcome] = []
        self.compiler = LlGrammarCompiler(
            bench.grammar_vocabulary, trial, observe=self.observe, **options
        )

    def observe(self, outcome: GrammarOutcome, seconds: float) -> None:
        assert seconds > 0
        self.outcomes.append(outcome)

    def refusal(self, grammar: Grammar) -> ValidationError:
        with pytest.raises(ValidationError) as caught:
            self.compiler.compile(grammar)
        return caught.value


@pytest.fixture
def counted(bench: Bench, trial: Trial) -> Counted:
    return Counted(bench, trial)


@pytest.fixture
def broken_trial() -> Iterator[Trial]:
    """Without a process to try grammars in."""
    with Trial(GrammarLimits(), command=("/nonexistent/python",)) as trial:
        yield trial


# The cache


def test_same_grammar_is_compiled_once(counted: Counted) -> None:
    first = counted.compiler.compile(LETTERS)
    assert counted.compiler.compile(RegexGrammar(pattern="[a-z]+", field="guided_regex")) is first
    assert counted.outcomes == [GrammarOutcome.COMPILED, GrammarOutcome.CACHED]


def test_order_of_properties_makes_another_grammar(counted: Counted) -> None:
    def schema(*names: str) -> Grammar:
        properties = {name: {"type": "integer"} for name in names}
        return JsonSchemaGrammar(schema={"type": "object", "properties": properties}, field="f")

    one = counted.compiler.compile(schema("a", "b"))
    assert counted.compiler.compile(schema("b", "a")) is not one


def test_refused_grammar_is_remembered_with_its_field(counted: Counted) -> None:
    for field in ("a", "b", "a"):
        error = counted.refusal(RegexGrammar(pattern="(", field=field))
        assert error.field == field
    assert counted.outcomes == [GrammarOutcome.INVALID] * 3


def test_cache_can_be_off(bench: Bench, trial: Trial) -> None:
    counted = Counted(bench, trial, cache_size=0)
    first = counted.compiler.compile(LETTERS)
    assert counted.compiler.compile(LETTERS) is not first


def test_threads_compile_different_grammars_at_the_same_time(counted: Counted) -> None:
    grammars = [RegexGrammar(pattern=f"x{i}", field="f") for i in range(8)] * 2
    with ThreadPoolExecutor(4) as pool:
        constraints = list(pool.map(counted.compiler.compile, grammars))
    assert len({id(constraint) for constraint in constraints}) == 8
    assert constraints[:8] == constraints[8:]


# Limits


def test_grammar_that_is_too_large_is_refused_before_anything_else(bench: Bench) -> None:
    with Trial(GrammarLimits(max_bytes=100)) as trial:
        counted = Counted(bench, trial)
        error = counted.refusal(RegexGrammar(pattern="(" * 100, field="guided_regex"))
    assert error.field == "guided_regex"
    assert "at most 100 bytes are allowed. Given: 129" in str(error)
    assert counted.outcomes == [GrammarOutcome.TOO_LARGE]


def test_size_counts_all_parts_together_and_names_a_field(bench: Bench) -> None:
    part = ChoiceGrammar(choices=("x" * 60,), field="tools[0]")
    with Trial(GrammarLimits(max_bytes=100)) as trial:
        error = Counted(bench, trial).refusal(
            CompositeGrammar(lark="start: @a | @b", parts=(("a", part), ("b", part)))
        )
    assert error.field == "tools[0]"


def test_grammar_that_takes_long_to_compile_is_refused(bench: Bench) -> None:
    with Trial(GrammarLimits(max_compile_s=-1.0)) as trial:
        counted = Counted(bench, trial)
        error = counted.refusal(LETTERS)
    assert "compiling it takes" in str(error)
    assert error.field == "guided_regex"
    assert counted.outcomes == [GrammarOutcome.TOO_COMPLEX]


def test_grammars_are_compiled_where_no_process_can_be_started(
    bench: Bench, broken_trial: Trial
) -> None:
    constraint = Counted(bench, broken_trial).compiler.compile(LETTERS)
    assert constraint.start().allows(bench.tokens("a")[0])


def test_grammar_that_there_was_no_time_for_is_not_remembered_as_refused(bench: Bench) -> None:
    stub = "import sys, time; print('{}', flush=True); sys.stdin.buffer.read(8); sys.exit(1)"
    with Trial(GrammarLimits(), command=(sys.executable, "-c", stub)) as trial:
        counted = Counted(bench, trial)
        error = counted.refusal(LETTERS)
        assert "memory or time" in str(error)
        assert error.field == "guided_regex"
        for child in trial._idle:
            child.end()
        trial.command = Trial(GrammarLimits()).command
        counted.compiler.compile(LETTERS)
    assert counted.outcomes == [GrammarOutcome.TOO_COMPLEX, GrammarOutcome.COMPILED]


def test_who_has_no_time_gets_known_grammars_only(counted: Counted) -> None:
    refused = RegexGrammar(pattern="(", field="f")
    with known_only():
        for grammar in (LETTERS, refused):
            with pytest.raises(GrammarNotCompiled):
                counted.compiler.compile(grammar)
    compiled = counted.compiler.compile(LETTERS)
    counted.refusal(refused)
    with known_only():
        assert counted.compiler.compile(LETTERS) is compiled
        counted.refusal(refused)
    assert may_compile()
    assert counted.outcomes == [
        GrammarOutcome.COMPILED,
        GrammarOutcome.INVALID,
        GrammarOutcome.CACHED,
        GrammarOutcome.INVALID,
    ]


# What is refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('%llguidance {"no_forcing": true}\nstart: "a"', "options of the grammar engine"),
        ("start: <|im_end|>", "special tokens"),
        ('start: <[1]> "a"', "special tokens"),
        ("start: /x\n/ | <|im_end|> | /y/", "special tokens"),
        ('start: a\na [ // a comment\n max_tokens = 3]: "x"', "max_tokens"),
        ("start: @other", "no grammar to refer to"),
        ('start: a\na[max_tokens=3]: "x"', "max_tokens"),
        ('start: a\na[stop="x"]: /.*/', "stop"),
        ('start: a\na[temperature=0.5]: "x"', "temperature"),
        ("start: missing", "unknown name"),
        ('start: "a" %json {"type":', "expected JSON"),
        ("start: (", "Expected"),
        ("", "no start"),
        ("root ::= missing", "Rule 'missing' not found"),
        ('x ::= "a"', "No 'root' rule"),
        ('root ::= "a', "GBNF"),
        (r"start: /(a)\1/", "backreferences"),
        ("start: /(?=a)/", "look-around"),
    ],
)
def test_lark_that_is_wrong_or_out_of_bounds_is_refused(
    counted: Counted, text: str, why: str
) -> None:
    error = counted.refusal(LarkGrammar(text=text, field="guided_grammar"))
    assert error.field == "guided_grammar"
    assert why in str(error)


def test_marks_inside_of_strings_regexes_and_comments_are_text(bench: Bench) -> None:
    text = 'start: "<b>" /@x<y>/ // <z> @u %json\nA: "%llguidance" # [stop=1]\n'
    assert bench.accepts(LarkGrammar(text=text, field="f"), "<b>@x<y>")


def test_error_in_a_schema_inside_of_lark_names_the_field(counted: Counted) -> None:
    text = 'start: %json {"type": "integer", "minimum": 5, "maximum": 4}'
    error = counted.refusal(LarkGrammar(text=text, field="guided_grammar"))
    assert (error.field or "").startswith("guided_grammar")


@pytest.mark.parametrize(
    "grammar",
    [
        LarkGrammar(text="start: A\nA: /a/ & /b/", field="f"),
        RegexGrammar(pattern="[^\\s\\S]", field="f"),
        JsonSchemaGrammar(schema=False, field="f"),
        JsonSchemaGrammar(schema={"type": "integer", "minimum": 2, "maximum": 1}, field="f"),
        ChoiceGrammar(choices=(), field="f"),
    ],
)
def test_grammar_that_nothing_satisfies_is_refused(counted: Counted, grammar: Grammar) -> None:
    assert (counted.refusal(grammar).field or "").startswith("f")
    assert counted.outcomes == [GrammarOutcome.INVALID]


def test_keyword_that_cannot_be_enforced_is_refused_or_named(bench: Bench, trial: Trial) -> None:
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}
    grammar = JsonSchemaGrammar(schema=schema, field="f")
    assert Counted(bench, trial).refusal(grammar).field == "f.uniqueItems"
    compiler = LlGrammarCompiler(bench.grammar_vocabulary, trial, relaxed=True)
    assert compiler.compile(grammar).relaxed_paths == ("f.uniqueItems",)


# Parts


def test_part_of_a_composite_may_be_a_composite(bench: Bench) -> None:
    inner = CompositeGrammar(
        lark='start: "@a" @a', parts=(("a", RegexGrammar(pattern="x", field="f")),)
    )
    outer = CompositeGrammar(
        lark="start: @a @b",
        parts=(("a", RegexGrammar(pattern="y", field="f")), ("b", inner)),
    )
    assert bench.accepts(outer, "y@ax")


def test_special_tokens_are_for_our_own_grammars(bench: Bench) -> None:
    end = bench.end_tokens[0]
    state = bench.compiler.compile(CompositeGrammar(lark=f'start: "a" <[{end}]> "b"')).start()
    state.take(bench.tokens("a")[0])
    assert bench.mask(state) == {end}
    state.take(TokenId(end))
    assert state.allows(bench.tokens("b")[0])


def test_grammar_with_special_tokens_is_tried_all_the_same(open_bench: OpenBench) -> None:
    bench = open_bench("qwen2")
    part = JsonSchemaGrammar(
        schema={"allOf": [{"type": "string", "pattern": f"x{i}"} for i in range(100)]},
        field="tools[0].function.parameters",
    )
    grammar = CompositeGrammar(lark='start: "<[1]>" <[151645]> @a', parts=(("a", part),))
    error = bench.refusal(grammar)
    assert "too complex" in str(error)
    assert error.field == "tools[0].function.parameters"
