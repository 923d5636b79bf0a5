"""From wire types to validated generations: pure and synchronous, run on a validation worker.

A ``Validator`` is immutable, so any number of threads may use one at the same time. The fields are
judged in ``native``, ``openai`` and ``chat``, with the rules that
all share in ``rules``; here prompts become tokens and all becomes a
``PreparedGeneration``.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import TemplateError, TooManyPrompts
from tgi_llama.generation import GenerationRequest, StoppingParameters, TokenId
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

from .chat import ChatPrompt, chat_prompt
from .native import (
    check_parameters,
    check_streaming,
    check_supported,
    native_sampling,
)
from .openai import OpenAiAnswer, check_openai, prompts
from .rules import Limits, RequestedSampling, reject, token_budget


class Tokenizer(Protocol):
    """What validation needs of a tokenizer; thread-safe."""

    @property
    def n_vocab(self) -> int: ...

    def encode(self, text: str, *, add_special: bool) -> Sequence[TokenId]: ...


class ChatTemplates(Protocol):
    """What validation needs of the model's chat templates; thread-safe."""

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        **variables: object,
    ) -> str:
        """Raises TemplateError."""
        ...


@attrs.frozen(kw_only=True)
class PreparedGeneration:
    """A validated request and what its answer must show."""

    request: GenerationRequest
    prompt: str
    """The text that was tokenized: ``inputs``, the rendered template or the completion's prompt;
    empty where the client sent token ids."""
    n_prompt_tokens: int
    """After truncation, special tokens included."""
    reported_seed: int | None
    """None where the generation is greedy."""
    return_full_text: bool = False
    """Put ``prompt`` before the generated text (native routes)."""
    details: bool = False
    """Native routes: the client asked for ``details``."""
    logprobs: bool = False
    """The answer lists the log-probability of each token."""
    n_top_logprobs: int = 0
    """OpenAI routes: how many likeliest tokens to list at each step."""
    include_usage: bool = False
    """OpenAI streams: end with a chunk that carries the usage."""
    model: str | None = None
    """OpenAI routes: the name to answer with; None for the served model's own."""
    index: int = 0
    """Position of this prompt in the call."""
    branch: int = 0
    """Which of the generations of this prompt this is."""
    n_branches: int = 1
    """Generations of this prompt: the larger of ``n`` and ``best_of``. They share its prefill."""
    n_shown: int = 1
    """How many of them the answer shows, the best ones first where not all are."""
    prefill: bool = False
    """Native routes: list the prompt's tokens in ``details.prefill``."""
    echo: bool = False
    """Completions: put the prompt before the generated text, its logprobs too."""


@attrs.frozen
class _Prompt:
    """``text`` is empty where the client sent ids; ``field`` is the JSON path it came from."""

    text: str
    ids: Sequence[TokenId]
    field: str


def _draw_seed() -> int:
    return secrets.randbits(64)


@attrs.frozen
class Validator:
    limits: Limits
    tokenizer: Tokenizer
    chat_templates: ChatTemplates | None = None
    draw_seed: Callable[[], int] = attrs.field(kw_only=True, default=_draw_seed)

    def generate(self, request: GenerateRequest, *, streaming: bool) -> PreparedGeneration:
        """A request of ``/``, ``/generate`` or ``/generate_stream``. Raises ValidationError."""
        parameters = request.parameters
        sampling = native_sampling(parameters)
        check_streaming(parameters, streaming=streaming)
        check_parameters(parameters, sampling, self.limits)
        check_supported(parameters)
        prompt = self._native_prompt(request)
        full_text = parameters.return_full_text
        prepared = self._prepare(
            prompt,
            sampling,
            greedy=not (parameters.do_sample or sampling.differs_from_neutral),
            stopping=StoppingParameters(
                max_new_tokens=token_budget(
                    parameters.max_new_tokens,
                    self.limits,
                    n_prompt_tokens=len(prompt.ids),
                    prompt_field=prompt.field,
                    budget_field="parameters.max_new_tokens",
                ),
                stop_strings=parameters.stop,
            ),
            n_top_tokens=parameters.top_n_tokens or 0,
            logprobs=True,
        )
        return attrs.evolve(
            prepared,
            details=parameters.details,
            return_full_text=(
                request.return_full_text_by_default if full_text is None else full_text
            ),
        )

    def chat(self, request: ChatRequest) -> PreparedGeneration:
        """Raises ValidationError, or TemplateError when the template refuses the messages."""
        answer = check_openai(request, self.limits, n_vocab=self.tokenizer.n_vocab)
        text = self._render(chat_prompt(request))
        # The template writes the special tokens itself.
        ids = self._encode(text, add_special=False, field="messages")
        prompt = _Prompt(text, ids, "messages")
        return self._openai(prompt, answer, index=0)

    def completion(self, request: CompletionRequest) -> tuple[PreparedGeneration, ...]:
        """One generation per prompt, in the client's order. Raises ValidationError."""
        answer = check_openai(request, self.limits, n_vocab=self.tokenizer.n_vocab)
        asked = prompts(request.prompt, n_vocab=self.tokenizer.n_vocab)
        if len(asked) > self.limits.max_client_batch_size:
            raise TooManyPrompts(
                "Number of prompts exceeds the maximum allowed batch size of "
                f"{self.limits.max_client_batch_size}",
                field="prompt",
            )
        fields = ["prompt"] if len(asked) == 1 else [f"prompt[{i}]" for i in range(len(asked))]
        return tuple(
            self._openai(self._completion_prompt(prompt, field=field), answer, index=index)
            for index, (prompt, field) in enumerate(zip(asked, fields, strict=True))
        )

    def _openai(self, prompt: _Prompt, answer: OpenAiAnswer, *, index: int) -> PreparedGeneration:
        prepared = self._prepare(
            prompt,
            answer.sampling,
            greedy=answer.greedy,
            stopping=StoppingParameters(
                max_new_tokens=token_budget(
                    answer.max_new_tokens,
                    self.limits,
                    n_prompt_tokens=len(prompt.ids),
                    prompt_field=prompt.field,
                    budget_field=answer.max_tokens_field,
                ),
                stop_strings=answer.stop,
                keep_stop_string=False,
                ignore_eos=answer.ignore_eos,
            ),
            n_top_tokens=answer.n_top_logprobs,
            logprobs=answer.logprobs,
        )
        return attrs.evolve(
            prepared,
            n_top_logprobs=answer.n_top_logprobs,
            include_usage=answer.include_usage,
            model=answer.model,
            index=index,
        )

    def _prepare(
        self,
        prompt: _Prompt,
        sampling: RequestedSampling,
        *,
        greedy: bool,
        stopping: StoppingParameters,
        n_top_tokens: int,
        logprobs: bool,
    ) -> PreparedGeneration:
        """What all routes share."""
        seed = self.draw_seed() if sampling.seed is None else sampling.seed
        return PreparedGeneration(
            request=GenerationRequest(
                prompt_ids=tuple(prompt.ids),
                sampling=sampling.parameters(greedy=greedy, seed=seed),
                stopping=stopping,
                logprobs=logprobs,
                n_top_tokens=n_top_tokens,
            ),
            prompt=prompt.text,
            n_prompt_tokens=len(prompt.ids),
            reported_seed=None if greedy else seed,
            logprobs=logprobs,
        )

    def _native_prompt(self, request: GenerateRequest) -> _Prompt:
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
        ids = self._encode(request.inputs, add_special=True, field="inputs")
        return _Prompt(request.inputs, ids if truncate is None else ids[-truncate:], "inputs")

    def _completion_prompt(self, prompt: str | tuple[TokenId, ...], *, field: str) -> _Prompt:
        if not prompt:
            reject("`inputs` cannot be empty", field=field)
        if isinstance(prompt, str):
            return _Prompt(prompt, self._encode(prompt, add_special=True, field=field), field)
        return _Prompt("", prompt, field)

    def _encode(self, text: str, *, add_special: bool, field: str) -> Sequence[TokenId]:
        ids = self.tokenizer.encode(text, add_special=add_special)
        if not ids:
            reject("the prompt has no tokens", field=field)
        return ids

    def _render(self, prompt: ChatPrompt) -> str:
        if self.chat_templates is None:
            raise TemplateError("template not found")
        return self.chat_templates.render(
            prompt.messages,
            add_generation_prompt=prompt.add_generation_prompt,
            continue_final_message=prompt.continue_final_message,
            **prompt.variables,  # type: ignore[arg-type]  # none is called as a parameter is
        )
