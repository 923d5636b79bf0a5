"""What clients send to the native routes: ``/``, ``/generate``, ``/generate_stream`` and
``/tokenize``.
"""

from typing import ClassVar

import attrs

from .fields import U32, U64, Fraction, Penalty, PositiveF32, PositiveI32, PositiveU32, PositiveU64
from .grammar_requests import Grammar, GuidedFields


@attrs.frozen(kw_only=True)
class GenerateParameters(GuidedFields):
    """``parameters`` of a native request; ``None`` means that the client left it to us."""

    best_of: U64 | None = None
    temperature: PositiveF32 | None = None
    repetition_penalty: PositiveF32 | None = None
    frequency_penalty: Penalty | None = None
    top_k: PositiveI32 | None = None
    top_p: Fraction | None = None
    typical_p: Fraction | None = None
    do_sample: bool = False
    max_new_tokens: PositiveU32 | None = None
    return_full_text: bool | None = None
    stop: tuple[str, ...] = ()
    truncate: PositiveU64 | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: U64 | None = None
    top_n_tokens: U32 | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None
    """The LoRA adapter to use."""


@attrs.frozen(kw_only=True)
class GenerateRequest:
    """``/generate``, ``/generate_stream`` and ``/tokenize``."""

    return_full_text_by_default: ClassVar[bool] = False

    inputs: str
    # TGI samples when `parameters` is absent and decodes greedily when it is `{}`.
    parameters: GenerateParameters = GenerateParameters(do_sample=True)


@attrs.frozen(kw_only=True)
class CompatGenerateRequest(GenerateRequest):
    """``POST /``, whose ``stream`` picks the kind of answer."""

    return_full_text_by_default: ClassVar[bool] = True

    stream: bool = False
