"""The facts of a file as lines for people and as JSON for scripts."""

import json
from collections.abc import Iterator

from tgi_llama.llama.gpu_needs import GpuNeeds
from tgi_llama.llama.memory_needs import size_text
from tgi_llama.llama.model_facts import ModelFacts, SpecialToken

from .facts import AdapterFacts, FileFacts, ServingFacts, TemplateFacts

_N_TYPES = 4
"""Shown; a file has more only where somebody has tried a lot."""


def report(facts: FileFacts) -> str:
    """Aligned lines."""
    rows = list(_rows(facts))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}".rstrip() for label, text in rows)


def _rows(facts: FileFacts) -> Iterator[tuple[str, str]]:
    parts = f", {len(facts.paths)} parts" if len(facts.paths) > 1 else ""
    yield "file", f"{facts.paths[0]} ({size_text(facts.size_bytes)}{parts})"
    if facts.name is not None:
        yield "name", facts.name
    if facts.kind != "model":
        yield "type", facts.kind
    layers = f", {facts.n_layers} layers" if facts.n_layers else ""
    yield "architecture", f"{facts.architecture}{layers}, {_count(facts.n_parameters)} parameters"
    if facts.types:
        yield "quantization", _quantization(facts)
    if facts.adapter is not None:
        yield from _adapter_rows(facts.adapter)
    if facts.n_context_train is not None:
        yield "context", f"{facts.n_context_train} tokens trained"
    if facts.model is not None:
        yield from _vocabulary_rows(facts.model)
        yield "chat template", _template(facts.template)
    if facts.serving is not None:
        yield from _serving_rows(facts.serving)
    if facts.problem is not None:
        yield "served", f"no: {facts.problem}"


def _quantization(facts: FileFacts) -> str:
    shown = [f"{each.type} {each.share:.1%}" for each in facts.types[:_N_TYPES]]
    if len(facts.types) > _N_TYPES:
        shown.append("others")
    name = facts.file_type or "not named"
    return f"{name}, {facts.bits_per_weight:.2f} bits a weight ({', '.join(shown)})"


def _adapter_rows(adapter: AdapterFacts) -> Iterator[tuple[str, str]]:
    yield "base model", adapter.base or "not named"
    alpha = "without alpha" if adapter.alpha is None else f"alpha {adapter.alpha:g}"
    yield "adapter", f"LoRA of {adapter.n_matrices} matrices, {alpha}"


def _vocabulary_rows(model: ModelFacts) -> Iterator[tuple[str, str]]:
    yield "vocabulary", f"{model.vocabulary}, {model.n_vocab} tokens"
    tokens = (("BOS", model.bos), ("EOS", model.eos), ("EOT", model.eot))
    yield "special tokens", ", ".join(f"{name} {_token(token)}" for name, token in tokens)


def _token(token: SpecialToken | None) -> str:
    return "none" if token is None else f"{token.text} ({token.id})"


def _template(template: TemplateFacts | None) -> str:
    if template is None:
        return "none in the file"
    names = ", ".join(template.names)
    if template.error is not None:
        return f"{names}: {template.error}"
    return f"{names}; compiles; tool calls as {template.tool_format}"


def _serving_rows(serving: ServingFacts) -> Iterator[tuple[str, str]]:
    plan, needs, room = serving.plan, serving.needs, serving.room
    layout = "unified" if plan.unified else "streams"
    yield "", ""
    yield "served with", f"{plan.n_sequences} sequences, {plan.n_cells} cells ({layout})"
    mapped = " (mapped)" if needs.is_mapped else ""
    yield "weights", f"{size_text(needs.weights)}{mapped}"
    if needs.adapters:
        yield "adapters", size_text(needs.adapters)
    if needs.figures.cells:
        each = size_text(needs.figures.cells // plan.n_cells)
        yield "KV memory", f"{size_text(needs.figures.cells)} ({each} a cell)"
    if needs.figures.states:
        yield "states", size_text(needs.figures.states)
    yield "compute", f"{size_text(needs.figures.compute)}, output rows {size_text(needs.output)}"
    cache = size_text(needs.cache_limit(room))
    yield "host memory", f"{size_text(needs.host)} of {size_text(room.host)} available"
    yield "host cache", f"up to {cache} more"
    if needs.gpus:
        yield "GPU layers", f"{serving.n_gpu_layers} of {serving.n_layers}"
    for gpu in needs.gpus:
        yield gpu.name, _gpu(gpu, room.free_text(gpu))
    yield "verdict", serving.verdict


def _gpu(gpu: GpuNeeds, free: str) -> str:
    parts = {
        "adapters": gpu.adapters,
        "KV memory": gpu.cells,
        "states": gpu.states,
        "compute": gpu.compute,
    }
    told = [f"{name} {size_text(n_bytes)}" for name, n_bytes in parts.items() if n_bytes]
    layers = f"{gpu.n_layers} layers {size_text(gpu.weights)}"
    return f"{size_text(gpu.total)} of {free} free: {', '.join([layers, *told])}"


def _count(number: int) -> str:
    """For people: ``494.0 M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def as_json(facts: FileFacts) -> str:
    """One object; sizes in bytes, what is not known as null."""
    model, template, adapter = facts.model, facts.template, facts.adapter
    content = {
        "files": [str(path) for path in facts.paths],
        "size_bytes": facts.size_bytes,
        "name": facts.name,
        "type": facts.kind,
        "architecture": facts.architecture,
        "n_parameters": facts.n_parameters,
        "n_layers": facts.n_layers,
        "n_context_train": facts.n_context_train,
        "quantization": facts.file_type,
        "bits_per_weight": round(facts.bits_per_weight, 3),
        "tensor_types": {each.type: round(each.share, 4) for each in facts.types},
        "adapter": adapter
        and {"base": adapter.base, "alpha": adapter.alpha, "n_matrices": adapter.n_matrices},
        "vocabulary": model and {"kind": model.vocabulary, "n_tokens": model.n_vocab},
        "special_tokens": model
        and {
            name: token and {"id": token.id, "text": token.text}
            for name, token in (("bos", model.bos), ("eos", model.eos), ("eot", model.eot))
        },
        "chat_template": template
        and {
            "names": list(template.names),
            "error": template.error,
            "tool_format": template.tool_format,
        },
        "serving": facts.serving and _serving_json(facts.serving),
        "problem": facts.problem,
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def _serving_json(serving: ServingFacts) -> dict[str, object]:
    plan, needs, room = serving.plan, serving.needs, serving.room
    return {
        "n_sequences": plan.n_sequences,
        "n_cells": plan.n_cells,
        "kv_layout": "unified" if plan.unified else "streams",
        "weights_bytes": needs.weights,
        "is_mapped": needs.is_mapped,
        "adapter_bytes": needs.adapters,
        "kv_bytes": needs.figures.cells,
        "state_bytes": needs.figures.states,
        "compute_bytes": needs.figures.compute,
        "output_bytes": needs.output,
        "host_bytes": needs.host,
        "host_bytes_at_least": needs.host_at_least,
        "host_bytes_available": room.host,
        "host_cache_bytes": needs.cache_limit(room),
        "n_gpu_layers": serving.n_gpu_layers,
        "n_layers": serving.n_layers,
        "gpus": [
            {
                "name": gpu.name,
                "n_layers": gpu.n_layers,
                "weights_bytes": gpu.weights,
                "adapter_bytes": gpu.adapters,
                "kv_bytes": gpu.cells,
                "state_bytes": gpu.states,
                "compute_bytes": gpu.compute,
                "free_bytes": room.gpus.get(gpu.name),
            }
            for gpu in needs.gpus
        ],
        "fits": serving.verdict.startswith("fits"),
        "verdict": serving.verdict,
    }
