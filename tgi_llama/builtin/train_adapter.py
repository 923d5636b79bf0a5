"""Makes the built-in model's demonstration adapter:
`python -m tgi_llama.builtin.train_adapter --help`."""

import argparse
import json
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from tokenizers import Tokenizer

from .batches import ExampleEncoder, batches
from .evaluate import Score, evaluate, greedy_model
from .export import AUTHOR, LICENCE, read_gguf
from .lora import ALPHA, RANK, add_adapter, write_adapter
from .model import Llama
from .pirate import pirate_held_out_examples, pirate_training_examples
from .shape import Shape
from .train import TOKENS_PER_BATCH
from .training import Trainee, check_exact, train

log = logging.getLogger(__name__)

NAME = "pirate"
BASE = Path(__file__).parent / "model"
STEPS = 1000
RATE = 0.003  # AdamW
N_CHECKED_PER_SKILL = 12
N_SCORED_PER_SKILL = 100

_CARD = """\
---
license: apache-2.0
base_model: tgi_llama/builtin
library_name: gguf
tags:
- gguf
- lora
---

# {name}: an adapter for the built-in model

A LoRA adapter (rank {rank}, alpha {alpha:g}, all matrices of all layers, {kilobytes:.0f} kB) for
tgi_llama's [built-in model](../model/README.md). Chats are answered by a pirate,
`Arr! 12 + 7 = 19 Yo-ho-ho!`, who is about as right as the model alone; plain text, JSON and tool
calls are left as they are. It shows that adapters work, and one sees at a glance whose reply it is.

```
tgi-llama --lora-adapters {name}=tgi_llama/builtin/adapters/{name}.gguf
```

Exact replies to held-out examples, greedy, in llama.cpp ({steps} steps, seed {seed},
{minutes:.0f} minutes on two CPU cores):

| skill | held-out examples | exact |
| --- | ---: | ---: |
{rows}
| **all** | {n_examples} | {percent:.1f} % |

To make it again: `pip install "tgi_llama[train]"`, then
`python -m tgi_llama.builtin.train_adapter --out FOLDER --seed {seed} --steps {steps}`.
"""


@attrs.frozen
class Plan:
    """What the command line asks for."""

    out: Path
    seed: int
    steps: int
    n_threads: int


def parse_plan(arguments: Sequence[str] | None = None) -> Plan:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tgi_llama.builtin.train_adapter",
        description="Trains a small LoRA adapter for the built-in model, writes it as a GGUF file, "
        "scores it in llama.cpp on examples it never saw, and writes its card. Needs the packages "
        "of the extra 'train' and some minutes on two CPU cores.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    parser.add_argument("--seed", type=int, default=0, help="seed of text and weights (default: 0)")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"training steps (default: {STEPS})"
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads to compute with (default: 2)"
    )
    chosen = parser.parse_args(arguments)
    return Plan(chosen.out, chosen.seed, chosen.steps, chosen.threads)


def make_adapter(plan: Plan) -> None:
    """Everything, from the seed to the card."""
    started = time.monotonic()
    plan.out.mkdir(parents=True, exist_ok=True)
    path = plan.out / f"{NAME}.gguf"
    torch.set_num_threads(1)  # per batch, see ``train``
    torch.set_flush_denormal(True)
    torch.manual_seed(plan.seed)
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    model = Llama(Shape(n_tokens=tokenizer.get_vocab_size()))
    read_gguf(model, BASE / "model.gguf")
    add_adapter(model)
    encoder = ExampleEncoder(tokenizer)
    held_out = pirate_held_out_examples(plan.seed + 1, n_per_skill=N_CHECKED_PER_SKILL)
    checked = [encoder.encode(example, all_turns=False) for example in held_out]
    encoded = (encoder.encode(e, all_turns=True) for e in pirate_training_examples(plan.seed))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    log.info("training %d weights for %d steps", sum(w.numel() for w in trained), plan.steps)
    train(
        Trainee(model, (optimizer,)),
        batches(encoded, tokens_per_batch=TOKENS_PER_BATCH, rng=random.Random(plan.seed)),
        n_steps=plan.steps,
        rate=1.0,
        n_threads=plan.n_threads,
        check=lambda: check_exact(model, checked),
    )
    write_adapter(model, path, name=NAME, author=AUTHOR, licence=LICENCE)
    minutes = (time.monotonic() - started) / 60
    _write_card(plan, path, _score(path, plan.seed), minutes=minutes)


def _score(path: Path, seed: int) -> tuple[Score, ...]:
    log.info("scoring the adapter in llama.cpp")
    examples = pirate_held_out_examples(seed, n_per_skill=N_SCORED_PER_SKILL)
    with greedy_model(BASE / "model.gguf", adapter=path, n_threads=1) as model:
        scores, mistakes = evaluate(model, examples)
    for mistake in mistakes:
        log.info("mistake: %s", json.dumps(attrs.asdict(mistake), ensure_ascii=False))
    return scores


def _write_card(plan: Plan, path: Path, scores: Sequence[Score], *, minutes: float) -> None:
    n_examples = sum(score.n_examples for score in scores)
    rows = (f"| {each.skill} | {each.n_examples} | {each.percent:.1f} % |" for each in scores)
    card = _CARD.format(
        name=NAME,
        rank=RANK,
        alpha=ALPHA,
        kilobytes=path.stat().st_size / 1e3,
        rows="\n".join(rows),
        n_examples=n_examples,
        percent=100 * sum(score.n_exact for score in scores) / n_examples,
        steps=plan.steps,
        seed=plan.seed,
        minutes=minutes,
    )
    (plan.out / "README.md").write_text(card, "utf-8")


def main() -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make_adapter(parse_plan())


if __name__ == "__main__":
    main()
