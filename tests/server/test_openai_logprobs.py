"""Where the tokens of an echoed prompt begin."""

import pytest

from tgi_llama.server.openai_logprobs import prompt_offsets


@pytest.mark.parametrize(
    ("prompt", "texts", "offsets"),
    [
        ("", [], []),
        ("ab c", ["ab", " c"], [0, 2]),
        ("ab", ["<s>", "a", "b"], [0, 0, 1]),
        ("ab", ["a", "b", "</s>"], [0, 1, 2]),
        ("ab cd", ["<s>", " ab", " cd"], [0, 0, 2]),  # SentencePiece writes a space first
        ("ab", ["<s>", " ", "ab"], [0, 0, 0]),
        ("<|im_start|>a", ["<|im_start|>", "a"], [0, 12]),
        ("é!", ["", "é", "!"], [0, 0, 1]),  # a character of two tokens
        ("aÅb", ["a", "A", "b"], [0, 1, 2]),  # a tokenizer that normalises
        ("ab", ["<fim_pre>", "ab", "<fim_suf>", "cd", "<fim_mid>"], [0, 0, 2, 2, 2]),
    ],
)
def test_prompt_offsets(prompt, texts, offsets):
    assert prompt_offsets(prompt, texts) == offsets
