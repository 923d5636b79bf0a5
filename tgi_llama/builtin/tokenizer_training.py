"""Trains the byte-level BPE tokenizer and writes its two files.

Two things differ from the usual training, both so that a tiny model can copy:

* Merges are learned on words *without* their leading space. Tokens of a space and a word exist for
  frequent lower-case words only, by merges that come last. So a name has the same tokens after a
  space as after a quotation mark, and copying it into JSON is copying tokens.
* Merges are learned on ASCII only. Every other character stays two to four tokens, which also makes
  the model a test for servers that must not cut characters in the middle.

The pre-tokenizer is llama.cpp's `smollm`: single digits, then GPT-2's pattern.
"""

import collections
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .chat_format import END_OF_TEXT, SPECIAL_TOKENS, TURN_END, template_text

N_TOKENS = 2048
N_SPACED = 420  # tokens of a space and a frequent word
SPACE = "Ġ"  # how byte-level BPE writes a space
PRE_TOKENIZER_NAME = "smollm"

WordCounts = collections.Counter[str]


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """What llama.cpp calls `smollm`."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of `N_TOKENS` tokens; the special tokens have the ids 0, 1 and 2."""
    counts = _word_counts(texts)
    merges = _merges_without_spaces(counts)
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [left + right for left, right in merges]
    for word in _frequent_words(counts, known=set(tokens)):
        merges.append((SPACE, word))
        tokens.append(SPACE + word)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens) <= N_TOKENS
    return _assembled(vocabulary, merges)


def _assembled(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def _word_counts(texts: Iterable[str]) -> WordCounts:
    """How often each pre-token occurs, in byte-level spelling, `Ġ` for a leading space."""
    split = pre_tokenizer()
    counts: WordCounts = collections.Counter()
    for text in texts:
        for special in SPECIAL_TOKENS:
            text = text.replace(special, "\n")
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    return counts


def _merges_without_spaces(counts: WordCounts) -> list[tuple[str, str]]:
    """Merges learned on ASCII words without their leading space, most frequent first."""
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS - N_SPACED - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained = Tokenizer(models.BPE())
    trained.train_from_iterator(_bare_words(counts), trainer)
    return [(left, right) for left, right in json.loads(trained.to_str())["model"]["merges"]]


def _bare_words(counts: WordCounts) -> Iterator[str]:
    for piece, count in sorted(counts.items()):
        bare = piece.removeprefix(SPACE) or piece
        if bare.replace(SPACE, " ").replace("Ċ", "\n").isascii():
            yield from (bare for _ in range(1 + count // 4))


def _frequent_words(counts: WordCounts, known: set[str]) -> list[str]:
    """Lower-case words and signs that are one token and are frequent after a space."""
    spaced = (
        (count, piece[1:])
        for piece, count in counts.items()
        if piece.startswith(SPACE) and piece[1:] in known and piece[1:] == piece[1:].lower()
    )
    ranked = sorted(spaced, key=lambda entry: (-entry[0], entry[1]))
    return [word for count, word in ranked[:N_SPACED] if count >= 20 and not word.isdigit()]


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `folder`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        str(i): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for i, token in enumerate(SPECIAL_TOKENS)
    }
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": special,
        "bos_token": END_OF_TEXT,
        "chat_template": template_text(),
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": 4096,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
