"""Not fakes: model files of every kind of memory, tiny and with random weights.

Each is a few hundred kB, has the built-in model's vocabulary and answers with noise. The weights
are seeded, so a file is the same every time.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import attrs
import gguf
import numpy as np

import tgi_llama.builtin

N_CONTEXT = 4096
N_WINDOW = 32
"""Of the models with a sliding window."""

_N_LAYERS = 4
_WIDTH = 64
_INNER = 96
_N_HEADS = 2
_N_KV_HEADS = 1
_HEAD = _WIDTH // _N_HEADS
"""32, the block of the quantized types that a KV memory can have."""
_N_STATES = 8
_CONVOLUTION = 4
_VOCABULARY = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"


def write_tiny_model(name: str, folder: Path) -> Path:
    """The file of one of ``TINY_MODELS``."""
    path = folder / f"{name}.gguf"
    architecture, fill = TINY_MODELS[name]
    writer = gguf.GGUFWriter(path, architecture)
    draft = _Draft(writer, np.random.default_rng(len(name)))
    n_vocab = _copy_vocabulary(writer)
    writer.add_name(f"tiny {name} with random weights")
    writer.add_context_length(N_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_N_LAYERS)
    writer.add_vocab_size(n_vocab)
    writer.add_layer_norm_rms_eps(1e-6)
    draft.matrix("token_embd", n_vocab, _WIDTH)
    fill(draft)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@attrs.frozen(eq=False)
class _Draft:
    writer: gguf.GGUFWriter
    rng: np.random.Generator

    def matrix(self, name: str, n_rows: int, n_columns: int) -> None:
        weights = self.rng.normal(size=(n_rows, n_columns)) / np.sqrt(n_columns)
        self.writer.add_tensor(f"{name}.weight", weights.astype(np.float16))

    def vector(self, name: str, n: int, *, mean: float) -> None:
        self.plain(name, self.rng.normal(loc=mean, scale=0.1, size=n))

    def plain(self, name: str, values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> None:
        self.writer.add_tensor(name, values.astype(np.float32))


def _copy_vocabulary(writer: gguf.GGUFWriter) -> int:
    """Returns the number of tokens."""
    fields = gguf.GGUFReader(_VOCABULARY).fields
    for name, field in fields.items():
        if name.startswith("tokenizer."):
            kind, *of = field.types
            writer.add_key_value(name, field.contents(), kind, of[0] if of else None)
    return len(fields["tokenizer.ggml.tokens"].contents())


def _head_counts(draft: _Draft) -> None:
    draft.writer.add_head_count(_N_HEADS)
    draft.writer.add_head_count_kv(_N_KV_HEADS)
    draft.writer.add_rope_dimension_count(_HEAD)


def _feed_forward(draft: _Draft, block: str) -> None:
    draft.vector(f"{block}.ffn_norm.weight", _WIDTH, mean=1.0)
    for part in ("gate", "up"):
        draft.matrix(f"{block}.ffn_{part}", _INNER, _WIDTH)
    draft.matrix(f"{block}.ffn_down", _WIDTH, _INNER)


def _attention(draft: _Draft, block: str) -> None:
    draft.matrix(f"{block}.attn_q", _WIDTH, _WIDTH)
    for part in "kv":
        draft.matrix(f"{block}.attn_{part}", _N_KV_HEADS * _HEAD, _WIDTH)
    draft.matrix(f"{block}.attn_output", _WIDTH, _WIDTH)


def _transformer(draft: _Draft, *, biases: bool) -> None:
    """llama, or qwen2 with biases."""
    _head_counts(draft)
    draft.writer.add_feed_forward_length(_INNER)
    draft.vector("output_norm.weight", _WIDTH, mean=1.0)
    for layer in range(_N_LAYERS):
        block = f"blk.{layer}"
        draft.vector(f"{block}.attn_norm.weight", _WIDTH, mean=1.0)
        _attention(draft, block)
        if biases:
            draft.vector(f"{block}.attn_q.bias", _WIDTH, mean=0.0)
            for part in "kv":
                draft.vector(f"{block}.attn_{part}.bias", _N_KV_HEADS * _HEAD, mean=0.0)
        _feed_forward(draft, block)


def _gemma(draft: _Draft) -> None:
    """gemma3: of six layers five have a sliding window, so here all but none of four."""
    _transformer(draft, biases=False)
    draft.writer.add_key_length(_HEAD)
    draft.writer.add_value_length(_HEAD)
    draft.writer.add_sliding_window(N_WINDOW)
    draft.writer.add_array("gemma3.attention.sliding_window_pattern", [True, False] * 2)
    for layer in range(_N_LAYERS):
        for part, n in (("attn_q", _HEAD), ("attn_k", _HEAD)):
            draft.vector(f"blk.{layer}.{part}_norm.weight", n, mean=1.0)
        for part in ("attention", "ffw"):
            draft.vector(f"blk.{layer}.post_{part}_norm.weight", _WIDTH, mean=1.0)


def _state_space(draft: _Draft, block: str) -> None:
    """A mamba layer's own part."""
    inner, rank = 2 * _WIDTH, _WIDTH // 16
    draft.matrix(f"{block}.ssm_in", 2 * inner, _WIDTH)
    draft.plain(f"{block}.ssm_conv1d.weight", draft.rng.normal(size=(inner, _CONVOLUTION)) / 2)
    draft.vector(f"{block}.ssm_conv1d.bias", inner, mean=0.0)
    draft.matrix(f"{block}.ssm_x", rank + 2 * _N_STATES, inner)
    draft.matrix(f"{block}.ssm_dt", inner, rank)
    draft.vector(f"{block}.ssm_dt.bias", inner, mean=-1.0)
    draft.plain(f"{block}.ssm_a", -draft.rng.uniform(0.05, 1.0, size=(inner, _N_STATES)))
    draft.vector(f"{block}.ssm_d", inner, mean=1.0)
    draft.matrix(f"{block}.ssm_out", _WIDTH, inner)


def _state_space_sizes(draft: _Draft) -> None:
    draft.writer.add_ssm_conv_kernel(_CONVOLUTION)
    draft.writer.add_ssm_inner_size(2 * _WIDTH)
    draft.writer.add_ssm_state_size(_N_STATES)
    draft.writer.add_ssm_time_step_rank(_WIDTH // 16)


def _mamba(draft: _Draft) -> None:
    _state_space_sizes(draft)
    draft.writer.add_head_count(0)
    draft.writer.add_feed_forward_length(0)
    draft.vector("output_norm.weight", _WIDTH, mean=1.0)
    for layer in range(_N_LAYERS):
        draft.vector(f"blk.{layer}.attn_norm.weight", _WIDTH, mean=1.0)
        _state_space(draft, f"blk.{layer}")


def _jamba(draft: _Draft) -> None:
    """mamba, and attention in every second layer."""
    _state_space_sizes(draft)
    draft.writer.add_head_count(_N_HEADS)
    draft.writer.add_head_count_kv([0, _N_KV_HEADS] * (_N_LAYERS // 2))
    draft.writer.add_feed_forward_length(_INNER)
    draft.vector("output_norm.weight", _WIDTH, mean=1.0)
    for layer in range(_N_LAYERS):
        block = f"blk.{layer}"
        draft.vector(f"{block}.attn_norm.weight", _WIDTH, mean=1.0)
        if layer % 2:
            _attention(draft, block)
        else:
            _state_space(draft, block)
            draft.vector(f"{block}.ssm_dt_norm.weight", _WIDTH // 16, mean=1.0)
            for part in "bc":
                draft.vector(f"{block}.ssm_{part}_norm.weight", _N_STATES, mean=1.0)
        _feed_forward(draft, block)


def _lfm2(draft: _Draft, *, window: int) -> None:
    """Short convolutions, whose last inputs are the state, and attention in every second layer."""
    draft.writer.add_head_count(_N_HEADS)
    draft.writer.add_head_count_kv([0, _N_KV_HEADS] * (_N_LAYERS // 2))
    draft.writer.add_feed_forward_length(_INNER)
    draft.writer.add_shortconv_l_cache(_CONVOLUTION)
    if window:
        draft.writer.add_sliding_window(window)
    draft.vector("token_embd_norm.weight", _WIDTH, mean=1.0)
    for layer in range(_N_LAYERS):
        block = f"blk.{layer}"
        draft.vector(f"{block}.attn_norm.weight", _WIDTH, mean=1.0)
        if layer % 2:
            _attention(draft, block)
            for part in "qk":
                draft.vector(f"{block}.attn_{part}_norm.weight", _HEAD, mean=1.0)
        else:
            draft.plain(
                f"{block}.shortconv.conv.weight", draft.rng.normal(size=(_WIDTH, _CONVOLUTION)) / 2
            )
            draft.matrix(f"{block}.shortconv.in_proj", 3 * _WIDTH, _WIDTH)
            draft.matrix(f"{block}.shortconv.out_proj", _WIDTH, _WIDTH)
        _feed_forward(draft, block)


TINY_MODELS: dict[str, tuple[str, Callable[[_Draft], None]]] = {
    "llama": ("llama", functools.partial(_transformer, biases=False)),
    "qwen2": ("qwen2", functools.partial(_transformer, biases=True)),
    "gemma3": ("gemma3", _gemma),
    "mamba": ("mamba", _mamba),
    "jamba": ("jamba", _jamba),
    "lfm2": ("lfm2", functools.partial(_lfm2, window=0)),
    "lfm2-window": ("lfm2", functools.partial(_lfm2, window=N_WINDOW)),
}
"""From a name to the architecture and what fills the file."""
