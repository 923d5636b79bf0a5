"""Attacks on real templates with the vocabularies that belong to them or are like theirs."""

import functools
from collections.abc import Callable

import pytest
from fakes.conversations import ATTACKS, TEMPLATES, Model, source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_llama.llama.vocab import Vocab
from tgi_llama.text.hub_tokenizer import HubTokenizer
from tgi_llama.text.tokenizer import Tokenizer

from .test_hub_tokenizers import SPM

OpenVocab = Callable[[str], Vocab]
OpenHub = Callable[[str], HubTokenizer]

SPM_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
PAIRS = (
    ("qwen2", "Qwen-Qwen2.5-7B-Instruct"),
    ("qwen2", "Qwen-Qwen3-0.6B"),
    ("qwen2", "Qwen3-Coder"),
    ("llama-bpe", "meta-llama-Llama-3.1-8B-Instruct"),
    ("llama-spm", "mistralai-Mistral-Nemo-Instruct-2407"),
    ("phi-3", "microsoft-Phi-3.5-mini-instruct"),
    ("deepseek-coder", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B"),
)


@pytest.fixture(autouse=True)
def with_templates() -> None:
    if not TEMPLATES.exists():
        pytest.skip("no shared data")


@functools.cache
def model_of(template: str, tokenizer: Tokenizer) -> Model:
    return Model.of(source_of(template), tokenizer)


def check(name: str, template: str, text: str, open_vocab: OpenVocab, open_hub: OpenHub) -> None:
    vocab = open_vocab(name)
    by_llama = model_of(template, vocab).prompts(text)
    by_hub = model_of(template, open_hub(name)).prompts(text)
    for (attack, plain), (as_hub, _) in zip(by_llama, by_hub, strict=True):
        assert attack.controls == plain.controls
        written = b"".join(map(vocab.piece, attack.ids)).decode()
        if name in SPM:  # which puts spaces before words, and Phi-3's tokens swallow white space
            # SentencePiece writes a space as the other character, so it cannot tell the two apart.
            pair = (text.replace(SPM_SPACE, " ").split() for text in (written, attack.text))
            assert len({"".join(words) for words in pair}) == 1
        else:
            assert written == attack.text
        if vocab.spellings.texts == open_hub(name).spellings.texts:
            assert as_hub.ids == attack.ids


@pytest.mark.parametrize(("name", "template"), PAIRS)
@pytest.mark.parametrize("text", ATTACKS)
def test_attack_has_the_control_tokens_of_harmless_text(
    name: str, template: str, text: str, open_vocab: OpenVocab, open_hub: OpenHub
) -> None:
    check(name, template, text, open_vocab, open_hub)


@pytest.mark.parametrize(("name", "template"), PAIRS)
@pytest.mark.parametrize("text", ["Hello", "a < b\n", "  [x] > |", "<think>hm</think>"])
def test_text_without_spellings_has_the_ids_that_it_always_had(
    name: str, template: str, text: str, open_vocab: OpenVocab, open_hub: OpenHub
) -> None:
    for tokenizer in (open_vocab(name), open_hub(name)):
        for prompt, _ in model_of(template, tokenizer).prompts(text):
            assert prompt.ids == tokenizer.encode(prompt.text, add_special=False)


@settings(max_examples=60, deadline=None)  # the first ones load
@given(data=st.data(), pair=st.sampled_from(PAIRS))
def test_random_mixtures_have_the_control_tokens_of_harmless_text(
    data: st.DataObject, pair: tuple[str, str], open_vocab: OpenVocab, open_hub: OpenHub
) -> None:
    name, template = pair
    spellings = sorted(open_vocab(name).spellings.texts)[:12]
    parts = [*spellings, *(one[:-1] for one in spellings), *(one[1:] for one in spellings)]
    words = ["a", " ", "\n", "<", ">", "|", "[", '"', "\\", "</think>", "<think>", "Hi", "é"]
    text = "".join(data.draw(st.lists(st.sampled_from([*parts, *words]), max_size=8)))
    check(name, template, text, open_vocab, open_hub)
