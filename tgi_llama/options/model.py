"""Which model is served, and how its texts are written."""

from pathlib import Path

import attrs

from .files import template_text
from .option import Group, described


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class ModelOptions:
    """Part of ``config.Config``."""

    model_id: str | None = described(
        None,
        group=Group.MODEL,
        unit="name or folder",
        default_text="the built-in demo model",
        help="A local folder with a GGUF file, its tokenizer.json and its chat template; or,"
        " together with --model-gguf, the name to report.",
    )
    model_gguf: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.MODEL,
        unit="file",
        default_text="the *.gguf of the --model-id folder",
        help="The GGUF file to serve.",
    )
    chat_template: str | None = described(
        None,
        group=Group.MODEL,
        unit="file or text",
        default_text="the model's own",
        help="Jinja template for chats: a file, or the template itself.",
        resolve=lambda given, _: template_text(given),
    )
    tokenizer_config_path: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.MODEL,
        unit="file",
        default_text="the one in the model's folder",
        help="A tokenizer_config.json to use instead of the model's.",
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
