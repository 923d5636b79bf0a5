"""A ``tokenizer.json`` of the Hugging Face hub, by the ``tokenizers`` package."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from tokenizers import Encoding
from tokenizers import Tokenizer as NativeTokenizer

from tgi_llama.errors import ConfigError, ValidationError
from tgi_llama.generation import TokenId

from .marked_tokenizer import MarkedTokenizer
from .spellings import Span, Spellings
from .tokenizer import AddedTokens, EncodedToken, utf8

_PROBE = "a"
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What vocabularies of SentencePiece write for a space."""
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(ord("!"), ord("~") + 1)}


class _Placed(NamedTuple):
    """Tokens and where they are in the text, in characters."""

    ids: list[TokenId]
    spans: Sequence[Span]


class HubTokenizer:
    """Implements ``text.tokenizer.Tokenizer``."""

    def __init__(
        self,
        tokenizer: NativeTokenizer,
        *,
        n_vocab: int | None = None,
        control_spellings: Iterable[str] = (),
        added: AddedTokens | None = None,
    ) -> None:
        """Takes the tokenizer over. ``n_vocab`` is the model's, where it differs: text that needs
        a token beyond it is refused. ``control_spellings``: of the tokens that are controls though
        the file does not say so. ``added``: what to put around a text instead of what the file
        says."""
        # A tokenizer.json may have been saved with the settings of its training.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._n_vocab = tokenizer.get_vocab_size() if n_vocab is None else n_vocab
        more = frozenset(control_spellings)
        self.spellings = Spellings(
            token.content
            for token in tokenizer.get_added_tokens_decoder().values()
            if token.special or token.content in more
        )
        self._marked = MarkedTokenizer(tokenizer, self.spellings)
        self._reads_lookalikes = _reads_lookalikes(tokenizer, self.spellings)
        self._files_own = _added_tokens(tokenizer)
        self._added = self._files_own if added is None else added

    @classmethod
    def from_file(
        cls, path: Path, *, n_vocab: int | None = None, control_spellings: Iterable[str] = ()
    ) -> "HubTokenizer":
        """Raises ConfigError where the file cannot be read or is not a tokenizer."""
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        try:
            tokenizer = NativeTokenizer.from_str(source)
        except Exception as error:  # the library raises Exception itself, nothing narrower
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: not a tokenizer: {reason}") from error
        return cls(tokenizer, n_vocab=n_vocab, control_spellings=control_spellings)

    def adding(self, added: AddedTokens) -> "HubTokenizer":
        """The same with other tokens around a text. This one must not be used any more."""
        return HubTokenizer(
            self._tokenizer,
            n_vocab=self._n_vocab,
            control_spellings=self.spellings.texts,
            added=added,
        )

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    @property
    def n_base_vocab(self) -> int:
        """Tokens of the file's own vocabulary, without those added to it."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def base_spellings(self) -> Iterator[tuple[TokenId, str]]:
        """Of the file's own vocabulary."""
        added = self._tokenizer.get_added_tokens_decoder()
        for token in map(TokenId, range(self.n_base_vocab)):
            spelling = None if token in added else self.spelling(token)
            if spelling is not None:  # ids may be left out
                yield token, spelling

    @property
    def added(self) -> AddedTokens:
        """What ``add_special`` adds."""
        return self._added

    def spelling(self, token: TokenId) -> str | None:
        """As the file has it: white space may be written as another character. None for an id
        that is no token."""
        return self._tokenizer.id_to_token(token)

    def id_of(self, spelling: str) -> TokenId | None:
        """Of the token with this spelling."""
        return cast("TokenId | None", self._tokenizer.token_to_id(spelling))

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]:
        return self._placed(text, literals, add_special=add_special, offsets=False).ids

    def encode_with_offsets(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[EncodedToken]:
        placed = self._placed(text, literals, add_special=add_special, offsets=True)
        to_byte = _byte_offsets(text)
        return [
            EncodedToken(token, to_byte[start], to_byte[stop])
            for token, (start, stop) in zip(placed.ids, placed.spans, strict=True)
        ]

    def _placed(
        self, text: str, literals: Sequence[Span], *, add_special: bool, offsets: bool
    ) -> _Placed:
        utf8(text)
        # Nor may a text that only looks like a control token be one, since nobody searches for it.
        is_marked = bool(literals) or self._reads_lookalikes
        by_file = add_special and not is_marked and self._added == self._files_own
        try:
            if is_marked:
                placed = _Placed(*self._marked.encode(text, literals, offsets=offsets))
            else:
                encoding = self._encoding(text, add_special=by_file, offsets=offsets)
                ids = cast("list[TokenId]", encoding.ids)
                placed = _Placed(ids, encoding.offsets if offsets else ())
        except ValidationError:
            raise
        except Exception as error:  # the library raises Exception itself, nothing narrower
            raise ValidationError(f"tokenizer error {error}") from error
        if add_special and not by_file:
            placed = _around(placed, self._added)
        self._check(placed.ids)
        return placed

    def _encoding(self, text: str, *, add_special: bool, offsets: bool) -> Encoding:
        # Only the batch methods let go of the interpreter lock.
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        return encode([text], add_special_tokens=add_special)[0]

    def _check(self, ids: Sequence[TokenId]) -> None:
        if ids and max(ids) >= self._n_vocab:
            raise ValidationError(
                f"tokenizer error the text needs token {max(ids)}, but the model has "
                f"{self._n_vocab} tokens"
            )


def _around(placed: _Placed, added: AddedTokens) -> _Placed:
    nowhere = (0, 0)
    return _Placed(
        [*added.before, *placed.ids, *added.behind],
        [nowhere] * len(added.before) + [*placed.spans] + [nowhere] * len(added.behind),
    )


def _added_tokens(tokenizer: NativeTokenizer) -> AddedTokens:
    """Found by trying."""
    try:
        bare, full = (
            cast("list[TokenId]", tokenizer.encode(_PROBE, add_special_tokens=special).ids)
            for special in (False, True)
        )
    except Exception:  # the library raises Exception itself; the tokenizer cannot write the probe
        return AddedTokens()
    return AddedTokens.between(bare, full)


def _reads_lookalikes(tokenizer: NativeTokenizer, spellings: Spellings) -> bool:
    """Whether the spelling of a control token is looked for after a normalisation that makes it of
    other characters, such as capitals or full-width ones."""
    normalizer = tokenizer.normalizer
    normalized = (
        token.content
        for token in tokenizer.get_added_tokens_decoder().values()
        if token.normalized and token.content in spellings.texts
    )
    if normalizer is None:
        return False
    return any(
        normalizer.normalize_str(other) == normalizer.normalize_str(text)
        for text in normalized
        for other in (text.translate(_FULL_WIDTH), text.swapcase(), text.replace(_SPACE, " "))
        if other != text
    )


def _byte_offsets(text: str) -> Sequence[int]:
    """At i, how many bytes the first i characters take in UTF-8."""
    if text.isascii():
        return range(len(text) + 1)
    lengths = (len(character.encode()) for character in text)
    return list(itertools.accumulate(lengths, initial=0))
