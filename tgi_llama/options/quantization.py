"""The types of a model's weights, by llama.cpp's names."""

from tgi_llama.errors import ConfigError

PLAIN_TYPES = ("f32", "f16", "bf16")
"""Written by llama.cpp's converter itself."""

_WITHOUT_MATRIX = (
    "q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 iq4_nl iq4_xs mxfp4_moe"
    " q3_k_l q3_k_m q3_k_s iq3_m iq3_s q2_k q2_0 q1_0 tq2_0 tq1_0"
)
_WITH_MATRIX = (
    "iq3_xs",
    "iq3_xxs",
    "q2_k_s",
    "iq2_m",
    "iq2_s",
    "iq2_xs",
    "iq2_xxs",
    "iq1_m",
    "iq1_s",
)
"""llama.cpp makes these only with an importance matrix, measured on texts beforehand."""

_ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}
"""llama-quantize's."""

QUANTIZATIONS = (*PLAIN_TYPES, *_WITHOUT_MATRIX.split(), *_ALIASES, *_WITH_MATRIX)
"""What ``--quantize`` takes; ``quantization`` refuses some of it with the reason."""


def quantization(given: str) -> str:
    """The type's own name, for any spelling of it. Raises ConfigError for what is no type, and for
    one that needs an importance matrix."""
    name = given.lower().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in QUANTIZATIONS:
        raise ConfigError(f"--quantize: expected one of {', '.join(QUANTIZATIONS)}, got {given!r}")
    if name in _WITH_MATRIX:
        raise ConfigError(
            f"--quantize: {name} needs an importance matrix, and none is made here. Give a GGUF"
            " file that has the type already (--model-gguf), or choose for example iq4_xs, iq3_m"
            " or q2_k"
        )
    return name
