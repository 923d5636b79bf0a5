"""The generated text: reproducible, split by content, and right."""

import collections
import itertools
import json
import re

import pytest

from tgi_llama.builtin.chat_format import PromptRenderer
from tgi_llama.builtin.corpus import MIXTURE, held_out_examples, training_examples
from tgi_llama.builtin.examples import Example, Message, Parameter, Tool, is_held_out
from tgi_llama.builtin.phrasing import expand
from tgi_llama.builtin.skills.server_facts import FACTS

N_EXAMPLES = 6000
SUM = re.compile(r"(\d+) \+ (\d+) = (\d+)")
SKILLS = {
    "addition", "chat_memory", "counting", "greetings", "json_extraction", "long_texts",
    "no_tool_needed", "refusals", "repeat_after_me", "series", "server_facts", "tool_calls",
    "tool_results",
}  # fmt: skip


@pytest.fixture(scope="module")
def training() -> list[Example]:
    return list(itertools.islice(training_examples(3), N_EXAMPLES))


@pytest.fixture(scope="module")
def held_out() -> tuple[Example, ...]:
    return held_out_examples(3, n_per_skill=60)


def of_skill(examples: list[Example], skill: str) -> list[Example]:
    chosen = [example for example in examples if example.skill == skill]
    assert chosen
    return chosen


def question(example: Example) -> str:
    return example.raw if example.raw is not None else example.messages[-1].content


def call_of(example: Example) -> tuple[str, dict[str, object]]:
    match = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", example.reply)
    assert match, example.reply
    call = json.loads(match[1])
    assert list(call) == ["name", "arguments"]
    return call["name"], call["arguments"]


def test_training_examples_same_seed_same_examples() -> None:
    first, again = (list(itertools.islice(training_examples(5), 300)) for _ in range(2))
    other = list(itertools.islice(training_examples(6), 300))
    assert first == again
    assert first != other


def test_held_out_examples_same_seed_same_examples() -> None:
    assert held_out_examples(5, n_per_skill=5) == held_out_examples(5, n_per_skill=5)


def test_training_examples_hold_no_held_out_content(training: list[Example]) -> None:
    assert not [key for example in training for key in example.keys if is_held_out(key)]


def test_held_out_examples_each_hold_some_and_never_occur_in_training(
    training: list[Example], held_out: tuple[Example, ...]
) -> None:
    assert all(any(is_held_out(key) for key in example.keys) for example in held_out)
    renderer = PromptRenderer()
    trained = {renderer.prompt(example) for example in training}
    assert not trained & {renderer.prompt(example) for example in held_out}


def test_both_splits_have_every_skill(
    training: list[Example], held_out: tuple[Example, ...]
) -> None:
    assert {example.skill for example in training} == SKILLS
    counts = collections.Counter(example.skill for example in held_out)
    assert set(counts) == SKILLS
    assert min(counts.values()) >= 40
    assert len(MIXTURE) == len(SKILLS)


def test_replies_are_settled_by_their_prompts(training: list[Example]) -> None:
    renderer = PromptRenderer()
    replies: dict[str, set[str]] = collections.defaultdict(set)
    for example in training:
        replies[renderer.prompt(example)].add(example.reply)
    assert not [prompt for prompt, known in replies.items() if len(known) > 1]


def test_sums_add_up(training: list[Example]) -> None:
    for example in of_skill(training, "addition"):
        first, second = [int(n) for n in re.findall(r"\d+", question(example))][:2]
        assert max(first, second) <= 50
        assert int(re.findall(r"\d+", example.reply)[-1]) == first + second


def test_sums_in_chats_add_up(training: list[Example]) -> None:
    turns = [m for e in of_skill(training, "chat_memory") for m in (*e.messages, reply_turn(e))]
    sums = [SUM.fullmatch(turn.content) for turn in turns if turn.role == "assistant"]
    found = [tuple(map(int, match.groups())) for match in sums if match]
    assert len(found) > 50
    assert all(a + b == c for a, b, c in found)


def reply_turn(example: Example) -> Message:
    return Message("assistant", example.reply)


def test_json_replies_parse_and_come_from_the_sentence(training: list[Example]) -> None:
    for example in of_skill(training, "json_extraction"):
        fields = json.loads(example.reply)
        assert 1 <= len(fields) <= 4
        for value in fields.values():
            text = value if isinstance(value, str) else json.dumps(value)
            assert text in question(example)


def test_tool_calls_name_a_given_tool_and_its_parameters(training: list[Example]) -> None:
    for example in of_skill(training, "tool_calls"):
        name, arguments = call_of(example)
        tools = {tool.name: tool for tool in example.tools}
        assert len(tools) == len(example.tools)
        kinds = {p.name: p.kind for p in tools[name].parameters}
        assert list(arguments) == list(kinds)
        for parameter, value in arguments.items():
            assert isinstance(value, str) == (kinds[parameter] == "string")
            assert str(value).lower() in question(example).lower()


def test_tool_results_tell_what_the_tool_returned(training: list[Example]) -> None:
    for example in of_skill(training, "tool_results"):
        assert example.messages[-1].role == "tool"
        result = example.messages[-1].content
        if example.reply == "Done.":
            assert "ok" in result
            continue
        told = re.search(r" is (.+)\.$", example.reply) or re.search(r": (.+)\.$", example.reply)
        assert told
        assert told[1] in result


def test_replies_without_a_tool_hold_no_call(training: list[Example]) -> None:
    for example in of_skill(training, "no_tool_needed"):
        assert example.tools
        assert "<tool_call>" not in example.reply


def test_number_series_keep_their_step(training: list[Example]) -> None:
    n_checked = 0
    for example in of_skill(training, "series"):
        text = question(example)
        numbers = [int(n) for n in re.findall(r"\d+", text.split("next 4: ")[-1] + example.reply)]
        if example.raw is None or len(numbers) < 7:
            continue
        numbers = [int(n) for n in re.findall(r"\d+", text + example.reply)]
        assert len({after - before for before, after in itertools.pairwise(numbers)}) == 1
        n_checked += 1
    assert n_checked > 50


def test_counting_reaches_both_ends(training: list[Example]) -> None:
    for example in of_skill(training, "counting"):
        first, last = [int(n) for n in re.findall(r"\d+", question(example))]
        counted = [int(n) for n in example.reply.split(", ")]
        step = 1 if first < last else -1
        assert counted == list(range(first, last + step, step))


def test_repeated_text_is_the_text_asked_for(training: list[Example]) -> None:
    for example in of_skill(training, "repeat_after_me"):
        assert question(example).endswith(example.reply.removeprefix("\n"))


def test_facts_are_many_and_no_question_has_two_answers() -> None:
    assert len(FACTS) >= 100
    answers: dict[str, set[str]] = collections.defaultdict(set)
    for fact in FACTS:
        for asked in fact.questions:
            answers[asked].add(fact.answer)
    assert not {asked: known for asked, known in answers.items() if len(known) > 1}


def test_expand_pattern_gives_every_combination() -> None:
    assert expand("[a|b] c[!|]") == ("a c!", "a c", "b c!", "b c")


def test_prompt_of_a_chat_with_tools_lists_their_signatures() -> None:
    tools = (
        Tool(
            "get_weather",
            "Get the weather\nof a city",
            (
                Parameter("city", "string", "Name of the city"),
                Parameter("unit", "string", choices=("celsius", "fahrenheit")),
                Parameter("days", "integer"),
            ),
            required=("city",),
        ),
        Tool("stop", None, ()),
    )
    messages = (Message("system", "Be brief."), Message("user", "Hi"))
    example = Example("tool_calls", "", (), messages=messages, tools=tools)
    assert PromptRenderer().prompt(example) == (
        "<|im_start|>system\nBe brief.\n\n<tools>\n"
        'get_weather(city: string, unit?: ["celsius", "fahrenheit"], days?: integer): '
        "Get the weather of a city\nstop()\n</tools><|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
