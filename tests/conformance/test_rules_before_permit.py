"""What is judged before a permit is asked for (contract section 2.4), and that it comes first."""

import json
from collections.abc import Sequence

import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates
from fakes.vocabulary import ByteVocabulary

from tgi_llama.errors import (
    SuffixNotSupported,
    TemplateError,
    ToolError,
    TooManyPrompts,
    ValidationError,
)
from tgi_llama.generation import TokenId
from tgi_llama.text.spellings import Span
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest


class Untouchable(ByteTokenizer):
    """Encoding is no work for the thread that gives permits."""

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]:
        raise AssertionError((text, add_special, literals))


VALIDATOR = Validator(
    Limits(max_input_tokens=8, max_total_tokens=12, max_client_batch_size=3),
    Untouchable(),
    TaggedTemplates(),
)

TOOLS = [{"function": {"name": "f"}}]


def generate(**parameters: object) -> GenerateRequest:
    body = {"inputs": "", "parameters": parameters}
    return parse(GenerateRequest, json.dumps(body).encode())


def chat(**fields: object) -> ChatRequest:
    body = {"messages": [{"role": "refused", "content": "x"}], **fields}
    return parse(ChatRequest, json.dumps(body).encode())


def complete(**fields: object) -> CompletionRequest:
    return parse(CompletionRequest, json.dumps({"prompt": "a", **fields}).encode())


def refusal(request: GenerateRequest | ChatRequest | CompletionRequest, *, streaming: bool) -> str:
    with pytest.raises((ValidationError, ToolError)) as caught:
        VALIDATOR.precheck(request, streaming=streaming)
    return str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "streaming", "text"),
    [
        ({"best_of": 2}, True, "`best_of` != 1 is not supported when streaming tokens"),
        (
            {"decoder_input_details": True},
            True,
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        (
            {"best_of": 0, "decoder_input_details": True},
            True,
            "`best_of` != 1 is not supported when streaming tokens",
        ),
        ({"best_of": 3}, False, "`best_of` must be > 0 and <= 2. Given: 3"),
    ],
)
def test_precheck_of_generate_is_rules_a_to_d(
    parameters: dict[str, object], streaming: bool, text: str
) -> None:
    assert refusal(generate(**parameters), streaming=streaming) == text


@pytest.mark.parametrize(
    "parameters", [{}, {"best_of": 2}, {"temperature": 0}, {"decoder_input_details": True}]
)
def test_precheck_of_generate_leaves_the_rest_for_later(parameters: dict[str, object]) -> None:
    VALIDATOR.precheck(generate(**parameters), streaming=False)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tools": TOOLS}, "`tools` is not supported by this server"),
        ({"tools": TOOLS, "tool_choice": "g"}, "Tool with name g not found"),
        ({"n": 4}, "`n` must be > 0 and <= 3. Given: 4"),
    ],
)
def test_precheck_of_chat_is_tools_and_n(fields: dict[str, object], text: str) -> None:
    assert refusal(chat(**fields), streaming=False) == text
    assert refusal(chat(**fields), streaming=True) == text


def test_precheck_of_chat_renders_nothing() -> None:
    VALIDATOR.precheck(chat(temperature=-1), streaming=False)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"suffix": "", "prompt": ["a"] * 4},
            "Suffix is not supported and can be achieved by preprocessing the prompt.",
        ),
        (
            {"prompt": ["a"] * 4, "n": 0},
            "Number of prompts exceeds the maximum allowed batch size of 3",
        ),
        (
            {"prompt": [[1]] * 4},
            "Number of prompts exceeds the maximum allowed batch size of 3",
        ),
        ({"prompt": []}, "Empty array detected. Do not use an empty array for the prompt."),
        ({"best_of": 0}, "`best_of` must be > 0 and <= 3. Given: 0"),
        ({"best_of": 4}, "`best_of` must be > 0 and <= 3. Given: 4"),
        ({"best_of": 1, "n": 2}, "`best_of` must be >= `n`. Given: 1 and 2"),
    ],
)
def test_precheck_of_completion_is_suffix_then_prompts_then_branches(
    fields: dict[str, object], text: str
) -> None:
    assert refusal(complete(**fields), streaming=False) == text


def test_precheck_of_completion_streamed_shows_all_it_generates() -> None:
    text = "`best_of` != `n` is not supported when streaming tokens"
    assert refusal(complete(best_of=2), streaming=True) == text
    VALIDATOR.precheck(complete(best_of=2), streaming=False)
    VALIDATOR.precheck(complete(best_of=2, n=2), streaming=True)


@pytest.mark.parametrize("prompt", ["", [1, 2, 3, 4, 5], ["a", 1], [999], [""]])
def test_precheck_of_completion_does_not_look_into_prompts(prompt: object) -> None:
    VALIDATOR.precheck(complete(prompt=prompt, temperature=-1), streaming=False)


def test_precheck_lets_a_suffix_pass_where_the_model_has_infill_tokens() -> None:
    validator = Validator(VALIDATOR.limits, Untouchable(), vocabulary=ByteVocabulary())
    validator.precheck(complete(suffix="x"), streaming=False)


# --- the same come first when a request is validated ----------------------------------------------


def test_order_of_completion_is_suffix_prompts_and_then_parameters() -> None:
    with pytest.raises(SuffixNotSupported):
        VALIDATOR.completion(complete(suffix="", prompt=["a"] * 4, temperature=-1))
    with pytest.raises(TooManyPrompts):
        VALIDATOR.completion(complete(prompt=["a"] * 4, temperature=-1))
    with pytest.raises(ValidationError, match="`temperature`"):
        VALIDATOR.completion(complete(temperature=-1, prompt=""))


def test_order_of_chat_is_tools_template_and_then_parameters() -> None:
    with pytest.raises(ToolError):
        VALIDATOR.chat(chat(tools=TOOLS, tool_choice="g", temperature=-1))
    with pytest.raises(TemplateError):
        VALIDATOR.chat(chat(temperature=-1))
    with pytest.raises(ValidationError, match="`temperature`"):
        VALIDATOR.chat(chat(messages=[{"role": "user", "content": "hi"}], temperature=-1))
