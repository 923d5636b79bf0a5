"""What must hold between the options, told before anything is loaded."""

from collections.abc import Iterable
from typing import Protocol

from tgi_llama.errors import ConfigError

from .option import Option

_PLAIN_KV_TYPES = frozenset(("f32", "f16", "bf16"))


class _Checked(Protocol):
    """The options that are checked against each other: those of ``config.Config``."""

    @property
    def max_batch_size(self) -> int: ...
    @property
    def max_batch_total_tokens(self) -> int: ...
    @property
    def max_input_tokens(self) -> int: ...
    @property
    def max_total_tokens(self) -> int: ...
    @property
    def kv_layout(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def prometheus_port(self) -> int | None: ...
    @property
    def api_key(self) -> tuple[str, ...]: ...
    @property
    def admin_api_key(self) -> tuple[str, ...]: ...
    @property
    def type_v(self) -> str: ...
    @property
    def flash_attention(self) -> bool: ...
    @property
    def split_mode(self) -> str: ...
    @property
    def tensor_split(self) -> str | None: ...
    @property
    def split_proportions(self) -> tuple[float, ...]: ...


def check(config: _Checked, options: Iterable[Option]) -> None:
    """Raises ConfigError where the options contradict each other or one is out of its range."""
    _check_token_limits(config)
    _check_single_values(config, options)
    _check_ports(config)
    _check_keys(config)
    _check_flash_attention(config)
    _check_split(config)


def _check_token_limits(config: _Checked) -> None:
    """TGI's cross checks, in its order and with its texts."""
    n_wanted = config.max_batch_size * config.max_total_tokens
    if config.max_input_tokens >= config.max_total_tokens:
        raise ConfigError(
            "`max_input_tokens` must be < `max_total_tokens`"
            f" (--max-input-tokens {config.max_input_tokens},"
            f" --max-total-tokens {config.max_total_tokens})"
        )
    if config.max_total_tokens > config.max_batch_total_tokens:
        raise ConfigError(
            "`max_total_tokens` must be <= `max_batch_total_tokens`"
            f" (--max-total-tokens {config.max_total_tokens},"
            f" --max-batch-total-tokens {config.max_batch_total_tokens})"
        )
    if n_wanted > config.max_batch_total_tokens and config.kv_layout == "streams":
        raise ConfigError(
            "`max_batch_size` * `max_total_tokens` must be <= `max_batch_total_tokens`"
            f" (--max-batch-size {config.max_batch_size}, --max-total-tokens"
            f" {config.max_total_tokens}, --max-batch-total-tokens {config.max_batch_total_tokens})"
            " with --kv-layout streams"
        )


def _check_single_values(config: _Checked, options: Iterable[Option]) -> None:
    for option in options:
        value = getattr(config, option.name)
        if isinstance(value, (int, float)) and not option.allows(value):
            above = value > option.maximum
            limit = f"at most {option.maximum}" if above else f"at least {option.minimum}"
            raise ConfigError(f"{option.flag} must be {limit}. Given: {value}")
        if option.choices and value not in option.choices:
            choices = ", ".join(option.choices)
            raise ConfigError(f"{option.flag} must be one of {choices}. Given: {value!r}")


def _check_ports(config: _Checked) -> None:
    if config.prometheus_port and config.prometheus_port == config.port:
        raise ConfigError(
            f"--prometheus-port and --port must differ. Given: {config.port} for both"
        )


def _check_keys(config: _Checked) -> None:
    if not set(config.api_key).isdisjoint(config.admin_api_key):
        raise ConfigError(
            "--api-key and --admin-api-key have a key in common: whoever may generate could also"
            " change what is served"
        )


def _check_flash_attention(config: _Checked) -> None:
    """llama.cpp's own rule, told before the model is loaded."""
    if config.type_v not in _PLAIN_KV_TYPES and not config.flash_attention:
        raise ConfigError(
            f"--type-v {config.type_v} needs flash attention, which --disable-flash-attention"
            " turned off"
        )


def _check_split(config: _Checked) -> None:
    if config.split_proportions and config.split_mode.isdecimal():
        raise ConfigError(
            f"--tensor-split {config.tensor_split} shares a model out to several GPUs, and"
            f" --split-mode {config.split_mode} names one"
        )
