"""What llama.cpp says of a model while it has none of its weights."""

import ctypes

import attrs
import llama_cpp.llama_cpp as native

from tgi_llama.llama.vocab import Vocab

_VOCABULARIES = {
    native.LLAMA_VOCAB_TYPE_NONE: "none",
    native.LLAMA_VOCAB_TYPE_SPM: "SPM",
    native.LLAMA_VOCAB_TYPE_BPE: "BPE",
    native.LLAMA_VOCAB_TYPE_WPM: "WPM",
    native.LLAMA_VOCAB_TYPE_UGM: "UGM",
    native.LLAMA_VOCAB_TYPE_RWKV: "RWKV",
    native.LLAMA_VOCAB_TYPE_PLAMO2: "PLaMo2",
}

_FILE_TYPES = {
    getattr(native, name): name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_")
    for name in dir(native)
    if name.startswith("LLAMA_FTYPE_")
}


@attrs.frozen(kw_only=True)
class SpecialToken:
    id: int
    text: str


@attrs.frozen(kw_only=True)
class ModelFacts:
    description: str
    """llama.cpp's own: size class and quantization."""
    vocabulary: str
    """Its kind, for example ``BPE``."""
    n_vocab: int
    bos: SpecialToken | None
    eos: SpecialToken | None
    eot: SpecialToken | None
    """Ends a turn."""
    control_spellings: tuple[str, ...] = attrs.field(repr=False)


def read_model_facts(model: native.llama_model_p) -> ModelFacts:
    handle = native.llama_model_get_vocab(model)
    vocab = Vocab(handle)
    text = ctypes.create_string_buffer(256)
    native.llama_model_desc(model, text, len(text))
    return ModelFacts(
        description=text.value.decode("utf-8", "replace"),
        vocabulary=_VOCABULARIES.get(native.llama_vocab_type(handle), "of a new kind"),
        n_vocab=vocab.n_vocab,
        bos=_token(vocab.bos_id, vocab.bos_text),
        eos=_token(vocab.eos_id, vocab.eos_text),
        eot=_token(vocab.eot_id, vocab.eot_text),
        control_spellings=tuple(vocab.control_spellings()),
    )


def file_type_name(number: object) -> str | None:
    """The name of ``general.file_type``, for example ``Q4_K_M``; None for a number that is none."""
    return _FILE_TYPES.get(number)


def _token(token_id: int | None, text: str | None) -> SpecialToken | None:
    return None if token_id is None else SpecialToken(id=token_id, text=text or "")
