"""Makes tiny models with random weights, and computes in single precision what they say.

Run by a Python of its own, with torch and transformers, as ``reference.py FOLDER VOCABULARIES
TEXT [NAME ...]``. For each architecture FOLDER gets a checkpoint as people publish them,
``ends.json``, the ids that end a generation, and ``expected.json``: for each prompt its ids and
their logprobs, and the same of what follows greedily.

* Weights are numbers that float16 can hold, so a file in f16 has the same ones as a file in f32,
  and what differs is computation alone.
* transformers' own initial weights are so small that all tokens are about equally likely and a
  greedy choice means nothing. Here activations keep their size from layer to layer, and logits have
  a standard deviation of about ``LOGIT_SCALE``, as those of trained models.
* Prompts whose answer ends early, or in whose answer two tokens are about equally likely at some
  step, are not used: there is no telling which is right. ``MARGIN`` says what that means; it is
  looked at in the reference alone.
"""

import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

N_PROMPTS = 20
N_STEPS = 64
N_LEAST = 4
"""Tokens of a prompt: with fewer than its convolution is wide, transformers' Mamba says one thing
with its cache and another without."""
BATCH = 8
LOGIT_SCALE = 2.0
MARGIN = 0.01
"""Nats between the best token and the next."""
ROUTER_MARGIN = 0.002
"""The same between the experts of which one is asked and one is not."""

_WIDTH, _INNER, _N_LAYERS = 128, 256, 3
_SIZES = {
    "hidden_size": _WIDTH,
    "intermediate_size": _INNER,
    "num_hidden_layers": _N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
_HEAD = {"head_dim": 32}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,  # llama.cpp always does, and so do the published models
}
_ATTENTION = {"attn_implementation": "eager"}
_GEMMA = {
    "head_dim": 32,
    "query_pre_attn_scalar": 32,  # llama.cpp takes the head's size, as Gemma does but for its 27B
    "sliding_window": 16,  # shorter than the prompts
}

_ATTENTION_ONLY = "-attention"
"""Ends the names of models whose feed-forward parts say nothing."""

# From a name to the class of transformers, the vocabulary, and what its configuration adds.
MODELS = {
    "llama": ("Llama", "spm", _SIZES),
    "mistral": ("Mistral", "spm", _SIZES | {"sliding_window": None}),
    "mixtral": ("Mixtral", "spm", _SIZES | {"num_local_experts": 4, "sliding_window": None}),
    "phi3": ("Phi3", "spm-phi", _SIZES | {"sliding_window": None, "pad_token_id": 0}),
    "gemma2": ("Gemma2", "spm-no-prefix", _SIZES | _GEMMA),
    "gemma2-attention": ("Gemma2", "spm-no-prefix", _SIZES | _GEMMA),
    "gemma3": ("Gemma3", "spm-no-prefix", _SIZES | _GEMMA | {"num_hidden_layers": 7}),
    "qwen2": ("Qwen2", "gpt-2", _SIZES),
    "qwen3": ("Qwen3", "gpt-2", _SIZES | _HEAD),
    "qwen3moe": ("Qwen3Moe", "gpt-2", _SIZES | _HEAD | _EXPERTS),
    "gemma3-attention": ("Gemma3", "spm-no-prefix", _SIZES | _GEMMA | {"num_hidden_layers": 7}),
    "mamba": ("Mamba", "gpt-2", {"hidden_size": 64, "state_size": 8, "num_hidden_layers": 3}),
}
_CAUSAL = {"Gemma3": "Gemma3ForCausalLM"}
_CONFIGS = {"Gemma3": "Gemma3TextConfig"}


def main(folder: Path, vocabularies: Path, text: Path, names: list[str]) -> None:
    torch.set_num_threads(1)  # with two, such small models spend their time waiting
    for name in names or list(MODELS):
        kind, vocabulary, sizes = MODELS[name]
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        encode, n_vocab, ends = write_tokenizer(vocabulary, place, vocabularies, text)
        model = make_model(kind, n_vocab, sizes)
        if name.endswith(_ATTENTION_ONLY):
            silence_feed_forward(model)
        model.save_pretrained(place)
        pairs = [(prompt, encode(prompt)) for prompt in prompts(text)]
        expected = expectations(model, [pair for pair in pairs if len(pair[1]) >= N_LEAST], ends)
        (place / "expected.json").write_text(json.dumps(expected))
        (place / "ends.json").write_text(json.dumps(sorted(ends)))
        print(name, f"{len(expected)} prompts", flush=True)  # noqa: T201


def prompts(text: Path) -> list[str]:
    """Pieces of 10 to 300 characters of a text, and of this program."""
    found = []
    for file in (text, Path(__file__)):
        content = file.read_text(encoding="utf-8")
        for start in range(0, len(content) - 300, 40):
            piece = content[start : start + 10 + 29 * (start // 40 % 11)].strip()
            if not any(mark in piece for mark in ("<s>", "</s>", "<unk>", "<|")):
                found.append(piece)  # no control tokens: how they are read is tested elsewhere
    return found


def write_tokenizer(vocabulary: str, place: Path, vocabularies: Path, text: Path):
    """A function from a text to ids, the number of ids, and those that end a generation."""
    if vocabulary.startswith("spm"):
        # llama.cpp wants this token in the vocabulary of any model with phi3 in its name.
        control = ["<|endoftext|>"] if vocabulary == "spm-phi" else []
        add_prefix = vocabulary != "spm-no-prefix"
        return write_sentencepiece(place, text, add_prefix=add_prefix, control=control)
    return write_byte_pairs(vocabulary, place, vocabularies)


def write_sentencepiece(place: Path, text: Path, *, add_prefix: bool, control: list[str]):
    sentencepiece.SentencePieceTrainer.train(
        input=[str(text), __file__],
        model_prefix=str(place / "tokenizer"),
        model_type="bpe",
        vocab_size=1024,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=add_prefix,
        control_symbols=control,
        num_threads=1,
        minloglevel=2,
    )
    (place / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "LlamaTokenizer" if add_prefix else "GemmaTokenizer",
                "add_bos_token": True,
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "<unk>",
            }
        )
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(place / "tokenizer.model"))
    ends = {pieces.eos_id(), *(pieces.piece_to_id(token) for token in control)}
    n_tokens = pieces.get_piece_size()
    return lambda prompt: [pieces.bos_id(), *pieces.encode(prompt)], n_tokens, ends


def write_byte_pairs(vocabulary: str, place: Path, vocabularies: Path):
    """A published tokenizer, put together again from its GGUF file."""
    fields = GGUFReader(vocabularies / f"ggml-vocab-{vocabulary}.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    end = "<|endoftext|>"
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, clean_up_tokenization_spaces=False
    )
    wrapped.save_pretrained(place)
    return lambda prompt: tokenizer.encode(prompt).ids, len(tokens), {ids[end]}


def make_model(kind: str, n_vocab: int, sizes: dict[str, object]):
    torch.manual_seed(len(kind))
    config_class = getattr(transformers, _CONFIGS.get(kind, f"{kind}Config"))
    end = 2 if n_vocab < 5000 else n_vocab - 1  # of sentencepiece and of gpt-2
    ends = {"bos_token_id": 1, "eos_token_id": end}
    n_rows = -(-n_vocab // 8) * 8  # llama.cpp's converter takes this for granted with mamba
    config = config_class(vocab_size=n_rows, **ends, **sizes)
    model_class = getattr(transformers, _CAUSAL.get(kind, f"{kind}ForCausalLM"))
    attention = {} if kind == "Mamba" else _ATTENTION
    model = model_class._from_config(config, dtype=torch.float32, **attention)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            fill(name, weights)
            weights.copy_(weights.half().float())
    return model.eval()


def silence_feed_forward(model) -> None:
    for name, weights in model.named_parameters():
        if "down_proj" in name:
            weights.data.zero_()


def fill(name: str, weights) -> None:
    """Matrices keep the size of what they are given, on average."""
    if "A_log" in name or name.endswith(".D") or "conv1d" in name or "dt_proj" in name:
        return  # mamba's own initial values mean something
    if "embed" in name or "lm_head" in name:
        weights.normal_(std=LOGIT_SCALE / math.sqrt(weights.shape[1]))
    elif weights.dim() >= 2:
        weights.normal_(std=1 / math.sqrt(weights.shape[-1]))
    elif "norm" in name and "bias" not in name:
        weights.add_(torch.randn_like(weights), alpha=0.1)
    else:
        weights.normal_(std=0.1)


@torch.inference_mode()
def expectations(
    model, prompts: list[tuple[str, list[int]]], ends: set[int]
) -> list[dict[str, object]]:
    """Prompts of the same length are computed together, so that nothing is padded."""
    expected: list[dict[str, object]] = []
    model.generation_config.eos_token_id = None  # of a batch one row may go on
    by_length = itertools.groupby(sorted(prompts, key=_length), key=_length)
    batches = [batch for _, group in by_length for batch in cut(list(group))]
    for batch in spread(batches):
        if len(expected) >= N_PROMPTS:
            break
        ids = torch.tensor([ids for _, ids in batch])
        with_answers = model.generate(ids, max_new_tokens=N_STEPS, do_sample=False, pad_token_id=0)
        logprobs = torch.log_softmax(model(with_answers).logits, -1)
        certain = routes_are_certain(model, with_answers)
        for row in range(len(batch)):
            if not certain[row]:
                continue
            found = expectation(len(ids[row]), with_answers[row].tolist(), logprobs[row], ends)
            if found is not None:
                expected.append({"text": batch[row][0]} | found)
    return expected[:N_PROMPTS]


def expectation(n: int, ids: list[int], logprobs, ends: set[int]):
    """Of the ids of a prompt of ``n`` tokens and its answer; None where it is not used."""
    best = logprobs[n - 1 : -1].topk(2)
    margin = float((best.values[:, 0] - best.values[:, 1]).min())
    if margin < MARGIN or not ends.isdisjoint(ids[n:]):
        return None
    assert best.indices[:, 0].tolist() == ids[n:]  # with and without its cache
    taken = logprobs[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].tolist()
    return {
        "ids": ids[:n],
        "logprobs": taken[: n - 1],
        "answer": ids[n:],
        "answer_logprobs": taken[n - 1 :],
        "margin": margin,
    }


def routes_are_certain(model, ids) -> list[bool]:
    """For each row of ids, whether a rounding error chooses no other expert."""
    if not hasattr(model.config, "num_experts_per_tok"):
        return [True] * len(ids)
    n_used = model.config.num_experts_per_tok
    certain = torch.ones(ids.shape, dtype=torch.bool)
    for scores in model(ids, output_router_logits=True).router_logits:
        best = scores.topk(n_used + 1).values
        certain &= (best[:, -2] - best[:, -1] > ROUTER_MARGIN).reshape(ids.shape)
    return certain.all(-1).tolist()


def _length(prompt: tuple[str, list[int]]) -> int:
    return len(prompt[1])


def cut(group):
    return [group[start : start + BATCH] for start in range(0, len(group), BATCH)]


def spread(batches):
    """In an order in which the first few are of very different lengths."""
    return [batch for start in range(7) for batch in batches[start::7]]


if __name__ == "__main__":
    np.seterr(all="raise")
    main(*(Path(argument) for argument in sys.argv[1:4]), sys.argv[4:])
