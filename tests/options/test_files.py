from pathlib import Path

import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.options.files import keys_of, template_text


@pytest.mark.parametrize("given", [None, "{{ messages[0].content }}", "{{ x }}" * 10_000])
def test_template_text_not_a_file_is_taken_as_it_is(given: str | None) -> None:
    assert template_text(given) == given


def test_template_text_file_is_read_even_where_its_name_has_a_brace(tmp_path: Path) -> None:
    file = tmp_path / "{chat}.jinja"
    file.write_text("Grüße {{ name }}", encoding="utf-8")

    assert template_text(str(file)) == "Grüße {{ name }}"


def test_template_text_mistyped_path_raises() -> None:
    with pytest.raises(ConfigError) as caught:
        template_text("no/such.jinja")

    assert str(caught.value) == (
        "--chat-template: cannot read the file 'no/such.jinja': No such file or directory"
    )


def test_template_text_binary_file_raises(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_bytes(b"\xff\xfe{{")

    with pytest.raises(ConfigError, match=r"--chat-template: the file .* is not UTF-8 text"):
        template_text(str(file))


def test_keys_without_file_are_those_given() -> None:
    assert keys_of((), None, flag="--api-key") == ()
    assert keys_of(("x",), None, flag="--api-key") == ("x",)


def test_keys_of_a_file_come_after_those_given_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\na b\n\n c\n")

    assert keys_of(("x",), file, flag="--api-key") == ("x", "a b", "c")


@pytest.mark.parametrize("flag", ["--api-key", "--admin-api-key"])
def test_keys_empty_file_raises(tmp_path: Path, flag: str) -> None:
    file = tmp_path / "keys"
    file.write_text(" \n")

    with pytest.raises(ConfigError, match=f"{flag}-file: no key in the file"):
        keys_of((), file, flag=flag)
