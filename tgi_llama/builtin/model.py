"""A Llama in torch, with llama.cpp's names of tensors and its pairing of rotated dimensions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .shape import Shape


class Norm(nn.Module):
    """Root-mean-square norm with a weight for each dimension."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) to (..., width), float32."""
        return functional.rms_norm(states, self.weight.shape, self.weight, self._epsilon)


def rotations(shape: Shape, n_positions: int) -> Tensor:
    """Cosines and sines, (2, n_positions, head_width / 2): one angle for each pair 2i, 2i + 1."""
    half = torch.arange(0, shape.head_width, 2, dtype=torch.float32)
    frequencies = shape.rope_base ** (-half / shape.head_width)
    angles = torch.outer(torch.arange(n_positions, dtype=torch.float32), frequencies)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Turns each pair of neighbouring dimensions of (batch, heads, positions, head_width)."""
    even, odd = heads[..., 0::2], heads[..., 1::2]
    cos, sin = rotation[0].to(heads.dtype), rotation[1].to(heads.dtype)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _causal_mask(n_positions: int) -> Tensor:
    """(n_positions, n_positions): zero where a position may look, minus infinity after it."""
    return torch.full((n_positions, n_positions), -math.inf).triu(1)


class Block(nn.Module):
    """One layer: attention and a gated feed-forward network, each with a norm before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape
        kv_width = shape.n_kv_heads * shape.head_width
        self.attn_norm = Norm(shape.width, shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_v = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = Norm(shape.width, shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.inner_width, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.inner_width, bias=False)
        self.ffn_down = nn.Linear(shape.inner_width, shape.width, bias=False)

    def forward(self, states: Tensor, rotation: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        states = states + self._attention(self.attn_norm(states), rotation)
        normed = self.ffn_norm(states)
        gated = functional.silu(self.ffn_gate(normed)) * self.ffn_up(normed)
        down: Tensor = self.ffn_down(gated)
        return states + down

    def _attention(self, normed: Tensor, rotation: Tensor) -> Tensor:
        batch, positions, width = normed.shape
        split = (batch, positions, -1, self._shape.head_width)
        query = rotate(self.attn_q(normed).view(split).transpose(1, 2), rotation)
        key = rotate(self.attn_k(normed).view(split).transpose(1, 2), rotation)
        value = self.attn_v(normed).view(split).transpose(1, 2)
        n_sharing = self._shape.n_heads // self._shape.n_kv_heads
        # Written out: torch's fused attention takes three times as long backwards on a CPU.
        scores = query @ key.repeat_interleave(n_sharing, dim=1).transpose(-1, -2)
        scores = scores * self._shape.head_width**-0.5 + _causal_mask(positions)
        mixed = scores.softmax(-1) @ value.repeat_interleave(n_sharing, dim=1)
        output: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(batch, positions, width))
        return output


class Llama(nn.Module):
    """The whole model; the embedding is the output matrix too."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_tokens, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.output_norm = Norm(shape.width, shape.norm_epsilon)
        self._initialise()

    def _initialise(self) -> None:
        """Small random weights; those that write into the residual stream start smaller still."""
        residual = 1 / math.sqrt(2 * self.shape.n_layers)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                shrink = residual if "attn_output" in name or "ffn_down" in name else 1.0
                nn.init.normal_(weight, std=0.03 * shrink)

    def forward(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Logits (n_wanted, n_tokens) float32 at the positions where `wanted` is true.

        `ids` and `wanted` are (batch, positions). Padding is on the right and needs no mask.
        """
        rotation = rotations(self.shape, ids.shape[1])
        states: Tensor = self.token_embd(ids)
        for block in self.blk:
            states = block(states, rotation)
        chosen = self.output_norm(states[wanted])
        with torch.autocast("cpu", enabled=False):  # eight bits of mantissa are too few for logits
            return functional.linear(chosen.float(), self.token_embd.weight)
