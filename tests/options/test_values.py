import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.options.values import parse_amount


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1500000", 1_500_000),
        ("12b", 12),
        ("512MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        ("2G", 2 * 2**30),
        ("2GB", 2 * 10**9),
        ("1.5k", 1536),
        ("1T", 2**40),
        ("25%", 250),
        ("12.5 %", 125),
        ("0%", 0),
        ("100%", 1000),
    ],
)
def test_parse_amount_is_in_bytes(text: str, expected: int) -> None:
    assert parse_amount(text, available=1000, flag="--x") == expected


@pytest.mark.parametrize("text", ["", "G", "-1", "1e3", "2 X", "1.", "2GiBs", "5%%", "nan"])
def test_parse_amount_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--x: expected bytes .* got"):
        parse_amount(text, available=1000, flag="--x")


def test_parse_amount_more_than_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--x must be at most 100%\. Given: 101%"):
        parse_amount("101%", available=1000, flag="--x")
