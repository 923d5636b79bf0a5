"""LoRA (Hu et al., 2021) for the model in torch, and the GGUF file that llama.cpp reads it from."""

import math
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .model import Llama

RANK = 4
ALPHA = 8.0  # the product of the matrices counts ALPHA / RANK times


class LowRankChange(nn.Module):
    """A matrix plus the product of two narrow ones, which alone are trained."""

    def __init__(self, n_rows: int, n_columns: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(RANK, n_columns) / math.sqrt(n_columns))
        self.b = nn.Parameter(torch.zeros(n_rows, RANK))  # so that it starts as no change

    def forward(self, matrix: Tensor) -> Tensor:
        """(n_rows, n_columns) to the same."""
        return matrix + (ALPHA / RANK) * (self.b @ self.a)


def add_adapter(model: Llama) -> None:
    """Freezes the model and gives every matrix of its layers a change to be trained."""
    model.requires_grad_(requires_grad=False)
    for block in model.blk:
        for layer in block.children():
            if isinstance(layer, nn.Linear):
                change = LowRankChange(*layer.weight.shape)
                parametrize.register_parametrization(layer, "weight", change)


def changes(model: Llama) -> Iterator[tuple[str, LowRankChange]]:
    """With llama.cpp's names of the matrices that they change."""
    for name, module in model.named_modules():
        if isinstance(module, LowRankChange):
            yield name.removesuffix(".parametrizations.weight.0") + ".weight", module


def write_adapter(model: Llama, path: Path, *, name: str, author: str, licence: str) -> None:
    """Writes the changes alone, as float16: (RANK, n_columns) and (n_rows, RANK) each."""
    unfinished = path.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    writer.add_name(name)
    writer.add_author(author)
    writer.add_license(licence)
    for matrix, change in changes(model):
        for suffix, values in (("lora_a", change.a), ("lora_b", change.b)):
            writer.add_tensor(f"{matrix}.{suffix}", values.detach().numpy().astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(path)
