"""Which tokenizer encodes the prompts of a model: its ``tokenizer.json`` or the GGUF's vocabulary.

The two must agree, or the model would read other words than the client wrote. They are compared at
start: the ids of some texts, the end tokens, and what is put around a text. See docs/tokenizers.md
for what is refused, what is warned of, and who wins.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import attrs

from tgi_llama.errors import ConfigError, ValidationError
from tgi_llama.generation import TokenId

from .hub_tokenizer import HubTokenizer
from .tokenizer import AddedTokens, ModelVocabulary, Tokenizer

TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"

_PLAIN_PROBES = (
    "Hello, world! It's a well-known fact: (1 + 2) * 3 == 9.",
    "0 12 345 6789 31415926",
)
"""No two tokenizers of one model cut these into other words."""

_PROBES = (
    *_PLAIN_PROBES,
    " leading, trailing ",
    "   three spaces,\ttab\n\n\ntwo empty lines\r\n  indented",
    'def f(x: int) -> str:\n    return f"{x!r}"  # comment\n',
    "Äpfel, naïve, œuvre",
    "нещо на Български",
    "日本語の文章、中文文本。한국어 문장",
    "नमस्ते دنیا שלום",
    "🦙 and 🚀✅, 😶‍🌫️",
)
"""Several scripts, digits, white space and emoji. No normalisation of Unicode changes them, since a
``tokenizer.json`` may normalise and llama.cpp does not."""

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class GgufRules:
    """What a GGUF says of how texts are encoded."""

    path: Path
    add_bos: bool | None
    """None where it does not say it and llama.cpp has to guess."""
    add_eos: bool | None
    words_are_guessed: bool
    """It was made before llama.cpp knew how to cut texts into this vocabulary's words."""


class _Vocabulary(Protocol):
    def spelling(self, token: TokenId) -> str | None: ...


def load_tokenizer(
    folder: Path | None,
    vocabulary: ModelVocabulary,
    rules: GgufRules,
    *,
    choice: str = "auto",
    config_path: Path | None = None,
) -> Tokenizer:
    """``choice``: ``auto`` is the ``tokenizer.json`` in ``folder`` if there is one, else the GGUF's
    vocabulary; ``gguf`` is the latter, and ``json`` the former whatever the comparison says, with
    warnings. ``config_path``: a tokenizer_config.json instead of that in the folder.

    Raises ConfigError where the file is not a tokenizer, or where the two do not agree.
    """
    path = None if folder is None else folder / TOKENIZER_FILE
    if choice == "json" and (path is None or not path.exists()):
        raise ConfigError("--tokenizer: there is no tokenizer.json for this model")
    if choice == "gguf" or path is None or not path.exists():
        return vocabulary
    tokenizer = HubTokenizer.from_file(
        path, n_vocab=vocabulary.n_vocab, control_spellings=vocabulary.spellings.texts
    )
    comparison = _Comparison(path, tokenizer, vocabulary, rules, must_agree=choice != "json")
    comparison.check_texts()
    return comparison.with_agreed_ends(_config(config_path or path.with_name(_CONFIG_FILE)))


@attrs.frozen
class _Comparison:
    path: Path
    tokenizer: HubTokenizer
    vocabulary: ModelVocabulary
    rules: GgufRules
    must_agree: bool = attrs.field(kw_only=True)

    def check_texts(self) -> None:
        # Added tokens may go beyond the model (placeholders of images, for example).
        if self.tokenizer.n_base_vocab > self.vocabulary.n_vocab:
            self._disagree(
                f"the first has {self.tokenizer.n_base_vocab} tokens, the second "
                f"{self.vocabulary.n_vocab}"
            )
        difference = first_difference(self.tokenizer, self.vocabulary)
        if difference is None:
            return
        if self._has_same_tokens():
            if self.rules.words_are_guessed:
                reason = f"{self.rules.path} does not say how to cut a text into words"
                _log.warning("%s, so %s is used alone: %s", reason, self.path, difference)
                return
            # llama.cpp writes the rules of each model anew, and not always to the letter: it lacks
            # marks (\p{M}) in the words of gpt-4o, llama4 and tekken, and of SentencePiece it does
            # not know when a space goes before a text.
            if self._agree_on_plain_words():
                _log.warning(
                    "%s and %s have the same tokens, but cut some texts into others, and it is"
                    " done as the first does: %s",
                    self.path,
                    self.rules.path,
                    difference,
                )
                return
        self._disagree(difference)

    def with_agreed_ends(self, config: "_AddedByConfig") -> HubTokenizer:
        """The tokenizer, putting around a text what both files say."""
        by_file, by_model = self.tokenizer.added, _added_by(self.vocabulary)
        configured = config.applied_to(by_file, self.vocabulary)
        if by_model in (by_file, configured):
            return self.tokenizer if by_file == by_model else self.tokenizer.adding(by_model)
        agreed = AddedTokens(
            self._agreed("before", configured.before, by_model.before, self.rules.add_bos),
            self._agreed("behind", configured.behind, by_model.behind, self.rules.add_eos),
        )
        return self.tokenizer.adding(agreed)

    def _agreed(
        self,
        side: str,
        ours: tuple[TokenId, ...],
        models: tuple[TokenId, ...],
        said: bool | None,
    ) -> tuple[TokenId, ...]:
        if ours == models:
            return ours
        first, second = (_named(ids, self.vocabulary) for ids in (ours, models))
        difference = f"the first puts {first} {side} a text, the second {second}"
        key, token = (
            ("add_bos_token", self.vocabulary.bos_id)
            if side == "before"
            else ("add_eos_token", self.vocabulary.eos_id)
        )
        if said is None or (ours and ours != (token,)):  # a GGUF has no word for another token
            _log.warning(
                "%s does not say what stands %s a text, so it is as %s says: %s",
                self.rules.path,
                side,
                self.path,
                first,
            )
        else:
            self._disagree(f"{difference} (tokenizer.ggml.{key} is {str(said).lower()})")
        return ours

    def _agree_on_plain_words(self) -> bool:
        """But for a space before the text, which only one of them may put there."""

        def agree(text: str) -> bool:
            ours, ours_spaced, models, models_spaced = (
                one.encode(spaced, add_special=False)
                for one in (self.tokenizer, self.vocabulary)
                for spaced in (text, f" {text}")
            )
            return models in (ours, ours_spaced) or models_spaced == ours

        if _end_difference(self.tokenizer, self.vocabulary) is not None:
            return False
        try:
            return all(map(agree, _PLAIN_PROBES))
        except ValidationError:  # the first cannot encode one
            return False

    def _has_same_tokens(self) -> bool:
        """Whether an id is the same word in both, added tokens aside."""
        return all(
            token < self.vocabulary.n_vocab and self.vocabulary.spelling(token) == spelling
            for token, spelling in self.tokenizer.base_spellings()
        )

    def _disagree(self, difference: str) -> None:
        message = f"{self.path} and {self.rules.path} do not belong together: {difference}"
        if self.must_agree:
            raise ConfigError(
                f"{message}. --tokenizer gguf does without the first, --tokenizer json trusts it"
            )
        _log.warning("%s", message)


def first_difference(tokenizer: HubTokenizer, vocabulary: ModelVocabulary) -> str | None:
    """What the two first encode differently, in words; None where they agree on all probes and end
    tokens."""
    for text in _PROBES:
        try:
            ours = tokenizer.encode(text, add_special=False)
        except ValidationError as error:
            return f"the first cannot encode {text!r}: {error}"
        models = vocabulary.encode(text, add_special=False)
        if ours != models:
            return _describe(text, _Side(tokenizer, ours), _Side(vocabulary, models))
    return _end_difference(tokenizer, vocabulary)


def _end_difference(tokenizer: HubTokenizer, vocabulary: ModelVocabulary) -> str | None:
    for ending in (vocabulary.eos_text, vocabulary.eot_text):
        if ending:
            expected = vocabulary.encode(ending, add_special=False)
            found = tokenizer.id_of(ending)
            # one that is no control token in the GGUF may come out in pieces
            if len(expected) == 1 and expected != [found]:
                return f"{ending!r} is token {found} in the first, {expected[0]} in the second"
    return None


@attrs.frozen
class _Side:
    vocabulary: _Vocabulary
    ids: Sequence[TokenId]

    def token(self, index: int) -> str:
        if index >= len(self.ids):
            return "missing"
        token = self.ids[index]
        return f"{token} ({self.vocabulary.spelling(token)!r})"


def _describe(text: str, ours: _Side, models: _Side) -> str:
    pairs = zip(ours.ids, models.ids, strict=False)
    differing = (index for index, pair in enumerate(pairs) if pair[0] != pair[1])
    index = next(differing, min(len(ours.ids), len(models.ids)))
    return (
        f"token {index} of {text!r} is {ours.token(index)} in the first, {models.token(index)} in"
        " the second"
    )


def _added_by(vocabulary: ModelVocabulary) -> AddedTokens:
    bare, full = (vocabulary.encode("a", add_special=special) for special in (False, True))
    return AddedTokens.between(bare, full)


def _named(ids: Sequence[TokenId], vocabulary: ModelVocabulary) -> str:
    return " ".join(map(vocabulary.spelling, ids)) if ids else "nothing"


@attrs.frozen
class _AddedByConfig:
    """``add_bos_token`` and ``add_eos_token`` of a tokenizer_config.json, which go before what its
    tokenizer.json says for transformers, and did for llama.cpp's converter, which made most of the
    files that there are. None where they are not there."""

    bos: bool | None
    eos: bool | None

    def applied_to(self, added: AddedTokens, vocabulary: ModelVocabulary) -> AddedTokens:
        return AddedTokens(
            _applied(self.bos, added.before, vocabulary.bos_id),
            _applied(self.eos, added.behind, vocabulary.eos_id),
        )


def _applied(
    wanted: bool | None,
    ids: tuple[TokenId, ...],
    token: TokenId | None,
) -> tuple[TokenId, ...]:
    if wanted is None or token is None or wanted == bool(ids):
        return ids
    return (token,) if wanted else ()


def _config(path: Path) -> _AddedByConfig:
    """Nothing where the file cannot be read, as TGI."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        document = None
    values = document if isinstance(document, dict) else {}
    given = (values.get(name) for name in ("add_bos_token", "add_eos_token"))
    return _AddedByConfig(*(value if isinstance(value, bool) else None for value in given))
