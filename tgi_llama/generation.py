"""The vocabulary that all layers share: one request's parameters and the events that answer it.

Everything here is a frozen value, so it may cross threads. Nothing here imports another module of
ours. Words are explained in ``docs/glossary.md``.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple, NewType, Protocol

import attrs

TokenId = NewType("TokenId", int)
RequestId = NewType("RequestId", int)
AdapterId = NewType("AdapterId", int)
"""One loading of a LoRA adapter. The same file loaded again has another one."""


@attrs.frozen(kw_only=True)
class AdapterFacts:
    """What a loaded LoRA adapter is."""

    n_bytes: int
    """Memory that it takes beside the model."""
    n_weights: int
    """Matrices of the model that it changes."""
    rank: int
    """The largest of them all."""


class FinishReason(enum.Enum):
    """Why a generation ended. The values are TGI's spelling on the native routes."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"


@attrs.frozen(kw_only=True)
class SamplingParameters:
    """How the next token is chosen. Every default means "off".

    Applied in this order (TGI's): watermark, repetition, frequency and presence penalty, logit
    bias, temperature, top-k, top-p, min-p, typical-p, then one draw. ``greedy`` skips everything
    after the bias and takes the largest logit.
    """

    greedy: bool = False
    temperature: float = 1.0
    """Divides the logits; > 0."""
    top_k: int = 0
    """Keep the k likeliest; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens whose probabilities reach this sum."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the likeliest."""
    typical_p: float = 1.0
    """Locally typical sampling (Meister et al., 2022): the mass to keep."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen in prompt or output."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once per occurrence in the output."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of every token that occurs in the output."""
    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    watermark: bool = False
    """Favour the half of the vocabulary that the token before picks out."""
    seed: int = 0
    """0 <= seed < 2**64. Drawn by the caller when the client sent none."""


@attrs.frozen(kw_only=True)
class StoppingParameters:
    max_new_tokens: int
    """>= 1. The end-of-generation token counts as one of them."""
    stop_strings: tuple[str, ...] = ()
    keep_stop_string: bool = True
    """True: the visible text ends with the stop string (native routes). False: it is cut off
    (OpenAI routes), so text that may still become a stop string is held back meanwhile."""
    ignore_eos: bool = False


class GrammarState(Protocol):
    """Where one sequence stands in its grammar. One thread at a time: the decode thread, or the one
    that computes masks for it meanwhile.

    A step that cannot be done, because a token is refused or a limit of the grammar engine is
    reached, raises GenerationError; the state is of no use afterwards.
    """

    @property
    def is_complete(self) -> bool:
        """Nothing may follow any more but the end of generation."""
        ...

    def allows(self, token: TokenId) -> bool:
        """Whether the token may come next. Cheaper than a mask; changes nothing."""
        ...

    def fill_mask(self, address: int, n_bytes: int) -> None:
        """Writes a bit per token, the lowest of each byte first: 1 where the token may come next.
        Tokens that end the generation may where the text so far is all that the grammar asks for.
        Lets go of the interpreter lock. ``n_bytes``: a multiple of 4, at least a bit per token."""
        ...

    def forced(self) -> Sequence[TokenId]:
        """The tokens that must come next because the grammar leaves no choice; often none. Changes
        nothing."""
        ...

    def take(self, token: TokenId) -> None:
        """The token was chosen."""
        ...


class Constraint(Protocol):
    """A compiled grammar. Immutable, so requests on any thread may share it."""

    def start(self) -> GrammarState:
        """The state before the first token."""
        ...


@attrs.frozen(kw_only=True)
class GenerationRequest:
    """One validated generation. ``prompt_ids`` holds at least one token."""

    prompt_ids: tuple[TokenId, ...]
    sampling: SamplingParameters
    stopping: StoppingParameters
    logprobs: bool = False
    """Compute the log-probability of each chosen token: log-softmax of the model's raw logits at
    temperature 1, before penalties and filters. It costs a pass over the vocabulary per token."""
    n_top_tokens: int = 0
    """List this many likeliest tokens (with logprobs) at each step."""
    prompt_logprobs: bool = False
    """Compute the log-probability of every prompt token too. It costs an output row and a pass over
    the vocabulary per prompt token, and no cells of another request can be used."""
    n_prompt_top_tokens: int = 0
    """List this many likeliest tokens at each position of the prompt; needs ``prompt_logprobs``."""
    adapter: AdapterId | None = None
    """The LoRA adapter to compute prompt and output with; None: the model alone."""
    constraint: Constraint | None = None
    """What the generated text must be like."""
    shown_controls: frozenset[TokenId] = frozenset()
    """Control tokens that are part of the visible text, by their spelling: the marks of a chat
    turn's parts, which ``turns`` takes out again. One that ends the generation still does."""


@attrs.frozen
class Token:
    """One generated token as a client sees it."""

    id: TokenId
    text: str
    """What this token added to the text. Empty while a character of several tokens is incomplete;
    a control token has its own spelling, for example ``<|im_end|>``."""
    logprob: float | None
    """None when it was not asked for."""
    special: bool
    """A control token of the vocabulary. Not part of ``TokenEvent.delta``, unless the request has
    it among its ``shown_controls``."""


@attrs.frozen
class PromptToken:
    """One token of the prompt with what the model thought of it."""

    id: TokenId
    text: str
    """As ``Token.text``."""
    logprob: float | None
    """None for the first token, which follows nothing."""
    top_tokens: tuple[Token, ...] = ()


@attrs.frozen(kw_only=True)
class Timings:
    """Moments of one request in seconds on ``time.perf_counter``'s clock."""

    submitted: float
    started: float
    """The first step that worked on this request; until then it was queued."""
    first_token: float
    finished: float


@attrs.frozen(kw_only=True)
class Finish:
    """The end of a generation that went well; carried by the event of its last token."""

    reason: FinishReason
    n_generated: int
    """Tokens chosen or forced, the end-of-generation token included."""
    timings: Timings
    n_cached_prompt_tokens: int = 0
    """Prompt tokens whose cells were reused instead of computed."""


@attrs.frozen(kw_only=True)
class TokenEvent:
    """One generated token. ``finish`` is set on the last one, and nothing follows it."""

    token: Token
    top_tokens: tuple[Token, ...] = ()
    """The likeliest tokens of this step, descending; ``n_top_tokens`` of them, and more on ties."""
    delta: str
    """What to append to the visible text: the concatenation of all deltas is the whole generated
    text. Differs from ``token.text`` for control tokens and where text is held back."""
    finish: Finish | None = None
    prompt_tokens: tuple[PromptToken, ...] = ()
    """All tokens of the prompt; on the first event, where the request has ``prompt_logprobs``."""


@attrs.frozen
class Failed:
    """The generation ended without a result. Terminal: nothing follows it."""

    error: Exception


StreamEvent = TokenEvent | Failed


class CacheOutcome(enum.Enum):
    """Where the beginning of a prompt came from, or why it had to be computed. The values are the
    labels of ``tgi_llama_prefix_cache_requests``."""

    SLOT = "slot"
    """From a slot that another sequence has or had."""
    HOST = "host"
    """From host memory."""
    UNKNOWN = "unknown"
    """Nobody has had a prompt that begins like this, or it is gone."""
    SHORT = "short"
    """What is known is too short to be worth fetching."""
    UNCUTTABLE = "uncuttable"
    """Something longer is known, but this model's memory cannot be cut to what is common."""
    LOGPROBS = "logprobs"
    """The prompt's logprobs are wanted, for which it must be computed."""
    FAILED = "failed"
    """It was there, but could not be fetched."""
    OFF = "off"
    """The prefix cache is off."""


class GrammarOutcome(enum.Enum):
    """What became of a request for a compiled grammar. The values are the labels of
    ``tgi_llama_grammar_requests``."""

    COMPILED = "compiled"
    CACHED = "cached"
    """Compiled before, for this request or another, or being compiled at the moment."""
    INVALID = "invalid"
    """Wrong, unsatisfiable, or asks for what cannot be enforced."""
    TOO_COMPLEX = "too_complex"
    """Compiling or following it would cost too much."""
    TOO_LARGE = "too_large"


@attrs.frozen(kw_only=True)
class PlacementReport:
    """What happened to slots and cells since the step before, and what is held after it."""

    n_preempted: int = 0
    """Sequences that gave their cells up for older ones and will go on later."""
    outcomes: tuple[tuple[CacheOutcome, int], ...] = ()
    """One for each prompt that was looked up, with the number of tokens that were reused."""
    n_cells_used: int = 0
    """Cells in use, those of idle slots included; shared ones count once."""
    n_idle_slots: int = 0
    """Slots that only hold what ended sequences left."""
    host_bytes: int = 0
    """What the saved states in host memory take."""
    n_host_entries: int = 0
    n_evicted: int = 0
    """Saved states that were dropped to make room for others."""


class StepReport(NamedTuple):
    """What one step of the decode thread did, for the metrics. Times are in seconds.

    A step that only took commands (a cancel, say) computed no tokens: its times mean nothing. A
    tuple, because one is made per step and nothing is quicker to make.
    """

    n_decode_sequences: int
    """Sequences that were given one more token."""
    n_prefill_sequences: int
    n_prefill_tokens: int
    """Prompt tokens computed."""
    n_generated_tokens: int
    """Tokens chosen or forced; a prompt that ends in this step yields its first, and
    those of the branches that share it."""
    n_joined: int
    """Sequences that left the queue for their first slot."""
    n_queued: int
    """Sequences without a slot after the step."""
    n_running: int
    """Sequences with a slot after the step."""
    n_reserved_cells: int
    """Cells promised to the running sequences after the step."""
    decode_failed: bool
    """At least one ``llama_decode`` of the step did not succeed."""
    device_failed: bool
    """... for want of memory or by a failed computation: the next may fail as well."""
    step_s: float
    """From the end of the step before, or from the command that ended a pause."""
    decode_s: float
    """``llama_decode`` with the wait for its result."""
    sampling_s: float
    text_s: float
    """Detokenising, stop strings, events."""
    mask_s: float = 0.0
    """Following grammars, and waiting for masks. What choosing under a mask adds to a choice is
    part of ``sampling_s``, as is a mask that was not expected to be needed."""
    n_forced_tokens: int = 0
    """Of the generated tokens, those that a grammar forced: taken without a choice."""
    placement_s: float = 0.0
    """Giving out slots, copying, saving and restoring cells."""
    prefill_budget: int = 0
    """Prompt tokens that the step was allowed; 0 where no prompt was left to compute."""
    n_switches: int = 0
    """Changes of the LoRA adapter."""
    switch_s: float = 0.0
    """What those took; part of ``decode_s``."""
    placement: PlacementReport | None = None
    """None where nothing worth telling has changed since the last one."""

    @property
    def n_computed_tokens(self) -> int:
        return self.n_decode_sequences + self.n_prefill_tokens

    @property
    def python_s(self) -> float:
        """Everything but the native decode and sampling."""
        return self.step_s - self.decode_s - self.sampling_s


@attrs.frozen(kw_only=True)
class ModelDescription:
    """What is loaded, as reported by ``/info`` and in the start-up line."""

    architecture: str
    """llama.cpp's name, for example ``qwen2``."""
    description: str
    """llama.cpp's one-line description: size class and quantization."""
    n_parameters: int
    size_bytes: int
    n_vocab: int
    n_context_train: int
    """Longest context the model was trained for, in tokens."""
    n_cells: int
    """Cells of the KV memory over all slots."""
    n_slots: int
    kv_layout: str
    """``streams`` or ``unified``."""
    max_batch_tokens: int
    """Most tokens in one call of ``llama_decode``."""
    physical_batch_tokens: int
    n_threads: int
    n_threads_batch: int
    n_gpu_layers: int
    """Layers that llama.cpp says it put on GPUs."""
    split_mode: str
    """``layer``, ``row``, or the number of the one GPU in use."""
    backend: str
    """``cpu`` or the name of the device that holds the layers."""
    type_k: str
    type_v: str
    flash_attention: str
    mmap: bool
    mlock: bool
    numa: str
    offload_kqv: bool
    kv_device: str
    """Where llama.cpp says the KV memory is, for example ``CPU``."""
