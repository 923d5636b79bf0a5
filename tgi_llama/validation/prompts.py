"""Prompts as token ids, whatever they come as: a text, a rendered conversation, ids, or the two
sides of a gap.
"""

import enum
from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import SuffixNotSupported, TemplateError, TooManyPrompts
from tgi_llama.generation import TokenId
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import CompletionRequest, Prompt

from .client_text import Conversation, PromptText, Render, Span, Spellings, rendered
from .rules import Limits, reject


class ParseSpecial(enum.Enum):
    """In which of a client's texts the spelling of a control token becomes that token."""

    NONE = "none"
    PROMPTS = "prompts"
    """In whole prompts, which clients have rendered, but not in conversations."""
    ALL = "all"
    """As TGI."""


class Tokenizer(Protocol):
    """What validation needs of a tokenizer; thread-safe."""

    @property
    def n_vocab(self) -> int: ...

    @property
    def spellings(self) -> Spellings:
        """Of the control tokens that are read in a text."""
        ...

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> Sequence[TokenId]:
        """``literals``: those of ``spellings.find(text)`` that are ordinary text."""
        ...


class InfillTokens(Protocol):
    """``text.tokenizer.InfillTokens``."""

    @property
    def pre(self) -> TokenId: ...

    @property
    def suf(self) -> TokenId: ...

    @property
    def mid(self) -> TokenId: ...


class Vocabulary(Protocol):
    """What validation needs of the model's vocabulary; thread-safe."""

    @property
    def infill(self) -> InfillTokens | None:
        """None for a model that cannot fill a gap."""
        ...

    def piece(self, token: TokenId) -> bytes:
        """The token's bytes; a control token's spelling."""
        ...


@attrs.frozen
class EncodedPrompt:
    text: str | None
    """What was tokenized; None where the client sent ids."""
    ids: Sequence[TokenId]
    """At least one."""
    field: str
    """The JSON path it came from."""


@attrs.frozen
class PromptEncoder:
    """Immutable and thread-safe. Without a vocabulary no gap can be filled, and token ids have no
    text. All methods raise ValidationError."""

    limits: Limits
    tokenizer: Tokenizer
    vocabulary: Vocabulary | None
    parse_special: ParseSpecial = attrs.field(kw_only=True, default=ParseSpecial.PROMPTS)

    def native(self, request: GenerateRequest) -> EncodedPrompt:
        """Rules 12 and 13. Truncation keeps the end of the prompt, as TGI's does."""
        if not request.inputs:
            reject("`inputs` cannot be empty", field="inputs")
        truncate = request.parameters.truncate
        if truncate is not None and not 0 < truncate <= self.limits.max_input_tokens:
            reject(
                "`truncate` must be strictly positive and less than "
                f"{self.limits.max_input_tokens}. Given: {truncate}",
                field="parameters.truncate",
            )
        text = self.prompt_text(request.inputs)
        prompt = self._encoded(text, add_special=True, field="inputs")
        return prompt if truncate is None else attrs.evolve(prompt, ids=prompt.ids[-truncate:])

    def conversation(self, text: PromptText) -> EncodedPrompt:
        """A rendered template, which writes the special tokens itself."""
        return self._encoded(text, add_special=False, field="messages")

    def conversation_text(self, conversation: Conversation, render: Render) -> PromptText:
        """What the template makes of the conversation. Raises TemplateError too."""
        if self.parse_special is ParseSpecial.ALL:
            text = PromptText(render(conversation))
        else:
            text = rendered(conversation, render, self.tokenizer.spellings)
        try:
            text.text.encode()
        except UnicodeEncodeError as error:
            raise TemplateError(f"the rendered text is not valid Unicode: {error.reason}") from None
        return text

    def prompt_text(self, text: str) -> PromptText:
        """A prompt that the client wrote as a whole."""
        if self.parse_special is ParseSpecial.NONE:
            return PromptText(text, self.tokenizer.spellings.find(text))
        return PromptText(text)

    def check_completion(self, request: CompletionRequest) -> None:
        """Whether there may be a suffix and so many prompts. Looks at no prompt itself. Raises
        SuffixNotSupported and TooManyPrompts too."""
        if request.suffix is not None and self._infill() is None:
            raise SuffixNotSupported(
                "Suffix is not supported and can be achieved by preprocessing the prompt.",
                field="suffix",
            )
        if _n_prompts(request.prompt) > self.limits.max_client_batch_size:
            raise TooManyPrompts(
                "Number of prompts exceeds the maximum allowed batch size of "
                f"{self.limits.max_client_batch_size}",
                field="prompt",
            )

    def completions(self, request: CompletionRequest) -> Iterator[EncodedPrompt]:
        """The prompts of a call that passed ``check_completion``, in the client's order."""
        asked = _prompts(request.prompt, n_vocab=self.tokenizer.n_vocab)
        for index, prompt in enumerate(asked):
            field = "prompt" if len(asked) == 1 else f"prompt[{index}]"
            yield self._completion(prompt, request.suffix, field=field)

    def text_of(self, prompt: EncodedPrompt) -> str:
        """The prompt as text: of ids the joined pieces, control tokens by their spelling."""
        if prompt.text is not None:
            return prompt.text
        if self.vocabulary is None:
            return ""
        return b"".join(map(self.vocabulary.piece, prompt.ids)).decode(errors="replace")

    def _completion(
        self, prompt: str | tuple[TokenId, ...], suffix: str | None, *, field: str
    ) -> EncodedPrompt:
        if not prompt and not suffix:
            reject("`inputs` cannot be empty", field=field)
        if isinstance(prompt, str):
            if suffix is not None:
                return self._around_gap(prompt, suffix, field=field)
            return self._encoded(self.prompt_text(prompt), add_special=True, field=field)
        if suffix is not None:
            reject("`suffix` needs a `prompt` that is text, not token ids", field="suffix")
        return EncodedPrompt(None, prompt, field)

    def _around_gap(self, prefix: str, suffix: str, *, field: str) -> EncodedPrompt:
        infill = self._infill()
        assert infill is not None  # check_completion sees to it
        ids = [
            *self._special_in_front(),
            infill.pre,
            *self._ids(self.prompt_text(prefix), add_special=False),
            infill.suf,
            *self._ids(self.prompt_text(suffix), add_special=False),
            infill.mid,
        ]
        return EncodedPrompt(prefix, ids, field)

    def _special_in_front(self) -> Sequence[TokenId]:
        """What the tokenizer puts before any text, such as BOS."""
        probe = "a"
        bare = list(self.tokenizer.encode(probe, add_special=False))
        full = list(self.tokenizer.encode(probe, add_special=True))
        for n_in_front in range(len(full) - len(bare) + 1):
            if full[n_in_front : n_in_front + len(bare)] == bare:
                return full[:n_in_front]
        return ()

    def _infill(self) -> InfillTokens | None:
        return None if self.vocabulary is None else self.vocabulary.infill

    def _encoded(self, text: PromptText, *, add_special: bool, field: str) -> EncodedPrompt:
        ids = self._ids(text, add_special=add_special)
        if not ids:
            reject("the prompt has no tokens", field=field)
        return EncodedPrompt(text.text, ids, field)

    def _ids(self, text: PromptText, *, add_special: bool) -> Sequence[TokenId]:
        return self.tokenizer.encode(text.text, add_special=add_special, literals=text.literals)


def _n_prompts(prompt: Prompt) -> int:
    if isinstance(prompt, str):
        return 1
    if not prompt:
        reject("Empty array detected. Do not use an empty array for the prompt.", field="prompt")
    return 1 if isinstance(prompt[0], int) else len(prompt)


def _prompts(prompt: Prompt, *, n_vocab: int) -> tuple[str | tuple[TokenId, ...], ...]:
    """Each a text or token ids."""
    if isinstance(prompt, str):
        return (prompt,)
    if all(isinstance(item, int) for item in prompt):
        ids = tuple(item for item in prompt if isinstance(item, int))
        return (_token_ids(ids, n_vocab=n_vocab, field="prompt"),)
    several: list[str | tuple[TokenId, ...]] = []
    starts_with_id = isinstance(prompt[0], int)
    for index, item in enumerate(prompt):
        if isinstance(item, int) != starts_with_id:
            reject("`prompt` cannot mix token ids with texts or lists", field=f"prompt[{index}]")
    for index, item in enumerate(prompt):
        assert not isinstance(item, int)
        if isinstance(item, tuple):
            several.append(_token_ids(item, n_vocab=n_vocab, field=f"prompt[{index}]"))
        else:
            several.append(item)
    return tuple(several)


def _token_ids(ids: tuple[int, ...], *, n_vocab: int, field: str) -> tuple[TokenId, ...]:
    for index, token in enumerate(ids):
        if not 0 <= token < n_vocab:
            reject(
                f"`prompt` token ids must be >= 0 and < {n_vocab}. Given: {token}",
                field=f"{field}[{index}]",
            )
    return tuple(TokenId(token) for token in ids)
