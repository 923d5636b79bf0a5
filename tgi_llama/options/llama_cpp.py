"""How llama.cpp uses the machine."""

import attrs

from tgi_llama.cpus import n_available_cpus

from .gpu_values import (
    LAYERS_PATTERN,
    PROPORTIONS_PATTERN,
    SIZE,
    SIZE_PATTERN,
    gpu_layers,
    gpu_memory_margin,
    proportions,
)
from .option import Group, amount, derived, described
from .values import AMOUNT, AMOUNT_PATTERN, KV_TYPE_HELP, KV_TYPES, MAX_THREADS, cache_ram


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class LlamaCppOptions:
    """Part of ``config.Config``."""

    n_threads: int = derived(
        lambda given, _: given or min(n_available_cpus(), MAX_THREADS),
        group=Group.LLAMA_CPP,
        unit="threads",
        minimum=0,
        maximum=MAX_THREADS,
        default_text="the CPUs this process may use",
        help="Threads that compute a step of a single token. 0 means the default.",
    )
    n_threads_batch: int = derived(
        lambda given, config: given or config.n_threads,
        group=Group.LLAMA_CPP,
        unit="threads",
        minimum=0,
        maximum=MAX_THREADS,
        default_text="n-threads",
        help="Threads that compute a step of several tokens: prompts, and generation for two or"
        " more requests at once. 0 means the default.",
    )
    n_gpu_layers: str = described(
        "0",
        group=Group.GPU,
        unit="layers",
        pattern=LAYERS_PATTERN,
        expected="a number of layers, `all` or `auto`",
        help="Layers to keep in GPU memory: a number, all (or -1), or auto: as many as fit. The"
        " output counts as a layer, and more than there are count as all. Without a GPU, all is an"
        " error, a number has no effect, and auto means 0.",
        resolve=lambda given, _: gpu_layers(given),
    )
    split_mode: str = described(
        "layer",
        group=Group.GPU,
        unit="mode",
        pattern=r"layer|row|[0-9]{1,3}",
        expected="a GPU number or `layer` or `row`",
        help="How several GPUs share the model: layer, row, or the number of the one GPU to use.",
    )
    tensor_split: str | None = described(
        None,
        group=Group.GPU,
        unit="proportions",
        pattern=PROPORTIONS_PATTERN,
        expected="a number for each GPU, as in 3,1",
        default_text="by free memory",
        help="What part of the model each GPU gets, in the order in which the start lists them:"
        " 3,1 gives the first three times as much as the second. 0 leaves one out.",
    )
    gpu_memory_margin: int | None = amount(
        lambda given, _: gpu_memory_margin(given),
        group=Group.GPU,
        unit="bytes",
        minimum=0,
        pattern=SIZE_PATTERN,
        expected=SIZE,
        default_text="1GiB",
        help="What --n-gpu-layers auto leaves free on each GPU, with a suffix (512MiB, 2G).",
    )
    offload_kqv: bool = described(
        True,
        group=Group.GPU,
        off_switch="--disable-offload-kqv",
        help="Keep the KV memory and its operations on the GPU.",
    )
    numa: str = described(
        "disabled",
        group=Group.LLAMA_CPP,
        unit="strategy",
        choices=("disabled", "distribute", "isolate", "numactl", "mirror"),
        help="Placement on machines with several memory nodes: disabled, distribute, isolate,"
        " numactl or mirror.",
    )
    use_mmap: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-mmap",
        help="Map the GGUF file into memory instead of reading it.",
    )
    use_mlock: bool = described(
        False,
        group=Group.LLAMA_CPP,
        help="Lock the model in memory, so that it is never swapped out.",
    )
    flash_attention: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-flash-attention",
        help="Use flash attention. A quantized --type-v needs it.",
    )
    type_k: str = described(
        "f16",
        group=Group.LLAMA_CPP,
        unit="type",
        choices=KV_TYPES,
        help=f"Type of the K half of the KV memory. {KV_TYPE_HELP}",
    )
    type_v: str = described(
        "f16",
        group=Group.LLAMA_CPP,
        unit="type",
        choices=KV_TYPES,
        help="Type of the V half of the KV memory; as for --type-k.",
    )
    kv_layout: str = described(
        "auto",
        group=Group.LLAMA_CPP,
        unit="layout",
        choices=("streams", "unified", "auto"),
        help="streams: every sequence owns max-total-tokens cells. unified: all sequences share"
        " one pool of cells, which may be smaller than their sum. auto: the server chooses.",
    )
    swa_full: bool = described(
        False,
        group=Group.LLAMA_CPP,
        off_switch="--disable-swa-full",
        help="Keep room for all cells of sliding-window layers: more memory, but nearly any shared"
        " prefix of resident sequences can be reused, not only those at checkpoints.",
    )
    prefix_cache: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-prefix-cache",
        help="Let prompts that begin alike share what is computed of the beginning.",
    )
    cache_ram: int | None = amount(
        lambda given, _: cache_ram(given),
        group=Group.LLAMA_CPP,
        unit="bytes or percent",
        minimum=0,
        pattern=AMOUNT_PATTERN,
        expected=AMOUNT,
        default_text="25% of the available memory, at most 8GiB and what the model leaves",
        help="Host memory for sequences that were pushed out of the context, so that a prompt with"
        " the same beginning need not be computed again: bytes, with a suffix (512MiB, 2G), or a"
        " percentage of the memory that is available at start, within the container's limits. 0"
        " turns it off; models with recurrent states or sliding windows then keep no checkpoints.",
    )

    @property
    def split_proportions(self) -> tuple[float, ...]:
        """``tensor_split`` as numbers; none where nothing was given."""
        return proportions(self.tensor_split)

    @property
    def is_gpu_memory_margin_given(self) -> bool:
        """Whether it is another than the default."""
        return self.gpu_memory_margin != gpu_memory_margin(None)
