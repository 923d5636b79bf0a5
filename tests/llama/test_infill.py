"""The tokens with which a model fills a gap, from real vocabularies."""

from collections.abc import Callable

import pytest

from tgi_llama.llama.vocab import Vocab

OpenVocab = Callable[[str], Vocab]


def test_infill_tokens_of_a_model_for_code_are_found(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("deepseek-coder")
    infill = vocab.infill
    assert infill is not None
    spellings = [vocab.piece(token).decode() for token in (infill.pre, infill.suf, infill.mid)]
    assert spellings == ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"]  # noqa: RUF001


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_infill_tokens_of_other_models_are_none(name: str, open_vocab: OpenVocab) -> None:
    assert open_vocab(name).infill is None
