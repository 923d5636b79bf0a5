"""Which adapter a request asks for."""

import pytest

from tgi_llama.errors import ValidationError
from tgi_llama.generation import AdapterId
from tgi_llama.validation.adapters import ChosenAdapter, chosen_adapter

IDS = {"a": AdapterId(1), "b": AdapterId(2)}
A = ChosenAdapter("a", AdapterId(1))


@pytest.mark.parametrize(
    ("adapter_id", "model", "chosen"),
    [
        (None, None, None),
        (None, "tgi", None),
        (None, "anything", None),
        (None, "a", A),
        ("a", None, A),
        ("a", "anything", A),
        ("a", "a", A),
    ],
)
def test_adapter_is_chosen_by_either_field(
    adapter_id: str | None, model: str | None, chosen: ChosenAdapter | None
) -> None:
    assert chosen_adapter(IDS, adapter_id, field="adapter_id", model=model) == chosen


@pytest.mark.parametrize(
    ("adapter_id", "told"),
    [
        ("c", "`adapter_id` must be one of a, b. Given: 'c'"),
        ("", "`adapter_id` must be one of a, b. Given: ''"),
        ("x" * 101, f"`adapter_id` must be one of a, b. Given: '{'x' * 100}...'"),
    ],
)
def test_adapter_that_there_is_not_is_refused_with_those_there_are(
    adapter_id: str, told: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        chosen_adapter(IDS, adapter_id, field="parameters.adapter_id", model="a")
    assert str(caught.value) == told
    assert caught.value.field == "parameters.adapter_id"


def test_list_of_many_adapters_is_cut_short() -> None:
    ids = {f"a{number:03}": AdapterId(number) for number in range(50)}
    with pytest.raises(ValidationError) as caught:
        chosen_adapter(ids, "c", field="adapter_id")
    assert "a019 and 30 more. Given: 'c'" in str(caught.value)


def test_two_fields_that_name_different_adapters_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        chosen_adapter(IDS, "a", field="adapter_id", model="b")
    assert str(caught.value) == "`model` and `adapter_id` name different adapters: 'b' and 'a'"
