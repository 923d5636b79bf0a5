"""Makes a LoRA adapter with random weights, as PEFT writes them, and computes what its model says
with it.

Run by the same Python as ``reference.py``, as ``adapter_reference.py CHECKPOINT FOLDER``; the
checkpoint is one of that script's. FOLDER gets the adapter and ``expected.json``. The package peft
is not needed: its format is a JSON file beside a safetensors file, and to merge an adapter is one
line of arithmetic.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from reference import expectations
from safetensors.torch import save_file

RANK, ALPHA = 4, 8.0
CHANGED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SIZE = 0.3
"""Of the change relative to the weight."""


def main(checkpoint: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    tensors = {}
    with torch.no_grad():
        for name, layer in model.named_modules():
            if name.endswith(CHANGED):
                a, b = pair(layer.weight)
                tensors[f"base_model.model.{name}.lora_A.weight"] = a
                tensors[f"base_model.model.{name}.lora_B.weight"] = b
                layer.weight += ALPHA / RANK * (b @ a)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "nobody/asks-for-this",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(CHANGED),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    asked = json.loads((checkpoint / "expected.json").read_text())
    ends = set(json.loads((checkpoint / "ends.json").read_text()))
    expected = expectations(model.eval(), [(each["text"], each["ids"]) for each in asked], ends)
    (folder / "expected.json").write_text(json.dumps(expected))


def pair(weight):
    """A and B of an adapter for the matrix; numbers that half precision can hold."""
    n_rows, n_columns = weight.shape
    a = torch.randn(RANK, n_columns) * weight.std()
    b = torch.randn(n_rows, RANK) * SIZE / (ALPHA / RANK) / RANK**0.5
    return a.half().float(), b.half().float()


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
