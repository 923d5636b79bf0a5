"""``resolve_model`` with a model of the hub: what is chosen, and that nothing else is fetched. The
files have a GGUF header and nothing else."""

import struct
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.hub import FakeHub
from huggingface_hub import constants

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.models import conversion, converter, hub
from tgi_llama.models.files import ModelFiles, resolve_model

GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
SIDE_FILES = {
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "chat_template.jinja": b"",
    "additional_chat_templates/tool_use.jinja": b"",
    "config.json": b"{}",
    "generation_config.json": b"{}",
}
OTHERS = {
    "README.md": b"words",
    ".gitattributes": b"",
    "mmproj-F16.gguf": GGUF,
    "imatrix.dat": b"",
    "other/tokenizer.json": b"{}",
    "original/config.json": b"{}",
}
WEIGHTS = {
    "model-00001-of-00002.safetensors": b"1",
    "model-00002-of-00002.safetensors": b"2",
    "model.safetensors.index.json": b"{}",
    "consolidated.safetensors": b"12",
    "tokenizer.model": b"",
    "merges.txt": b"",
    "modeling_own.py": b"",
}


@pytest.fixture(autouse=True)
def environment(
    fake_hub: FakeHub, tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> types.SimpleNamespace:
    """What huggingface_hub read from the environment when it was imported, as ``hub`` sees it."""
    assert not pauses  # which keeps everybody from waiting
    values = types.SimpleNamespace(
        ENDPOINT=fake_hub.url,
        HF_HUB_CACHE=str(tmp_path / "hub"),
        HF_HUB_OFFLINE=False,
        HF_HUB_ETAG_TIMEOUT=10,
    )
    monkeypatch.setattr(hub, "constants", values)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return values


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    def make(**given: object) -> Config:
        return Config(**({"model_cache": tmp_path / "models"} | given))  # type: ignore[arg-type]

    return make


def _files_in(folder: Path | None) -> set[str]:
    assert folder is not None
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# A GGUF file of the hub


def test_only_the_needed_files_are_fetched(
    fake_hub: FakeHub, config: Callable[..., Config]
) -> None:
    commit = fake_hub.add("org/name", SIDE_FILES | OTHERS | WEIGHTS | {"a-Q4_0.gguf": GGUF})

    found = resolve_model(config(model_id="org/name"))

    assert found.tokenizer_folder is not None
    assert found.tokenizer_folder.name == commit
    assert found == ModelFiles(
        gguf=found.tokenizer_folder / "a-Q4_0.gguf",
        tokenizer_folder=found.tokenizer_folder,
        model_id="org/name",
        commit=commit,
    )
    assert _files_in(found.tokenizer_folder) == {"a-Q4_0.gguf", *SIDE_FILES}


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"model_id": "org/name:q8_0"}, {"q8/a-Q8_0-00001-of-00002.gguf"}),
        ({"model_gguf": "*q4_0*"}, {"a-Q4_0.gguf"}),
        ({"model_gguf": "a-F16.gguf"}, {"a-F16.gguf"}),
        ({"model_gguf": "q8/a-Q8_0-00002-of-00002.gguf"}, {"q8/a-Q8_0-00001-of-00002.gguf"}),
    ],
)
def test_one_of_several_is_chosen_with_all_its_parts(
    fake_hub: FakeHub, config: Callable[..., Config], given: dict[str, str], chosen: set[str]
) -> None:
    parts = ("q8/a-Q8_0-00001-of-00002.gguf", "q8/a-Q8_0-00002-of-00002.gguf")
    models = dict.fromkeys(("a-Q4_0.gguf", "a-F16.gguf", *parts), GGUF)
    fake_hub.add("org/name", models)

    found = resolve_model(config(**({"model_id": "org/name"} | given)))

    assert found.model_id == "org/name"
    folder = found.tokenizer_folder
    assert folder is not None
    assert {found.gguf.relative_to(folder).as_posix()} == chosen
    expected = set(parts) if chosen & set(parts) else chosen
    assert _files_in(folder) == expected


def test_several_are_listed_and_none_is_fetched(
    fake_hub: FakeHub, config: Callable[..., Config]
) -> None:
    fake_hub.add("org/name", {"a-Q4_0.gguf": GGUF, "a-Q8_0.gguf": GGUF + bytes(10**6)})

    with pytest.raises(ConfigError) as caught:
        resolve_model(config(model_id="org/name"))

    assert "'org/name' has several GGUF files: a-Q4_0.gguf (24 bytes), a-Q8_0.gguf (1.0 MB)" in str(
        caught.value
    )
    assert not fake_hub.requests("cdn")


def test_quantization_and_name_contradict_each_other(
    fake_hub: FakeHub, config: Callable[..., Config]
) -> None:
    fake_hub.add("org/name", {"a-Q4_0.gguf": GGUF})

    with pytest.raises(ConfigError, match=r"^--model-id: org/name:Q4_0 and --model-gguf both"):
        resolve_model(config(model_id="org/name:Q4_0", model_gguf="*q4*"))


def test_revision_is_the_one_that_is_fetched(
    fake_hub: FakeHub, config: Callable[..., Config]
) -> None:
    fake_hub.add("org/name", {"old.gguf": GGUF}, revision="v1")
    fake_hub.add("org/name", {"new.gguf": GGUF})

    assert resolve_model(config(model_id="org/name", revision="v1")).gguf.name == "old.gguf"
    assert resolve_model(config(model_id="org/name")).gguf.name == "new.gguf"


def test_bad_file_of_the_hub_is_told(fake_hub: FakeHub, config: Callable[..., Config]) -> None:
    fake_hub.add("org/name", {"a.gguf": b"version https://git-lfs.github.com/spec/v1"})

    with pytest.raises(ConfigError, match=r"^--model-id: .*does not start with the letters GGUF$"):
        resolve_model(config(model_id="org/name"))


def test_cache_with_one_of_several_serves_it_offline(
    fake_hub: FakeHub, config: Callable[..., Config], environment: types.SimpleNamespace
) -> None:
    fake_hub.add("org/name", {"a-Q4_0.gguf": GGUF, "a-Q8_0.gguf": GGUF, **SIDE_FILES})
    online = resolve_model(config(model_id="org/name:q8_0"))
    environment.HF_HUB_OFFLINE = True

    assert resolve_model(config(model_id="org/name")) == online


# A GGUF file of this machine, with the tokenizer of a hub model


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "here.gguf"
    file.write_bytes(GGUF)
    return file


def test_file_here_and_hub_model_fetches_the_small_files_only(
    fake_hub: FakeHub, config: Callable[..., Config], gguf: Path
) -> None:
    commit = fake_hub.add("org/name", SIDE_FILES | OTHERS | WEIGHTS)

    found = resolve_model(config(model_id="org/name", model_gguf=str(gguf)))

    assert (found.gguf, found.model_id, found.commit) == (gguf, "org/name", commit)
    assert _files_in(found.tokenizer_folder) == set(SIDE_FILES)


def _missing(_: FakeHub) -> None:
    pass


def _gated(fake_hub: FakeHub) -> None:
    fake_hub.add("org/name", SIDE_FILES, is_gated=True)


def _failing(fake_hub: FakeHub) -> None:
    fake_hub.fail("api", status=503, times=None)


def _broken(fake_hub: FakeHub) -> None:
    fake_hub.add("org/name", SIDE_FILES)
    fake_hub.fail("cdn", is_corrupt=True, times=None)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (_missing, "has no model 'org/name', or it is private"),
        (_gated, "'org/name' is gated: accept its conditions at"),
        (_failing, "does not work: HTTP status 503"),
        (_broken, "do not have the hash that the hub announced"),
    ],
)
def test_file_here_and_no_hub_warns_once_and_uses_the_files_own(
    fake_hub: FakeHub,
    config: Callable[..., Config],
    gguf: Path,
    state: Callable[[FakeHub], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state(fake_hub)

    found = resolve_model(config(model_id="org/name", model_gguf=str(gguf)))

    assert found == ModelFiles(gguf=gguf, tokenizer_folder=None, model_id="org/name")
    (warning,) = [each for each in caplog.messages if "are used" in each]
    assert reason in warning
    assert warning.endswith("; the tokenizer and the chat template of the GGUF file are used")


def test_file_here_and_offline_without_a_cache_warns(
    config: Callable[..., Config],
    gguf: Path,
    environment: types.SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment.HF_HUB_OFFLINE = True

    found = resolve_model(config(model_id="org/name", model_gguf=str(gguf)))

    assert found.tokenizer_folder is None
    assert len(caplog.messages) == 1
    assert "HF_HUB_OFFLINE is set" in caplog.messages[0]


def test_file_here_and_hub_model_in_the_cache_needs_no_hub(
    fake_hub: FakeHub, config: Callable[..., Config], gguf: Path, environment: types.SimpleNamespace
) -> None:
    fake_hub.add("org/name", SIDE_FILES)
    given = config(model_id="org/name", model_gguf=str(gguf))
    online = resolve_model(given)
    environment.HF_HUB_OFFLINE = True

    assert resolve_model(given) == online


# Safetensors


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What the folders held that were converted. Stands for llama.cpp's converter, which has tests
    of its own."""
    folders: list[set[str]] = []

    def convert(
        source: Path, key: conversion.ConversionKey, cache: Path, *_: object, **__: object
    ) -> Path:
        folders.append(_files_in(source))
        target = key.path(cache)
        target.parent.mkdir(parents=True)
        target.write_bytes(GGUF)
        return target

    monkeypatch.setattr(conversion, "convert", convert)
    monkeypatch.setattr(converter, "find_converter", lambda *_, **__: None)
    return folders


@pytest.mark.parametrize("trust_remote_code", [False, True])
def test_safetensors_are_fetched_and_converted(
    fake_hub: FakeHub,
    config: Callable[..., Config],
    converted: list[set[str]],
    tmp_path: Path,
    trust_remote_code: bool,
) -> None:
    commit = fake_hub.add("org/name", SIDE_FILES | OTHERS | WEIGHTS)
    del fake_hub.repositories["org/name"].commits[commit]["mmproj-F16.gguf"]

    found = resolve_model(config(model_id="org/name", trust_remote_code=trust_remote_code))

    assert found.gguf == tmp_path / "models" / "org" / "name" / commit / "q4_0.gguf"
    unneeded = {"consolidated.safetensors"} | (set() if trust_remote_code else {"modeling_own.py"})
    assert converted == [set(SIDE_FILES) | set(WEIGHTS) - unneeded]
    assert found.tokenizer_folder is not None
    assert found.tokenizer_folder.name == commit


@pytest.mark.usefixtures("converted")
def test_converted_model_is_used_again_without_its_safetensors(
    fake_hub: FakeHub, config: Callable[..., Config], tmp_path: Path
) -> None:
    commit = fake_hub.add("org/name", SIDE_FILES | WEIGHTS)
    file = tmp_path / "models" / "org" / "name" / commit / "q8_0.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(GGUF)

    found = resolve_model(config(model_id="org/name", quantize="q8_0"))

    assert found.gguf == file
    assert _files_in(found.tokenizer_folder) == set(SIDE_FILES)


def test_converter_is_looked_for_before_gigabytes_arrive(
    fake_hub: FakeHub, config: Callable[..., Config], tmp_path: Path
) -> None:
    fake_hub.add("org/name", SIDE_FILES | WEIGHTS)

    with pytest.raises(ConfigError, match="converter"):
        resolve_model(config(model_id="org/name", converter=tmp_path / "none"))
    assert not fake_hub.requests("cdn")


@pytest.mark.parametrize(
    "files", [OTHERS, SIDE_FILES, {"adapter_model.safetensors": b"", "adapter_config.json": b"{}"}]
)
def test_neither_gguf_nor_safetensors_raises(
    fake_hub: FakeHub, config: Callable[..., Config], files: dict[str, bytes]
) -> None:
    fake_hub.add("org/name", files)

    with pytest.raises(ConfigError, match=r"^--model-id: 'org/name' has neither a GGUF file nor a"):
        resolve_model(config(model_id="org/name"))
    assert not fake_hub.requests("cdn")


def test_name_that_is_not_there_is_never_made_by_conversion(
    fake_hub: FakeHub, config: Callable[..., Config]
) -> None:
    fake_hub.add("org/name", SIDE_FILES | WEIGHTS)

    for given in ({"model_gguf": "*q4*"}, {"model_id": "org/name:Q4_0"}):
        with pytest.raises(ConfigError, match="has no GGUF file"):
            resolve_model(config(**({"model_id": "org/name"} | given)))


def test_local_safetensors_are_converted(
    config: Callable[..., Config], converted: list[set[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(b"{}")

    found = resolve_model(config(model_id=str(folder)))

    assert converted == [{"config.json", "model.safetensors"}]
    assert found.gguf.parts[-3] == "local"
    assert found.tokenizer_folder == folder


def test_hub_that_cannot_be_reached_raises(
    config: Callable[..., Config], environment: types.SimpleNamespace
) -> None:
    environment.ENDPOINT = "http://127.0.0.1:9"

    with pytest.raises(StartError, match=r"cannot be fetched from http://127\.0\.0\.1:9: Conn"):
        resolve_model(config(model_id="org/name"))
