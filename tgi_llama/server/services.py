"""What the routes work with: ``lifecycle`` builds one ``Services`` for ``create_app``."""

from collections.abc import Callable
from time import perf_counter

import attrs

from tgi_llama.admission import Admission
from tgi_llama.generation import ModelDescription
from tgi_llama.metrics import Metrics
from tgi_llama.text.tokenizer import Tokenizer
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator

from .retry_after import RetryAdvice


@attrs.frozen(kw_only=True)
class Settings:
    """The part of the configuration that the HTTP side needs."""

    model_id: str
    """The name to report."""
    version: str
    limits: Limits
    max_concurrent_requests: int
    validation_workers: int
    payload_limit_bytes: int = 2_000_000
    api_keys: tuple[str, ...] = ()
    """Empty: nobody needs a key."""
    cors_allow_origins: tuple[str, ...] = ()
    """Empty: any origin."""
    compute_type: str = "cpu"
    """Value of ``x-compute-type``."""
    tool_format: str | None = None
    """The name of the model's turn format."""
    model_sha: str | None = None
    """The commit on the hub that the model's files are of."""
    docker_label: str | None = None
    """How the container image names its build, where there is one."""
    keep_alive_s: float = 15.0
    """A stream that is silent this long gets an SSE comment."""
    body_timeout_s: float = 60.0
    """How long a request body may take to arrive."""
    linger_s: float = 5.0
    """How long to read on after an answer that did not wait for the whole request body."""

    @property
    def system_fingerprint(self) -> str:
        return f"{self.version}-{self.docker_label or 'native'}"


@attrs.frozen(kw_only=True)
class Services:
    """Everything that a route may use."""

    settings: Settings
    admission: Admission
    validator: Validator
    tokenizer: Tokenizer
    metrics: Metrics
    model: ModelDescription
    is_healthy: Callable[[], bool]
    """Whether ``/health`` answers 200."""
    clock: Callable[[], float] = perf_counter
    """The engine's clock."""
    retry_advice: RetryAdvice = attrs.field(factory=RetryAdvice)
