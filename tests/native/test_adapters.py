"""LoRA adapters on real models. What they do is held to models whose weights numpy has merged."""

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from fakes.adapter_files import Pair, random_pairs, read_matrices, write_adapter, write_merged
from fakes.memory_walk import EXACT, Walk
from fakes.native import Load, Loaded
from fakes.native_play import NativePlay, native_request, play, prompts
from fakes.tiny_models import write_tiny_model

from tgi_llama.engine.assembly import EngineOptions
from tgi_llama.engine.model_runner import Batch, Logits, Run, SlotId
from tgi_llama.errors import AdapterError, DecodeAborted, InvalidBatch
from tgi_llama.generation import AdapterFacts, AdapterId, GenerationRequest

A, B, C = AdapterId(1), AdapterId(2), AdapterId(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def plain(gguf: Path, folder: Path) -> Path:
    """The built-in model in float32."""
    return write_merged(gguf, folder / "plain.gguf", {})


@pytest.fixture(scope="module")
def pairs(gguf: Path) -> dict[AdapterId, dict[str, Pair]]:
    return {adapter: random_pairs(gguf, seed=adapter) for adapter in (A, B)}


@pytest.fixture(scope="module")
def files(folder: Path, pairs: dict[AdapterId, dict[str, Pair]]) -> dict[AdapterId, Path]:
    return {each: write_adapter(folder / f"{each}.gguf", pairs[each]) for each in pairs}


@pytest.fixture(scope="module")
def model(load: Load, plain: Path) -> Iterator[Loaded]:
    with load(plain, **EXACT) as loaded:
        yield loaded


@pytest.fixture
def loaded(model: Loaded, files: dict[AdapterId, Path]) -> Iterator[Loaded]:
    """With both adapters."""
    for adapter, path in files.items():
        model.runner.load_adapter(adapter, path, scale=1.0)
    yield model
    for adapter in files:
        model.runner.free_adapter(adapter)
    for slot in range(model.plan.n_slots):
        model.runner.clear(SlotId(slot))


TOKENS = (5, 60, 7, 300, 9, 1200, 11, 12)


def logits_with(
    loaded: Loaded, adapter: AdapterId | None, *, slot: int = 0, tokens: tuple[int, ...] = TOKENS
) -> Logits:
    """A copy of the row after the tokens, in a slot that is empty before and after."""
    loaded.runner.clear(SlotId(slot))
    run = Run(SlotId(slot), 0, len(tokens), n_outputs=1)
    loaded.runner.decode(Batch(np.array(tokens, np.int32), (run,), adapter))
    row = loaded.runner.logits(len(tokens) - 1).copy()
    loaded.runner.clear(SlotId(slot))
    return row


def requests_of(
    loaded: Loaded, adapter: AdapterId | None, *, n: int = 4
) -> list[GenerationRequest]:
    return [
        native_request(loaded, prompt, adapter=adapter, n_top_tokens=2, max_new_tokens=32)
        for prompt in prompts(n)
    ]


def tokens_of(loaded: Loaded, requests: list[GenerationRequest]) -> list[list[int]]:
    """One after the other."""
    return [[e.token.id for e in play(loaded, [[each]]).events[0]] for each in requests]


# What they do


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_output_is_that_of_a_model_with_merged_weights(
    load: Load, plain: Path, folder: Path, pairs: dict[AdapterId, dict[str, Pair]], scale: float
) -> None:
    merged = write_merged(plain, folder / f"merged{scale}.gguf", pairs[A], scale=scale)
    path = write_adapter(folder / f"of{scale}.gguf", pairs[A])
    with load(merged, **EXACT) as loaded:
        expected = tokens_of(loaded, requests_of(loaded, None))
        row = logits_with(loaded, None)
    with load(plain, **EXACT) as loaded:
        plain_tokens = tokens_of(loaded, requests_of(loaded, None))
        loaded.runner.load_adapter(A, path, scale=scale)
        native = NativePlay(loaded)
        native.load(B, path, scale=scale)
        native.step()
        ids = native.submit(requests_of(loaded, B))
        native.run_until_idle()
        given = [[event.token.id for event in native.events[each]] for each in ids]
        assert np.abs(logits_with(loaded, A) - row).max() < 1e-3
    assert given == expected
    assert given != plain_tokens, "the adapter makes a difference"


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "mamba", "jamba", "lfm2"])
def test_logits_are_those_of_merged_weights_in_every_kind_of_memory(
    load: Load, folder: Path, name: str
) -> None:
    source = write_tiny_model(name, folder)
    plain = write_merged(source, folder / f"{name}-plain.gguf", {})
    pairs = random_pairs(plain, size=1.0)
    architecture = name.split("-")[0]
    path = write_adapter(folder / f"{name}-adapter.gguf", pairs, architecture=architecture)
    with load(write_merged(source, folder / f"{name}-merged.gguf", pairs), **EXACT) as loaded:
        expected = logits_with(loaded, None)
    with load(plain, **EXACT) as loaded:
        without = logits_with(loaded, None)
        loaded.runner.load_adapter(A, path, scale=1.0)
        assert np.abs(logits_with(loaded, A) - expected).max() < 1e-3
        assert np.abs(logits_with(loaded, None) - without).max() < 1e-4
        assert np.abs(expected - without).max() > 0.1


def test_token_embeddings_can_be_changed_where_the_output_has_its_own(
    load: Load, gguf: Path, folder: Path
) -> None:
    names = ["token_embd.weight", "blk.0.attn_q.weight"]
    plain = write_merged(gguf, folder / "untied.gguf", {}, untied=True)
    pairs = random_pairs(plain, names=names, size=1.0)
    path = write_adapter(folder / "embeddings.gguf", pairs)
    with load(write_merged(plain, folder / "merged.gguf", pairs), **EXACT) as loaded:
        expected = logits_with(loaded, None)
    with load(plain, **EXACT) as loaded:
        facts = loaded.runner.load_adapter(A, path, scale=1.0)
        assert facts.n_weights == 2
        assert np.abs(logits_with(loaded, A) - expected).max() < 1e-3


def test_output_matrix_can_be_changed(load: Load, gguf: Path, folder: Path) -> None:
    plain = write_merged(gguf, folder / "untied2.gguf", {}, untied=True)
    pairs = random_pairs(plain, names=["output.weight"], size=1.0)
    path = write_adapter(folder / "output.gguf", pairs)
    with load(write_merged(plain, folder / "merged2.gguf", pairs), **EXACT) as loaded:
        expected = logits_with(loaded, None)
    with load(plain, **EXACT) as loaded:
        loaded.runner.load_adapter(A, path, scale=1.0)
        assert np.abs(logits_with(loaded, A) - expected).max() < 1e-3


def test_facts_are_what_llama_cpp_allocates(loaded: Loaded, files: dict[AdapterId, Path]) -> None:
    facts = loaded.runner.load_adapter(C, files[A], scale=1.0)
    assert facts == AdapterFacts(n_bytes=facts.n_bytes, n_weights=42, rank=8)
    n_floats = sum(8 * sum(each.shape) for each in _changed_weights(loaded))
    assert facts.n_bytes == pytest.approx(4 * n_floats, rel=0.01)
    loaded.runner.free_adapter(C)


def _changed_weights(loaded: Loaded) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    matrices = read_matrices(loaded.model.path)
    return [matrices[name] for name in random_pairs(loaded.model.path)]


# Beside each other


def test_adapters_that_are_loaded_later_have_room_in_the_graph(
    model: Loaded, files: dict[AdapterId, Path]
) -> None:
    """llama.cpp ends the process where an operation finds none."""
    loaded = [AdapterId(number) for number in range(10, 30)]
    for adapter in loaded:
        model.runner.load_adapter(adapter, files[A], scale=1.0)
    rows = [logits_with(model, adapter) for adapter in loaded]
    assert all(np.array_equal(row, rows[0]) for row in rows)
    for adapter in loaded[1:]:
        model.runner.free_adapter(adapter)
    assert np.array_equal(logits_with(model, loaded[0]), rows[0])
    model.runner.free_adapter(loaded[0])


def test_change_there_and_back_gives_the_same_logits(loaded: Loaded) -> None:
    assert loaded.runner.switch_s >= 0
    first = [logits_with(loaded, adapter) for adapter in (None, A, B)]
    again = [logits_with(loaded, adapter) for adapter in (None, A, B)]
    assert np.array_equal(first, again)
    assert loaded.runner.switch_s > 0
    assert np.abs(first[0] - first[1]).max() > 0.1
    assert np.abs(first[1] - first[2]).max() > 0.1


def test_adapter_that_is_freed_while_it_is_in_use_leaves_the_model_alone(
    model: Loaded, files: dict[AdapterId, Path]
) -> None:
    without = logits_with(model, None)
    model.runner.load_adapter(C, files[A], scale=1.0)
    logits_with(model, C)
    model.runner.free_adapter(C)
    with pytest.raises(InvalidBatch, match="not loaded"):
        logits_with(model, C)
    model.runner._context.switch_s = -1.0
    assert np.array_equal(logits_with(model, None), without)
    assert model.runner.switch_s > 0, "llama.cpp makes its graphs anew, and it is measured"


def test_abort_of_a_decode_that_changes_adapters_leaves_everything_in_order(
    loaded: Loaded,
) -> None:
    expected = logits_with(loaded, A)
    logits_with(loaded, None)
    loaded.runner.abort()
    with pytest.raises(DecodeAborted):
        logits_with(loaded, A)
    loaded.runner._context._abort_flag[0] = b"\x00"  # nobody else wants to go on after an abort
    assert np.array_equal(logits_with(loaded, A), expected)


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_requests_together_give_what_each_gives_alone(
    load: Load, plain: Path, files: dict[AdapterId, Path], layout: str
) -> None:
    """Twelve at a time for four slots, which begin alike, under two adapters and none."""
    with load(plain, kv_layout=layout, **EXACT) as loaded:
        options = EngineOptions(max_prefill_tokens=24, cache_ram_bytes=2**28)
        native = NativePlay(loaded, options)
        for adapter, path in files.items():
            native.load(adapter, path)
            native.step()
        requests = [request for adapter in (None, A, B) for request in requests_of(loaded, adapter)]
        alone = []
        for request in requests:
            (one,) = native.submit([request])
            native.run_until_idle()
            alone.append([event.token.id for event in native.events[one]])
        n_cached, native.n_switches = native.n_cached, 0
        ids = [one for request in requests for one in native.submit([request])]
        native.run_until_idle()
        given = [[event.token.id for event in native.events[each]] for each in ids]
        assert given == alone
        assert native.n_cached > n_cached, "the second time the prompts are known"
        assert native.n_switches >= 3


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "jamba"])
def test_cuts_copies_and_states_keep_what_each_slot_was_computed_with(
    load: Load, folder: Path, name: str, layout: str
) -> None:
    plain = write_merged(write_tiny_model(name, folder), folder / f"{name}-walk.gguf", {})
    paths = [
        write_adapter(folder / f"{name}-{seed}.gguf", pairs, architecture=name)
        for seed in (A, B)
        for pairs in [random_pairs(plain, seed=seed, size=1.0)]
    ]
    options = EXACT | {"max_physical_batch_total_tokens": 32}
    with (
        load(plain, kv_layout=layout, **options) as loaded,
        load(plain, **options, max_batch_size=1) as reference,
    ):
        for adapter, path in zip((A, B), paths, strict=True):
            for each in (loaded, reference):
                each.runner.load_adapter(adapter, path, scale=1.0)
        walk = Walk(loaded, reference, random.Random(3), 0.02, adapters=(None, A, B))
        for _ in range(120):
            walk.step()
    assert min(walk.counts[what] for what in ("copy", "restored")) > 2


def test_prompt_logprobs_are_those_of_merged_weights(
    load: Load, plain: Path, folder: Path, pairs: dict[AdapterId, dict[str, Pair]], loaded: Loaded
) -> None:
    def logprobs(one: Loaded, adapter: AdapterId | None) -> list[float]:
        native = NativePlay(one)
        if adapter is not None:
            native.load(adapter, folder / "1.gguf")
            native.step()
        request = native_request(
            one, prompts(1)[0], adapter=adapter, prompt_logprobs=True, max_new_tokens=1
        )
        (request_id,) = native.submit([request])
        native.run_until_idle()
        told = native.events[request_id][0].prompt_tokens
        return [token.logprob for token in told if token.logprob is not None]

    with load(write_merged(plain, folder / "m.gguf", pairs[A]), **EXACT) as merged:
        expected = logprobs(merged, None)
    given = logprobs(loaded, C)
    loaded.runner.free_adapter(C)
    assert len(given) > 10
    assert np.allclose(given, expected, atol=1e-4)


def test_adapters_come_and_go_under_load(
    load: Load, plain: Path, files: dict[AdapterId, Path]
) -> None:
    with load(plain, **EXACT) as loaded:
        native = NativePlay(loaded)
        native.load(A, files[A])
        native.step()
        expected: dict[AdapterId | None, list[list[int]]] = {}
        for adapter in (None, A):
            ids = native.submit(requests_of(loaded, adapter))
            native.run_until_idle()
            expected[adapter] = [[e.token.id for e in native.events[each]] for each in ids]
        number = A
        for _ in range(5):
            requests = [*requests_of(loaded, None), *requests_of(loaded, number)]
            ids = [one for request in requests for one in native.submit([request])]
            for _ in range(6):
                native.step()
            native.unload(number)
            number = AdapterId(number + 1)
            native.load(number, files[A])
            native.run_until_idle()
            given = [[e.token.id for e in native.events[each]] for each in ids]
            assert given == expected[None] + expected[A]
            assert -number in native.answers, "the one before is unloaded"
        native.unload(number)
        native.step()


# Files


def _broken(name: str) -> "Callable[[Path, Path, Mapping[str, Pair]], Path]":
    """What writes one of the wrong files into a folder."""
    first = "blk.0.attn_q.weight"

    def write(folder: Path, gguf: Path, pairs: Mapping[str, Pair]) -> Path:
        path = folder / f"{name}.gguf"
        a, b = pairs[first].a, pairs[first].b
        if name == "missing":
            return path
        if name == "a folder":
            return folder
        if name == "a model":
            return gguf
        if name == "text":
            path.write_text("GGUFnot at all")
        elif name == "cut short":
            whole = write_adapter(folder / "whole.gguf", pairs).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        elif name in _METADATA:
            key, value = _METADATA[name]
            write_adapter(path, pairs, metadata={key: value})
        elif name == "another architecture":
            write_adapter(path, pairs, architecture="qwen2")
        elif name == "tied embeddings":
            embeddings = random_pairs(gguf, names=["token_embd.weight"])
            write_adapter(path, {**pairs, **embeddings})
        else:
            replaced = {
                "another size": {f"{first}.lora_a": a[:, :-32].copy()},
                "other ranks": {f"{first}.lora_a": a[:4].copy()},
                "half missing": {f"{first}.lora_b": None},
                "unknown weight": {
                    "blk.99.attn_q.weight.lora_a": a,
                    "blk.99.attn_q.weight.lora_b": b,
                },
                "odd tensor": {"something": a},
                "integers": {f"{first}.lora_a": a.astype(np.int32)},
                "three dimensions": {f"{first}.lora_a": np.stack([a, a])},
                "no pairs": dict.fromkeys(f"{n}.lora_{x}" for n in pairs for x in "ab"),
            }[name]
            write_adapter(path, pairs, replaced=replaced)
        return path

    return write


_METADATA: dict[str, tuple[str, object]] = {
    "another kind": ("general.type", "model"),
    "number for a kind": ("general.type", 3),
    "another type": ("adapter.type", "ia3"),
    "alpha in words": ("adapter.lora.alpha", "eight"),
    "invocation tokens": ("adapter.alora.invocation_tokens", [1, 2, 3]),
}

_WRONG = {
    "missing": "not a file",
    "a folder": "not a file",
    "a model": "not an adapter",
    "text": "GGUF",
    "cut short": "within the file bounds|complete GGUF",
    "another architecture": "arch mismatch",
    "another kind": "general.type",
    "number for a kind": "general.type has the wrong type",
    "another type": "adapter.type",
    "alpha in words": "alpha has the wrong type",
    "invocation tokens": "invocation tokens",
    "another size": "incorrect shape",
    "other ranks": "do not fit",
    "half missing": "missing one component",
    "unknown weight": "does not exist",
    "odd tensor": "unexpected suffix",
    "integers": "none of the types",
    "three dimensions": "do not fit",
    "no pairs": "not an adapter",
    "tied embeddings": "token embeddings",
}


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_file_is_refused_and_everything_is_as_it_was(
    model: Loaded,
    gguf: Path,
    tmp_path: Path,
    pairs: dict[AdapterId, dict[str, Pair]],
    files: dict[AdapterId, Path],
    name: str,
) -> None:
    before = logits_with(model, None)
    path = _broken(name)(tmp_path, gguf, pairs[A])
    with pytest.raises(AdapterError, match=_WRONG[name]):
        model.runner.load_adapter(C, path, scale=1.0)
    with pytest.raises(InvalidBatch):
        logits_with(model, C)
    assert np.array_equal(logits_with(model, None), before)
    model.runner.load_adapter(C, files[A], scale=1.0)
    logits_with(model, C)
    model.runner.free_adapter(C)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e39])
def test_scale_must_be_a_number(model: Loaded, files: dict[AdapterId, Path], scale: float) -> None:
    with pytest.raises(AdapterError, match="finite"):
        model.runner.load_adapter(C, files[A], scale=scale)


def test_adapter_for_which_there_is_no_memory_is_refused(
    model: Loaded, files: dict[AdapterId, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tgi_llama.llama.adapters.available_bytes", lambda: 1000)
    with pytest.raises(AdapterError, match="1000 can be had"):
        model.runner.load_adapter(C, files[A], scale=1.0)
