import copy

import pytest

from tgi_llama.errors import TemplateError
from tgi_llama.text.chat_template import ChatTemplate

USER = {"role": "user", "content": "Hi"}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
ARGUMENTS = {"city": "Zürich"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def called(arguments: object, content: object = "") -> dict[str, object]:
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }


def template(body: str) -> ChatTemplate:
    """Of messages with calls, ``body`` shows each ``f``, a function."""
    return ChatTemplate(
        "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}"
        f"{{% set f = c.function %}}{body}"
        "{% endfor %}{% else %}{{ m.content }}|{% endif %}{% endfor %}"
    )


@pytest.mark.parametrize("arguments", [ARGUMENTS, '{"city": "Zürich"}'])
@pytest.mark.parametrize(
    "body",
    [
        "{{ f.name + f.arguments }}",
        "{{ f.name }}{{ f.arguments }}",
        "{{ f.name }}{% if f.arguments is string %}{{ f.arguments }}{% endif %}",
        "{% if m.content is none %}{{ f.name + f.arguments }}{% endif %}",
    ],
    ids=["joined", "printed", "text only", "without content only"],
)
def test_render_a_template_that_wants_arguments_as_text_gets_it(
    body: str, arguments: object
) -> None:
    messages = [USER, called(arguments), RESULT]
    before = copy.deepcopy(messages)
    assert template(body).render(messages) == 'Hi|weather{"city": "Zürich"}sunny|'
    assert messages == before


@pytest.mark.parametrize(
    "body",
    [
        "{{ f.name }}{{ f.arguments | tojson }}",
        "{{ f.name }}{{ f.arguments if f.arguments is string else f.arguments | tojson }}",
        "{% if m.content is none %}{{ f.name }}{{ f.arguments | tojson }}{% endif %}",
    ],
    ids=["as JSON", "either", "without content only"],
)
def test_render_a_template_that_takes_an_object_gets_it(body: str) -> None:
    prompt = template(body).render([USER, called(ARGUMENTS)])
    assert prompt == 'Hi|weather{"city": "Zürich"}'


def test_render_leaves_content_beside_calls_as_it_is() -> None:
    shown = template("{{ '-' if m.content is none else m.content }}{{ f.name + f.arguments }}")
    assert shown.render([USER, called("{}", "Look"), RESULT]) == "Hi|Lookweather{}sunny|"
    hidden = template("{% if m.content is none %}{{ f.name + f.arguments }}{% endif %}")
    assert hidden.render([USER, called("{}", "Look"), RESULT]) == "Hi|sunny|"


def test_render_calls_without_a_function_are_left_to_the_template() -> None:
    joined = template("{{ f.name + f.arguments }}")
    with pytest.raises(TemplateError):
        joined.render([USER, {"role": "assistant", "tool_calls": ["weather"]}])


def test_template_that_fails_on_every_layout_is_still_one() -> None:
    broken = template("{{ raise_exception('no calls') }}")
    assert broken.render([USER]) == "Hi|"
    with pytest.raises(TemplateError, match="no calls"):
        broken.render([USER, called(ARGUMENTS)])


IN_MESSAGE = ChatTemplate(
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% if 'tools' in message and message['tools'] is not none %}"
    "<|tool|>{{ message['tools'] }}<|/tool|>{% endif %}{% endfor %}"
)


def test_render_tools_into_the_system_message_where_the_template_looks_for_them_there() -> None:
    shown = '<|tool|>[{"name": "weather", "parameters": {"type": "object"}}]<|/tool|>'
    system = {"role": "system", "content": "Be brief."}
    assert "tools" in IN_MESSAGE.variables
    assert IN_MESSAGE.render([system, USER], [TOOL]) == f"<system>Be brief.{shown}<user>Hi"
    assert IN_MESSAGE.render([USER], [TOOL]) == f"<system>{shown}<user>Hi"
    assert IN_MESSAGE.render([USER]) == "<user>Hi"
    assert IN_MESSAGE.render([USER], []) == "<user>Hi"


def test_render_tools_without_descriptions_have_empty_ones_where_the_template_needs_them() -> None:
    needy = ChatTemplate(
        "{% for t in tools %}{% set f = t.function %}{{ f.name + ': ' + f.description }}"
        "{% for name, p in f.parameters.properties | items %}{{ ' ' + name + '=' + p.description }}"
        "{% endfor %}{% endfor %}"
    )
    properties = {"a": {"type": "string"}, "b": {"description": "B"}}
    tool = {"name": "f", "description": None, "parameters": {"properties": properties}}
    assert needy.render([USER], [{"type": "function", "function": tool}]) == "f:  a= b=B"
    # Others see what the client sent.
    frank = ChatTemplate("{{ tools | tojson }}")
    assert frank.render([USER], [TOOL]).count("description") == 0


def test_render_tools_that_fail_for_another_reason_fail_with_that() -> None:
    strict = ChatTemplate("{% if tools %}{{ raise_exception('no tools here') }}{% endif %}")
    with pytest.raises(TemplateError, match="no tools here"):
        strict.render([USER], [TOOL])
    with pytest.raises(TemplateError, match="no tools here"):
        strict.render([USER], [{"name": "bare"}])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [("{bad", "arguments={bad"), ([1], "arguments=[1]"), ("", ""), (None, ""), ({"a": 1}, "a=1")],
)
def test_render_a_template_that_goes_through_arguments_gets_an_object(
    arguments: object, shown: str
) -> None:
    body = "{{ f.name }}:{% for k, v in f.arguments | items %}{{ k }}={{ v }}{% endfor %}"
    going = template(body)
    assert going.render([USER, called(arguments)]) == f"Hi|weather:{shown}"
    frank = template("{{ f.name }}{{ f.arguments | tojson }}")
    assert frank.render([USER, called("{bad")]) == 'Hi|weather"{bad"'


def test_render_a_template_that_makes_types_of_schemas_gets_simple_ones() -> None:
    typed = ChatTemplate(
        "{% macro kind(s) %}{% if s.type is string %}"
        "{{ {'string': 'str', 'array': 'list', 'object': 'dict'}[s.type]"
        " + (kind(s.additionalProperties) if s.type == 'object' else '') }}"
        "{% else %}{% for t in s.type %}{{ kind({'type': t}) }}|{% endfor %}{% endif %}"
        "{% endmacro %}{% for t in tools %}{% for name, p in t.function.parameters.properties"
        " | items %}{{ name }}:{{ kind(p) }}{{ '=' + p.default if p.default is defined }} "
        "{% endfor %}{% endfor %}"
    )
    properties = {
        "a": {"type": ["string", "null"]},
        "b": {"type": "object"},
        "c": {"type": ["string", "array", "null"]},
        "d": {"type": "string", "enum": ["1", 2], "default": 2},
    }
    parameters = {"type": "object", "properties": properties, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    before = copy.deepcopy(tool)
    assert typed.render([USER], [tool]) == "a:str b:dict c:str|list| d:str "
    assert tool == before


def test_render_what_a_template_refuses_on_purpose_is_not_tried_again() -> None:
    strict = ChatTemplate(
        "{% for t in tools %}{% if not t.function.description is defined %}"
        "{{ raise_exception('describe it') }}{% endif %}{% endfor %}"
    )
    with pytest.raises(TemplateError, match="describe it"):
        strict.render([USER], [TOOL])
