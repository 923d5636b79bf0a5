"""Scores a GGUF file: greedy decoding in llama.cpp, compared with the right replies, exactly."""

import collections
import ctypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import llama_cpp
import numpy as np

from .chat_format import PromptRenderer
from .examples import Example

CONTEXT_TOKENS = 2048
MAX_REPLY_TOKENS = 400
N_SPARE_TOKENS = 8  # a reply this much longer than the right one is wrong, whatever follows


@attrs.frozen
class Score:
    """How many held-out examples of a skill there were, and how many replies were exact."""

    skill: str
    n_examples: int
    n_exact: int

    @property
    def percent(self) -> float:
        """Exact replies in per cent."""
        return 100 * self.n_exact / self.n_examples


@attrs.frozen
class Mistake:
    """A prompt whose reply was not the right one."""

    skill: str
    prompt: str
    expected: str
    reply: str


def _ignore(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Drops what llama.cpp has to say while it loads."""


_ignore_log = llama_cpp.llama_log_callback(_ignore)  # llama.cpp keeps a pointer to it


class GreedyModel:
    """A model in llama.cpp that always takes the likeliest token. Use it from one thread."""

    def __init__(self, model: llama_cpp.llama_model_p, context: llama_cpp.llama_context_p) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._context = context
        self.n_tokens = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens in it are recognised."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, len(ids), True, True)
        assert n >= 0
        return list(ids[:n])

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        spelled: bytes = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return spelled.decode()

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for special tokens."""
        buffer = ctypes.create_string_buffer(256)
        n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        assert n >= 0
        return buffer.raw[:n]

    def reply_tokens(self, prompt: str, *, max_tokens: int = MAX_REPLY_TOKENS) -> list[int]:
        """Generated tokens, without the end token."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        pending = self.tokenize(prompt)
        tokens: list[int] = []
        while len(tokens) < max_tokens:
            token = self._next_token(pending)
            if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                break
            tokens.append(token)
            pending = [token]
        return tokens

    def reply(self, prompt: str, *, max_tokens: int = MAX_REPLY_TOKENS) -> str:
        """Generated text up to the end token."""
        tokens = self.reply_tokens(prompt, max_tokens=max_tokens)
        return b"".join(self.piece(token) for token in tokens).decode(errors="replace")

    def _next_token(self, pending: Sequence[int]) -> int:
        """Decodes `pending` at the end of the context; the likeliest token after it."""
        array = (llama_cpp.llama_token * len(pending))(*pending)
        code = llama_cpp.llama_decode(
            self._context, llama_cpp.llama_batch_get_one(array, len(pending))
        )
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self.n_tokens,)).argmax())


@contextmanager
def greedy_model(
    path: Path, *, adapter: Path | None = None, n_threads: int = 2
) -> Iterator[GreedyModel]:
    """Loads the GGUF file at `path`, with a LoRA adapter or without, and frees it afterwards."""
    llama_cpp.llama_log_set(_ignore_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    if model is None:
        raise RuntimeError(f"llama.cpp cannot load {path}")
    lora = None
    if adapter is not None:
        lora = llama_cpp.llama_adapter_lora_init(model, str(adapter).encode())
        if not lora:
            raise RuntimeError(f"llama.cpp cannot load {adapter}")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = CONTEXT_TOKENS
    parameters.n_threads = parameters.n_threads_batch = n_threads
    context = llama_cpp.llama_init_from_model(model, parameters)
    assert context is not None
    if lora is not None:
        scales = (ctypes.c_float * 1)(1.0)
        loras = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(lora)
        assert llama_cpp.llama_set_adapters_lora(context, loras, 1, scales) == 0
    try:
        yield GreedyModel(model, context)
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def evaluate(
    model: GreedyModel, examples: Iterable[Example]
) -> tuple[tuple[Score, ...], tuple[Mistake, ...]]:
    """Scores in the order in which skills first occur, and every wrong reply."""
    renderer = PromptRenderer()
    asked: collections.Counter[str] = collections.Counter()
    mistakes: list[Mistake] = []
    for example in examples:
        asked[example.skill] += 1
        prompt = renderer.prompt(example)
        limit = len(model.tokenize(example.reply)) + N_SPARE_TOKENS
        reply = model.reply(prompt, max_tokens=limit)
        if reply != example.reply:
            mistakes.append(Mistake(example.skill, prompt, example.reply, reply))
    wrong = collections.Counter(mistake.skill for mistake in mistakes)
    scores = tuple(Score(skill, n, n - wrong[skill]) for skill, n in asked.items())
    return scores, tuple(mistakes)
