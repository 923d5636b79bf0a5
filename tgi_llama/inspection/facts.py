"""What a GGUF file is, and what serving it would take."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.errors import ConfigError
from tgi_llama.llama.backend import NativeLog, start_backend
from tgi_llama.llama.context_params import kv_plan
from tgi_llama.llama.devices import backends, devices, usable_gpus
from tgi_llama.llama.gguf_file import GgufFile, Tensor, read_gguf
from tgi_llama.llama.gpu_options import check_gpu_options, gpus_in_use
from tgi_llama.llama.memory_needs import MemoryNeeds, Room, check_tables, measure_room
from tgi_llama.llama.model_facts import ModelFacts, SpecialToken, file_type_name
from tgi_llama.llama.start_plan import Meter
from tgi_llama.models.adapters import AdapterSources, fetch_from_hub
from tgi_llama.text.template_files import GgufTemplates, load_chat_template
from tgi_llama.turns.detection import turn_format

_TEMPLATE_KEY = "tokenizer.chat_template"
_MODEL, _ADAPTER = "model", "adapter"
_NOT_ALONE = {
    _ADAPTER: "only together with its base model (--lora-adapters)",
    "mmproj": "it prepares images for a model, and images are not served yet",
    "imatrix": "it is an importance matrix for quantizing a model",
}
"""Why files of other types (``general.type``) are not served."""


@attrs.frozen(kw_only=True)
class TypeShare:
    """Of the bytes of all tensors."""

    type: str
    share: float


@attrs.frozen(kw_only=True)
class AdapterFacts:
    """Of a LoRA adapter's file."""

    base: str | None
    """The model it belongs to, as far as the file says."""
    alpha: float | None
    n_matrices: int


@attrs.frozen(kw_only=True)
class TemplateFacts:
    names: tuple[str, ...]
    error: str | None
    """Why it does not compile."""
    tool_format: str | None


@attrs.frozen(kw_only=True)
class ServingFacts:
    """What serving it with these options takes on this machine."""

    plan: KvPlan
    needs: MemoryNeeds
    room: Room
    n_gpu_layers: int
    n_layers: int
    """The output counts as one."""
    verdict: str
    """One sentence; begins with ``fits`` where it does."""


@attrs.frozen(kw_only=True)
class FileFacts:
    paths: tuple[Path, ...]
    size_bytes: int
    name: str | None
    kind: str
    """``model``, ``adapter``, or another of GGUF's (``general.type``)."""
    architecture: str
    n_parameters: int
    n_layers: int | None
    n_context_train: int | None
    file_type: str | None
    """The quantization's name, where the file says it."""
    bits_per_weight: float
    types: tuple[TypeShare, ...]
    """The largest share first."""
    adapter: AdapterFacts | None
    model: ModelFacts | None
    """None where llama.cpp cannot make a model of the file."""
    template: TemplateFacts | None
    serving: ServingFacts | None
    problem: str | None
    """Why it cannot be served."""


def inspect_file(path: Path, config: Config) -> FileFacts:
    """Reads the file and asks llama.cpp what it would take. Blocks for as long as reading the
    vocabulary takes, a few times over with ``--n-gpu-layers auto``.

    Raises ConfigError for a file that is no whole GGUF, and for options that cannot be.
    """
    log = start_backend(config.numa)
    with log.quiet():
        file = read_gguf(path, log)
        facts = _of_file(file)
        if facts.kind != _MODEL:
            problem = _NOT_ALONE.get(facts.kind, f"files of the type {facts.kind} are not known")
            return attrs.evolve(facts, problem=problem)
        return _with_model(facts, file, config, log)


def _with_model(facts: FileFacts, file: GgufFile, config: Config, log: NativeLog) -> FileFacts:
    plan = kv_plan(config)
    gpus = usable_gpus(devices())
    check_gpu_options(config, gpus, backends())
    check_tables(plan)
    adapters = AdapterSources.of(config, partial(fetch_from_hub, checkpoint=lambda: None)).first()
    meter = Meter(
        *(file.paths[0], config, plan, log, gpus_in_use(config, gpus)),
        adapters=[adapter.path for adapter in adapters],
        with_facts=True,
    )
    needs = meter.needs(meter.choose())
    if needs is None or meter.model is None:
        return attrs.evolve(facts, model=meter.model, problem=meter.problem)
    room = measure_room(meter.gpus)
    return attrs.evolve(
        facts,
        model=meter.model,
        template=_template(file, meter.model),
        serving=ServingFacts(
            plan=plan,
            needs=needs,
            room=room,
            n_gpu_layers=needs.figures.n_gpu_layers,
            n_layers=len(needs.figures.layers),
            verdict=verdict(needs, room),
        ),
    )


def verdict(needs: MemoryNeeds, room: Room) -> str:
    """Whether a model with these needs can be served."""
    full = [gpu.name for gpu in needs.gpus if room.is_short_of(gpu)]
    if needs.host_at_least > room.host_at_most:
        return "does not fit into host memory"
    if full:
        return f"does not fit on {', '.join(full)}: lower --n-gpu-layers"
    if needs.host > room.host:
        return "fits, but not into memory that is available now: it may swap or read slowly"
    return "fits"


def _of_file(file: GgufFile) -> FileFacts:
    kind = str(file.metadata.get("general.type", _MODEL))
    name = file.metadata.get("general.name")
    n_bytes = sum(tensor.n_bytes for tensor in file.tensors)
    n_elements = sum(tensor.n_elements for tensor in file.tensors)
    return FileFacts(
        paths=file.paths,
        size_bytes=file.size_bytes,
        name=None if name is None else str(name),
        kind=kind,
        architecture=file.architecture,
        n_parameters=n_elements,
        n_layers=file.number("block_count"),
        n_context_train=file.number("context_length"),
        file_type=file_type_name(file.metadata.get("general.file_type")),
        bits_per_weight=8 * n_bytes / n_elements if n_elements else 0.0,
        types=_type_shares(file.tensors),
        adapter=_adapter(file) if kind == _ADAPTER else None,
        model=None,
        template=None,
        serving=None,
        problem=None,
    )


def _type_shares(tensors: Sequence[Tensor]) -> tuple[TypeShare, ...]:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.type] += tensor.n_bytes
    total = max(1, sizes.total())
    return tuple(
        TypeShare(type=name, share=n_bytes / total) for name, n_bytes in sizes.most_common()
    )


def _adapter(file: GgufFile) -> AdapterFacts:
    alpha = file.metadata.get("adapter.lora.alpha")
    base = [
        str(file.metadata[key])
        for key in ("general.base_model.0.repo_url", "general.base_model.0.name")
        if key in file.metadata
    ]
    return AdapterFacts(
        base=base[0] if base else None,
        alpha=float(alpha) if isinstance(alpha, int | float) else None,
        n_matrices=sum(tensor.name.endswith(".lora_a") for tensor in file.tensors),
    )


def _template(file: GgufFile, model: ModelFacts) -> TemplateFacts | None:
    """Compiled as the server would, from the file alone."""
    found = {
        key.removeprefix(_TEMPLATE_KEY).removeprefix(".") or "default": str(value)
        for key, value in file.metadata.items()
        if key == _TEMPLATE_KEY or key.startswith(f"{_TEMPLATE_KEY}.")
    }
    if not found:
        return None
    gguf = GgufTemplates(templates=found, bos_token=_text(model.bos), eos_token=_text(model.eos))
    error, tool_format = None, None
    try:
        templates = load_chat_template(None, gguf)
        sources = templates.sources if templates is not None else ()
        tool_format = turn_format(sources, model.control_spellings).name
    except ConfigError as failure:
        error = str(failure)
    return TemplateFacts(names=tuple(found), error=error, tool_format=tool_format)


def _text(token: SpecialToken | None) -> str | None:
    return None if token is None else token.text
