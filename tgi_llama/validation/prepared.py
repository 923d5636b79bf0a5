"""What validation makes of a request. Frozen values, any thread."""

import attrs

from tgi_llama.generation import GenerationRequest
from tgi_llama.turns.parts import ParserFactory


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
    adapter: str | None = None
    """The name of the LoRA adapter that ``request.adapter`` is a loading of."""
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
    relaxed_paths: tuple[str, ...] = ()
    """JSON paths of what a grammar says and is not enforced."""
    make_parser: ParserFactory | None = None
    """Chats: what takes the text apart; None where the text is the content."""
