"""LoRA adapters of a model, and which of them a context computes with.

llama.cpp applies adapters to a whole context. A change makes the next decode reserve its graphs
anew, which takes milliseconds and counts the operations of all adapters that are loaded then; so an
adapter that was loaded after the context was made cannot be too large for its graphs. Some
architectures have a fixed bound instead, which is checked here: llama.cpp ends the process on it.
"""

import ctypes
import math
import os
import re
from pathlib import Path

import attrs
import llama_cpp.llama_cpp as native

from tgi_llama.errors import AdapterError
from tgi_llama.generation import AdapterFacts, AdapterId
from tgi_llama.host_memory import available_bytes
from tgi_llama.llama.adapter_file import AdapterFile, check_adapter_file, read_adapter_file
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.gguf_file import read_gguf
from tgi_llama.llama.model import Model

_BOUNDED_ARCHITECTURES = frozenset(
    {"bailingmoe3", "deepseek4", "dflash", "glm5-next", "hrm_text", "hy_v4", "kimi-k3"}
    | {"kimi-linear", "minimax-01", "minimax-m3", "nanbeige", "qwen35", "qwen35moe"}
    | {"qwen3next", "qwen4exp"}
)
"""For which llama.cpp does not count adapters (``llama_context::graph_max_nodes``)."""

_LOOPED_ARCHITECTURES = frozenset({"hrm_text"})
"""Which use a weight many times, and the adapter as often."""

_NODES_PER_PAIR = 8
"""Operations that an adapter adds for each weight, four, if the weight is used twice."""

_Pointer = ctypes.c_void_p


@attrs.define(eq=False)
class _Adapter:
    pointer: int
    scale: float


@attrs.frozen(kw_only=True)
class GraphRoom:
    """What llama.cpp says of the graph that it reserved at last; 0 where it says nothing."""

    n_nodes: int
    n_most: int


def graph_room(lines: list[str]) -> GraphRoom:
    """From the log of making a context."""
    n_nodes = re.findall(r"graph(?: \([^)]*\))?: nodes = (\d+)", "\n".join(lines))
    n_most = re.findall(r"max_nodes = (\d+)", "\n".join(lines))
    return GraphRoom(n_nodes=int((n_nodes or [0])[-1]), n_most=int((n_most or [0])[-1]))


@attrs.define(eq=False)
class Adapters:
    """The adapters of one context. Decode thread only."""

    model: Model
    context: native.llama_context_p
    room: GraphRoom
    log: NativeLog
    current: AdapterId | None = attrs.field(default=None, init=False)
    """The one that the last decode was computed with. It may have been freed since: then the next
    decode is a change, as llama.cpp makes its graphs anew for it."""
    _loaded: dict[AdapterId, _Adapter] = attrs.field(factory=dict, init=False)

    def load(self, adapter: AdapterId, path: Path, *, scale: float) -> AdapterFacts:
        """See ``ModelRunner.load_adapter``."""
        if adapter in self._loaded:
            raise ValueError(f"adapter {adapter} is loaded already")
        if not math.isfinite(ctypes.c_float(scale).value):
            raise AdapterError(
                f"the scale of an adapter must be a finite 32-bit number, not {scale}"
            )
        file = read_adapter_file(path)
        self._check(file)
        facts = file.facts()
        n_free = available_bytes()
        if facts.n_bytes > n_free:
            raise AdapterError(
                f"the adapter needs {facts.n_bytes} bytes of memory, and {n_free} can be had"
            )
        # It warns once a weight that its repacked layout cannot be used for the adapter.
        with self.log.quiet(), self.log.captured() as lines:
            pointer = native.llama_adapter_lora_init(self.model.pointer, os.fsencode(path))
        if not pointer:
            raise AdapterError(f"llama.cpp cannot load the adapter {path}: {_reason(lines)}")
        self._loaded[adapter] = _Adapter(_address(pointer), scale)
        return facts

    def free(self, adapter: AdapterId) -> None:
        """See ``ModelRunner.free_adapter``."""
        freed = self._loaded.pop(adapter)
        if self.current == adapter:
            native.llama_set_adapters_lora(self.context, None, 0, None)
        native.llama_adapter_lora_free(
            ctypes.cast(freed.pointer, native.llama_adapter_lora_p_ctypes)
        )

    def is_loaded(self, adapter: AdapterId | None) -> bool:
        """The model alone always is."""
        return adapter is None or adapter in self._loaded

    def use(self, adapter: AdapterId | None) -> None:
        """The next decodes are computed with the adapter; the first of them takes longer. KeyError
        for one that is not loaded."""
        if adapter is None:
            native.llama_set_adapters_lora(self.context, None, 0, None)
        else:
            loaded = self._loaded[adapter]
            pointers = (ctypes.c_void_p * 1)(loaded.pointer)
            array = ctypes.cast(pointers, ctypes.POINTER(native.llama_adapter_lora_p_ctypes))
            native.llama_set_adapters_lora(
                self.context, array, 1, (ctypes.c_float * 1)(loaded.scale)
            )
        self.current = adapter

    def _check(self, file: AdapterFile) -> None:
        architecture = self.model.metadata("general.architecture") or "unknown"
        n_experts = self.model.metadata(f"{architecture}.expert_count") or "0"
        changes_embeddings = "token_embd.weight" in file.pairs
        check_adapter_file(
            file,
            n_experts=int(n_experts),
            is_output_tied=changes_embeddings and not self._has_output(),
        )
        if "NVFP4" in self.model.description.upper():
            raise AdapterError("llama.cpp cannot apply adapters to NVFP4 weights")
        n_needed = self.room.n_nodes + _NODES_PER_PAIR * len(file.pairs)
        is_too_large = architecture in _BOUNDED_ARCHITECTURES and n_needed > self.room.n_most
        if is_too_large or architecture in _LOOPED_ARCHITECTURES:
            raise AdapterError(
                f"the adapter changes {len(file.pairs)} weights, more than llama.cpp has room for"
                f" with models of the architecture {architecture}"
            )

    def _has_output(self) -> bool:
        """Whether the model has an output matrix of its own."""
        tensors = read_gguf(self.model.path, self.log).tensors
        return any(tensor.name == "output.weight" for tensor in tensors)


def switch_seconds(lines: list[str]) -> float:
    """What reserving graphs took, from the log of a decode; 0 where it did not."""
    found = re.findall(r"reserve took ([0-9.]+) ms", "\n".join(lines))
    return sum(float(ms) for ms in found) / 1e3


def _address(pointer: object) -> int:
    address = ctypes.cast(pointer, _Pointer).value  # type: ignore[arg-type] # a ctypes pointer
    assert address is not None
    return address


def _reason(lines: list[str]) -> str:
    """llama.cpp's words, without the name of the C++ function."""
    errors = [line for line in lines if "failed to" in line]
    return (errors or ["no reason was given"])[0].split(": ", 1)[-1].strip()
