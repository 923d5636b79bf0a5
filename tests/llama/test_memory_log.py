"""Figures in lines as llama.cpp logs them."""

from tgi_llama.llama.memory_log import MemoryFigures, read_figures

_MIB = 2**20


def test_figures_of_a_model_on_cpus() -> None:
    lines = [
        "print_info: file size   = 265.25 MiB (4.50 BPW) ",
        "load_tensors:   CPU_Mapped model buffer size =   257.81 MiB",
        "load_tensors:   CPU_REPACK model buffer size =   264.98 MiB",
        "llama_context:        CPU  output buffer size =     4.50 MiB",
        "llama_kv_cache:        CPU KV buffer size =   192.00 MiB",
        "llama_kv_cache: size =  192.00 MiB (  2048 cells,  24 layers,  8/8 seqs),"
        " K (f16):   96.00 MiB, V (f16):   96.00 MiB",
        "sched_reserve:        CPU compute buffer size =    37.50 MiB",
    ]

    assert read_figures(lines) == MemoryFigures(
        cells=192 * _MIB,
        output=9 * _MIB // 2,
        host_compute=75 * _MIB // 2,
        is_repacked=True,
    )


def test_figures_of_sliding_windows_are_added_up() -> None:
    lines = [
        "llama_kv_cache_iswa: creating non-SWA KV cache, size = 4096 cells",
        "llama_kv_cache: size =   32.00 MiB (  4096 cells,   4 layers,  1/1 seqs), K (f16): ..",
        "llama_kv_cache_iswa: creating     SWA KV cache, size = 768 cells",
        "llama_kv_cache: size =   10.50 MiB (   768 cells,  14 layers,  1/1 seqs), K (f16): ..",
    ]

    assert read_figures(lines) == MemoryFigures(cells=85 * _MIB // 2)


def test_figures_of_recurrent_states() -> None:
    lines = [
        "llama_memory_recurrent:        CPU RS buffer size =     3.00 MiB",
        "llama_memory_recurrent: size =    3.00 MiB (     8 cells,  24 layers,  8 seqs  0 rs_seq),"
        " R (f32):    1.00 MiB, S (f32):    2.00 MiB, P (f32):    0.00 MiB",
    ]

    assert read_figures(lines) == MemoryFigures(states=3 * _MIB)


def test_figures_of_a_model_partly_on_a_gpu() -> None:
    lines = [
        "load_tensors: layer   0 assigned to device CPU, is_swa = 0",
        "load_tensors: layer   1 assigned to device CUDA0, is_swa = 0",
        "load_tensors: layer   2 assigned to device CUDA0, is_swa = 0",
        "load_tensors: offloaded 2/3 layers to GPU",
        "load_tensors:        CUDA0 model buffer size =     0.00 MiB",
        "llama_kv_cache: layer   0: dev = CPU",
        "llama_kv_cache: layer   1: dev = CUDA0",
        "llama_kv_cache:      CUDA0 KV buffer size =     0.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
        "llama_kv_cache: size =  100.00 MiB (  4096 cells,   2 layers,  1/1 seqs), K (f16): ..",
        "sched_reserve:      CUDA0 compute buffer size =   300.00 MiB",
        "sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB",
        "llama_context:  CUDA_Host  output buffer size =     1.00 MiB",
    ]

    figures = read_figures(lines)

    assert figures == MemoryFigures(
        cells=100 * _MIB,
        output=_MIB,
        host_compute=20 * _MIB,
        gpu_compute={"CUDA0": 300 * _MIB},
        layers=("CPU", "CUDA0", "CUDA0"),
        layer_cells={0: 50 * _MIB, 1: 50 * _MIB},
        cells_on={"CPU": 50 * _MIB, "CUDA0": 50 * _MIB},
    )
    assert (figures.n_gpu_layers, figures.compute) == (2, 320 * _MIB)


def test_figures_of_layers_that_differ_are_shared_out_by_kind() -> None:
    lines = [
        "llama_kv_cache: layer   1: dev = CUDA0",
        "llama_kv_cache: size =   32.00 MiB (  4096 cells,   1 layers,  1/1 seqs), K (f16): ..",
        "llama_kv_cache: layer   0: dev = CUDA1",
        "llama_kv_cache: layer   2: dev = CUDA0",
        "llama_kv_cache: size =   10.00 MiB (   768 cells,   2 layers,  1/1 seqs), K (f16): ..",
    ]

    figures = read_figures(lines)

    assert figures.layer_cells == {0: 5 * _MIB, 1: 32 * _MIB, 2: 5 * _MIB}
    assert figures.cells_on == {"CUDA0": 37 * _MIB, "CUDA1": 5 * _MIB}


def test_figures_of_recurrent_states_on_gpus() -> None:
    lines = [
        "llama_memory_recurrent, layer   0: dev = CUDA0",
        "llama_memory_recurrent, layer   1: dev = CUDA1",
        "llama_memory_recurrent, layer   2: dev = CUDA0",
        "llama_memory_recurrent:      CUDA0 RS buffer size =     4.00 MiB",
        "llama_memory_recurrent:      CUDA1 RS buffer size =     2.00 MiB",
        "llama_adapter_lora_init_impl:      CUDA0 LoRA buffer size =     9.00 MiB",
    ]

    assert read_figures(lines) == MemoryFigures(
        states=6 * _MIB,
        layer_states={0: 2 * _MIB, 1: 2 * _MIB, 2: 2 * _MIB},
        states_on={"CUDA0": 4 * _MIB, "CUDA1": 2 * _MIB},
    )


def test_figures_of_nothing_are_zeros() -> None:
    assert read_figures(["", "x = 3 MiB", "size = 4.00 MiB ("]) == MemoryFigures()
