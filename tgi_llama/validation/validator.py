"""From wire types to validated generations: pure and synchronous, run on a validation worker.

A ``Validator`` is immutable, so any number of threads may use one at the same time. The fields are
judged in ``native``, ``openai``, ``chat``, ``tools`` and ``grammars``, with the rules that all
share in ``rules``, and ``prompts`` makes tokens of prompts; here all becomes ``PreparedGeneration``
values.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import TemplateError
from tgi_llama.generation import GenerationRequest, StoppingParameters
from tgi_llama.structured.compiler import GrammarCompiler
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

from .chat import chat_prompt
from .grammars import check_grammar, check_response_format
from .native import check_before_permit, check_parameters, n_branches, native_sampling
from .openai import OpenAiAnswer, check_branches, check_openai
from .prompts import EncodedPrompt, PromptEncoder, Tokenizer, Vocabulary
from .rules import Limits, RequestedSampling, token_budget
from .tools import check_tools


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
    """The text that was tokenized: ``inputs``, the rendered template or the completion's prompt. Of
    token ids their text, control tokens by their spelling."""
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
    echo_only: bool = False
    """Completions with ``max_tokens`` 0: the engine generates a token, the answer does not show it
    and does not count it."""


def _draw_seed() -> int:
    return secrets.randbits(64)


@attrs.frozen
class Validator:
    limits: Limits
    tokenizer: Tokenizer
    chat_templates: ChatTemplates | None = None
    vocabulary: Vocabulary | None = attrs.field(kw_only=True, default=None)
    """The model's, for infilling and for the text of token ids."""
    grammars: GrammarCompiler | None = attrs.field(kw_only=True, default=None)
    """None where grammars cannot be followed: with this vocabulary, or because they are off."""
    draw_seed: Callable[[], int] = attrs.field(kw_only=True, default=_draw_seed)
    _prompts: PromptEncoder = attrs.field(init=False)

    @_prompts.default
    def _make_encoder(self) -> PromptEncoder:
        return PromptEncoder(self.limits, self.tokenizer, self.vocabulary)

    def precheck(
        self, request: GenerateRequest | ChatRequest | CompletionRequest, *, streaming: bool
    ) -> None:
        """What TGI judges before it gives a permit, but for the chat template: fields alone, so
        cheap enough for any thread. Raises ValidationError and ToolError."""
        match request:
            case GenerateRequest():
                check_before_permit(request.parameters, self.limits, streaming=streaming)
            case ChatRequest():
                check_tools(request)
                check_branches(request, self.limits, streaming=streaming)
            case CompletionRequest():
                self._prompts.check_completion(request)
                check_branches(request, self.limits, streaming=streaming)

    def generate(
        self, request: GenerateRequest, *, streaming: bool
    ) -> tuple[PreparedGeneration, ...]:
        """A request of ``/``, ``/generate`` or ``/generate_stream``: the ``best_of`` generations of
        its prompt. Raises ValidationError."""
        parameters = request.parameters
        sampling = native_sampling(parameters)
        self.precheck(request, streaming=streaming)
        check_parameters(parameters, sampling, self.limits)
        prompt = self._prompts.native(request)
        stopping = StoppingParameters(
            max_new_tokens=token_budget(
                parameters.max_new_tokens,
                self.limits,
                n_prompt_tokens=len(prompt.ids),
                prompt_field=prompt.field,
                budget_field="parameters.max_new_tokens",
            ),
            stop_strings=parameters.stop,
        )
        check_grammar(parameters.grammar, self.limits)
        greedy = not (parameters.do_sample or sampling.differs_from_neutral)
        full_text = parameters.return_full_text
        prepared = PreparedGeneration(
            request=GenerationRequest(
                prompt_ids=tuple(prompt.ids),
                sampling=sampling.parameters(greedy=greedy, seed=0),
                stopping=stopping,
                logprobs=True,
                n_top_tokens=parameters.top_n_tokens or 0,
                prompt_logprobs=parameters.decoder_input_details,
            ),
            prompt=self._prompts.text_of(prompt),
            n_prompt_tokens=len(prompt.ids),
            reported_seed=None,
            logprobs=True,
            details=parameters.details or parameters.decoder_input_details,
            prefill=parameters.decoder_input_details,
            return_full_text=(
                request.return_full_text_by_default if full_text is None else full_text
            ),
            n_branches=n_branches(parameters),
        )
        return self._branches(prepared, sampling)

    def chat(self, request: ChatRequest) -> tuple[PreparedGeneration, ...]:
        """The ``n`` generations of the conversation. Raises ValidationError, ToolError, or
        TemplateError when the template refuses the messages."""
        self.precheck(request, streaming=request.stream)
        text = self._render(request)
        answer = check_openai(request, self.limits, n_vocab=self.tokenizer.n_vocab)
        prepared = self._openai(self._prompts.conversation(text), answer, index=0)
        check_response_format(request.response_format, self.limits)
        return self._branches(prepared, answer.sampling)

    def chat_text(self, request: ChatRequest) -> str:
        """The prompt that ``chat`` would make, for ``/chat_tokenize``, which judges nothing else.
        Raises ValidationError, ToolError and TemplateError."""
        check_tools(request)
        return self._render(request)

    def completion(self, request: CompletionRequest) -> tuple[PreparedGeneration, ...]:
        """The generations of each prompt next to each other, prompts in the client's order. Raises
        ValidationError."""
        self.precheck(request, streaming=request.stream)
        answer = check_openai(request, self.limits, n_vocab=self.tokenizer.n_vocab)
        return tuple(
            branch
            for index, prompt in enumerate(self._prompts.completions(request))
            for branch in self._branches(self._openai(prompt, answer, index=index), answer.sampling)
        )

    def _openai(
        self, prompt: EncodedPrompt, answer: OpenAiAnswer, *, index: int
    ) -> PreparedGeneration:
        """The first generation of a prompt, without its seed."""
        stopping = StoppingParameters(
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
        )
        prompt_logprobs = answer.echo and answer.logprobs
        return PreparedGeneration(
            request=GenerationRequest(
                prompt_ids=tuple(prompt.ids),
                sampling=answer.sampling.parameters(greedy=answer.greedy, seed=0),
                stopping=stopping,
                logprobs=answer.logprobs or answer.is_ranked,
                n_top_tokens=answer.n_top_logprobs,
                prompt_logprobs=prompt_logprobs,
                n_prompt_top_tokens=answer.n_top_logprobs if prompt_logprobs else 0,
            ),
            prompt=self._prompts.text_of(prompt),
            n_prompt_tokens=len(prompt.ids),
            reported_seed=None,
            logprobs=answer.logprobs,
            n_top_logprobs=answer.n_top_logprobs,
            include_usage=answer.include_usage,
            model=answer.model,
            index=index,
            n_branches=answer.n_branches,
            n_shown=answer.n_shown,
            echo=answer.echo,
            echo_only=answer.echo_only,
        )

    def _branches(
        self, first: PreparedGeneration, sampling: RequestedSampling
    ) -> tuple[PreparedGeneration, ...]:
        """All generations of a prompt. They differ in their seeds: from a seed that the client sent
        they count up, so that the first one does not depend on how many there are."""
        return tuple(
            self._branch(first, sampling, branch=branch) for branch in range(first.n_branches)
        )

    def _branch(
        self, first: PreparedGeneration, sampling: RequestedSampling, *, branch: int
    ) -> PreparedGeneration:
        if first.request.sampling.greedy:
            return attrs.evolve(first, branch=branch)
        seed = self.draw_seed() if sampling.seed is None else (sampling.seed + branch) % 2**64
        seeded = attrs.evolve(first.request.sampling, seed=seed)
        return attrs.evolve(
            first,
            request=attrs.evolve(first.request, sampling=seeded),
            reported_seed=seed,
            branch=branch,
        )

    def _render(self, request: ChatRequest) -> str:
        prompt = chat_prompt(request)
        if self.chat_templates is None:
            raise TemplateError("template not found")
        text = self.chat_templates.render(
            prompt.messages,
            add_generation_prompt=prompt.add_generation_prompt,
            continue_final_message=prompt.continue_final_message,
            **prompt.variables,  # type: ignore[arg-type]  # none is called as a parameter is
        )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TemplateError(f"the rendered text is not valid Unicode: {error.reason}") from None
        return text
