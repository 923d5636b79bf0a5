"""The rules of the OpenAI routes: TGI's texts, OpenAI's ranges, and what is refused by name."""

import json

import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.errors import SuffixNotSupported, TooManyPrompts, ValidationError
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

VALIDATOR = Validator(
    Limits(max_input_tokens=64, max_total_tokens=96, max_client_batch_size=3),
    ByteTokenizer(),
    TaggedTemplates(),
)


def chat(**fields: object) -> PreparedGeneration:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return VALIDATOR.chat(parse(ChatRequest, json.dumps(body).encode()))[0]


def complete(**fields: object) -> tuple[PreparedGeneration, ...]:
    body = {"prompt": "hi", **fields}
    return VALIDATOR.completion(parse(CompletionRequest, json.dumps(body).encode()))


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

SHARED = [
    ({"temperature": -1}, "temperature", "`temperature` must be strictly positive"),
    ({"top_p": 0}, "top_p", "`top_p` must be > 0.0 and <= 1.0"),
    ({"top_p": 1.01}, "top_p", "`top_p` must be > 0.0 and <= 1.0"),
    ({"typical_p": 2}, "typical_p", "`typical_p` must be > 0.0 and <= 1.0"),
    ({"top_k": 0}, "top_k", "`top_k` must be strictly positive"),
    ({"min_p": -0.1}, "min_p", "`min_p` must be >= 0.0 and <= 1.0"),
    (
        {"frequency_penalty": 3},
        "frequency_penalty",
        "`frequency_penalty` must be >= -2.0 and <= 2.0",
    ),
    (
        {"presence_penalty": -3},
        "presence_penalty",
        "`presence_penalty` must be >= -2.0 and <= 2.0",
    ),
    (
        {"repetition_penalty": 0},
        "repetition_penalty",
        "`repetition_penalty` must be strictly positive",
    ),
    ({"max_tokens": 0}, "max_tokens", "`max_new_tokens` must be strictly positive"),
    ({"stop": list("abcde")}, "stop", "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"n": 0}, "n", "`n` must be > 0 and <= 3. Given: 0"),
    ({"n": 4}, "n", "`n` must be > 0 and <= 3. Given: 4"),
    ({"logit_bias": [1.0]}, "logit_bias", "`logit_bias` must be a map from token ids to biases"),
    (
        {"logit_bias": {"257": 1}},
        "logit_bias",
        "`logit_bias` keys must be token ids >= 0 and < 257. Given: '257'",
    ),
    (
        {"logit_bias": {"-1": 1}},
        "logit_bias",
        "`logit_bias` keys must be token ids >= 0 and < 257. Given: '-1'",
    ),
    (
        {"logit_bias": {"5": 101}},
        "logit_bias.5",
        "`logit_bias` must be >= -100.0 and <= 100.0. Given: 101.0",
    ),
]


@pytest.mark.parametrize(("fields", "field", "text"), SHARED)
def test_rule_broken_on_chat_and_completions_is_refused(
    fields: dict[str, object], field: str, text: str
) -> None:
    for route in (chat, complete):
        with pytest.raises(ValidationError) as caught:
            route(**fields)
        assert str(caught.value) == text
        assert caught.value.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 1},
        {"typical_p": 1},
        {"min_p": 0},
        {"presence_penalty": 0},
        {"presence_penalty": -2},
        {"temperature": 0},
        {"n": 1},
        {"n": 3},
        {"n": None},
        {"watermark": True},
        {"logit_bias": {}},
        {"logit_bias": []},
        {"logit_bias": {"256": -100, "0": 100}},
        {"stop": "x"},
        {"stop": []},
        {"stream_options": None},
    ],
)
def test_rule_what_openai_clients_send_is_accepted(fields: dict[str, object]) -> None:
    assert chat(**fields).n_prompt_tokens > 0
    assert complete(**fields)[0].n_prompt_tokens == 2


@pytest.mark.parametrize("logprobs", [True, False])
def test_rule_top_logprobs_over_20_are_refused_whether_shown_or_not(logprobs: bool) -> None:
    with pytest.raises(ValidationError, match=r"^`top_logprobs` must be .* <= 20. Given: 21$"):
        chat(logprobs=logprobs, top_logprobs=21)


def test_rule_completion_logprobs_over_20_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"^`logprobs` must be >= 0 and <= 20. Given: 21$"):
        complete(logprobs=21)


def test_rule_max_tokens_twice_but_different_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must be equal where both .* Given: 3 and 4"):
        chat(max_tokens=3, max_completion_tokens=4)


def test_rule_max_tokens_beyond_the_context_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        complete(max_tokens=95)
    assert str(caught.value) == (
        "`inputs` tokens + `max_new_tokens` must be <= 96. "
        "Given: 2 `inputs` tokens and 95 `max_new_tokens`"
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_tokens": 95}, "max_tokens"),
        ({"max_completion_tokens": 95}, "max_completion_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "a" * 65}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 97}]}, "messages"),
    ],
)
def test_rule_token_limits_on_chat_name_the_field_that_was_sent(
    fields: dict[str, object], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        chat(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("prompt", "field"),
    [("a" * 65, "prompt"), (["a", "a" * 65], "prompt[1]"), (["a", ""], "prompt[1]")],
)
def test_rule_unusable_prompt_is_named_by_its_place(prompt: object, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        complete(prompt=prompt)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"function": {"name": "f"}}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("functions", [{"name": "f"}]),
        ("web_search_options", {}),
        ("prediction", {"type": "content", "content": "x"}),
        ("moderation", {}),
    ],
)
def test_unsupported_chat_field_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        chat(**{name: value})
    assert str(caught.value) == f"`{name}` is not supported by this server"
    assert caught.value.field == name


def test_unsupported_image_is_refused_at_its_place() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(ValidationError) as caught:
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, image]}])
    assert caught.value.field == "messages[0].content[1]"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": None, "tool_choice": "required"},
        {"tools": [{"function": {"name": "f"}}], "tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"parallel_tool_calls": True},
    ],
)
def test_supported_plain_chat_with_idle_tool_fields_is_accepted(fields: dict[str, object]) -> None:
    assert chat(**fields).n_prompt_tokens > 0


@pytest.mark.parametrize("suffix", ["", "x"])
def test_completion_suffix_is_refused_with_tgis_text(suffix: str) -> None:
    with pytest.raises(SuffixNotSupported) as caught:
        complete(suffix=suffix)
    assert str(caught.value) == (
        "Suffix is not supported and can be achieved by preprocessing the prompt."
    )


def test_completion_too_many_prompts_are_refused_with_tgis_text() -> None:
    with pytest.raises(TooManyPrompts) as caught:
        complete(prompt=["a"] * 4)
    assert str(caught.value) == "Number of prompts exceeds the maximum allowed batch size of 3"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([], "Empty array detected. Do not use an empty array for the prompt."),
        ("", "`inputs` cannot be empty"),
        (["a", ""], "`inputs` cannot be empty"),
        ([[]], "`inputs` cannot be empty"),
        ([257], "`prompt` token ids must be >= 0 and < 257. Given: 257"),
        ([[1], [-1]], "`prompt` token ids must be >= 0 and < 257. Given: -1"),
        (["a", 1], "`prompt` cannot mix token ids with texts or lists"),
    ],
)
def test_completion_unusable_prompt_is_refused(prompt: object, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        complete(prompt=prompt)
    assert str(caught.value) == text
