"""Writes the trained model as a GGUF file and as the files of a hub repository."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from .chat_format import END_OF_TEXT, SPECIAL_TOKENS, TURN_END, template_text
from .model import Llama
from .shape import Shape
from .tokenizer_training import PRE_TOKENIZER_NAME

NAME = "tgi_llama built-in demo"
AUTHOR = "the tgi_llama authors"
LICENCE = "apache-2.0"
QUANTIZATION = gguf.GGMLQuantizationType.Q8_0


def write_gguf(model: Llama, tokenizer: Tokenizer, path: Path) -> None:
    """Writes matrices as Q8_0 and norms as float32. The output matrix is the embedding."""
    # A server that runs the model has the old file mapped, so it must not change under it.
    unfinished = path.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "llama")
    _add_general(writer)
    _add_shape(writer, model.shape)
    _add_tokenizer(writer, tokenizer)
    for name, weight in model.named_parameters():
        values = weight.detach().numpy().astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            packed = gguf.quants.quantize(values, QUANTIZATION)
            writer.add_tensor(name, packed, raw_dtype=QUANTIZATION)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(path)


def read_gguf(model: Llama, path: Path) -> None:
    """Sets the weights of `model` to those of a file that `write_gguf` wrote."""
    reader = gguf.GGUFReader(path)
    weights = {
        tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    model.load_state_dict(weights)


def _add_general(writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(NAME)
    writer.add_author(AUTHOR)
    writer.add_license(LICENCE)
    writer.add_description("A very small model that lets you try tgi_llama without a download.")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.inner_width)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_vocab_size(shape.n_tokens)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    end_id = vocabulary[TURN_END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER_NAME)
    writer.add_token_list(tokens)
    writer.add_token_types([control if t in SPECIAL_TOKENS else normal for t in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(vocabulary[END_OF_TEXT])
    writer.add_eos_token_id(end_id)
    writer.add_eot_token_id(end_id)
    writer.add_pad_token_id(vocabulary[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template_text())


def write_configs(shape: Shape, folder: Path) -> None:
    """Writes config.json and generation_config.json as a hub repository of a Llama has them."""
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **ids,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "initializer_range": 0.03,
        "intermediate_size": shape.inner_width,
        "max_position_embeddings": shape.context_tokens,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.n_heads,
        "num_hidden_layers": shape.n_layers,
        "num_key_value_heads": shape.n_kv_heads,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": shape.n_tokens,
    }
    generation = {**ids, "do_sample": False, "max_new_tokens": 512}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
