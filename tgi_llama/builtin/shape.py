"""The sizes of the model."""

import attrs


@attrs.frozen
class Shape:
    """The sizes of the model. All row sizes are multiples of 32, which Q8_0 needs."""

    n_tokens: int = 2048
    n_layers: int = 6
    width: int = 192
    inner_width: int = 576
    n_heads: int = 6
    n_kv_heads: int = 3
    context_tokens: int = 4096
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Dimensions of one head."""
        return self.width // self.n_heads
