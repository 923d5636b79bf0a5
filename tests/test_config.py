"""Final values, cross checks, and the document that lists every option."""

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from tgi_llama.config import Config, options
from tgi_llama.cpus import n_available_cpus
from tgi_llama.errors import ConfigError
from tgi_llama.host_memory import available_at_start
from tgi_llama.options.option import Group, Option

_DOCUMENT = Path(__file__).parents[1] / "docs" / "options.md"
_BY_NAME = {option.name: option for option in options()}

# What TGI's command line has (contract, section 8.1 and 8.4), with our defaults.
_TGI_OPTIONS = {
    "model_id": "the built-in demo model",
    "revision": "main",
    "model_gguf": "the GGUF file of --model-id",
    "n_threads": "the CPUs this process may use",
    "n_threads_batch": "n-threads",
    "n_gpu_layers": "0",
    "split_mode": "layer",
    "defrag_threshold": "-1",
    "numa": "disabled",
    "use_mmap": "on",
    "use_mlock": "off",
    "offload_kqv": "on",
    "flash_attention": "on",
    "type_k": "f16",
    "type_v": "f16",
    "validation_workers": "2",
    "max_concurrent_requests": "128",
    "max_input_tokens": "1024",
    "max_total_tokens": "2048",
    "max_batch_total_tokens": "max-batch-size * max-total-tokens",
    "max_physical_batch_total_tokens": "512, at most max-batch-total-tokens",
    "max_batch_size": "n-threads-batch, at most 256",
    "hostname": "0.0.0.0",
    "port": "3000",
    "prometheus_port": "unset",
    "json_output": "off",
    "otlp_endpoint": "unset",
    "otlp_service_name": "text-generation-inference.router",
    "cors_allow_origin": "any",
    "tokenizer_config_path": "the one in the model's folder",
    "disable_grammar_support": "off",
    "max_client_batch_size": "32",
    "usage_stats": "off",
    "payload_limit": "2000000",
    "max_image_fetch_size": "1073741824",
    "api_key": "unset",
    "max_best_of": "2",
    "max_stop_sequences": "4",
    "max_top_n_tokens": "5",
    "max_batch_prefill_tokens": "max-physical-batch-total-tokens",
    "waiting_served_ratio": "1.2",
    "max_waiting_tokens": "20",
    "graceful_termination_timeout": "90",
    "enable_prefill_logprobs": "off",
    "log_level": "info",
}


def _config(given: Mapping[str, object]) -> Config:
    return Config(**given)  # type: ignore[arg-type]  # some values are wrong on purpose


@pytest.mark.parametrize("name", _TGI_OPTIONS)
def test_option_of_tgi_exists_with_the_documented_default(name: str) -> None:
    assert _BY_NAME[name].shown_default == _TGI_OPTIONS[name]


def test_variables_are_the_names_in_upper_case() -> None:
    for option in options():
        expected = () if option.name == "hostname" else (option.name.upper(),)
        assert option.variables[:1] == expected


def test_variables_of_an_alias_follow_the_preferred_one() -> None:
    assert _BY_NAME["max_input_tokens"].variables == ("MAX_INPUT_TOKENS", "MAX_INPUT_LENGTH")


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_option_description_is_complete(option: Option) -> None:
    assert option.help.endswith(".")
    assert (option.unit is None) == (option.kind is bool)
    assert (option.group is Group.NO_EFFECT) == (option.no_effect is not None)
    if option.kind in (int, float):
        assert option.minimum is not None


def test_config_without_arguments_has_final_values() -> None:
    config = Config()

    assert config.n_threads == n_available_cpus()
    assert config.n_threads_batch == config.n_threads
    assert config.max_batch_size == min(config.n_threads, 256)
    assert config.max_batch_total_tokens == config.max_batch_size * 2048
    assert config.max_physical_batch_total_tokens == 512
    assert (config.kv_layout, config.prometheus_port, config.api_key) == ("auto", None, ())


def test_config_derived_values_follow_what_is_given() -> None:
    config = Config(n_threads=3, max_total_tokens=3000)

    assert config.n_threads_batch == 3
    assert config.max_batch_size == 3
    assert config.max_batch_total_tokens == 9000


def test_config_prefill_tokens_follow_the_physical_batch_unless_given() -> None:
    given = Config(max_physical_batch_total_tokens=64)

    assert given.max_batch_prefill_tokens == 64
    assert attrs.evolve(given, max_batch_prefill_tokens=8).max_batch_prefill_tokens == 8


def test_config_cache_ram_default_is_left_open_until_the_models_needs_are_known() -> None:
    assert Config().cache_ram is None
    assert attrs.evolve(Config(), port=1).cache_ram is None


@pytest.mark.parametrize(
    ("given", "expected"), [("0", 0), ("512MiB", 512 * 2**20), ("100G", 100 * 2**30), (17, 17)]
)
def test_config_cache_ram_is_bytes(given: object, expected: int) -> None:
    config = _config({"cache_ram": given})

    assert config.cache_ram == expected
    assert attrs.evolve(config, port=1).cache_ram == expected


def test_config_cache_ram_percentage_is_of_the_available_memory() -> None:
    assert _config({"cache_ram": "10%"}).cache_ram == available_at_start() // 10


def test_config_zero_means_default_for_threads_and_batch_size() -> None:
    config = Config(n_threads=0, n_threads_batch=0, max_batch_size=0)

    assert config == Config()


def test_config_zero_concurrent_requests_stays_zero() -> None:
    assert Config(max_concurrent_requests=0).max_concurrent_requests == 0


def test_config_many_threads_batch_size_stops_at_the_limit_of_llama_cpp() -> None:
    assert Config(n_threads_batch=300).max_batch_size == 256


def test_config_physical_batch_never_exceeds_the_context() -> None:
    small = {"max_batch_size": 1, "max_input_tokens": 100, "max_total_tokens": 300}
    given = attrs.evolve(_config(small), max_physical_batch_total_tokens=4000)

    assert _config(small).max_physical_batch_total_tokens == 300
    assert given.max_physical_batch_total_tokens == 300


def test_config_changed_after_start_raises() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"max_input_tokens": 2048},
            "`max_input_tokens` must be < `max_total_tokens`"
            " (--max-input-tokens 2048, --max-total-tokens 2048)",
        ),
        (
            {"max_batch_total_tokens": 2047},
            "`max_total_tokens` must be <= `max_batch_total_tokens`"
            " (--max-total-tokens 2048, --max-batch-total-tokens 2047)",
        ),
        (
            {"max_batch_total_tokens": 8191, "max_batch_size": 4, "kv_layout": "streams"},
            "`max_batch_size` * `max_total_tokens` must be <= `max_batch_total_tokens`"
            " (--max-batch-size 4, --max-total-tokens 2048, --max-batch-total-tokens 8191)"
            " with --kv-layout streams",
        ),
        (  # the first failing check wins
            {"max_input_tokens": 4000, "max_batch_total_tokens": 10},
            "`max_input_tokens` must be < `max_total_tokens`"
            " (--max-input-tokens 4000, --max-total-tokens 2048)",
        ),
        (
            {"max_total_tokens": 2**31 - 1, "max_batch_size": 2},
            "--max-batch-total-tokens must be at most 2147483647. Given: 4294967294",
        ),
        ({"cache_ram": -1}, "--cache-ram must be at least 0. Given: -1"),
        ({"cache_ram": "101%"}, "--cache-ram must be at most 100%. Given: 101%"),
        (
            {"target_inter_token_latency": -0.5},
            "--target-inter-token-latency must be at least 0. Given: -0.5",
        ),
        ({"validation_workers": 0}, "--validation-workers must be at least 1. Given: 0"),
        (
            {"graceful_termination_timeout": float("nan")},
            "--graceful-termination-timeout must be at least 0. Given: nan",
        ),
        (
            {"numa": "no"},
            "--numa must be one of disabled, distribute, isolate, numactl, mirror. Given: 'no'",
        ),
        (
            {"port": 8000, "prometheus_port": 8000},
            "--prometheus-port and --port must differ. Given: 8000 for both",
        ),
    ],
)
def test_config_contradiction_raises(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _config(given)

    assert str(caught.value) == message


@pytest.mark.parametrize("layout", ["auto", "unified"])
def test_config_oversubscribed_context_is_allowed_unless_streams(layout: str) -> None:
    config = Config(max_batch_size=4, max_batch_total_tokens=4096, kv_layout=layout)

    assert config.max_batch_total_tokens == 4096


def test_config_free_ports_may_both_be_zero() -> None:
    config = Config(port=0, prometheus_port=0)

    assert (config.port, config.prometheus_port) == (0, 0)


def test_config_quantized_v_without_flash_attention_names_both_options() -> None:
    with pytest.raises(ConfigError, match=r"--type-v q8_0 .* --disable-flash-attention"):
        Config(type_v="q8_0", flash_attention=False)


@pytest.mark.parametrize("type_v", ["f32", "f16", "bf16"])
def test_config_plain_v_without_flash_attention_is_accepted(type_v: str) -> None:
    assert not Config(type_v=type_v, flash_attention=False).flash_attention


def test_config_chat_template_file_holds_its_text(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}", encoding="utf-8")

    assert Config(chat_template=str(file)).chat_template == "{{ messages }}"


def test_config_api_keys_of_option_and_file_are_joined(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("two\n\n three \n", encoding="utf-8")

    assert Config(api_key=("one",), api_key_file=file).api_key == ("one", "two", "three")


@pytest.mark.parametrize("key", ["clé", "x\ty", " x7", "x\x7f"])
def test_config_api_key_that_no_header_carries_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigError, match="--api-key") as caught:
        Config(api_key=(key,))
    assert key not in str(caught.value)


def test_config_repr_does_not_show_api_keys() -> None:
    assert "hunter2" not in repr(Config(api_key=("hunter2",)))


def test_warnings_nothing_given_is_empty() -> None:
    assert Config().warnings() == ()


def test_warnings_options_without_effect_say_why() -> None:
    config = Config(defrag_threshold=0.1, otlp_endpoint="http://127.0.0.1:4317")

    assert config.warnings() == (
        "--defrag-threshold has no effect: llama.cpp no longer defragments its KV memory",
        "--otlp-endpoint has no effect: this version sends no traces",
    )


def _table(group: Group) -> str:
    """The section of docs/options.md about one group."""
    rows = [_row(option) for option in options() if option.group is group]
    head = [
        f"## {group.value}",
        "",
        "| option | environment | value | default | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows, ""])


def _row(option: Option) -> str:
    off = [option.off_switch] if option.off_switch else []
    variables = [*option.variables, *([option.off_variable] if option.off_variable else [])]
    value = ", ".join(filter(None, (option.unit or "switch", option.shown_range)))
    reason = f" No effect: {option.no_effect}." if option.no_effect else ""
    cells = (
        ", ".join(f"`{flag}`" for flag in (option.flag, *option.aliases, *off)),
        ", ".join(f"`{variable}`" for variable in variables) or "none",
        value,
        option.shown_default.replace("*", "\\*"),
        option.help.replace("*", "\\*") + reason,
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("group", Group, ids=lambda group: group.name.lower())
def test_document_lists_every_option_as_described(group: Group) -> None:
    """To repair the document, put the expected text of this failure in place of the section."""
    assert _table(group) in _DOCUMENT.read_text(encoding="utf-8")


def test_document_lists_nothing_else() -> None:
    tables = _DOCUMENT.read_text(encoding="utf-8").split("## Where defaults differ")[0]

    assert tables.count("\n| `--") == len(options())
