"""The vocabulary as llguidance wants it: the bytes of every token, and a way to tokenize."""

import ctypes
from collections.abc import Callable, Sequence

import attrs
import llama_cpp.llama_cpp as native
from llguidance import LLTokenizer

from tgi_llama.text.long_runs import cut_long_runs

from .vocab import MAX_RUN, Vocab

_MARK = b"\xff"
"""Before a token's spelling: llguidance then never takes it for text. No text has this byte."""

_TOKENIZE_TYPE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,  # vocabulary
    ctypes.c_void_p,  # text, UTF-8
    ctypes.c_int32,  # its bytes
    ctypes.c_void_p,  # room for tokens, int32
    ctypes.c_int32,  # how many
    ctypes.c_bool,  # add_special
    ctypes.c_bool,  # parse_special
)


Tokenize = Callable[[int, int, int, int, int, bool, bool], int]
"""A function of that type."""


@attrs.frozen(eq=False)
class GrammarVocabulary:
    """Implements ``structured.vocabulary.GrammarVocabulary``. Immutable, any thread; valid as long
    as the model."""

    tokenizer: LLTokenizer
    end_tokens: frozenset[int]
    _keep_alive: object
    """What ``tokenizer`` has the address of."""


def read_grammar_vocabulary(vocab: Vocab) -> GrammarVocabulary:
    """Reads all tokens and builds llguidance's tree of them: about 0.8 s for 152,000 tokens, half
    of it with the interpreter lock held.

    Raises ValueError where the vocabulary cannot be used: it names no token that ends the
    generation, or puts something before every text that cannot be told apart.
    """
    tokens, end_tokens = vocab.token_table()
    if not end_tokens:
        raise ValueError("the vocabulary has no token that ends a generation")
    address, keep_alive = _tokenize_function(vocab)
    tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # not in its stubs
        tokens=[_MARK + token.text if token.is_mark else token.text for token in tokens],
        vocab_ptr=ctypes.cast(vocab.handle, ctypes.c_void_p).value,
        tokenize_fptr=address,
        eos_token=sorted(end_tokens),
    )
    return GrammarVocabulary(tokenizer, end_tokens, keep_alive)


def _tokenize_function(vocab: Vocab) -> tuple[int | None, object]:
    """Address and owner of ``llama_tokenize``, or for BPE vocabularies of one that cuts long words
    before: see ``MAX_RUN``. Whether the interpreter lock is held does not matter to either."""
    direct = _TOKENIZE_TYPE(("llama_tokenize", native._lib))
    function = _TOKENIZE_TYPE(_Cutting(vocab, direct)) if vocab.is_bpe else direct
    return ctypes.cast(function, ctypes.c_void_p).value, (function, vocab)


@attrs.frozen
class _Cutting:
    vocab: Vocab
    direct: Tokenize

    def __call__(
        self,
        handle: int,
        text: int,
        n_bytes: int,
        room: int,
        n_room: int,
        add_special: bool,  # llama.cpp's order
        parse_special: bool,
    ) -> int:
        if n_bytes <= MAX_RUN:
            return int(self.direct(handle, text, n_bytes, room, n_room, add_special, parse_special))
        parts = cut_long_runs(ctypes.string_at(text, n_bytes).decode("utf-8", "replace"), MAX_RUN)
        tokens = [token for part in parts for token in self._encode(part, parse_special)]
        return _write(tokens, room, n_room)

    def _encode(self, part: str, parse_special: bool) -> list[int]:
        return list(self.vocab.encode(part, add_special=False, parse_special=parse_special))


def _write(tokens: Sequence[int], room: int, n_room: int) -> int:
    """As ``llama_tokenize``: the number of tokens, negative where there is no room for them."""
    if len(tokens) > n_room:
        return -len(tokens)
    values = (ctypes.c_int32 * len(tokens))(*tokens)
    ctypes.memmove(room, values, ctypes.sizeof(values))
    return len(tokens)
