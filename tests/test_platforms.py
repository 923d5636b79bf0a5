"""What clouds say, and how much it counts beside the command line and the options' variables."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tgi_llama import cli, platforms
from tgi_llama.config import Config, options
from tgi_llama.errors import ConfigError

_CLOUD_VARIABLES = (
    "SAGEMAKER_BIND_TO_PORT",
    "HF_MODEL_ID",
    "HF_MODEL_REVISION",
    "HF_MODEL_QUANTIZE",
    "HF_MODEL_TRUST_REMOTE_CODE",
    "AIP_HTTP_PORT",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [variable for option in options() for variable in option.variables]
    for variable in (*ours, *_CLOUD_VARIABLES):
        monkeypatch.delenv(variable, raising=False)


def _values(start: platforms.Start) -> Mapping[str, str]:
    return {name: told.value for name, told in start.told.items()}


def _parse(*arguments: str) -> Config:
    config = cli.parse(arguments)
    assert config is not None
    return config


def test_read_outside_of_clouds_changes_nothing() -> None:
    start = platforms.read(["--port", "1"], {"HF_MODEL_ID": "org/name"})

    assert start.arguments == ("--port", "1")
    assert _values(start) == {}


def test_read_serve_is_sagemaker() -> None:
    environment = {
        "HF_MODEL_ID": "org/name",
        "HF_MODEL_REVISION": "abc",
        "HF_MODEL_QUANTIZE": "q8_0",
        "HF_MODEL_TRUST_REMOTE_CODE": "true",
        "SM_NUM_GPUS": "4",
        "AIP_HTTP_PORT": "7",
    }

    start = platforms.read(["serve", "--max-best-of", "3"], environment)

    assert start.arguments == ("--max-best-of", "3")
    assert _values(start) == {
        "port": "8080",
        "model_id": "org/name",
        "revision": "abc",
        "quantize": "q8_0",
        "trust_remote_code": "true",
    }


def test_read_serve_takes_the_port_that_sagemaker_names() -> None:
    environment = {"HF_MODEL_ID": "org/name", "SAGEMAKER_BIND_TO_PORT": "8181"}
    assert _values(platforms.read(["serve"], environment))["port"] == "8181"


def test_read_serve_without_a_name_takes_the_files_that_sagemaker_laid(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    start = platforms.read(["serve"], {"HF_MODEL_ID": ""}, sagemaker_model=tmp_path)
    assert _values(start) == {"port": "8080", "model_id": str(tmp_path)}


@pytest.mark.parametrize("exists", [True, False])
def test_read_serve_without_any_model_raises(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path if exists else tmp_path / "none"
    with pytest.raises(ConfigError, match=r"^serve: HF_MODEL_ID must be set"):
        platforms.read(["serve"], {}, sagemaker_model=folder)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--model-gguf", "a.gguf"], {}),
        (["--model-id=org/name"], {}),
        ([], {"MODEL_ID": "org/name"}),
        ([], {"MODEL_GGUF": "a.gguf"}),
    ],
)
def test_read_serve_with_a_model_of_our_own_options_needs_no_other(
    tmp_path: Path, arguments: list[str], environment: Mapping[str, str]
) -> None:
    (tmp_path / "model.gguf").touch()
    start = platforms.read(["serve", *arguments], environment, sagemaker_model=tmp_path)
    assert _values(start) == {"port": "8080"}


def test_parse_serve_is_the_configuration_of_sagemaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODEL_ID", "org/name")
    config = _parse("serve")
    assert (config.port, config.model_id) == (8080, "org/name")


def test_parse_what_the_cloud_says_counts_less_than_options_and_their_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_MODEL_ID", "org/cloud")
    monkeypatch.setenv("MODEL_ID", "org/variable")

    config = _parse("serve", "--port", "9")

    assert (config.port, config.model_id) == (9, "org/variable")


def test_parse_vertex_port_is_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "8085")
    assert _parse().port == 8085
    assert cli.config_from_environment().port == 8085


def test_parse_wrong_value_of_a_cloud_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "many")
    with pytest.raises(ConfigError, match=r"--port.*environment variable 'AIP_HTTP_PORT'.*many"):
        _parse()


def test_parse_vertex_routes_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/v1/endpoints/1/deployedModels/2:predict"
    monkeypatch.setenv("AIP_PREDICT_ROUTE", path)
    assert _parse("--aip-health-route", "/alive").aip_predict_route == path


@pytest.mark.parametrize("path", ["predict", "/a b", "/<name>", "/a?b", "/%41"])
def test_parse_vertex_route_that_is_no_path_raises(path: str) -> None:
    with pytest.raises(ConfigError, match="expected a path that begins with /"):
        _parse("--aip-predict-route", path)


def test_run_serve_without_a_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve"], serve=_serve_nothing) == 2
    assert capsys.readouterr().err.startswith("tgi-llama: error: serve: HF_MODEL_ID must be set")


def _serve_nothing(_config: Config) -> None:
    raise AssertionError("it must not get this far")
