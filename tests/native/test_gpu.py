"""llama.cpp with graphics cards that are none (``fakes.gpu``): it does what was planned.

The kernels are the CPU's. Everything else is llama.cpp's own way with cards: it lists them, places
layers, measures, allocates, copies and computes on them.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
from fakes.adapter_files import random_pairs, write_adapter
from fakes.gpu import FakeGpu, fake_gpus
from fakes.native import Loaded
from fakes.tiny_models import TINY_MODELS, write_tiny_model

from tgi_llama.config import Config
from tgi_llama.engine.model_runner import Batch, Logits, Run, SlotId
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.generation import AdapterId
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.context_params import kv_plan
from tgi_llama.llama.devices import DeviceKind, backends, devices, usable_gpus
from tgi_llama.llama.memory_needs import MemoryNeeds
from tgi_llama.llama.model import Model, model_params
from tgi_llama.llama.offload import Offload
from tgi_llama.llama.runner import open_runner
from tgi_llama.llama.start_plan import Meter, plan_start
from tgi_llama.llama.vocab import Vocab

_MIB = 2**20
_N_LAYERS = 7
"""Of the built-in model: six, and the output."""


def _config(**options: object) -> Config:
    defaults = {"n_threads": 1, "max_batch_size": 2, "max_total_tokens": 512}
    return Config(**({"max_input_tokens": 256} | defaults | options))  # type: ignore[arg-type]


def _cards(*mib: float) -> list[FakeGpu]:
    return [FakeGpu(f"Fake{number}", int(size * _MIB)) for number, size in enumerate(mib)]


def _decode(
    loaded: Loaded,
    tokens: Sequence[int],
    *,
    slot: int = 0,
    start: int = 0,
    adapter: AdapterId | None = None,
) -> Logits:
    """The logits after tokens of a slot."""
    run = Run(SlotId(slot), start, len(tokens), n_outputs=1)
    loaded.runner.decode(Batch(np.array(tokens, np.int32), (run,), adapter))
    return loaded.runner.logits(len(tokens) - 1).copy()


@contextlib.contextmanager
def _loaded(
    path: Path,
    log: NativeLog,
    cards: Sequence[FakeGpu],
    *,
    adapters: Sequence[Path] = (),
    **options: object,
) -> Iterator[Loaded]:
    """As the server loads it, without the adapters, which it has only planned for."""
    config = _config(**options)
    with fake_gpus(cards):
        start = plan_start(path, config, kv_plan(config), log, adapters=adapters)
        assert [card.taken_bytes for card in cards] == [0] * len(cards), "measuring leaves nothing"
        with (
            Model(path, config, log, lambda _fraction: True, offload=start.offload) as model,
            open_runner(model, config, plan=kv_plan(config), log=log) as runner,
        ):
            yield Loaded(runner, Vocab(model.vocab_pointer), runner.plan, model)


def test_cards_are_listed_as_llama_cpp_has_them(native_log: NativeLog) -> None:
    assert native_log is not None, "the library is started"
    before = devices()
    cards = [FakeGpu("Fake0", 3 * _MIB, 4 * _MIB, device_id="0000:c1:00.0"), FakeGpu("Fake1", 5)]

    with fake_gpus(cards):
        first, second = usable_gpus(devices())
        assert backends()[-1] == "Fake"
    assert (first.name, first.description) == ("Fake0", "Fake0 of the tests")
    assert (first.kind, first.backend) == (DeviceKind.GPU, "Fake")
    assert (first.free_bytes, first.total_bytes) == (3 * _MIB, 4 * _MIB)
    assert (first.device_id, second.device_id) == ("0000:c1:00.0", None)
    assert not first.splits_rows
    assert devices() == before


@pytest.mark.parametrize(
    ("options", "n_graphs", "facts"),
    [
        ({}, (0, 0), {"n_gpu_layers": 0, "backend": "cpu", "kv_device": "CPU"}),
        (
            {"n_gpu_layers": "all"},
            (1, 1),
            {"n_gpu_layers": 7, "backend": "2-Fake0 of the tests", "kv_device": "Fake0, Fake1"},
        ),
        (
            {"n_gpu_layers": "99", "split_mode": "1"},
            (0, 1),
            {"n_gpu_layers": 7, "backend": "1-Fake1 of the tests", "split_mode": "1"},
        ),
        (
            {"n_gpu_layers": "3", "tensor_split": "1,0"},
            (1, 0),
            {"n_gpu_layers": 3, "backend": "1-Fake0 of the tests", "kv_device": "CPU, Fake0"},
        ),
        (
            {"n_gpu_layers": "all", "offload_kqv": False},
            (1, 1),
            {"n_gpu_layers": 7, "offload_kqv": False, "kv_device": "CPU"},
        ),
    ],
    ids=str,
)
def test_layers_are_computed_where_the_options_say(
    gguf: Path,
    native_log: NativeLog,
    options: dict[str, object],
    n_graphs: tuple[int, int],
    facts: dict[str, object],
) -> None:
    tokens = list(range(5, 40))
    with _loaded(gguf, native_log, []) as loaded:
        expected = _decode(loaded, tokens)
    cards = _cards(100, 50)

    with _loaded(gguf, native_log, cards, **options) as loaded:
        for card in cards:
            card.n_graphs = 0
        found = _decode(loaded, tokens)
        description = loaded.runner.description
    assert {name: getattr(description, name) for name in facts} == facts
    assert tuple(min(1, card.n_graphs) for card in cards) == n_graphs
    assert np.allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("split", "expected"),
    [(None, {"Fake0": 5, "Fake1": 2}), ("1,1", {"Fake0": 4, "Fake1": 3}), ("0,3", {"Fake1": 7})],
)
def test_proportions_reach_llama_cpp(
    gguf: Path, native_log: NativeLog, split: str | None, expected: dict[str, int]
) -> None:
    cards = _cards(100, 50)

    with _loaded(gguf, native_log, cards, n_gpu_layers="all", tensor_split=split) as loaded:
        assert loaded.model.gpu_layers == expected
        assert loaded.model.n_layers == _N_LAYERS


def test_proportions_are_there_as_long_as_the_parameters() -> None:
    params = model_params(_config(), Offload(3, (0.25, 0.75)))

    assert params.n_gpu_layers == 3
    assert params.tensor_split[:3] == [0.25, 0.75, 0.0]


def test_more_proportions_than_llama_cpp_has_devices_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="--tensor-split: at most 16 proportions, got 17"):
        model_params(_config(), Offload(3, (1.0,) * 17))


@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize(
    "options",
    [{}, {"kv_layout": "unified"}, {"offload_kqv": False}, {"n_gpu_layers": "4"}],
    ids=str,
)
def test_needs_on_each_card_are_what_is_then_taken(
    tmp_path: Path, native_log: NativeLog, name: str, options: dict[str, object]
) -> None:
    path = write_tiny_model(name, tmp_path)
    cards = _cards(100, 50)
    config = _config(**({"n_gpu_layers": "all"} | options))
    with fake_gpus(cards):
        meter = Meter(path, config, kv_plan(config), native_log, usable_gpus(devices()))
        needs = meter.needs(meter.choose())
    assert needs is not None

    with _loaded(path, native_log, cards, **({"n_gpu_layers": "all"} | options)) as loaded:
        for card, planned in zip(cards, needs.gpus, strict=True):
            # Where a card has the output, llama.cpp counts a little more for it than it takes.
            assert planned.n_layers == loaded.model.gpu_layers[card.name] > 0
            assert card.taken_bytes * 0.99 <= planned.total <= card.taken_bytes * 1.1 + _MIB // 2


@pytest.mark.parametrize("mib", [(5.5,), (6.5,), (9,), (3, 5.5), (5.5, 3), (7, 7)], ids=str)
def test_auto_takes_what_fits(gguf: Path, native_log: NativeLog, mib: tuple[float, ...]) -> None:
    """A card gives no more than it has, so a plan that takes too much fails here."""
    cards = _cards(*mib)
    options = {"n_gpu_layers": "auto", "gpu_memory_margin": 0}

    with _loaded(gguf, native_log, cards, **options) as loaded:
        n_layers = loaded.runner.description.n_gpu_layers
        assert 0 < n_layers <= _N_LAYERS
        _decode(loaded, [5] * 200)
    if len(cards) == 1 and n_layers < _N_LAYERS:
        config = _config()
        with fake_gpus(cards):
            meter = Meter(gguf, config, kv_plan(config), native_log, usable_gpus(devices()))
            more = meter.needs(Offload(n_layers + 1))
        assert more is not None
        assert more.gpus[0].total > cards[0].free_bytes


def test_auto_counts_states_that_are_too_large_even_to_measure(
    tmp_path: Path, native_log: NativeLog
) -> None:
    """llama.cpp allocates recurrent states also where it only measures."""
    path = write_tiny_model("mamba", tmp_path)
    options = {"n_gpu_layers": "auto", "gpu_memory_margin": 0, "max_batch_size": 200}
    options |= {"max_total_tokens": 300, "max_physical_batch_total_tokens": 32}
    config = _config(**options)
    with fake_gpus(_cards(1000)):
        meter = Meter(path, config, kv_plan(config), native_log, usable_gpus(devices()))
        all_layers, two_layers = meter.needs(Offload(None)), meter.needs(Offload(2))
    assert all_layers is not None
    assert two_layers is not None
    card = FakeGpu("Fake0", two_layers.gpus[0].total + _MIB // 10)
    assert card.free_bytes < all_layers.gpus[0].states

    with _loaded(path, native_log, [card], **options) as loaded:
        assert loaded.runner.description.n_gpu_layers == 2


def test_auto_without_room_leaves_all_on_the_host(
    gguf: Path, native_log: NativeLog, caplog: pytest.LogCaptureFixture
) -> None:
    cards = _cards(500)

    with caplog.at_level(logging.INFO), _loaded(gguf, native_log, cards, n_gpu_layers="auto") as it:
        assert it.runner.description.n_gpu_layers == 0
    assert "--n-gpu-layers auto: 0 of 7 layers fit on Fake0 (Fake0 of the tests)" in caplog.text


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "jamba"])
def test_states_on_cards_are_saved_and_restored(
    tmp_path: Path, native_log: NativeLog, name: str, layout: str
) -> None:
    path = write_tiny_model(name, tmp_path)
    prompt, token = list(range(5, 60)), 7
    options = {"n_gpu_layers": "all", "kv_layout": layout}
    with _loaded(path, native_log, _cards(100, 50), **options) as loaded:
        runner = loaded.runner
        _decode(loaded, prompt)
        state = runner.save(SlotId(0))
        expected = _decode(loaded, [token], start=len(prompt))
        assert state is not None
        runner.clear(SlotId(0))
        assert runner.restore(SlotId(1), state)
        found = _decode(loaded, [token], slot=1, start=len(prompt))
    assert np.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_cells_on_cards_are_cut_and_copied(gguf: Path, native_log: NativeLog, layout: str) -> None:
    options = {"n_gpu_layers": "5", "kv_layout": layout}
    with _loaded(gguf, native_log, _cards(100, 50), **options) as loaded:
        expected = _decode(loaded, range(5, 40))
        loaded.runner.clear(SlotId(0))
        _decode(loaded, [*range(5, 30), 99, 98])
        assert loaded.runner.truncate(SlotId(0), 25)
        target = SlotId(0)
        if layout == "unified":  # the streams layout does not copy
            target = SlotId(1)
            assert loaded.runner.copy(SlotId(0), target, 25)
        found = _decode(loaded, range(30, 40), slot=target, start=25)
    assert np.allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"n_gpu_layers": "4"}], ids=str)
def test_adapters_are_beside_their_layers_and_planned_for(
    gguf: Path, tmp_path: Path, native_log: NativeLog, options: dict[str, object]
) -> None:
    pairs = random_pairs(gguf, rank=64)
    file = write_adapter(tmp_path / "a.gguf", pairs)
    options = {"n_gpu_layers": "all"} | options
    cards, config = _cards(100, 50), _config(**options)
    with fake_gpus(cards):
        gpus = usable_gpus(devices())
        meter = Meter(gguf, config, kv_plan(config), native_log, gpus, adapters=[file])
        needs = meter.needs(meter.choose())
    assert needs is not None
    prompt = list(range(5, 40))
    with _loaded(gguf, native_log, []) as loaded:
        facts = loaded.runner.load_adapter(AdapterId(1), file, scale=1.0)
        expected = _decode(loaded, prompt, adapter=AdapterId(1))
    assert needs.adapters == facts.n_bytes
    assert needs.host_at_least == _without_adapters(needs).host_at_least + facts.n_bytes - sum(
        gpu.adapters for gpu in needs.gpus
    )

    with _loaded(gguf, native_log, cards, adapters=[file], **options) as loaded:
        before = [card.taken_bytes for card in cards]
        loaded.runner.load_adapter(AdapterId(1), file, scale=1.0)
        taken = [card.taken_bytes - n for card, n in zip(cards, before, strict=True)]
        assert taken == pytest.approx([gpu.adapters for gpu in needs.gpus], rel=0.01)
        assert sum(taken) >= facts.n_bytes // 2
        found = _decode(loaded, prompt, adapter=AdapterId(1))
    assert np.allclose(found, expected, atol=2e-2)


def _without_adapters(needs: MemoryNeeds) -> MemoryNeeds:
    gpus = tuple(attrs.evolve(gpu, adapters=0) for gpu in needs.gpus)
    return attrs.evolve(needs, adapters=0, gpus=gpus)


def test_auto_leaves_room_for_adapters(gguf: Path, tmp_path: Path, native_log: NativeLog) -> None:
    """A card gives no more than it has, so a plan that forgets them fails here."""
    file = write_adapter(tmp_path / "a.gguf", random_pairs(gguf, rank=128))
    options = {"n_gpu_layers": "auto", "gpu_memory_margin": 0}
    with _loaded(gguf, native_log, _cards(9), **options) as loaded:
        n_alone = loaded.runner.description.n_gpu_layers

    with _loaded(gguf, native_log, _cards(9), adapters=[file] * 2, **options) as loaded:
        assert 0 < loaded.runner.description.n_gpu_layers < n_alone
        for number in (1, 2):
            loaded.runner.load_adapter(AdapterId(number), file, scale=1.0)


def test_adapter_that_is_none_is_left_to_its_load(
    gguf: Path, tmp_path: Path, native_log: NativeLog
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))

    with _loaded(gguf, native_log, _cards(100), adapters=[damaged, tmp_path / "none.gguf"]):
        pass


def test_integrated_card_is_used(gguf: Path, native_log: NativeLog) -> None:
    cards = [FakeGpu("Fake0", 100 * _MIB, is_integrated=True)]

    with _loaded(gguf, native_log, cards, n_gpu_layers="all") as loaded:
        assert loaded.model.gpu_layers == {"Fake0": 7}


def test_start_says_what_each_card_gets(
    gguf: Path, native_log: NativeLog, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"n_gpu_layers": "all", "tensor_split": "3,4"}
    with caplog.at_level(logging.INFO), _loaded(gguf, native_log, _cards(100, 50), **options):
        pass

    assert "7 of 7 layers are on GPUs: Fake0 3, Fake1 4" in caplog.messages
    line = next(text for text in caplog.messages if text.startswith("memory needed"))
    assert "; about this of it on GPUs: Fake0 " in line
    assert " (3 layers; 100 MiB free), Fake1 " in line
    assert " (4 layers; 50 MiB free); " in line


def test_layers_that_llama_cpp_leaves_on_the_host_are_told(
    gguf: Path, native_log: NativeLog, caplog: pytest.LogCaptureFixture
) -> None:
    """As it does without a word where it finds no device."""
    with Model(gguf, _config(), native_log, lambda _fraction: True, offload=Offload(3)):
        pass

    assert "llama.cpp has put 0 layers on GPUs, where 3 were asked for" in caplog.messages


def test_layers_without_a_gpu_are_not_asked_of_llama_cpp(
    gguf: Path, native_log: NativeLog, caplog: pytest.LogCaptureFixture
) -> None:
    config = _config(n_gpu_layers="3")

    assert plan_start(gguf, config, kv_plan(config), native_log).offload == Offload(0)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "--n-gpu-layers 3 has no effect: this llama.cpp was built without GPU support (docs/gpu.md)"
    ]


def test_card_that_is_too_small_ends_the_start_in_one_line(
    gguf: Path, native_log: NativeLog, caplog: pytest.LogCaptureFixture
) -> None:
    cards = _cards(0.5)
    with (
        pytest.raises(StartError, match=r"not enough memory for the model .*Lower --n-gpu-layers"),
        _loaded(gguf, native_log, cards, n_gpu_layers="all"),
    ):
        pass

    assert "GPU memory may run out: about " in caplog.text
    assert " are needed on Fake0 and 512 KiB are free" in caplog.text


def test_card_that_is_too_small_for_the_context_ends_the_start_in_one_line(
    gguf: Path, native_log: NativeLog
) -> None:
    with (
        pytest.raises(StartError, match=r"^not enough memory: .*--n-gpu-layers"),
        _loaded(gguf, native_log, _cards(3.5), n_gpu_layers="all"),
    ):
        pass


def test_damaged_file_is_left_to_the_load(tmp_path: Path, native_log: NativeLog) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    config = _config(n_gpu_layers="auto")

    with fake_gpus(_cards(100)):
        assert plan_start(damaged, config, kv_plan(config), native_log).offload == Offload(0)


def test_all_layers_on_a_build_for_cpus_are_refused_before_the_load(
    gguf: Path, native_log: NativeLog
) -> None:
    config = _config(n_gpu_layers="all")

    with pytest.raises(ConfigError, match=r"^--n-gpu-layers all: this llama\.cpp was built with"):
        plan_start(gguf, config, kv_plan(config), native_log)
