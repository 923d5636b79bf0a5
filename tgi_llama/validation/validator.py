"""From wire types to validated generations: pure and synchronous, run on a validation worker.

A ``Validator`` is immutable, so any number of threads may use one at the same time. The fields are
judged in ``native``, ``openai``, ``chat``, ``tools`` and ``grammars``, with the rules that all
share in ``rules``, ``prompts`` makes tokens of prompts, and ``constraints`` has grammars compiled;
here all becomes ``PreparedGeneration`` values.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import TemplateError
from tgi_llama.generation import AdapterId, GenerationRequest, StoppingParameters
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

from .adapters import ChosenAdapter, chosen_adapter
from .call_ids import needs_short_ids, with_short_ids
from .chat import chat_prompt
from .client_text import Conversation, PromptText
from .constraints import Constraints
from .grammars import native_grammar, openai_grammar
from .native import check_before_permit, check_parameters, n_branches, native_sampling
from .openai import OpenAiAnswer, check_branches, check_openai
from .prepared import PreparedGeneration
from .prompts import EncodedPrompt, ParseSpecial, PromptEncoder, Tokenizer, Vocabulary
from .rules import Limits, RequestedSampling, token_budget
from .tool_prompt import tool_prompt
from .tools import ToolUse, tool_use


class ChatTemplates(Protocol):
    """What validation needs of the model's chat templates; thread-safe."""

    @property
    def reads_tools(self) -> bool:
        """Whether the template for conversations with tools tells the model of them."""
        ...

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


def _draw_seed() -> int:
    return secrets.randbits(64)


@attrs.frozen
class Validator:
    limits: Limits
    tokenizer: Tokenizer
    chat_templates: ChatTemplates | None = None
    vocabulary: Vocabulary | None = attrs.field(kw_only=True, default=None)
    """The model's, for infilling and for the text of token ids."""
    constraints: Constraints = attrs.field(kw_only=True, factory=Constraints)
    adapters: Callable[[], Mapping[str, AdapterId]] = attrs.field(kw_only=True, default=dict)
    """The LoRA adapters that there are, by name. Any thread may call it."""
    parse_special_tokens: ParseSpecial = attrs.field(kw_only=True, default=ParseSpecial.PROMPTS)
    draw_seed: Callable[[], int] = attrs.field(kw_only=True, default=_draw_seed)
    _prompts: PromptEncoder = attrs.field(init=False)

    @_prompts.default
    def _make_encoder(self) -> PromptEncoder:
        return PromptEncoder(
            self.limits, self.tokenizer, self.vocabulary, parse_special=self.parse_special_tokens
        )

    def precheck(
        self, request: GenerateRequest | ChatRequest | CompletionRequest, *, streaming: bool
    ) -> None:
        """What TGI judges before it gives a permit, but for the chat template: fields alone, so
        cheap enough for any thread. Raises ValidationError and ToolError."""
        match request:
            case GenerateRequest():
                check_before_permit(request.parameters, self.limits, streaming=streaming)
            case ChatRequest():
                self._tool_use(request)
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
        adapter = chosen_adapter(
            self.adapters(), parameters.adapter_id, field="parameters.adapter_id"
        )
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
        grammar = native_grammar(parameters, self.limits)
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
                adapter=adapter.id if adapter else None,
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
            adapter=adapter.name if adapter else None,
        )
        return self._branches(self.constraints.constrained(prepared, grammar), sampling)

    def chat(self, request: ChatRequest) -> tuple[PreparedGeneration, ...]:
        """The ``n`` generations of the conversation. Raises ValidationError, ToolError, or
        TemplateError when the template refuses the messages."""
        self.precheck(request, streaming=request.stream)
        use = self._tool_use(request)
        text = self._render(request, use)
        answer = check_openai(request, self.limits, n_vocab=self.tokenizer.n_vocab)
        adapter = self._adapter(request)
        prepared = self._openai(self._prompts.conversation(text), answer, adapter, index=0)
        content = openai_grammar(request, self.limits)
        turn = self.constraints.turn(prepared, request, use, content)
        return self._branches(turn, answer.sampling)

    def chat_text(self, request: ChatRequest) -> PromptText:
        """The prompt that ``chat`` would make, for ``/chat_tokenize``, which judges nothing else.
        Raises ValidationError, ToolError and TemplateError."""
        return self._render(request, self._tool_use(request))

    def prompt_text(self, text: str) -> PromptText:
        """``inputs`` as ``generate`` encodes it, for ``/tokenize``."""
        return self._prompts.prompt_text(text)

    def completion(self, request: CompletionRequest) -> tuple[PreparedGeneration, ...]:
        """The generations of each prompt next to each other, prompts in the client's order. Raises
        ValidationError."""
        self.precheck(request, streaming=request.stream)
        answer = check_openai(request, self.limits, n_vocab=self.tokenizer.n_vocab)
        adapter = self._adapter(request)
        prompts = self._prompts.completions(request)
        prepared = [
            self._openai(prompt, answer, adapter, index=index)
            for index, prompt in enumerate(prompts)
        ]
        grammar = openai_grammar(request, self.limits)
        return tuple(
            branch
            for one in self.constraints.all_constrained(prepared, grammar)
            for branch in self._branches(one, answer.sampling)
        )

    def _adapter(self, request: ChatRequest | CompletionRequest) -> ChosenAdapter | None:
        return chosen_adapter(
            self.adapters(), request.adapter_id, field="adapter_id", model=request.model
        )

    def _openai(
        self,
        prompt: EncodedPrompt,
        answer: OpenAiAnswer,
        adapter: ChosenAdapter | None,
        *,
        index: int,
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
                adapter=adapter.id if adapter else None,
            ),
            prompt=self._prompts.text_of(prompt),
            n_prompt_tokens=len(prompt.ids),
            reported_seed=None,
            logprobs=answer.logprobs,
            n_top_logprobs=answer.n_top_logprobs,
            include_usage=answer.include_usage,
            model=adapter.name if adapter else answer.model,
            adapter=adapter.name if adapter else None,
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

    def _tool_use(self, request: ChatRequest) -> ToolUse:
        use = tool_use(request)
        self.constraints.check_tools(use)
        return use

    def _render(self, request: ChatRequest, use: ToolUse) -> PromptText:
        prompt = chat_prompt(request)
        if self.chat_templates is None:
            raise TemplateError("template not found")
        conversation = Conversation(
            messages=self._for_format(request, use, prompt.messages),
            tools=use.declared or None,
            variables=prompt.variables,
        )
        templates = self.chat_templates

        def render(one: Conversation) -> str:
            return templates.render(
                one.messages,
                tools=one.tools,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                **one.variables,
            )

        return self._prompts.conversation_text(conversation, render)

    def _for_format(
        self, request: ChatRequest, use: ToolUse, messages: Sequence[Mapping[str, object]]
    ) -> Sequence[Mapping[str, object]]:
        """The messages with what the model's format needs besides its template."""
        turn_format = self.constraints.turn_format
        if turn_format is None or self.chat_templates is None:
            return messages
        if needs_short_ids(turn_format.name):
            messages = with_short_ids(messages)
        told = tool_prompt(
            request.tool_prompt,
            format_name=turn_format.name,
            reads_tools=self.chat_templates.reads_tools,
        )
        return told.applied(messages, use)
