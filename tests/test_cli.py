"""From arguments and environment to a configuration, and from failures to one line."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from tgi_llama import cli
from tgi_llama.config import Config, options
from tgi_llama.errors import ConfigError, EngineDead, StartError
from tgi_llama.options.option import Group

_ROOT = Path(__file__).parents[1]
_VARIABLES = tuple(
    variable
    for option in options()
    for variable in (*option.variables, option.off_variable)
    if variable
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*_VARIABLES, "HOSTNAME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("tgi_llama")
    before = (root.level, root.handlers, own.level)
    yield
    logging.captureWarnings(capture=False)
    root.level, root.handlers, own.level = before


def _parse(*arguments: str) -> Config:
    config = cli.parse(arguments)
    assert config is not None
    return config


def _python(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=_ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# Values


def test_parse_nothing_given_is_the_default_configuration() -> None:
    assert _parse() == Config()


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ("--model-id org/name", "model_id", "org/name"),
        ("--n-threads 3", "n_threads", 3),
        ("--n-gpu-layers -1", "n_gpu_layers", -1),
        ("--split-mode row", "split_mode", "row"),
        ("--split-mode 1", "split_mode", "1"),
        ("--numa distribute", "numa", "distribute"),
        ("--use-mmap", "use_mmap", True),
        ("--disable-mmap", "use_mmap", False),
        ("--use-mlock", "use_mlock", True),
        ("--offload-kqv", "offload_kqv", True),
        ("--disable-offload-kqv", "offload_kqv", False),
        ("--flash-attention", "flash_attention", True),
        ("--disable-flash-attention", "flash_attention", False),
        ("--type-k q8-0", "type_k", "q8_0"),
        ("--type-k q8_0", "type_k", "q8_0"),
        ("--type-v Q5_1", "type_v", "q5_1"),
        ("--kv-layout unified", "kv_layout", "unified"),
        ("--swa-full", "swa_full", True),
        ("--disable-swa-full", "swa_full", False),
        ("--cache-ram 0", "cache_ram", 0),
        ("--cache-ram 1.5GiB", "cache_ram", 3 * 2**29),
        ("--target-inter-token-latency 80", "target_inter_token_latency", 80.0),
        ("--max-input-length 7", "max_input_tokens", 7),
        ("--max-concurrent-requests 0", "max_concurrent_requests", 0),
        ("--hostname ::1", "hostname", "::1"),
        ("-p 8080", "port", 8080),
        ("--port 0", "port", 0),
        ("--prometheus-port 9000", "prometheus_port", 9000),
        ("--api-key a --api-key b", "api_key", ("a", "b")),
        ("--cors-allow-origin a --cors-allow-origin b", "cors_allow_origin", ("a", "b")),
        ("-g 1.5", "graceful_termination_timeout", 1.5),
        ("--chat-template {{x}}", "chat_template", "{{x}}"),
        ("--disable-grammar-support", "disable_grammar_support", True),
        ("--json-output", "json_output", True),
        ("--log-level DEBUG", "log_level", "DEBUG"),
        ("--log-level info,hypercorn=warn", "log_level", "info,hypercorn=warn"),
        ("--usage-stats no-stack", "usage_stats", "no-stack"),
        ("--usage-stats no_stack", "usage_stats", "no-stack"),
        ("--defrag-threshold -1.0", "defrag_threshold", -1.0),
    ],
)
def test_parse_option_sets_its_field(arguments: str, field: str, value: object) -> None:
    changed = {
        name: found
        for name, found in attrs.asdict(_parse(*arguments.split())).items()
        if found != getattr(Config(), name)
    }

    assert changed.pop(field, getattr(Config(), field)) == value
    assert set(changed) <= {"n_threads_batch", "max_batch_size", "max_batch_total_tokens"}


def test_parse_file_option_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_config.json"
    file.touch()

    assert _parse("--tokenizer-config-path", str(file)).tokenizer_config_path == file


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("MODEL_ID", "org/name", "model_id", "org/name"),
        ("PORT", "8080", "port", 8080),
        ("USE_MLOCK", "true", "use_mlock", True),
        ("USE_MLOCK", "false", "use_mlock", False),
        ("USE_MMAP", "false", "use_mmap", False),
        ("DISABLE_MMAP", "true", "use_mmap", False),
        ("DISABLE_MMAP", "false", "use_mmap", True),
        ("DISABLE_OFFLOAD_KQV", "true", "offload_kqv", False),
        ("DISABLE_FLASH_ATTENTION", "true", "flash_attention", False),
        ("SWA_FULL", "true", "swa_full", True),
        ("CACHE_RAM", "512MiB", "cache_ram", 2**29),
        ("TYPE_K", "q8-0", "type_k", "q8_0"),
        ("MAX_INPUT_TOKENS", "9", "max_input_tokens", 9),
        ("MAX_INPUT_LENGTH", "9", "max_input_tokens", 9),
        ("API_KEY", "one key", "api_key", ("one key",)),
        ("CORS_ALLOW_ORIGIN", "http://a", "cors_allow_origin", ("http://a",)),
        ("LOG_LEVEL", "warn", "log_level", "warn"),
        ("JSON_OUTPUT", "true", "json_output", True),
        ("GRACEFUL_TERMINATION_TIMEOUT", "5", "graceful_termination_timeout", 5.0),
        ("PORT", "", "port", 3000),
        ("DISABLE_MMAP", "", "use_mmap", True),
        ("HOSTNAME", "4f1c2d", "hostname", "0.0.0.0"),
    ],
)
def test_environment_sets_its_field_in_both_ways_of_starting(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)

    assert getattr(_parse(), field) == value
    assert cli.config_from_environment() == _parse()


@pytest.mark.parametrize(
    ("variable", "text", "arguments", "field", "value"),
    [
        ("PORT", "8080", "--port 9090", "port", 9090),
        ("PORT", "nonsense", "-p 9090", "port", 9090),
        ("API_KEY", "a", "--api-key b", "api_key", ("b",)),
        ("USE_MLOCK", "false", "--use-mlock", "use_mlock", True),
        ("DISABLE_MMAP", "true", "--use-mmap", "use_mmap", True),
        ("USE_MMAP", "true", "--disable-mmap", "use_mmap", False),
        ("MAX_INPUT_TOKENS", "9", "--max-input-length 8", "max_input_tokens", 8),
    ],
)
def test_command_line_wins_over_environment(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    text: str,
    arguments: str,
    field: str,
    value: object,
) -> None:
    monkeypatch.setenv(variable, text)

    assert getattr(_parse(*arguments.split()), field) == value


# Failures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "x"], "Invalid value for '--port' / '-p': 'x' is not a valid whole number."),
        (["--port", "65536"], "'--port' / '-p': 65536 is not in the range 0<=x<=65535."),
        (["--port"], "Option '--port' requires an argument."),
        (["--n-threads", "-1"], "'--n-threads': -1 is not in the range 0<=x<=512."),
        (["--max-best-of", "0"], "'--max-best-of': 0 is not in the range"),
        (["--validation-workers", "0"], "'--validation-workers': 0 is not in the range"),
        (["--max-batch-size", "257"], "'--max-batch-size': 257 is not in the range 0<=x<=256."),
        (["-g", "soon"], "'soon' is not a valid number."),
        (["-g", "nan"], "--graceful-termination-timeout must be at least 0. Given: nan"),
        (["-g", "inf"], "inf is not in the range"),
        (["--numa", "some"], "'--numa': 'some' is not one of 'disabled', 'distribute'"),
        (["--type-k", "q9_0"], "'--type-k': 'q9_0' is not one of 'f32', 'f16'"),
        (
            ["--split-mode", "col"],
            "'--split-mode': expected a GPU number or `layer` or `row`, got 'col'.",
        ),
        (["--cache-ram", "much"], "'--cache-ram': expected bytes (1500000, 512MiB, 2G) or a share"),
        (["--cache-ram", "-1"], "'--cache-ram': expected bytes"),
        (["--cache-ram", "200%"], "--cache-ram must be at most 100%. Given: 200%"),
        (["--target-inter-token-latency", "-1"], "-1.0 is not in the range"),
        (["--hostname", "a b"], "'--hostname': expected an address to listen on, got 'a b'."),
        (["--model-id", ""], "'--model-id': expected a text that is not empty, got ''."),
        (["--api-key", ""], "'--api-key': expected a text that is not empty."),
        (["--api-key-file", "/absent"], "'--api-key-file': File '/absent' does not exist."),
        (["--api-key-file", "/"], "'--api-key-file': File '/' is a directory."),
        (["--chat-template", "absent"], "--chat-template: cannot read the file 'absent'"),
        (["--no-such-option"], "No such option '--no-such-option'."),
        (["--use-mmap=true"], "Option '--use-mmap' does not take a value."),
        (["extra"], "Got unexpected extra argument (extra)"),
        (["--max-total-tokens", "10"], "`max_input_tokens` must be < `max_total_tokens`"),
    ],
)
def test_bad_argument_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cli.parse(arguments)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PORT", "x", "'--port' / '-p' (environment variable 'PORT'): 'x' is not a valid whole"),
        ("USE_MLOCK", "maybe", "variable 'USE_MLOCK'): expected true or false, got 'maybe'."),
        ("USE_MMAP", "maybe", "variable 'USE_MMAP'): expected true or false, got 'maybe'."),
        ("DISABLE_MMAP", "maybe", "variable 'DISABLE_MMAP': expected true or false, got 'maybe'."),
        ("NUMA", "some", "'--numa' (environment variable 'NUMA'): 'some' is not one of"),
        ("MAX_INPUT_LENGTH", "x", "(environment variable 'MAX_INPUT_LENGTH'): 'x' is not"),
        (
            "TOKENIZER_CONFIG_PATH",
            "/absent",
            "variable 'TOKENIZER_CONFIG_PATH'): File '/absent' does not exist.",
        ),
        ("CACHE_RAM", "x", "'--cache-ram' (environment variable 'CACHE_RAM'): expected bytes"),
        ("LOG_LEVEL", "loud", "'--log-level' (environment variable 'LOG_LEVEL'): expected a level"),
    ],
)
def test_bad_variable_is_named_in_both_ways_of_starting(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, message: str
) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(ConfigError) as caught:
        cli.parse([])
    with pytest.raises(ConfigError) as caught_without_arguments:
        cli.config_from_environment()

    assert message in str(caught.value)
    assert str(caught_without_arguments.value) == str(caught.value)


def test_contradicting_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_MMAP", "true")
    monkeypatch.setenv("DISABLE_MMAP", "true")

    with pytest.raises(ConfigError, match="'DISABLE_MMAP': it contradicts USE_MMAP"):
        cli.parse([])


def test_agreeing_variables_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_MMAP", "false")
    monkeypatch.setenv("DISABLE_MMAP", "true")

    assert _parse().use_mmap is False


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("--model-gguf: bad"), 2, "--model-gguf: bad"),
        (StartError("no memory\nfor it"), 1, "no memory for it"),
        (EngineDead("decode thread died"), 1, "decode thread died"),
        (OSError(98, "Address already in use"), 1, "[Errno 98] Address already in use"),
        (OSError(), 1, "OSError"),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [StartError("x")])]), 1, "x"),
    ],
)
@pytest.mark.usefixtures("_restored_logging")
def test_run_failure_is_one_line_and_a_status(
    capsys: pytest.CaptureFixture[str], error: Exception, status: int, line: str
) -> None:
    def serve(_config: Config) -> None:
        raise error

    assert cli.run([], serve=serve) == status
    assert capsys.readouterr().err == f"tgi-llama: error: {line}\n"


@pytest.mark.parametrize(
    "interrupt", [KeyboardInterrupt(), BaseExceptionGroup("nursery", [KeyboardInterrupt()])]
)
@pytest.mark.usefixtures("_restored_logging")
def test_run_interrupted_is_silent(
    capsys: pytest.CaptureFixture[str], interrupt: BaseException
) -> None:
    def serve(_config: Config) -> None:
        raise interrupt

    assert cli.run([], serve=serve) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_restored_logging")
def test_run_defect_of_ours_is_not_hidden() -> None:
    def serve(_config: Config) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run([], serve=serve)


@pytest.mark.usefixtures("_restored_logging")
def test_run_serves_the_configuration_and_logs_what_has_no_effect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    served: list[Config] = []

    assert cli.run(["--port", "0", "--defrag-threshold", "0.1"], serve=served.append) == 0
    assert served == [_parse("--port", "0", "--defrag-threshold", "0.1")]
    assert "WARN tgi_llama.cli: --defrag-threshold has no effect" in capsys.readouterr().out


# What is printed


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.parse(["--help"]) is None
    return capsys.readouterr().out


def test_help_lists_every_option_with_its_default_under_its_heading(help_text: str) -> None:
    for group in Group:
        section = help_text.split(f"\n{group.value}:\n")[1].split("\n\n")[0]
        words = " ".join(section.split())
        for option in (option for option in options() if option.group is group):
            for flag in filter(None, (option.flag, *option.aliases, option.off_switch)):
                assert flag in words
            if option.unit:
                assert f"<{option.unit}>" in words
            shown = " ".join(f"{option.help} [default: {option.shown_default}".split())
            assert shown in words.replace("- ", "-")


@pytest.mark.parametrize("columns", [80, 100])
def test_help_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    cli.parse(["--help"])

    widest = max(len(line) for line in capsys.readouterr().out.splitlines())
    assert columns - 15 < widest <= columns


def test_help_does_not_serve(capsys: pytest.CaptureFixture[str]) -> None:
    served: list[Config] = []

    assert cli.run(["--help"], serve=served.append) == 0
    assert served == []
    assert capsys.readouterr().out.startswith("Usage: tgi-llama [OPTIONS]")


def test_help_is_shown_even_where_the_environment_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "nonsense")

    assert cli.parse(["--help"]) is None


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.parse(["--version"]) is None
    assert capsys.readouterr().out.startswith("tgi-llama ")


@pytest.mark.parametrize("flag", ["-e", "--env"])
def test_env_names_the_machine_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    monkeypatch.setenv("API_KEY", "hunter2")

    assert cli.parse([flag]) is None
    printed = capsys.readouterr().out
    assert "llama-cpp-python: " in printed
    assert "hunter2" not in printed


# As a process


def test_help_imports_nothing_that_serves() -> None:
    """This is what keeps ``--help`` under a second."""
    heavy = "{'llama_cpp', 'quart', 'hypercorn', 'trio', 'numpy', 'tokenizers', 'cattrs', 'jinja2'}"
    result = _python(
        "-c",
        "import sys\n"
        "from tgi_llama import cli\n"
        "status = cli.run(['--help'], serve=repr)\n"
        f"loaded = sorted({heavy} & sys.modules.keys())\n"
        "sys.exit(f'loaded: {loaded}' if loaded else status)",
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (
            ["--port", "x"],
            {},
            "Invalid value for '--port' / '-p': 'x' is not a valid whole number.",
        ),
        (["--absent"], {}, "No such option '--absent'."),
        (["--model-gguf", "/absent"], {}, "--model-gguf: cannot read the file '/absent': No such"),
        ([], {"PORT": "x"}, "Invalid value for '--port' / '-p' (environment variable 'PORT'): 'x'"),
        (["--max-total-tokens", "1024"], {}, "`max_input_tokens` must be < `max_total_tokens`"),
    ],
)
def test_process_with_bad_option_ends_with_one_line_and_status_2(
    arguments: list[str], environment: dict[str, str], line: str
) -> None:
    result = _python("-m", "tgi_llama", *arguments, environment=environment)

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"tgi-llama: error: {line}")
    assert result.stderr.count("\n") == 1


def test_process_help_succeeds() -> None:
    result = _python("-m", "tgi_llama", "--help")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: tgi-llama [OPTIONS]")
