"""Which model is served, and how its texts are written."""

import os
from pathlib import Path
from typing import cast

import attrs

from .files import template_text
from .model_cache import model_cache
from .option import Group, described
from .quantization import QUANTIZATIONS, quantization


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class ModelOptions:
    """Part of ``config.Config``."""

    model_id: str | None = described(
        None,
        group=Group.MODEL,
        unit="model",
        default_text="the built-in demo model",
        help="A model of the Hugging Face hub, as owner/name or owner/name:QUANTIZATION, or a local"
        " folder. It has the GGUF file, or safetensors to convert, and the tokenizer and the chat"
        " template. Beside a --model-gguf on this machine only the latter two are taken from it.",
    )
    model_gguf: str | None = described(
        None,
        group=Group.MODEL,
        unit="file",
        default_text="the GGUF file of --model-id",
        help="The GGUF file to serve: a path on this machine, or a file's name or a pattern such as"
        " *q4_k_m.gguf in what --model-id names. Of a split model, any of its parts.",
        resolve=lambda given, _: None if given is None else os.fspath(given),
    )
    revision: str = described(
        "main",
        group=Group.MODEL,
        unit="revision",
        help="Branch, tag or commit of a hub model.",
    )
    tokenizer: str = described(
        "auto",
        group=Group.MODEL,
        unit="which",
        choices=("auto", "json", "gguf"),
        help="What encodes prompts: auto is the model's tokenizer.json if it has one that agrees"
        " with the GGUF; json is that file even where it does not agree; gguf is the vocabulary in"
        " the GGUF.",
    )
    tokenizer_config_path: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.MODEL,
        unit="file",
        default_text="the one in the model's folder",
        help="A tokenizer_config.json to use instead of the model's.",
    )
    chat_template: str | None = described(
        None,
        group=Group.MODEL,
        unit="file or text",
        default_text="the model's own",
        help="Jinja template for chats: a file, or the template itself.",
        resolve=lambda given, _: template_text(given),
    )
    quantize: str = described(
        "q4_0",
        group=Group.CONVERSION,
        unit="type",
        choices=QUANTIZATIONS,
        help="Type of the weights of a GGUF file that is made of a model in safetensors: any of"
        " llama.cpp's, for example f16, bf16, q8_0, q4_k_m, q4_0 or iq4_nl. No effect where there"
        " is a GGUF file.",
        resolve=lambda given, _: quantization(given),
    )
    model_cache: Path = described(  # noqa: RUF009  # an attrs field
        cast(Path, None),
        group=Group.CONVERSION,
        unit="folder",
        is_any_path=True,
        default_text="tgi_llama/models in the user's cache folder",
        help="Where GGUF files are kept that were made of models in safetensors, as"
        " owner/name/version/type.gguf.",
        resolve=lambda given, _: model_cache(given),
    )
    converter: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.CONVERSION,
        unit="folder or script",
        is_any_path=True,
        default_text="/opt/llama.cpp, or the one in the model cache",
        help="llama.cpp's convert_hf_to_gguf.py of the version in use, or its folder."
        " `tgi-llama convert --get-converter` puts one into the model cache.",
    )
    converter_python: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.CONVERSION,
        unit="program",
        default_text="the one that runs the server",
        help="The Python that runs the converter, with torch and transformers installed.",
    )
    trust_remote_code: bool = described(
        False,
        group=Group.CONVERSION,
        help="Let the converter run Python code in the model's folder, which some tokenizers"
        " need. The server itself never runs any.",
    )
