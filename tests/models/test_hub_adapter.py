"""Adapters of the hub, chosen by name, pattern or quantization."""

from collections.abc import Callable, Mapping

import pytest
from fakes.adapters import EMPTY_GGUF
from fakes.hub import FakeHub

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.models.adapters import AdapterSources
from tgi_llama.models.hub import Hub
from tgi_llama.models.hub_adapter import fetch_from
from tgi_llama.options.lora import HubSource

MakeHub = Callable[..., Hub]
ONE = {"adapter.gguf": EMPTY_GGUF, "README.md": b"a"}
SEVERAL = {
    "a-Q8_0.gguf": EMPTY_GGUF + b"8",
    "a-F16.gguf": EMPTY_GGUF + b"16",
    "more/b.gguf": EMPTY_GGUF + b"b",
}


@pytest.fixture
def fetch(fake_hub: FakeHub, make_hub: MakeHub) -> Callable[..., bytes]:
    """The bytes of the file that an entry leads to."""

    def fetched(files: Mapping[str, bytes], entry: str, *, revision: str = "main") -> bytes:
        fake_hub.add("owner/name", files, revision=revision)
        hub = make_hub(option="--lora-adapters x")
        config = Config(lora_adapters=(f"x={entry}",))
        sources = AdapterSources.of(config, lambda source, _place: fetch_from(hub, source))
        (found,) = sources.first()
        assert found.root == "owner/name"
        return found.path.read_bytes()

    return fetched


def test_fetch_takes_the_only_one(fetch: Callable[..., bytes], fake_hub: FakeHub) -> None:
    assert fetch(ONE, "owner/name") == EMPTY_GGUF
    assert not any("README" in seen.path for seen in fake_hub.seen)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("a-F16.gguf", "a-F16.gguf"),
        ("F16", "a-F16.gguf"),
        ("q8_0", "a-Q8_0.gguf"),
        ("*q8*", "a-Q8_0.gguf"),
        ("b.gguf", "more/b.gguf"),
        ("more/b.gguf", "more/b.gguf"),
    ],
)
def test_fetch_takes_what_is_named(fetch: Callable[..., bytes], wanted: str, name: str) -> None:
    assert fetch(SEVERAL, f"owner/name:{wanted}") == SEVERAL[name]


def test_fetch_takes_the_revision(fetch: Callable[..., bytes]) -> None:
    assert fetch(ONE, "owner/name@v1", revision="v1") == EMPTY_GGUF


@pytest.mark.parametrize(
    ("files", "entry", "told"),
    [
        (SEVERAL, "owner/name", "several GGUF files: a-F16.gguf (26 bytes), a-Q8_0.gguf"),
        (
            SEVERAL,
            "owner/name:a-*",
            "several GGUF files: a-F16.gguf (26 bytes), a-Q8_0.gguf (25 bytes);",
        ),
        (SEVERAL, "owner/name:Q4_0", "'owner/name' has no GGUF file 'Q4_0': a-F16.gguf"),
        ({"a.txt": b"a"}, "owner/name", "'owner/name' has no GGUF file"),
        ({"adapter_config.json": b"{}"}, "owner/name", "(hf download owner/name) and make one"),
    ],
)
def test_fetch_that_cannot_choose_says_what_there_is(
    fetch: Callable[..., bytes], files: Mapping[str, bytes], entry: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch(files, entry)
    assert str(caught.value).startswith("--lora-adapters x: ")
    assert told in str(caught.value)


def test_fetch_of_a_repository_that_there_is_not_names_the_option(make_hub: MakeHub) -> None:
    source = HubSource(repo_id="owner/none", file=None, revision=None)
    with pytest.raises(ConfigError, match=r"--lora-adapters x: .*owner/none"):
        fetch_from(make_hub(option="--lora-adapters x"), source)
