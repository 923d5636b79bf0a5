"""Finds a model's chat templates and special tokens.

These are files of models, not of the wire, so they are read with the standard json module here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError

from .chat_template import ChatTemplate, ChatTemplates

DEFAULT = "default"
TOOL_USE = "tool_use"
"""The two names of templates that count; models may have others, which nothing asks for."""

_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""Keys of ``tokenizer_config.json`` that templates see as variables."""


@attrs.frozen(kw_only=True)
class GgufTemplates:
    """What the metadata of a GGUF says about conversations."""

    templates: Mapping[str, str] = attrs.field(factory=dict)
    """By name: ``default`` for ``tokenizer.chat_template``, ``NAME`` for
    ``tokenizer.chat_template.NAME``."""
    bos_token: str | None = None
    eos_token: str | None = None


@attrs.frozen
class _Source:
    """The templates of one place, by name."""

    origin: str
    templates: Mapping[str, str]


def load_chat_template(
    folder: Path | None,
    gguf: GgufTemplates,
    *,
    override: str | None = None,
    tokenizer_config_path: Path | None = None,
) -> ChatTemplates | None:
    """The templates of the first place that has any, or None: ``override`` (a file or the template
    itself), then in ``folder`` ``chat_template.jinja`` (with ``additional_chat_templates/``),
    ``chat_template.json`` and ``tokenizer_config.json``, then the GGUF.

    ``tokenizer_config_path`` stands in for the folder's ``tokenizer_config.json``. BOS and EOS are
    those of the tokenizer config, also where it says that there is none; the GGUF's where it says
    nothing. Raises ConfigError for a file that cannot be read or has another form, and for a
    template that does not compile.
    """
    config_path = tokenizer_config_path or _in_folder(folder, "tokenizer_config.json")
    config = _read_object(config_path) if config_path else {}
    source = (
        _from_override(override)
        or _from_jinja_file(folder)
        or _from_template_json(_in_folder(folder, "chat_template.json"))
        or _from_config(config, config_path)
        or _usable("the GGUF's chat template", gguf.templates)
    )
    if source is None:
        return None
    tokens = {"bos_token": gguf.bos_token, "eos_token": gguf.eos_token}
    tokens |= _special_tokens(config, config_path)
    return _compile(source, {name: token for name, token in tokens.items() if token is not None})


def _compile(source: _Source, tokens: Mapping[str, str]) -> ChatTemplates:
    more = {name: token for name, token in tokens.items() if name not in _SPECIAL_TOKENS[:2]}
    compiled = {
        name: ChatTemplate(
            source.templates[name],
            bos_token=tokens.get("bos_token"),
            eos_token=tokens.get("eos_token"),
            more_tokens=more,
            origin=source.origin if name == DEFAULT else f"{source.origin} ({name})",
        )
        for name in (DEFAULT, TOOL_USE)
        if name in source.templates
    }
    return ChatTemplates(compiled[DEFAULT], compiled.get(TOOL_USE))


def _usable(origin: str, templates: Mapping[str, str]) -> _Source | None:
    """None without a default template: there would be none for most conversations."""
    return _Source(origin, templates) if DEFAULT in templates else None


# The places


def _from_override(override: str | None) -> _Source | None:
    if override is None:
        return None
    if "{" in override or "\n" in override:
        return _Source("--chat-template", {DEFAULT: override})
    path = Path(override)
    if not path.is_file():
        raise ConfigError(f"--chat-template: {override!r} is neither a file nor a template")
    if path.suffix != ".json":
        return _Source(f"--chat-template {override}", {DEFAULT: _read_text(path)})
    source = _from_template_json(path)
    if source is None:
        raise ConfigError(f"--chat-template: {override} has no 'chat_template'")
    return source


def _from_jinja_file(folder: Path | None) -> _Source | None:
    path = _in_folder(folder, "chat_template.jinja")
    if path is None:
        return None
    templates = {DEFAULT: _read_text(path)}
    named = path.parent / "additional_chat_templates" / f"{TOOL_USE}.jinja"
    if named.is_file():
        templates[TOOL_USE] = _read_text(named)
    return _Source(str(path), templates)


def _from_template_json(path: Path | None) -> _Source | None:
    return None if path is None else _from_config(_read_object(path), path)


def _from_config(config: Mapping[str, object], path: Path | None) -> _Source | None:
    value = config.get("chat_template")
    if value is None:
        return None
    if isinstance(value, str):
        return _Source(str(path), {DEFAULT: value})
    entries = value if isinstance(value, list) else [None]
    return _usable(str(path), dict(_named_template(entry, path) for entry in entries))


def _named_template(entry: object, path: Path | None) -> tuple[str, str]:
    if isinstance(entry, dict):
        name, template = entry.get("name"), entry.get("template")
        if isinstance(name, str) and isinstance(template, str):
            return name, template
    raise ConfigError(
        f"{path}: 'chat_template' must be a string or a list of objects with 'name' and 'template'"
    )


def _special_tokens(config: Mapping[str, object], path: Path | None) -> dict[str, str | None]:
    """The special tokens that the config speaks of; None for those that it says are none."""
    tokens: dict[str, str | None] = {}
    for name in _SPECIAL_TOKENS:
        if name not in config:
            continue
        value = config[name]
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and not isinstance(text, str):
            raise ConfigError(f"{path}: {name!r} must be a string or an object with 'content'")
        tokens[name] = text
    return tokens


# Files


def _in_folder(folder: Path | None, name: str) -> Path | None:
    if folder is None or not (folder / name).is_file():
        return None
    return folder / name


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _read_object(path: Path) -> dict[str, object]:
    try:
        value: object = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold a JSON object")
    return value
