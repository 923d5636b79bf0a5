"""The Kubernetes manifests of docs/deploy: valid, and true to the server."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tgi_llama import cli, lifecycle
from tgi_llama.config import Config, options

_FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
_KUBERNETES = _FOLDER / "kubernetes"
_WHOLE = ("cpu.yaml", "gpu.yaml", "token.yaml")
_DEPLOYMENTS = ("cpu.yaml", "gpu.yaml")
_MARGIN_S = 4
"""What a container may take to end beside what is reckoned with: freeing the model."""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options():
        for variable in option.variables:
            monkeypatch.delenv(variable, raising=False)


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((_KUBERNETES / name).read_text()))


def _of_kind(name: str, kind: str) -> dict[str, Any]:
    (found,) = (each for each in _documents(name) if each["kind"] == kind)
    return found


def _pod(deployment: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification and its only container."""
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def _validate(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def _configured(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Config:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return cli.config_from_environment()


@pytest.mark.parametrize("name", _WHOLE)
def test_manifest_is_valid(name: str) -> None:
    for document in _documents(name):
        _validate(document)


def test_validator_finds_what_is_wrong() -> None:
    deployment = _of_kind("cpu.yaml", "Deployment")
    _pod(deployment)[1]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(deployment)


def test_patch_for_locked_memory_makes_a_valid_deployment() -> None:
    (patch,) = _documents("mlock.yaml")
    deployment = _merged(_of_kind("cpu.yaml", "Deployment"), patch)
    _validate(deployment)
    spec, container = _pod(deployment)
    assert (spec["securityContext"]["runAsUser"], container["image"]) == (0, "tgi-llamacpp:latest")
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert {"name": "USE_MLOCK", "value": "true"} in container["env"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def _merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as the patch needs it: lists of named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        changed = {key: _merged(base.get(key), value) for key, value in patch.items()}
        return {**base, **changed}
    if isinstance(base, list) and all(isinstance(each, dict) for each in patch):
        by_name = {each["name"]: each for each in base}
        for each in patch:
            by_name[each["name"]] = _merged(by_name.get(each["name"]), each)
        return list(by_name.values())
    return patch


@pytest.mark.parametrize("name", _DEPLOYMENTS)
def test_variables_of_the_config_map_are_options(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = _of_kind(name, "ConfigMap")["data"]
    known = {variable for option in options() for variable in option.variables}
    assert set(data) <= known
    assert _configured(monkeypatch, data).model_id == data["MODEL_ID"]


@pytest.mark.parametrize("name", _DEPLOYMENTS)
def test_pod_has_the_time_that_the_server_takes_to_end(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = _configured(monkeypatch, _of_kind(name, "ConfigMap")["data"])
    spec, container = _pod(_of_kind(name, "Deployment"))
    (_, pre_stop_s) = container["lifecycle"]["preStop"]["exec"]["command"]
    needed = float(pre_stop_s) + _end_s(config)
    assert spec["terminationGracePeriodSeconds"] >= needed + _MARGIN_S


def _end_s(config: Config) -> float:
    return config.graceful_termination_timeout + lifecycle._LAST_WORDS_S


@pytest.mark.parametrize("name", _DEPLOYMENTS)
def test_live_probe_lets_a_server_drain_and_recover(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = _configured(monkeypatch, _of_kind(name, "ConfigMap")["data"])
    probe = _pod(_of_kind(name, "Deployment"))[1]["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > _end_s(config)


@pytest.mark.parametrize("name", _DEPLOYMENTS)
def test_probes_ask_for_health_at_the_servers_port(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = _configured(monkeypatch, _of_kind(name, "ConfigMap")["data"])
    container = _pod(_of_kind(name, "Deployment"))[1]
    assert [port["containerPort"] for port in container["ports"]] == [config.port]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


@pytest.mark.parametrize("name", _DEPLOYMENTS)
def test_names_that_refer_to_each_other_agree(name: str) -> None:
    deployment = _of_kind(name, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    spec, container = _pod(deployment)
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert _of_kind(name, "Service")["spec"]["selector"].items() <= labels.items()
    (claim,) = (each for each in spec["volumes"] if "persistentVolumeClaim" in each)
    claimed = _of_kind(name, "PersistentVolumeClaim")["metadata"]["name"]
    assert claim["persistentVolumeClaim"]["claimName"] == claimed
    map_name = _of_kind(name, "ConfigMap")["metadata"]["name"]
    assert container["envFrom"] == [{"configMapRef": {"name": map_name}}]
    secret = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert secret["name"] == _of_kind("token.yaml", "Secret")["metadata"]["name"]
    assert secret["key"] in _of_kind("token.yaml", "Secret")["stringData"]
