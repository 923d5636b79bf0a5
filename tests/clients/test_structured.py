"""Structured output by the clients' own helpers: what comes back is valid, however it is asked for.

The built-in model is a toy: it can fill in what its training resembles, and anything else is
nonsense of the right form. So the tests look at the form, and at values in sentences that it knows.
"""

import enum
import json

import jsonschema
import pytest
from huggingface_hub import InferenceClient
from langchain_openai import ChatOpenAI
from openai import OpenAI, UnprocessableEntityError
from pydantic import BaseModel, Field
from text_generation import Client
from text_generation.types import Grammar, GrammarType

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::pydantic.PydanticDeprecatedSince20",
)

ASK = "Extract the fields as JSON: Anna is 34 years old and lives in Oslo."
MESSAGES = [{"role": "user", "content": ASK}]


class Person(BaseModel):
    name: str
    age: int
    city: str


ANNA = Person(name="Anna", age=34, city="Oslo")


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class Part(BaseModel):
    label: str = Field(max_length=12)
    size: Size
    weight: float | None


class Parcel(BaseModel):
    """Nested, with an enumeration, bounds, a union and a list."""

    number: int = Field(ge=1, le=500)
    parts: list[Part] = Field(max_length=2)
    fragile: bool


@pytest.fixture
def client(server_url):
    with OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as client:
        yield client


# --- openai ---------------------------------------------------------------------------------------


def test_openai_parse_gives_the_model(client):
    answer = client.chat.completions.parse(
        model="tgi", messages=MESSAGES, response_format=Person, temperature=0
    )
    (choice,) = answer.choices
    assert choice.message.parsed == ANNA
    assert choice.message.refusal is None
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize("seed", range(3))
def test_openai_parse_is_valid_at_any_temperature(client, seed):
    answer = client.chat.completions.parse(
        model="tgi",
        messages=MESSAGES,
        response_format=Parcel,
        temperature=1.5,
        seed=seed,
        n=2,
        max_tokens=400,
    )
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Parcel)


def test_openai_stream_helper_parses_on_the_way(client):
    with client.chat.completions.stream(
        model="tgi", messages=MESSAGES, response_format=Person, temperature=0
    ) as stream:
        parsed = [event.parsed for event in stream if event.type == "content.delta"]
        assert stream.get_final_completion().choices[0].message.parsed == ANNA
    assert {"name": "Anna"} in [{"name": one["name"]} for one in parsed if one and "name" in one]


def test_openai_json_object_is_an_object(client):
    answer = client.chat.completions.create(
        model="tgi", messages=MESSAGES, response_format={"type": "json_object"}, temperature=0
    )
    assert json.loads(answer.choices[0].message.content) == ANNA.model_dump()


def test_openai_extra_fields_of_vllm_are_followed(client):
    def content(**extra):
        answer = client.chat.completions.create(
            model="tgi", messages=MESSAGES, temperature=0, max_tokens=60, extra_body=extra
        )
        return answer.choices[0].message.content

    assert content(guided_choice=["Anna", "Bert"]) in ("Anna", "Bert")
    assert content(guided_regex="[0-9]{4}").isdigit()
    assert Person.model_validate_json(content(guided_json=Person.model_json_schema()))
    assert content(guided_grammar='start: "a" /[bc]/') in ("ab", "ac")
    assert content(structured_outputs={"choice": ["x"]}) == "x"


def test_openai_completions_are_constrained_each(client):
    answer = client.completions.create(
        model="tgi",
        prompt=["Name: ", "City: "],
        max_tokens=8,
        n=2,
        temperature=1,
        extra_body={"guided_regex": "[a-z]{3}"},
    )
    assert all(len(one.text) == 3 and one.text.isalpha() for one in answer.choices)


def test_openai_unenforceable_schema_is_refused_at_its_path(client):
    schema = {"properties": {"tags": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(UnprocessableEntityError, match="cannot be enforced") as caught:
        client.chat.completions.create(
            model="tgi",
            messages=MESSAGES,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema},
            },
        )
    place = "response_format.json_schema.schema.properties.tags.uniqueItems"
    assert caught.value.body["param"] == place


# --- others ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_langchain_with_structured_output(server_url, method):
    chat = ChatOpenAI(
        base_url=f"{server_url}/v1", api_key="none", model="tgi", temperature=0, max_tokens=120
    )
    result = chat.with_structured_output(Person, method=method).invoke(ASK)
    assert isinstance(result, Person)
    if method != "function_calling":
        assert result == ANNA


def test_huggingface_hub_chat_takes_a_response_format(server_url):
    schema = Person.model_json_schema()
    ways = (
        {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
        {"type": "json_object", "value": schema},
        {"type": "json", "value": schema},
    )
    for way in ways:
        answer = InferenceClient(server_url).chat_completion(
            MESSAGES, response_format=way, temperature=0, max_tokens=60
        )
        assert Person.model_validate_json(answer.choices[0].message.content) == ANNA


def test_huggingface_hub_text_generation_takes_a_grammar(server_url):
    text = InferenceClient(server_url).text_generation(
        "Text: Anna is 34 years old and lives in Oslo.\nJSON:",
        grammar={"type": "json", "value": Person.model_json_schema()},
        max_new_tokens=60,
        return_full_text=False,
    )
    assert Person.model_validate_json(text) == ANNA


@pytest.mark.parametrize("sampled", [False, True])
def test_text_generation_takes_grammars(server_url, sampled):
    client = Client(server_url)
    schema = Parcel.model_json_schema()
    answer = client.generate(
        "JSON:",
        grammar=Grammar(type=GrammarType.Json, value=schema),
        max_new_tokens=300,
        do_sample=sampled,
        return_full_text=False,
        seed=3 if sampled else None,
    )
    jsonschema.validate(json.loads(answer.generated_text), schema)
    number = client.generate(
        "Number:",
        grammar=Grammar(type=GrammarType.Regex, value="[1-9][0-9]{2}"),
        max_new_tokens=10,
        return_full_text=False,
    )
    assert 100 <= int(number.generated_text) <= 999
