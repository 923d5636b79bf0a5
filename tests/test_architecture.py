"""The imports point one way, and every foreign package has one home. See docs/design.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tgi_llama

ROOT = Path(tgi_llama.__file__).parent

# From a part of the package to the parts it may import. A part is a top-level module or package;
# every part may import itself.
LEAVES = {"errors", "generation"}
ALLOWED = {
    "errors": set(),
    "generation": set(),
    "cpus": set(),
    "host_memory": set(),
    "options": {"cpus", "errors", "host_memory"},
    "config": {"options"},
    "sub_command": {"config", "errors"},
    "models": {"config", "cpus", "errors", "logs", "options", "sub_command"},
    "logs": set(),
    "metrics_page": set(),
    "metrics": LEAVES | {"metrics_page"},
    "wire": LEAVES,
    "text": LEAVES,
    "structured": LEAVES,
    "turns": LEAVES | {"structured"},
    "validation": LEAVES | {"structured", "turns", "wire"},
    "engine": LEAVES | {"text"},
    "llama": LEAVES | {"config", "engine.model_runner", "engine.kv_cache", "host_memory", "text"},
    "adapters": LEAVES | {"models", "options"},
    "admission": LEAVES | {"engine", "structured.compiler"},
    "server": LEAVES
    | {"adapters", "admission", "engine", "metrics", "structured", "text", "turns"}
    | {"validation", "wire"},
    "model_thread": LEAVES
    | {"config", "engine", "llama", "models"}
    | {"host_memory"},  # the engine, which knows no system, asks it
    "model_text": LEAVES
    | {"config", "llama", "metrics", "model_thread", "models", "structured", "text", "turns"}
    | {"validation"},
    "service": LEAVES
    | {"adapters", "admission", "config", "engine", "metrics", "model_text", "model_thread"}
    | {"models", "server", "text", "turns", "validation"},
    "lifecycle": {"config", "errors", "server", "service"},
    "bench": {"errors", "sub_command"},  # it knows servers by their URL only
    "inspection": {"config", "engine.kv_cache", "errors", "llama", "models", "sub_command"}
    | {"text", "turns"},
    "platforms": {"errors"},
    "health_check": {"sub_command"},  # a client of a running server
    "config_option": {"options", "platforms"},
    "cli": {
        "bench",
        "config",
        "config_option",
        "cpus",
        "errors",
        "health_check",
        "inspection",
        "lifecycle",
    }
    | {"logs", "models", "options", "platforms", "sub_command"},
    "asgi": {"cli", "errors", "service"},
    "hypercorn_config": set(),
    "__main__": {"cli"},
    "builtin": set(),
}

# From a foreign package to the parts that may import it; "builtin" is the training script.
HOMES = {
    "llama_cpp": {"llama", "builtin"},
    "ctypes": {"llama", "builtin", "engine"},  # engine: one write that keeps the interpreter lock
    "numpy": {"engine", "llama", "wire", "builtin"},
    "quart": {"server"},
    "quart_trio": {"server", "service"},
    "hypercorn": {"server", "asgi"},
    "werkzeug": {"server"},
    "flask_swagger_ui": set(),  # its files are served, its code is not run
    "cattrs": {"wire"},
    "orjson": {"wire", "bench"},
    "json": {
        "wire",
        "text",
        "logs",
        "models",  # the headers of safetensors files
        "structured",
        "turns",
        "validation",  # tools as a text in a prompt
        "builtin",
        "inspection",  # its report for scripts
    },  # text: a model's config files; logs: JSON lines
    "h11": {"server", "bench"},
    "rich": {"bench"},
    "matplotlib": {"bench"},
    "prometheus_client": {"metrics", "metrics_page"},
    "trio": {
        "adapters",
        "admission",
        "asgi",
        "bench",
        "engine",
        "lifecycle",
        "model_text",
        "server",
        "service",
    },
    "tokenizers": {"text", "builtin"},
    "jinja2": {"text", "builtin"},
    "llguidance": {"structured", "llama"},  # llama: the tokenizer is made from its vocabulary
    "click": {"cli", "config_option", "sub_command"}
    | {"bench", "health_check", "inspection", "models"},  # commands
    "asyncio": set(),
    "torch": {"builtin"},
    "gguf": {"builtin"},
    "huggingface_hub": {"models"},  # nowhere but in models/hub* and what these import
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Absolute names of everything that the module imports, also inside functions."""
    package = ["tgi_llama", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_under(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert path.read_text() == ""
        return
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "tgi_llama" and rest and not is_under(rest, {part}):
            assert is_under(rest, ALLOWED[part]), f"{part} may not import {name}"
        elif top in HOMES:
            assert part in HOMES[top], f"{top} has no home in {part}"


def test_engine_uses_trio_on_one_side_only() -> None:
    users = {
        path.name
        for path in (ROOT / "engine").glob("*.py")
        if any(name.split(".")[0] == "trio" for name in imported(path))
    }
    assert users == {"engine.py", "mailbox.py", "io_wait.py"}


def test_package_markers_are_empty() -> None:
    assert all(path.read_text() == "" for path in ROOT.rglob("__init__.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_short_enough_to_read_at_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
