"""What clouds tell a container in their own words, translated into options.

These are defaults that the cloud gives: the command line and the options' own variables win. What a
cloud says that is an option here by the same name (``AIP_PREDICT_ROUTE``) needs no translation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError

SERVE = "serve"
"""The argument with which SageMaker starts a container."""

SAGEMAKER_PORT = "8080"

_SAGEMAKER_VARIABLES = {
    "SAGEMAKER_BIND_TO_PORT": "port",
    "HF_MODEL_ID": "model_id",
    "HF_MODEL_REVISION": "revision",
    "HF_MODEL_QUANTIZE": "quantize",
    "HF_MODEL_TRUST_REMOTE_CODE": "trust_remote_code",
}
_VERTEX_VARIABLES = {"AIP_HTTP_PORT": "port"}

_MODEL_VARIABLES = ("HF_MODEL_ID", "MODEL_ID", "MODEL_GGUF")
_MODEL_FLAGS = ("--model-id", "--model-gguf")


@attrs.frozen
class Told:
    """What the cloud says of one option."""

    value: str
    variable: str | None
    """Where it says so; None where it goes without saying."""


@attrs.frozen
class Start:
    """How the server is to be started."""

    arguments: tuple[str, ...]
    """The command line without what is only for the cloud."""
    told: Mapping[str, Told]
    """By the option's name."""


def read(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    sagemaker_model: Path = Path("/opt/ml/model"),
) -> Start:
    """Finds out who starts the server. Empty variables count as unset.

    SageMaker is known by ``serve``. Raises ConfigError where it names no model: an endpoint that
    answers with the built-in toy would be no help to anyone.
    """
    told = _translated(environment, _VERTEX_VARIABLES)
    if list(arguments[:1]) != [SERVE]:
        return Start(tuple(arguments), told)
    rest = tuple(arguments[1:])
    told = {"port": Told(SAGEMAKER_PORT, None)}
    told |= _translated(environment, _SAGEMAKER_VARIABLES)
    if not _names_model(rest, environment):
        if not _has_files(sagemaker_model):
            raise ConfigError(
                f"{SERVE}: HF_MODEL_ID must be set, or model files be in {str(sagemaker_model)!r}"
            )
        told["model_id"] = Told(str(sagemaker_model), None)
    return Start(rest, told)


def _translated(environment: Mapping[str, str], options: Mapping[str, str]) -> dict[str, Told]:
    return {
        option: Told(environment[variable], variable)
        for variable, option in options.items()
        if environment.get(variable)
    }


def _names_model(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    if any(environment.get(variable) for variable in _MODEL_VARIABLES):
        return True
    return any(argument.partition("=")[0] in _MODEL_FLAGS for argument in arguments)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
