"""Random schemas are refused with a path, or whatever llguidance lets through is valid.

``TGI_LLAMA_SCHEMA_EXAMPLES=20000`` makes a long run of it (minutes); each example is a schema and
up to eight random walks through llguidance's masks.
"""

import json
import math
import os
import random
from typing import Any

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from structured.json_schema.llguidance_play import CompileError, compile_written, generate
from structured.json_schema.random_schemas import schemas

from tgi_llama.errors import ValidationError
from tgi_llama.structured.json_schema.normalise import normalise

EXAMPLES = int(os.environ.get("TGI_LLAMA_SCHEMA_EXAMPLES", "250"))
WALKS = 8


def numbers_of(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers_of(one)]
    if isinstance(value, list):
        return [number for one in value for number in numbers_of(one)]
    return [value] if isinstance(value, float) else []


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for one in value.values() for text in texts_of(one))]
    if isinstance(value, list):
        return [text for one in value for text in texts_of(one)]
    return [value] if isinstance(value, str) else []


def is_judged_alike(value: Any) -> bool:
    """False where ``jsonschema`` is no judge: a number beyond doubles makes it raise, and Python's
    ``$`` in a pattern matches before a last line feed."""
    return all(map(math.isfinite, numbers_of(value))) and not any(
        text.endswith("\n") for text in texts_of(value)
    )


def matcher_or_refusal(schema: Any) -> Any:
    """The path that ``normalise`` names; llguidance's words where patterns contradict each other."""
    try:
        return compile_written(normalise(schema, field="f").schema)
    except ValidationError as error:
        return str(error.field)
    except CompileError as error:
        return str(error)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(schemas(), st.integers(0, 2**32))
def test_whatever_is_generated_is_valid(schema: Any, seed: int) -> None:
    matcher = matcher_or_refusal(schema)
    if isinstance(matcher, str):
        assert matcher.startswith(("f", "Unsatisfiable"))
        event(f"refused: {matcher[:20]}")
        assume(False)  # another schema instead, so that the number of generations is known
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    rng = random.Random(seed)
    for _ in range(WALKS):
        made = generate(matcher, rng)
        if made is None:
            event("cut")
            continue
        value = json.loads(made)
        if is_judged_alike(value):
            event("generated")
            validator.validate(value)
