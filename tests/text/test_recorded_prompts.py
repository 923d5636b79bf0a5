"""Prompts are what transformers made of the same conversations, as it was recorded."""

import pytest

from .own_templates import OWN, prompt_of, recorded, recorded_conversations, template_of


@pytest.mark.parametrize("name", OWN)
def test_prompts_are_the_recorded_ones(name: str) -> None:
    template = template_of(OWN[name])
    prompts = {one.name: prompt_of(template, one) for one in recorded_conversations()}
    assert len(prompts) >= 40
    assert prompts == recorded()[name]
