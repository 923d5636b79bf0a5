"""What a GGUF says of how texts are encoded, read from real files."""

from pathlib import Path

import pytest
from fakes.native import Load

from tgi_llama.llama.vocab import Vocab
from tgi_llama.model_text import gguf_rules
from tgi_llama.text.hub_tokenizer import HubTokenizer
from tgi_llama.text.tokenizer_choice import load_tokenizer


def test_built_in_model_says_all_and_its_tokenizer_json_agrees(load: Load, gguf: Path) -> None:
    with load() as loaded:
        rules = gguf_rules(gguf, loaded.model)
        assert (rules.path, rules.words_are_guessed) == (gguf, False)
        assert rules.add_bos is False
        tokenizer = load_tokenizer(gguf.parent, Vocab(loaded.model.vocab_pointer), rules)
        assert isinstance(tokenizer, HubTokenizer)
        assert tokenizer.spellings.texts == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


@pytest.mark.parametrize("key", ["pre", "add_bos_token"])
def test_file_that_leaves_a_rule_out_is_known_for_it(
    load: Load, gguf: Path, tmp_path: Path, key: str
) -> None:
    name = f"tokenizer.ggml.{key}".encode()
    data = gguf.read_bytes()
    assert data.count(name) == 1
    silent = tmp_path / "silent.gguf"
    silent.write_bytes(data.replace(name, name[:-1] + b"?"))
    with load(silent) as loaded:
        rules = gguf_rules(silent, loaded.model)
    assert rules.words_are_guessed is (key == "pre")
    assert (rules.add_bos is None) is (key == "add_bos_token")
