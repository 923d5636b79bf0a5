"""What ``instructor`` asks of a server with OpenAI's API, and what it must get: its models, at the
first try.

Run as a program by the interpreter of an environment that has ``instructor``::

    python instructor_calls.py http://127.0.0.1:3000
"""

import sys
from collections.abc import Callable, Iterable
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field

ASK = "Extract the fields as JSON: Anna is 34 years old and lives in Oslo."


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=150)
    city: str


class Decision(BaseModel):
    answer: Literal["yes", "no"]


def ask(url: str, mode: instructor.Mode, model: object) -> object:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        return instructor.from_openai(client, mode=mode).chat.completions.create(
            model="tgi",
            messages=[{"role": "user", "content": ASK}],
            response_model=model,
            max_retries=0,
            temperature=0,
            max_tokens=200,
        )


# Its mode JSON tells the model of the schema in the prompt only, which is beyond the built-in one.


def check_tools_give_a_model(url: str) -> None:
    assert isinstance(ask(url, instructor.Mode.TOOLS, Person), Person)


def check_json_schema_gives_a_model(url: str) -> None:
    assert isinstance(ask(url, instructor.Mode.JSON_SCHEMA, Person), Person)


def check_literals_are_kept(url: str) -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        answer = ask(url, mode, Decision)
        assert isinstance(answer, Decision), mode


def check_several_models_come_as_parallel_calls(url: str) -> None:
    made = ask(url, instructor.Mode.PARALLEL_TOOLS, Iterable[Person | Decision])
    assert all(isinstance(one, Person | Decision) for one in made)  # type: ignore[attr-defined]


CHECKS: dict[str, Callable[[str], None]] = {
    name: value for name, value in globals().items() if name.startswith("check_")
}


if __name__ == "__main__":
    for name, check in CHECKS.items():
        sys.stdout.write(f"{name}\n")
        check(sys.argv[1])
