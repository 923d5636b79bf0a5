"""The image of ``Dockerfile_llamacpp``, built and run without a container engine. Needs root,
buildah and debootstrap, and compiles llama.cpp the first time: only with TEST_CONTAINER=1."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from container.image_build import Buildah, build, folder
from container.running_image import Container

_MODEL = Path(__file__).parents[2] / "tgi_llama" / "builtin" / "model"
_PAGE = (
    *("--model-id", "Qwen/Qwen2.5-3B-Instruct"),
    *("--model-gguf", "/models/qwen2.5-3b-instruct-q4_0.gguf"),
)
"""As the page that tgi_llama is made from has it."""

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
    image = build(buildah, {})
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


def test_converter_of_llama_cpp_runs(container: Container) -> None:
    (python,) = (
        value
        for name, _, value in (each.partition("=") for each in container.config["Env"])
        if name == "CONVERTER_PYTHON"
    )
    done = container.run(python, "/opt/llama.cpp/convert_hf_to_gguf.py", "--print-supported-models")
    assert done.returncode == 0
    assert "Qwen2ForCausalLM" in done.stdout + done.stderr
