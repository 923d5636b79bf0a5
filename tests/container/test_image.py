"""The image of ``Dockerfile_llamacpp``, built and run without a container engine. Needs root,
buildah and debootstrap, and compiles llama.cpp the first time: only with TEST_CONTAINER=1.
TEST_CONTAINER_IMAGE names an image to test that has been built already."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from container.image_build import IMAGE, REPOSITORY, Buildah, build, folder
from container.running_image import Container
from fakes.hub import TOKEN, FakeHub, running_hub

_MODEL = Path(__file__).parents[2] / "tgi_llama" / "builtin" / "model"
_PAGE = (
    *("--model-id", "Qwen/Qwen2.5-3B-Instruct"),
    *("--model-gguf", "/models/qwen2.5-3b-instruct-q4_0.gguf"),
)
"""As the page that tgi_llama is made from has it."""

_SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
_TRUTH = Path(__file__).parents[1] / "truth"
_TEXTS = Path(__file__).parents[2] / "docs"
_TOOLS = ("gcc", "g++", "cc", "c++", "clang", "ld", "as", "make", "cmake", "ninja", "git", "pip")
_BODY = {"inputs": "1, 2, 3, 4,", "parameters": {"max_new_tokens": 8}}

pytestmark = pytest.mark.skipif(
    os.environ.get("TEST_CONTAINER") != "1",
    reason="TEST_CONTAINER=1 builds the container image, which may take half an hour",
)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    buildah = Buildah(folder())
    buildah.folder.mkdir(parents=True, exist_ok=True)
    with _container_of(
        buildah, os.environ.get("TEST_CONTAINER_IMAGE") or build(buildah, {})
    ) as made:
        yield made


@contextlib.contextmanager
def _container_of(buildah: Buildah, image: str) -> Iterator[Container]:
    name = buildah.run("from", "--pull-never", image)
    # buildah 1.28 mounts a declared volume over the folder that is given for it; engines do not.
    buildah.run("config", "--volume=/models-", name)
    try:
        yield Container(buildah, name, buildah.config(image))
    finally:
        buildah.run("rm", name)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder as the page's user has it, with a model under the page's name."""
    made = tmp_path / "models"
    made.mkdir()
    shutil.copy(_MODEL / "model.gguf", made / "qwen2.5-3b-instruct-q4_0.gguf")
    for path in (*tmp_path.parents[:2], tmp_path, made):  # pytest's own are for their owner only
        path.chmod(0o755)
    made.chmod(0o777)
    return made


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


def test_configuration_is_what_engines_need(container: Container) -> None:
    config = container.config
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["tgi-llama"]
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == ["3000/tcp"]
    assert list(config["Volumes"]) == ["/models"]
    assert config["Healthcheck"]["Test"] == ["CMD", "tgi-llama", "health"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_environment_of_the_build_is_in_no_layer(container: Container) -> None:
    names = {variable.partition("=")[0] for variable in container.config["Env"]}
    assert not [name for name in names if name.startswith("PIP_")]
    configuration = container.root / "etc/pip.conf"  # buildah leaves the place of a mount behind
    assert not configuration.exists() or not configuration.read_bytes()
    assert not (container.root / "root/.cache").exists()


def test_there_is_nothing_to_build_with(container: Container) -> None:
    folders = [container.root / path for path in ("usr/bin", "usr/local/bin", "opt/tgi_llama/bin")]
    assert not [path for tool in _TOOLS for path in folders if (path / tool).exists()]


def test_commands_of_the_page_serve_its_model(
    container: Container, models: Path, port: int
) -> None:
    environment = {"PORT": str(port)}
    with container.serving(
        *_PAGE, port=port, volumes={models: "/models"}, environment=environment
    ) as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "\nUid:\t1000\t1000\t1000\t1000\n" in status
        info = httpx.get(f"{server.url}/info").json()
        assert info["model_id"] == "Qwen/Qwen2.5-3B-Instruct"
        answer = httpx.post(f"{server.url}/generate", json=_BODY, timeout=60)
        assert answer.json()["generated_text"].startswith(" 5, 6")
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"]
        command = container.config["Healthcheck"]["Test"][1:]
        assert container.run(*command, environment=environment).returncode == 0
    assert container.run(*command, environment=environment).returncode == 1


def test_signal_lets_a_running_stream_end(container: Container, models: Path, port: int) -> None:
    body = {"inputs": "1, 2, 3, 4,", "parameters": {"max_new_tokens": 800, "ignore_eos": True}}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            container.serving(*_PAGE, "--port", str(port), port=port, volumes={models: "/models"})
        )
        request = httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=60)
        lines = stack.enter_context(request).iter_lines()
        first = next(line for line in lines if line.startswith("data:"))
        server.terminate()
        last = [line for line in lines if line.startswith("data:")][-1]
        assert json.loads(first[5:])["generated_text"] is None
        assert json.loads(last[5:])["generated_text"]
        status, output = server.stopped()
    assert status == 0
    assert "SIGTERM received, starting graceful shutdown" in output


def test_any_user_can_run_it_and_read_models_that_cannot_be_written(
    container: Container, models: Path, port: int
) -> None:
    with container.serving(
        *_PAGE, "--port", str(port), port=port, user="1234:5678", volumes={models: "/models:ro"}
    ) as server:
        assert "\nUid:\t1234\t" in Path(f"/proc/{server.pid}/status").read_text()
        assert httpx.post(f"{server.url}/generate", json=_BODY, timeout=60).status_code == 200


def test_sagemaker_starts_it(container: Container, models: Path, port: int) -> None:
    environment = {"HF_MODEL_ID": "/opt/ml/model", "SAGEMAKER_BIND_TO_PORT": str(port)}
    with container.serving(
        "serve", port=port, volumes={models: "/opt/ml/model:ro"}, environment=environment
    ) as server:
        assert httpx.get(f"{server.url}/ping").status_code == 200
        answer = httpx.post(f"{server.url}/invocations", json=_BODY, timeout=60)
        assert answer.json()[0]["generated_text"]


def test_vertex_ai_starts_it(container: Container, models: Path, port: int) -> None:
    path = "/v1/endpoints/1/deployedModels/2"
    environment = {
        "AIP_HTTP_PORT": str(port),
        "AIP_PREDICT_ROUTE": f"{path}:predict",
        "AIP_HEALTH_ROUTE": path,
    }
    with container.serving(
        *_PAGE, port=port, volumes={models: "/models"}, environment=environment
    ) as server:
        assert httpx.get(server.url + path).status_code == 200
        body = {"instances": [{"inputs": "1, 2,"}]}
        answer = httpx.post(f"{server.url}{path}:predict", json=body, timeout=60)
        assert len(answer.json()["predictions"]) == 1


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """With the page's model, and the repository of its GGUF files."""
    with running_hub() as hub:
        files = {name: (_MODEL / name).read_bytes() for name in _SIDE_FILES}
        hub.add("Qwen/Qwen2.5-3B-Instruct", files | {"model.safetensors": b"3 B"}, is_gated=True)
        gguf = (_MODEL / "model.gguf").read_bytes()
        names = ("qwen2.5-3b-instruct-q4_0.gguf", "qwen2.5-3b-instruct-q8_0.gguf")
        hub.add("Qwen/Qwen2.5-3B-Instruct-GGUF", dict.fromkeys(names, gguf))
        yield hub


def test_walk_through_of_the_page_with_a_hub(
    container: Container, models: Path, port: int, hub: FakeHub
) -> None:
    """Its command, and the shorter one that also fetches the GGUF file; what is fetched stays."""
    told = {"PORT": str(port), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    place: dict[str, Any] = {"port": port, "volumes": {models: "/models"}, "environment": told}
    with container.serving(*_PAGE, **place) as server:
        assert httpx.post(f"{server.url}/generate", json=_BODY, timeout=60).status_code == 200
        server.terminate()
        _, output = server.stopped()
    assert " WARN " not in output
    fetched = {path.name for path in models.glob(".huggingface/hub/*/snapshots/*/*")}
    assert fetched == set(_SIDE_FILES)

    for is_fetched in (True, False):
        hub.seen.clear()
        with container.serving(
            "--model-id", "Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_0", **place
        ) as server:
            answer = httpx.post(f"{server.url}/generate", json=_BODY, timeout=60)
            assert answer.json()["generated_text"].startswith(" 5, 6")
        assert any(seen.path.endswith("q4_0.gguf") for seen in hub.seen) == is_fetched


def test_folder_that_cannot_be_written_takes_the_tokenizer_of_the_gguf_file(
    container: Container, models: Path, port: int, hub: FakeHub
) -> None:
    models.chmod(0o755)  # root's, and the server is 1000
    environment = {"PORT": str(port), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    with container.serving(
        *_PAGE, port=port, volumes={models: "/models"}, environment=environment
    ) as server:
        assert httpx.post(f"{server.url}/generate", json=_BODY, timeout=60).status_code == 200
        server.terminate()
        _, output = server.stopped()
    assert "cannot write '/models/.huggingface" in output


def test_model_in_safetensors_is_converted_and_says_what_transformers_says(
    container: Container, models: Path, port: int
) -> None:
    """Both of the image: transformers, which the converter needs, and llama.cpp."""
    volumes = {models: "/models", _TRUTH: "/truth:ro", _TEXTS: "/texts:ro"}
    done = container.run(
        *(_variable(container, "CONVERTER_PYTHON"), "/truth/reference.py"),
        *("/models/made", "/texts", "/texts", "llama"),
        volumes=volumes,
        environment={"PYTHONPATH": "/opt/llama.cpp/gguf-py"},
    )
    assert done.returncode == 0, done.stderr
    (expected, *_) = json.loads((models / "made/llama/expected.json").read_text())
    exact = ("--type-k", "f32", "--type-v", "f32", "--disable-flash-attention")
    with container.serving(
        *("--model-id", "/models/made/llama", "--quantize", "f32", "--port", str(port), *exact),
        port=port,
        volumes=volumes,
    ) as server:
        parameters = {"max_new_tokens": len(expected["answer"]), "details": True}
        body = {"inputs": expected["text"], "parameters": parameters}
        answer = httpx.post(f"{server.url}/generate", json=body, timeout=60).json()
    assert [token["id"] for token in answer["details"]["tokens"]] == expected["answer"]
    (kept,) = models.glob(".converted/**/*.gguf")
    assert kept.name == "f32.gguf"

    done = container.run(
        *("tgi-llama", "convert", "/models/made/llama", "--output", "/models/small.gguf"),
        volumes=volumes,
    )
    assert (done.returncode, done.stdout) == (0, "/models/small.gguf\n")
    done = container.run("tgi-llama", "inspect", "/models/small.gguf", volumes=volumes)
    assert "Q4_0" in done.stdout
    assert done.returncode == 0


def test_image_is_built_from_the_address_of_a_repository(
    container: Container, tmp_path: Path, port: int
) -> None:
    """As the page builds it, without a checkout; the repository is what is committed here."""
    if os.environ.get("TEST_CONTAINER_IMAGE"):
        pytest.skip("TEST_CONTAINER_IMAGE is given: nothing is built")
    git = ["git", "-c", "safe.directory=*"]
    subprocess.run([*git, "clone", "-q", "--bare", REPOSITORY, tmp_path / "repo.git"], check=True)
    serve = ["daemon", "--export-all", f"--base-path={tmp_path}", "--listen=127.0.0.1"]
    with subprocess.Popen([*git, *serve, f"--port={port}"], process_group=0) as daemon:
        try:
            while daemon.poll() is None and not _listens(port):
                time.sleep(0.1)  # it tells nobody when it is ready
            address = f"git://127.0.0.1:{port}/repo.git"
            made = build(container.buildah, {}, name=f"{IMAGE}-git", context=address)
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)
    assert container.buildah.config(made)["Entrypoint"] == ["tgi-llama"]


def _listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_image_without_the_converter_is_smaller_and_serves(
    container: Container, models: Path, port: int
) -> None:
    if os.environ.get("TEST_CONTAINER_IMAGE"):
        pytest.skip("TEST_CONTAINER_IMAGE is given: nothing is built")
    slim = build(container.buildah, {"with_converter": "OFF"}, name=f"{IMAGE}-slim")
    with _container_of(container.buildah, slim) as made:
        assert not (made.root / "opt/converter").exists()
        assert not _variable(made, "CONVERTER")
        with made.serving(
            *_PAGE, "--port", str(port), port=port, volumes={models: "/models:ro"}
        ) as server:
            assert httpx.post(f"{server.url}/generate", json=_BODY, timeout=60).status_code == 200


def _variable(container: Container, name: str) -> str:
    """Of the image's environment; empty where it has none of the name."""
    environment = dict(each.split("=", 1) for each in container.config["Env"])
    return environment.get(name, "")
