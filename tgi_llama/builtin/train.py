"""Makes the built-in model from nothing but a seed: `python -m tgi_llama.builtin.train --help`."""

import argparse
import itertools
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
from .chat_format import PromptRenderer
from .corpus import held_out_examples, training_examples
from .evaluate import Mistake, Score, evaluate, greedy_model
from .export import read_gguf, write_configs, write_gguf
from .model import Llama
from .model_card import Training, write_card
from .shape import Shape
from .tokenizer_training import save_tokenizer, train_tokenizer
from .training import Trainee, check_exact, train

log = logging.getLogger(__name__)

STEPS = 7500
N_TOKENIZER_EXAMPLES = 30_000
TOKENS_PER_BATCH = 1024
MATRIX_RATE = 0.01  # Muon; its usual 0.02 is too noisy for steps of about a thousand reply tokens
OTHER_RATE = 0.002  # AdamW, for the embedding and the norms
N_CHECKED_PER_SKILL = 24
N_SCORED_PER_SKILL = 200


@attrs.frozen
class Plan:
    """What the command line asks for."""

    out: Path
    seed: int
    steps: int
    rate: float  # share of the full learning rates
    n_threads: int
    start_from: Path | None


def parse_plan(arguments: Sequence[str] | None = None) -> Plan:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tgi_llama.builtin.train",
        description="Trains the built-in demonstration model of tgi_llama: generates its text, "
        "trains the tokenizer and the model, writes a Q8_0 GGUF file with its configuration, "
        "scores it in llama.cpp on examples it never saw, and writes the model card. Needs the "
        "packages of the extra 'train' and about an hour on two CPU cores.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of text, weights and order (default: 0)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"training steps (default: {STEPS})"
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FOLDER",
        help="train the model in this folder further, with its tokenizer, instead of a new one; "
        "give another seed than before, so that it sees new text",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=1.0,
        help="factor on the learning rates (default: 1.0; to train further, 0.6 is good)",
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads to compute with (default: 2)"
    )
    chosen = parser.parse_args(arguments)
    return Plan(
        out=chosen.out,
        seed=chosen.seed,
        steps=chosen.steps,
        rate=chosen.rate,
        n_threads=chosen.threads,
        start_from=chosen.start_from,
    )


def make_tokenizer(plan: Plan) -> Tokenizer:
    """A tokenizer trained on the first examples of the training text, or the earlier run's."""
    if plan.start_from is not None:
        return Tokenizer.from_file(str(plan.start_from / "tokenizer.json"))
    renderer = PromptRenderer()
    examples = itertools.islice(training_examples(plan.seed), N_TOKENIZER_EXAMPLES)
    return train_tokenizer(renderer.prompt(example) + example.reply for example in examples)


def make_optimizers(model: Llama) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [w for name, w in model.named_parameters() if w.dim() == 2 and "blk" in name]
    others = [w for name, w in model.named_parameters() if w.dim() == 1 or "blk" not in name]
    return (
        torch.optim.Muon(matrices, lr=MATRIX_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    )


def score(folder: Path, seed: int) -> tuple[tuple[Score, ...], tuple[Mistake, ...]]:
    """Scores the folder's GGUF file on held-out examples."""
    examples = held_out_examples(seed, n_per_skill=N_SCORED_PER_SKILL)
    with greedy_model(folder / "model.gguf") as model:
        return evaluate(model, examples)


def make_model(plan: Plan) -> None:
    """Everything, from the seed to the model card."""
    started = time.monotonic()
    plan.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # per batch, see train()
    torch.set_flush_denormal(True)
    torch.manual_seed(plan.seed)
    log.info("training the tokenizer")
    tokenizer = make_tokenizer(plan)
    save_tokenizer(tokenizer, plan.out)
    shape = Shape(n_tokens=tokenizer.get_vocab_size())
    model = Llama(shape)
    if plan.start_from is not None:
        read_gguf(model, plan.start_from / "model.gguf")
    n_weights = sum(weight.numel() for weight in model.parameters())
    log.info("training a model of %d weights for %d steps", n_weights, plan.steps)
    encoder = ExampleEncoder(tokenizer)
    held_out = held_out_examples(plan.seed + 1, n_per_skill=N_CHECKED_PER_SKILL)
    checked = [encoder.encode(example, all_turns=False) for example in held_out]
    encoded = (encoder.encode(e, all_turns=True) for e in training_examples(plan.seed))
    stream = batches(encoded, tokens_per_batch=TOKENS_PER_BATCH, rng=random.Random(plan.seed))

    def check() -> None:
        write_gguf(model, tokenizer, plan.out / "model.gguf")  # usable if the run is broken off
        check_exact(model, checked)

    write_configs(shape, plan.out)
    n_seen = train(
        Trainee(model, make_optimizers(model)),
        stream,
        n_steps=plan.steps,
        rate=plan.rate,
        n_threads=plan.n_threads,
        check=check,
    )
    write_gguf(model, tokenizer, plan.out / "model.gguf")
    minutes = (time.monotonic() - started) / 60
    log.info("scoring the GGUF file in llama.cpp")
    scores, mistakes = score(plan.out, plan.seed)
    for entry in scores:
        log.info("%s: %d of %d exact", entry.skill, entry.n_exact, entry.n_examples)
    for mistake in mistakes:
        log.info("mistake: %s", json.dumps(attrs.asdict(mistake), ensure_ascii=False))
    training = Training(
        seed=plan.seed,
        steps=plan.steps,
        n_tokens=n_seen,
        n_weights=n_weights,
        minutes=minutes,
        continued=plan.start_from is not None,
    )
    write_card(plan.out, shape, scores, training)


def main() -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make_model(parse_plan())


if __name__ == "__main__":
    main()
