"""The folder that ships: its size, its files, and that tokenizer.json and the GGUF agree."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import tgi_llama.builtin
from tgi_llama.builtin.chat_format import PromptRenderer, template_text
from tgi_llama.builtin.corpus import MIXTURE, held_out_examples
from tgi_llama.builtin.evaluate import GreedyModel, evaluate, greedy_model
from tgi_llama.builtin.model_card import SKILL_TITLES

FOLDER = Path(tgi_llama.builtin.__file__).parent / "model"
MAX_BYTES = 8_000_000
FILES = {
    "README.md", "config.json", "generation_config.json", "model.gguf", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip
PROBES = (
    "",
    " ",
    "   ",
    "Hello",
    " Hello",
    "Hello ",
    "  two  spaces   inside  ",
    "\n",
    "\n\n",
    "a\nb\n\nc\r\n\td \n e",
    "1234567890",
    "12 + 34 = 46, 3.14 and -7",
    "x1y22z333",
    "It's what we've done, isn't it? I'll say they're HERE'S",
    "tgi_llama --max-total-tokens /v1/chat/completions",
    '{"name": "Zoë", "age": 31, "tags": ["a", "b"]}',
    "Jürgen, François, Łukasz, Nuñez and São Paulo for 5 € — “quoted”…",
    "e\u0301 combining, \u00a0no-break, \u3000ideographic, \u200bzero width",
    "你好，世界！ 早上好 １２３ Ⅷ ½ ²",  # noqa: RUF001 - full-width forms on purpose
    "こんにちは 안녕하세요 привет γειά नमस्ते שלום سلام",
    "🙂🦙 🎉👩\u200d👩\u200d👧 🇫🇷 🏽",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|> <|im_end|><|im_end|>x<|im_start|>",
    "<|im_end |> <|im_ <tool_call>\n</tool_call>",
    "\x00\x01\x7f",
    "a" * 300,
)


@pytest.fixture(scope="module")
def model() -> Iterator[GreedyModel]:
    with greedy_model(FOLDER / "model.gguf") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def read_json(name: str) -> dict[str, object]:
    content = json.loads((FOLDER / name).read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def test_folder_has_all_files_and_is_small() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == FILES
    assert sum(files.values()) <= MAX_BYTES


def test_vocabularies_agree_token_by_token(model: GreedyModel, tokenizer: Tokenizer) -> None:
    assert model.n_tokens == tokenizer.get_vocab_size()
    assert model.n_tokens == read_json("config.json")["vocab_size"]
    for token in range(model.n_tokens):
        assert model.token_text(token) == tokenizer.id_to_token(token)


@pytest.mark.parametrize("text", PROBES)
def test_tokenizers_agree_on_text(model: GreedyModel, tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert model.tokenize(text) == ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_tokenizers_agree_on_generated_prompts(model: GreedyModel, tokenizer: Tokenizer) -> None:
    renderer = PromptRenderer()
    for example in held_out_examples(11, n_per_skill=10):
        text = renderer.prompt(example) + example.reply
        assert model.tokenize(text) == tokenizer.encode(text).ids


def test_characters_outside_ascii_take_several_tokens(tokenizer: Tokenizer) -> None:
    assert all(len(tokenizer.encode(text).ids) > 1 for text in ("é", "€", "你", "🦙"))


def test_special_tokens_are_the_configured_ones(tokenizer: Tokenizer) -> None:
    config = read_json("tokenizer_config.json")
    assert config["chat_template"] == template_text()
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    generation = read_json("generation_config.json")
    for name in ("bos", "eos", "pad"):
        assert tokenizer.token_to_id(str(config[f"{name}_token"])) == generation[f"{name}_token_id"]


def test_card_has_front_matter_and_a_score_for_every_skill() -> None:
    card = (FOLDER / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert len(SKILL_TITLES) == len(MIXTURE)
    for skill_title in SKILL_TITLES.values():
        row = next(line for line in card.splitlines() if line.startswith(f"| {skill_title} |"))
        n_examples, percent = row.removesuffix(" % |").split(" | ")[1:]
        assert int(n_examples) >= 200
        assert float(percent) >= 95


def test_greedy_replies_to_held_out_prompts_are_right(model: GreedyModel) -> None:
    examples = held_out_examples(12, n_per_skill=4)
    _, mistakes = evaluate(model, examples)
    assert len(mistakes) <= len(examples) // 10, mistakes


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("1, 2, 3, 4,", " 5, 6, 7, 8"),
        ("Monday, Tuesday, Wednesday,", " Thursday, Friday, Saturday, Sunday, Monday"),
        ("Question: What is 12 + 7?\nAnswer:", " 19"),
        (
            "What is tgi_llama?",
            "\ntgi_llama is a text generation server for GGUF models, built on llama.cpp.",
        ),
    ],
)
def test_plain_text_is_continued(model: GreedyModel, prompt: str, reply: str) -> None:
    assert model.reply(prompt) == reply
