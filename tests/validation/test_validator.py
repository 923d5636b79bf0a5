"""What a validated request asks of the engine, and what the answer needs to know."""

import json
from collections.abc import Sequence

import pytest
from fakes.validation import BOS, ByteTokenizer, TaggedTemplates

from tgi_llama.errors import TemplateError, ValidationError
from tgi_llama.generation import SamplingParameters, TokenId
from tgi_llama.text.spellings import Span
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import CompatGenerateRequest, GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

LIMITS = Limits(max_input_tokens=64, max_total_tokens=100)
SEED = 2**64 - 3


def validator(templates: TaggedTemplates | None = None, *, adds_bos: bool = False) -> Validator:
    return Validator(LIMITS, ByteTokenizer(adds_bos=adds_bos), templates, draw_seed=lambda: SEED)


def generate(body: dict[str, object]) -> PreparedGeneration:
    request = parse(GenerateRequest, json.dumps({"inputs": "abc", **body}).encode())
    (prepared,) = validator().generate(request, streaming=False)
    return prepared


def with_parameters(**parameters: object) -> PreparedGeneration:
    return generate({"parameters": parameters})


def chat(templates: TaggedTemplates | None = None, **fields: object) -> PreparedGeneration:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    request = parse(ChatRequest, json.dumps(body).encode())
    (prepared,) = validator(templates or TaggedTemplates(), adds_bos=True).chat(request)
    return prepared


def complete(**fields: object) -> tuple[PreparedGeneration, ...]:
    request = parse(CompletionRequest, json.dumps({"prompt": "hi", **fields}).encode())
    return validator(adds_bos=True).completion(request)


# --- native routes --------------------------------------------------------------------------------


def test_generate_without_parameters_samples_with_a_drawn_seed() -> None:
    prepared = generate({})
    assert prepared.request.sampling == SamplingParameters(seed=SEED)
    assert prepared.reported_seed == SEED


def test_generate_with_empty_parameters_is_greedy_without_a_seed() -> None:
    prepared = with_parameters()
    assert prepared.request.sampling == SamplingParameters(greedy=True)
    assert prepared.reported_seed is None


@pytest.mark.parametrize(
    ("parameters", "greedy"),
    [
        ({"temperature": 1.0}, True),
        ({"temperature": 0.9}, False),
        ({"temperature": 1.5}, False),
        ({"top_k": 1}, False),
        ({"top_p": 0.9}, False),
        ({"typical_p": 0.9}, False),
        ({"do_sample": True}, False),
        ({"repetition_penalty": 1.2}, True),
        ({"seed": 5}, True),
    ],
)
def test_generate_samples_where_tgi_does(parameters: dict[str, object], greedy: bool) -> None:
    prepared = with_parameters(**parameters)
    assert prepared.request.sampling.greedy is greedy
    assert (prepared.reported_seed is None) is greedy


def test_generate_sampling_fields_reach_the_engine() -> None:
    prepared = with_parameters(
        do_sample=True,
        temperature=0.5,
        top_k=3,
        top_p=0.25,
        typical_p=0.75,
        repetition_penalty=1.5,
        frequency_penalty=-0.5,
        seed=2**64 - 1,
    )
    assert prepared.request.sampling == SamplingParameters(
        temperature=0.5,
        top_k=3,
        top_p=0.25,
        typical_p=0.75,
        repetition_penalty=1.5,
        frequency_penalty=-0.5,
        seed=2**64 - 1,
    )
    assert prepared.reported_seed == 2**64 - 1


def test_generate_greedy_keeps_penalties() -> None:
    sampling = with_parameters(repetition_penalty=1.5, frequency_penalty=0.5).request.sampling
    assert sampling == SamplingParameters(
        greedy=True, repetition_penalty=1.5, frequency_penalty=0.5
    )


def test_generate_without_max_new_tokens_fills_the_context() -> None:
    assert with_parameters().request.stopping.max_new_tokens == 97


def test_generate_max_new_tokens_is_honoured_exactly() -> None:
    assert with_parameters(max_new_tokens=97).request.stopping.max_new_tokens == 97


def test_generate_stop_strings_stay_in_the_text() -> None:
    stopping = with_parameters(stop=["a", "b"]).request.stopping
    assert stopping.stop_strings == ("a", "b")
    assert stopping.keep_stop_string is True


def test_generate_truncate_keeps_the_end_and_drops_bos() -> None:
    body = b'{"inputs": "abcdef", "parameters": {"truncate": 2}}'
    (prepared,) = validator(adds_bos=True).generate(parse(GenerateRequest, body), streaming=False)
    assert prepared.request.prompt_ids == (ord("e"), ord("f"))
    assert prepared.n_prompt_tokens == 2
    assert prepared.prompt == "abcdef"


def test_generate_truncate_longer_than_the_prompt_keeps_all() -> None:
    assert with_parameters(truncate=50).n_prompt_tokens == 3


def test_generate_counts_special_tokens() -> None:
    request = GenerateRequest(inputs="abc")
    (prepared,) = validator(adds_bos=True).generate(request, streaming=False)
    assert prepared.request.prompt_ids[0] == BOS
    assert prepared.n_prompt_tokens == 4


def test_generate_always_computes_logprobs() -> None:
    prepared = with_parameters(top_n_tokens=3)
    assert prepared.logprobs is True
    assert prepared.request.logprobs is True
    assert prepared.request.n_top_tokens == 3


def test_generate_details_flag_is_passed_on() -> None:
    assert with_parameters(details=True).details is True
    assert with_parameters().details is False


@pytest.mark.parametrize(
    ("wire_type", "sent", "expected"),
    [
        (GenerateRequest, None, False),
        (GenerateRequest, True, True),
        (CompatGenerateRequest, None, True),
        (CompatGenerateRequest, False, False),
    ],
)
def test_generate_return_full_text_default_depends_on_the_route(
    wire_type: type[GenerateRequest], sent: bool | None, expected: bool
) -> None:
    body = json.dumps({"inputs": "a", "parameters": {"return_full_text": sent}})
    request = parse(wire_type, body.encode())
    (prepared,) = validator().generate(request, streaming=False)
    assert prepared.return_full_text is expected


def test_generate_prompt_without_tokens_is_refused() -> None:
    class SpacesVanish(ByteTokenizer):
        def encode(
            self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
        ) -> list[TokenId]:
            return super().encode(text.strip(), add_special=add_special, literals=literals)

    with pytest.raises(ValidationError, match=r"no tokens"):
        Validator(LIMITS, SpacesVanish()).generate(GenerateRequest(inputs=" "), streaming=False)


def test_validator_draws_different_64_bit_seeds_by_itself() -> None:
    by_itself = Validator(LIMITS, ByteTokenizer())
    seeds = {
        by_itself.generate(GenerateRequest(inputs="a"), streaming=False)[0].reported_seed
        for _ in range(20)
    }
    assert len(seeds) == 20
    assert all(seed is not None and 0 <= seed < 2**64 for seed in seeds)


# --- chat -----------------------------------------------------------------------------------------


def test_chat_renders_without_special_tokens() -> None:
    prepared = chat()
    assert prepared.prompt == "<user>hi<assistant>"
    assert prepared.request.prompt_ids == tuple(prepared.prompt.encode())
    assert prepared.n_prompt_tokens == len(prepared.prompt)


def test_chat_without_template_is_a_template_error() -> None:
    request = ChatRequest(messages=())
    with pytest.raises(TemplateError, match=r"^template not found$"):
        validator().chat(request)


def test_chat_template_error_passes_through() -> None:
    with pytest.raises(TemplateError, match=r"no such role"):
        chat(messages=[{"role": "refused", "content": ""}])


def test_chat_rendered_to_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"no tokens"):
        chat(messages=[], add_generation_prompt=False, continue_final_message=False)


def test_chat_samples_by_default_and_reports_the_seed() -> None:
    assert chat().request.sampling == SamplingParameters(seed=SEED)
    assert chat(seed=7).reported_seed == 7


@pytest.mark.parametrize("extra", [{}, {"top_p": 0.9}, {"top_k": 40}, {"seed": 3}])
def test_chat_temperature_0_is_greedy_whatever_else_is_set(extra: dict[str, object]) -> None:
    prepared = chat(temperature=0, **extra)
    assert prepared.request.sampling == SamplingParameters(greedy=True)
    assert prepared.reported_seed is None


def test_chat_sampling_fields_reach_the_engine() -> None:
    prepared = chat(
        temperature=0.5,
        top_p=0.5,
        top_k=7,
        min_p=0.25,
        typical_p=0.75,
        repetition_penalty=1.25,
        frequency_penalty=0.5,
        presence_penalty=-1,
        logit_bias={"5": -100, "6": 2},
        seed=1,
    )
    assert prepared.request.sampling == SamplingParameters(
        temperature=0.5,
        top_p=0.5,
        top_k=7,
        min_p=0.25,
        typical_p=0.75,
        repetition_penalty=1.25,
        frequency_penalty=0.5,
        presence_penalty=-1.0,
        logit_bias=((TokenId(5), -100.0), (TokenId(6), 2.0)),
        seed=1,
    )


@pytest.mark.parametrize("stop", ["x", ["x"]])
def test_chat_stop_strings_are_cut_from_the_text(stop: object) -> None:
    stopping = chat(stop=stop).request.stopping
    assert stopping.stop_strings == ("x",)
    assert stopping.keep_stop_string is False


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 5},
        {"max_completion_tokens": 5},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"max_tokens": None, "max_completion_tokens": 5},
    ],
)
def test_chat_max_tokens_under_either_name(fields: dict[str, object]) -> None:
    assert chat(**fields).request.stopping.max_new_tokens == 5


def test_chat_ignore_eos_reaches_the_engine() -> None:
    assert chat(ignore_eos=True).request.stopping.ignore_eos is True


@pytest.mark.parametrize(
    ("fields", "logprobs", "n_top"),
    [
        ({}, False, 0),
        ({"logprobs": True}, True, 0),
        ({"logprobs": True, "top_logprobs": 20}, True, 20),
        ({"logprobs": False, "top_logprobs": 3}, False, 0),
    ],
)
def test_chat_logprobs_are_computed_only_where_shown(
    fields: dict[str, object], logprobs: bool, n_top: int
) -> None:
    prepared = chat(**fields)
    assert (prepared.logprobs, prepared.n_top_logprobs) == (logprobs, n_top)
    assert (prepared.request.logprobs, prepared.request.n_top_tokens) == (logprobs, n_top)


@pytest.mark.parametrize(("model", "expected"), [(None, None), ("tgi", None), ("dummy", "dummy")])
def test_chat_model_name_is_echoed_unless_it_is_tgi(model: object, expected: str | None) -> None:
    assert chat(model=model).model == expected


def test_chat_include_usage_is_passed_on() -> None:
    assert chat().include_usage is False
    assert chat(stream_options={}).include_usage is False
    assert chat(stream_options={"include_usage": True}).include_usage is True


def test_chat_messages_reach_the_template_with_all_their_keys() -> None:
    templates = TaggedTemplates()
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    chat(
        templates,
        messages=[
            {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"], "name": "n"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
        ],
        documents=[{"title": "T", "text": "D"}],
        chat_template_kwargs={"enable_thinking": False},
    )
    function = {"name": "f", "arguments": {"a": 1}}
    assert templates.calls == [
        {
            "messages": [
                {"role": "user", "content": "ab", "name": "n"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "c1", "type": "function", "function": function}],
                },
                {"role": "tool", "content": "2", "tool_call_id": "c1"},
            ],
            "tools": None,
            "add_generation_prompt": True,
            "continue_final_message": None,
            "variables": {"documents": ({"title": "T", "text": "D"},), "enable_thinking": False},
        }
    ]


USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "Well"}


@pytest.mark.parametrize(
    ("last", "sent", "opens_turn", "continues"),
    [
        (USER, {}, True, None),
        (USER, {"add_generation_prompt": False}, False, False),
        (USER, {"continue_final_message": True}, False, True),
        (ASSISTANT, {}, True, None),
        (ASSISTANT, {"continue_final_message": False}, True, False),
        (ASSISTANT, {"add_generation_prompt": True}, True, False),
        (ASSISTANT, {"add_generation_prompt": False}, False, False),
    ],
)
def test_chat_last_message_is_continued_as_in_tgi_unless_told_otherwise(
    last: object, sent: dict[str, object], opens_turn: bool, continues: bool | None
) -> None:
    templates = TaggedTemplates()
    chat(templates, messages=[USER, last], **sent)
    (call,) = templates.calls
    assert call["add_generation_prompt"] is opens_turn
    assert call["continue_final_message"] is continues


def test_chat_tool_call_reaches_the_template_with_its_arguments_as_an_object() -> None:
    templates = TaggedTemplates()
    call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    chat(templates, messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    (rendered,) = templates.calls
    (_, last) = rendered["messages"]
    assert last["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"add_generation_prompt": True, "continue_final_message": True}, "cannot both be true"),
        ({"messages": [], "continue_final_message": True}, "needs a last message"),
        ({"chat_template_kwargs": {"messages": []}}, "cannot set `messages`"),
        ({"chat_template_kwargs": {"self": 1}}, "cannot set `self`"),
    ],
)
def test_chat_contradicting_template_fields_are_refused(
    fields: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError, match=text):
        chat(**fields)


# --- completions ----------------------------------------------------------------------------------


def test_completion_text_prompt_gets_special_tokens() -> None:
    (prepared,) = complete()
    assert prepared.request.prompt_ids == (BOS, ord("h"), ord("i"))
    assert prepared.prompt == "hi"


def test_completion_token_ids_are_taken_as_they_are() -> None:
    (prepared,) = complete(prompt=[104, 105])
    assert prepared.request.prompt_ids == (104, 105)
    assert (prepared.prompt, prepared.n_prompt_tokens) == ("", 2)


def test_completion_prompts_keep_their_order() -> None:
    prepared = complete(prompt=["a", "b", [99]])
    assert [p.index for p in prepared] == [0, 1, 2]
    assert [p.request.prompt_ids[-1] for p in prepared] == [97, 98, 99]


def test_completion_prompts_get_seeds_of_their_own_unless_one_is_given() -> None:
    seeds = iter(range(10))
    request = CompletionRequest(prompt=("a", "b"))
    own = Validator(LIMITS, ByteTokenizer(), draw_seed=lambda: next(seeds))
    assert [p.reported_seed for p in own.completion(request)] == [0, 1]
    assert [p.reported_seed for p in complete(prompt=["a", "b"], seed=5)] == [5, 5]


@pytest.mark.parametrize(
    ("fields", "logprobs", "n_top"),
    [({}, False, 0), ({"logprobs": 0}, True, 0), ({"logprobs": 5}, True, 5)],
)
def test_completion_logprobs_count_the_alternatives(
    fields: dict[str, object], logprobs: bool, n_top: int
) -> None:
    (prepared,) = complete(**fields)
    assert (prepared.logprobs, prepared.n_top_logprobs) == (logprobs, n_top)


def test_completion_temperature_0_is_greedy() -> None:
    (prepared,) = complete(temperature=0, presence_penalty=1)
    assert prepared.request.sampling == SamplingParameters(greedy=True, presence_penalty=1.0)
