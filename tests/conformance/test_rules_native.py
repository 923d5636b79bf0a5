"""The rules of contract section 2.5 with their exact texts, and the order between them."""

import json

import pytest
from fakes.validation import ByteTokenizer

from tgi_llama.errors import ValidationError
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest

LIMITS = Limits(max_input_tokens=8, max_total_tokens=12)


def validate(
    inputs: str = "abc", *, limits: Limits = LIMITS, streaming: bool = False, **parameters: object
) -> PreparedGeneration:
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    validator = Validator(limits, ByteTokenizer())
    return validator.generate(parse(GenerateRequest, body), streaming=streaming)[0]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"temperature": -1.5}, "`temperature` must be strictly positive"),
        ({"temperature": 1e-50}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": -2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 0.0}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"top_k": -1}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
        (
            {"best_of": 2, "do_sample": True, "seed": 1},
            "`seed` must not be set when `best_of` > 1",
        ),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 8. Given: 0"),
        ({"truncate": 9}, "`truncate` must be strictly positive and less than 8. Given: 9"),
        (
            {"max_new_tokens": 10},
            "`inputs` tokens + `max_new_tokens` must be <= 12. "
            "Given: 3 `inputs` tokens and 10 `max_new_tokens`",
        ),
    ],
)
def test_rule_broken_parameter_is_refused_with_tgis_text(
    parameters: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        validate(**parameters)
    assert str(caught.value) == text
    if "tokens +" not in text:
        assert caught.value.field in {f"parameters.{name}" for name in parameters}


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 1e-6},
        {"temperature": 1e6},
        {"repetition_penalty": 100},
        {"frequency_penalty": -2},
        {"frequency_penalty": 2},
        {"top_p": 0.999},
        {"typical_p": 0.001},
        {"top_k": 2**31 - 1},
        {"stop": list("abcd")},
        {"stop": [""]},
        {"best_of": 0},
        {"best_of": 1},
        {"best_of": 1, "seed": 3},
        {"top_n_tokens": 5},
        {"truncate": 8},
        {"max_new_tokens": 9},
    ],
)
def test_rule_value_on_the_edge_is_accepted(parameters: dict[str, object]) -> None:
    assert validate(**parameters).n_prompt_tokens == 3


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"best_of": 2}, "`best_of` != 1 is not supported when streaming tokens"),
        ({"best_of": 0}, "`best_of` != 1 is not supported when streaming tokens"),
        (
            {"decoder_input_details": True},
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
    ],
)
def test_rule_streaming_restrictions_are_refused(parameters: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validate(streaming=True, **parameters)
    assert str(caught.value) == text


def test_rule_best_of_1_may_stream() -> None:
    assert validate(streaming=True, best_of=1).n_prompt_tokens == 3


def test_rule_best_of_where_the_server_allows_one_is_refused() -> None:
    limits = Limits(max_input_tokens=8, max_total_tokens=12, max_best_of=1)
    with pytest.raises(ValidationError, match=r"^`best_of` != 1 is not allowed for this endpoint$"):
        validate(limits=limits, best_of=2, do_sample=True)


@pytest.mark.parametrize("sampling", ["temperature", "top_k", "top_p", "typical_p"])
def test_rule_best_of_with_any_sampling_field_counts_as_sampling(sampling: str) -> None:
    value = 1 if sampling in ("temperature", "top_k") else 0.5
    assert validate(best_of=2, **{sampling: value}).n_branches == 2


def test_rule_empty_inputs_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"^`inputs` cannot be empty$"):
        validate("")


def test_rule_long_inputs_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        validate("a" * 9, max_new_tokens=1)
    assert str(caught.value) == "`inputs` must have less than 8 tokens. Given: 9"


def test_rule_total_is_judged_before_the_inputs() -> None:
    with pytest.raises(
        ValidationError, match=r"^`inputs` tokens \+ `max_new_tokens` must be <= 12"
    ):
        validate("a" * 9, max_new_tokens=4)


def test_rule_inputs_longer_than_the_total_are_refused_without_max_new_tokens() -> None:
    with pytest.raises(ValidationError, match=r"Given: 12 `inputs` tokens and 1 `max_new_tokens`"):
        validate("a" * 12)


def test_rule_inputs_as_long_as_allowed_are_accepted() -> None:
    assert validate("a" * 8).n_prompt_tokens == 8


# Each breaks two rules; the one with the lower number is to win.
@pytest.mark.parametrize(
    ("parameters", "first"),
    [
        ({"best_of": 3, "temperature": 0}, "`best_of`"),
        ({"best_of": 2, "top_k": 0}, "`top_k`"),
        ({"temperature": 0, "repetition_penalty": 0}, "`temperature`"),
        ({"repetition_penalty": 0, "frequency_penalty": 3}, "`repetition_penalty`"),
        ({"frequency_penalty": 3, "top_p": 1}, "`frequency_penalty`"),
        ({"top_p": 1, "typical_p": 1}, "`top_p`"),
        ({"typical_p": 1, "top_k": 0}, "`typical_p`"),
        ({"top_k": 0, "max_new_tokens": 0}, "`top_k`"),
        ({"max_new_tokens": 0, "stop": list("abcde")}, "`max_new_tokens`"),
        (
            {"stop": list("abcde"), "best_of": 2, "seed": 1, "do_sample": True},
            "`stop`",
        ),
        ({"best_of": 2, "seed": 1, "do_sample": True, "top_n_tokens": 9}, "`seed`"),
        ({"top_n_tokens": 9, "adapter_id": "x"}, "`top_n_tokens`"),
        ({"adapter_id": "x", "truncate": 0}, "`adapter_id`"),
        ({"truncate": 0, "max_new_tokens": 99}, "`truncate`"),
    ],
)
def test_rule_first_broken_one_wins(parameters: dict[str, object], first: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validate(**parameters)
    assert str(caught.value).startswith(first)


def test_rule_adapter_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValidationError) as caught:
        validate(adapter_id="x")
    assert str(caught.value) == (
        "`adapter_id` must name an adapter, and this server has none. Given: 'x'"
    )
    assert caught.value.field == "parameters.adapter_id"
