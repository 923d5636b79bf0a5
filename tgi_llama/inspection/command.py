"""The command ``tgi-llama inspect``: what a GGUF file is, and what serving it would take."""

from collections.abc import Sequence
from pathlib import Path

import click

from tgi_llama.models.header import check_model_file
from tgi_llama.sub_command import CONTEXT, ServerOptions, call

from .facts import inspect_file
from .report import as_json, report

RELEVANT = frozenset(
    {
        *("max_batch_size", "max_total_tokens", "max_input_tokens", "max_batch_total_tokens"),
        *("max_physical_batch_total_tokens", "n_threads", "n_threads_batch", "n_gpu_layers"),
        *("split_mode", "tensor_split", "gpu_memory_margin", "numa", "use_mmap", "use_mlock"),
        *("offload_kqv", "flash_attention", "type_k", "type_v", "kv_layout", "swa_full"),
        *("prefix_cache", "cache_ram", "lora_adapters"),
    }
)
"""The server's options that memory follows from, by the names of ``Config``'s fields."""

_HELP = (
    "Show what a GGUF file is and what serving it would take on this machine. It may be a model,"
    " any part of a split one, or a LoRA adapter. The options are the server's, from the command"
    " line or the environment."
)


def run(arguments: Sequence[str], *, program: str, options: ServerOptions) -> int:
    """Prints the report; the exit status is 1 where the file cannot be served. Raises ConfigError
    for wrong options and files. ``options`` are those of ``RELEVANT``."""

    def inspect(**values: object) -> int:
        path, is_json = values["file"], values["json"]
        assert isinstance(path, Path)
        check_model_file(path, option="FILE")  # llama.cpp would wait for what a pipe may say
        facts = inspect_file(path, options.configure(click.get_current_context()))
        click.echo(as_json(facts) if is_json else report(facts))
        return 0 if facts.problem is None or facts.kind != "model" else 1

    file = click.Argument(["file"], type=click.Path(exists=True, dir_okay=False, path_type=Path))
    json = click.Option(["--json"], is_flag=True, help="Print one JSON object; sizes in bytes.")
    command = click.Command(
        program,
        params=[file, json, *options.parameters],
        callback=inspect,
        help=_HELP,
        context_settings=CONTEXT,
    )
    status: int = call(command, arguments, program)
    return status
