"""Not a fake: a small byte-level tokenizer, whose tokens a test can name."""

from collections.abc import Sequence

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as NativeTokenizer

EOS = "<|end|>"
MERGES = (("l", "l"), ("H", "e"), ("He", "ll"), ("Hell", "o"))


def build(
    *,
    bos: bool = True,
    merges: Sequence[tuple[str, str]] = MERGES,
    alphabet_reversed: bool = False,
) -> NativeTokenizer:
    """One id per byte, a few merges, BOS and EOS."""
    words = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=alphabet_reversed)
    words += ["".join(pair) for pair in MERGES]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = NativeTokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in ("<s>", EOS)]
    tokenizer.add_special_tokens(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return tokenizer
