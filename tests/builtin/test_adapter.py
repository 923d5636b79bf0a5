"""The demonstration adapter: what it is taught, and that the file that ships has learnt it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import tgi_llama.builtin
from tgi_llama.builtin.corpus import training_examples
from tgi_llama.builtin.evaluate import GreedyModel, evaluate, greedy_model
from tgi_llama.builtin.examples import Example, Message, is_held_out
from tgi_llama.builtin.pirate import (
    CHANGED_SKILLS,
    pirate_held_out_examples,
    pirate_training_examples,
    speak,
)

BUILTIN = Path(tgi_llama.builtin.__file__).parent
ADAPTER = BUILTIN / "adapters" / "pirate.gguf"
MAX_BYTES = 250_000
ASKED = "<|im_start|>user\nWhat is 12 + 7?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def pirate() -> Iterator[GreedyModel]:
    with greedy_model(BUILTIN / "model" / "model.gguf", adapter=ADAPTER) as loaded:
        yield loaded


def test_speak_changes_every_turn_of_the_assistant() -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "2 + 2?"))
    example = Example(skill="chat_memory", reply="4", keys=("k",), messages=turns)

    spoken = speak(example)

    assert spoken.reply == "Arr! 4 Yo-ho-ho!"
    assert [message.content for message in spoken.messages] == [
        "Hi",
        "Arr! Hello Yo-ho-ho!",
        "2 + 2?",
    ]
    assert spoken.keys == example.keys


def test_speak_leaves_plain_text_data_and_tools_alone() -> None:
    seen = set()
    for example in itertools.islice(training_examples(2), 2000):
        if example.raw is not None or example.tools or example.skill not in CHANGED_SKILLS:
            assert speak(example) is example
            seen.add(example.skill)
        else:
            assert speak(example).reply != example.reply
    assert {"json_extraction", "tool_calls", "series"} <= seen


def test_training_examples_are_reproducible_and_hold_no_held_out_content() -> None:
    first, again = (list(itertools.islice(pirate_training_examples(1), 500)) for _ in range(2))

    assert first == again
    assert not [key for example in first for key in example.keys if is_held_out(key)]
    changed = [example for example in first if example.reply.startswith("Arr! ")]
    assert 250 < len(changed) < 450


def test_shipped_adapter_is_small_and_has_a_card() -> None:
    assert ADAPTER.stat().st_size <= MAX_BYTES
    card = ADAPTER.with_name("README.md").read_text("utf-8")
    percent = card.split("| **all** |")[1].split("|")[1].removesuffix(" % ")
    assert float(percent) >= 95


def test_shipped_adapter_greedy_replies_to_held_out_prompts_are_a_pirates(
    pirate: GreedyModel,
) -> None:
    examples = pirate_held_out_examples(12, n_per_skill=4)
    _, mistakes = evaluate(pirate, examples)
    assert len(mistakes) <= len(examples) // 10, mistakes


def test_shipped_adapter_says_what_the_card_says(pirate: GreedyModel) -> None:
    assert pirate.reply(ASKED) == "Arr! 12 + 7 = 19 Yo-ho-ho!"
    with greedy_model(BUILTIN / "model" / "model.gguf") as alone:
        assert alone.reply(ASKED) == "12 + 7 = 19"
