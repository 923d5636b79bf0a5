import json
from pathlib import Path

import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.text.chat_template import ChatTemplates
from tgi_llama.text.template_files import GgufTemplates, load_chat_template

NO_GGUF = GgufTemplates()
TOKENS = "{{ bos_token }}/{{ eos_token }}"
TOOLS: list[dict[str, object]] = [{"type": "function"}]


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def prompt(templates: ChatTemplates | None, *, tools: bool = False) -> str:
    assert templates is not None
    return templates.render([], TOOLS if tools else None)


def test_sources_are_asked_in_order(tmp_path: Path) -> None:
    gguf = GgufTemplates(templates={"default": "gguf"})
    found = [prompt(load_chat_template(tmp_path, gguf))]
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "config"})
    found.append(prompt(load_chat_template(tmp_path, gguf)))
    write_json(tmp_path / "chat_template.json", {"chat_template": "json"})
    found.append(prompt(load_chat_template(tmp_path, gguf)))
    (tmp_path / "chat_template.jinja").write_text("jinja")
    found.append(prompt(load_chat_template(tmp_path, gguf)))
    found.append(prompt(load_chat_template(tmp_path, gguf, override="{{ 'given' }}")))
    assert found == ["gguf", "config", "json", "jinja", "given"]


def test_model_without_any_template_has_none(tmp_path: Path) -> None:
    assert load_chat_template(None, NO_GGUF) is None
    assert load_chat_template(tmp_path, NO_GGUF) is None
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": None})
    assert load_chat_template(tmp_path, NO_GGUF) is None


# --chat-template


def test_override_may_be_a_file_or_the_template_itself(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("from file")
    assert prompt(load_chat_template(None, NO_GGUF, override=str(path))) == "from file"
    assert prompt(load_chat_template(None, NO_GGUF, override="a\nb")) == "a\nb"
    document = write_json(tmp_path / "own.json", {"chat_template": "from json"})
    assert prompt(load_chat_template(None, NO_GGUF, override=str(document))) == "from json"


@pytest.mark.parametrize("override", ["missing.jinja", "", "chatml"])
def test_override_that_is_neither_is_refused_naming_the_option(override: str) -> None:
    with pytest.raises(ConfigError, match=r"^--chat-template: .* neither a file nor a template"):
        load_chat_template(None, NO_GGUF, override=override)


def test_override_without_a_template_in_it_is_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "own.json", {})
    with pytest.raises(ConfigError, match="has no 'chat_template'"):
        load_chat_template(None, NO_GGUF, override=str(path))


def test_override_that_does_not_compile_names_the_option_line_and_column() -> None:
    with pytest.raises(ConfigError, match=r"^--chat-template: .*line 2, column 4"):
        load_chat_template(None, NO_GGUF, override="a\n{{ |")


# Named templates


@pytest.mark.parametrize("file_name", ["tokenizer_config.json", "chat_template.json"])
def test_named_templates_are_chosen_by_the_presence_of_tools(
    tmp_path: Path, file_name: str
) -> None:
    entries = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools"},
        {"name": "rag", "template": "{{ not compiled"},
    ]
    write_json(tmp_path / file_name, {"chat_template": entries})
    templates = load_chat_template(tmp_path, NO_GGUF)
    assert prompt(templates) == "plain"
    assert prompt(templates, tools=True) == "tools"


def test_named_templates_lie_beside_the_jinja_file_or_in_the_gguf(tmp_path: Path) -> None:
    gguf = GgufTemplates(templates={"default": "plain", "tool_use": "tools"})
    assert prompt(load_chat_template(None, gguf), tools=True) == "tools"
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert prompt(load_chat_template(tmp_path, gguf), tools=True) == "jinja"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("jinja tools")
    assert prompt(load_chat_template(tmp_path, gguf), tools=True) == "jinja tools"


def test_named_templates_without_a_default_are_passed_over(tmp_path: Path) -> None:
    entries = [{"name": "tool_use", "template": "tools"}]
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": entries})
    gguf = GgufTemplates(templates={"default": "gguf"})
    assert prompt(load_chat_template(tmp_path, gguf), tools=True) == "gguf"


def test_named_template_that_does_not_compile_is_named(tmp_path: Path) -> None:
    gguf = GgufTemplates(templates={"default": "plain", "tool_use": "{{"})
    with pytest.raises(ConfigError, match=r"the GGUF's chat template \(tool_use\): not a template"):
        load_chat_template(tmp_path, gguf)


# Special tokens


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, "<gguf-bos>/<gguf-eos>"),
        ({"bos_token": "<s>", "eos_token": "</s>"}, "<s>/</s>"),
        ({"bos_token": {"content": "<s>", "lstrip": False}}, "<s>/<gguf-eos>"),
        ({"bos_token": None, "eos_token": {"content": "</s>"}}, "/</s>"),
    ],
)
def test_special_tokens_of_the_config_win_over_the_gguf(
    tmp_path: Path, config: dict[str, object], tokens: str
) -> None:
    write_json(tmp_path / "tokenizer_config.json", config)
    gguf = GgufTemplates(
        templates={"default": TOKENS}, bos_token="<gguf-bos>", eos_token="<gguf-eos>"
    )
    assert prompt(load_chat_template(tmp_path, gguf)) == tokens


def test_other_special_tokens_are_variables_too(tmp_path: Path) -> None:
    config = {"unk_token": "<unk>", "chat_template": "{{ unk_token }}"}
    write_json(tmp_path / "tokenizer_config.json", config)
    assert prompt(load_chat_template(tmp_path, NO_GGUF)) == "<unk>"


def test_given_tokenizer_config_stands_in_for_the_models(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "model", "eos_token": "x"})
    other = write_json(tmp_path / "other.json", {"chat_template": TOKENS, "bos_token": "<b>"})
    templates = load_chat_template(tmp_path, NO_GGUF, tokenizer_config_path=other)
    assert prompt(templates) == "<b>/"


# Broken files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON: .* line 1 column 2"),
        (b"[]", "must hold a JSON object"),
        (b"\xff", "cannot be read"),
        (b'{"chat_template": 5}', "'chat_template' must be a string or a list"),
        (b'{"chat_template": [{"name": "default"}]}', "'chat_template' must be a string or a list"),
        (b'{"chat_template": "x", "bos_token": 5}', "'bos_token' must be a string or an object"),
        (b'{"chat_template": "{% if %}"}', r"not a template: .* \(line 1, column 7\)"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_broken_config_is_one_line_naming_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_chat_template(tmp_path, NO_GGUF)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_given_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.json: cannot be read"):
        load_chat_template(None, NO_GGUF, tokenizer_config_path=tmp_path / "missing.json")
