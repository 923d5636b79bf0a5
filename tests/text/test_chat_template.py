"""Expected prompts of real templates were recorded from the library they are written for."""

from datetime import datetime
from pathlib import Path

import pytest

from tgi_llama.errors import ConfigError, TemplateError
from tgi_llama.text.chat_template import ChatTemplate, ChatTemplates

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "chat-templates"

CHATML = (
    "{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

USER = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <of> a 'city'",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name"}},
        },
    },
}


def render(source: str, **variables: object) -> str:
    return ChatTemplate(source).render([USER], **variables)  # type: ignore[arg-type]


def assistant(content: object) -> dict[str, object]:
    return {"role": "assistant", "content": content}


# Roles


def test_render_developer_is_system_to_a_template_that_does_not_know_it() -> None:
    chat = [{"role": "developer", "content": "Be brief."}]
    prompt = ChatTemplate(CHATML).render(chat, add_generation_prompt=False)
    assert prompt == "<|im_start|>system\nBe brief.<|im_end|>\n"


def test_render_developer_stays_in_a_template_that_knows_it() -> None:
    source = "{% for m in messages %}{% if m.role == 'developer' %}yes{% endif %}{% endfor %}"
    assert ChatTemplate(source).render([{"role": "developer", "content": "x"}]) == "yes"


# The Jinja set-up


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("a\n{% if true %}\nb\n{% endif %}\nc\n", "a\nb\nc"),
        ("  {% set x = 1 %}\n  {{ x }}", "  1"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "13",
        ),
        ("{{ {'b': '<&\\'é>', 'a': 1} | tojson }}", '{"b": "<&\'é>", "a": 1}'),
        (
            "{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=true, sort_keys=true) }}",
            '{"a": "\\u00e9", "b": 1}',
        ),
        ("{{ [1, 2] | tojson(indent=1) }}", "[\n 1,\n 2\n]"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hi!"),
        ("{% generation %}{% set x = 1 %}{% endgeneration %}{{ x is defined }}", "False"),
        ("{% set n = namespace(self=1) %}{% set n.self = 2 %}{{ n.self }}", "2"),
        ("{{ dict(a=1).a }}{{ dict.fromkeys(['k'], 2)['k'] }}", "12"),
        ("{{ tools is none }} {{ documents is none }} {{ missing is defined }}", "True True False"),
        ("{{ messages[0]['content'][::-1] }}", "iH"),
        ("<b>{{ '<b>' }}", "<b><b>"),
        ("[{{ bos_token }}]", "[]"),
    ],
)
def test_render_follows_the_set_up_that_templates_expect(source: str, prompt: str) -> None:
    assert render(source) == prompt


def test_strftime_now_formats_the_given_clock() -> None:
    template = ChatTemplate(
        "{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2024, 7, 26, 12, 0)
    )
    assert template.render([]) == "26 Jul 2024"


def test_special_tokens_are_variables_and_keyword_arguments_win() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ thinking }}",
        bos_token="<s>",
        eos_token="</s>",
        more_tokens={"unk_token": "<unk>"},
    )
    assert template.render([]) == "<s></s><unk>"
    assert template.render([], eos_token="!", thinking=True) == "<s>!<unk>True"


def test_variables_are_those_the_template_reads() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m }}{% endfor %}{% if tools %}{% endif %}")
    assert template.variables == {"messages", "tools"}


def test_render_leaves_the_callers_messages_alone() -> None:
    messages = [{"role": "user", "content": "Hi", "tool_calls": [{"a": 1}]}]
    source = "{% for m in messages %}{{ m.tool_calls[0].pop('a') }}{% endfor %}"
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(messages)
    assert messages == [{"role": "user", "content": "Hi", "tool_calls": [{"a": 1}]}]


def test_reasoning_is_given_under_each_name_that_templates_read() -> None:
    source = "{{ messages[0].reasoning_content }}/{{ messages[0].thinking }}"
    assert ChatTemplate(source).render([{"role": "assistant", "reasoning": "why"}]) == "why/why"


def test_render_of_what_json_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        ChatTemplate("x").render([{"content": b"raw"}])


def test_render_of_data_nested_too_deep_is_a_template_error() -> None:
    value: object = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(TemplateError, match="nested too deep"):
        ChatTemplate("x").render([USER], depth=value)


# The sandbox


@pytest.mark.parametrize(
    "expression",
    [
        "messages.__class__",
        "''.__class__.__mro__",
        "raise_exception.__globals__",
        "strftime_now.__closure__",
        "lipsum.__globals__",
        "cycler.__init__.__globals__['os']",
        "namespace.__init__",
        "dict.__init__.__globals__",
        "(messages | map(attribute='__class__') | list)[0].mro()",
        "'{0.__class__}'.format(messages)",
        "self.__init__",
        "namespace(**{'__class__': 1})",
        "messages.append(1)",
        "messages[0].update(a=1)",
        "range(1000000)",
    ],
)
def test_sandbox_lets_nothing_out_of_the_template(expression: str) -> None:
    try:
        prompt = render("{{ " + expression + " }}")
    except TemplateError:
        return
    assert prompt == ""  # an attribute that the sandbox hides is undefined


@pytest.mark.parametrize("statement", ["include", "import", "extends"])
def test_sandbox_reads_no_file(statement: str) -> None:
    suffix = " as x" if statement == "import" else ""
    with pytest.raises(TemplateError, match="no loader"):
        render("{% " + statement + " '" + __file__ + "'" + suffix + " %}")


def test_namespace_with_an_underscore_name_is_refused() -> None:
    with pytest.raises(TemplateError, match="underscore"):
        render("{% set n = namespace() %}{% set n._x = 1 %}")


# Errors


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ raise_exception('No\nway') }}", "syntax error: No way (in <string>:2)"),
        ("{{ x.y.z }}", "undefined value: 'x' is undefined (in <string>:1)"),
        ("a\n\n{{ 1 / 0 }}", "invalid operation: division by zero (in <string>:3)"),
        (
            "{{ 'a' + 1 }}",
            'invalid operation: can only concatenate str (not "int") to str (in <string>:1)',
        ),
        (
            "{{ messages[0].append }}{{ missing | tojson }}",
            "invalid operation: Object of type Undefined is not JSON serializable (in <string>:1)",
        ),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "invalid operation: maximum recursion depth exceeded",
        ),
    ],
)
def test_render_error_has_tgis_form_with_the_line(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("{{ a", "line 1, column 4"),
        ("ok\n  {% fro x in y %}", "line 2, column 6"),
        ("{{ a }}\n{# c #}  {{ b b }}", "line 2, column 15"),
        ("ok\n{{ a ? b }}", "line 2, column 6"),
        ("ok\n{{ a | nofilter }}", "line 2, column 8"),
        ("{% if a %}\n  x\n{% endfor %}", "line 3, column 4"),
        ("a\n{% if a %}b", "line 2"),
        ("x\n{{ 'abc }}", "line 2, column 4"),
        ("{# never closed", "line 1"),
    ],
)
def test_template_that_does_not_compile_names_line_and_column(source: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ChatTemplate(source, origin="model/chat_template.jinja")
    text = str(caught.value)
    assert text.startswith("model/chat_template.jinja: not a template: ")
    assert f"({where}" in text
    assert "\n" not in text


def test_template_nested_too_deep_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="not a template"):
        ChatTemplate("{% for a in b %}" * 30 + "{% endfor %}" * 30)


# Continuing the last message


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("The answer is  ", "<|im_start|>assistant\nThe answer is"),
        ("a", "<|im_start|>assistant\na"),
        ("", "<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant"),
    ],
)
def test_render_of_an_open_assistant_message_continues_it_as_tgi_does(
    content: str, prompt: str
) -> None:
    assert ChatTemplate(CHATML).render([assistant(content)]) == prompt


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("{{ messages[-1].content | upper }}|", "Hello"),
        ("{{ messages[-1].content }}|", None),
        ("nothing|", "Hello"),
    ],
)
def test_render_of_a_message_that_does_not_show_as_it_is_is_not_cut(
    source: str, content: object
) -> None:
    assert ChatTemplate(source).render([assistant(content)]).endswith("|")


def test_render_where_the_mark_is_lost_cuts_after_the_last_occurrence() -> None:
    template = ChatTemplate("{{ messages[-1].content[:2] }} ab|")
    assert template.render([assistant("ab")]) == "ab ab"


def test_render_told_not_to_continue_does_not() -> None:
    prompt = ChatTemplate(CHATML).render([assistant("So")], continue_final_message=False)
    assert prompt == "<|im_start|>assistant\nSo<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("source", "content", "prompt"),
    [
        (CHATML, "So  ", "<|im_start|>assistant\nSo  "),
        (CHATML.replace("content", "content | trim"), "So  ", "<|im_start|>assistant\nSo"),
        ("{{ messages[0].content[0].text }}!", [{"type": "text", "text": "So "}], "So "),
    ],
)
def test_render_told_to_continue_keeps_the_space_that_the_template_keeps(
    source: str, content: object, prompt: str
) -> None:
    template = ChatTemplate(source)
    assert template.render([assistant(content)], continue_final_message=True) == prompt


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (CHATML, []),
        (CHATML, [assistant(None)]),
        (CHATML, [assistant([{"type": "image"}])]),
        ("no messages", [assistant("So")]),
        (CHATML.replace("content", "content | upper"), [assistant("So")]),
    ],
)
def test_render_told_to_continue_what_does_not_show_is_a_template_error(
    source: str, messages: list[dict[str, object]]
) -> None:
    with pytest.raises(TemplateError, match=r"^continue_final_message: "):
        ChatTemplate(source).render(messages, continue_final_message=True)


# Named templates


def test_tools_select_the_template_for_them() -> None:
    templates = ChatTemplates(ChatTemplate("plain"), ChatTemplate("tools {{ tools | length }}"))
    assert templates.render([USER]) == "plain"
    assert templates.render([USER], []) == "plain"
    assert templates.render([USER], [TOOL]) == "tools 1"
    assert ChatTemplates(ChatTemplate("plain")).render([USER], [TOOL]) == "plain"


# Real templates

TOOL_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcdefghi",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
        }
    ],
}
TOOL_RESULT = {
    "role": "tool",
    "name": "get_weather",
    "tool_call_id": "abcdefghi",
    "content": "sunny",
}
CONVERSATIONS = {
    "one": [USER],
    "two turns": [USER, assistant("Hello."), {"role": "user", "content": "Bye"}],
    "open": [USER, assistant("The answer is")],
    "tools": [USER, TOOL_CALL, TOOL_RESULT],
}
REAL = sorted(path.stem for path in FOLDER.glob("*.jinja")) or ["absent"]


def real(name: str) -> ChatTemplate:
    path = FOLDER / f"{name}.jinja"
    if not path.exists():
        pytest.skip("the shared data has no chat templates")
    source = path.read_text(encoding="utf-8")
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", origin=name)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_real_template_renders_every_conversation(name: str, conversation: str) -> None:
    template = real(name)
    knows_tools = "tools" in template.variables
    if conversation == "tools" and not knows_tools:
        pytest.skip("the template does not know tools")
    tools = [TOOL] if knows_tools else None
    prompt = template.render(CONVERSATIONS[conversation], tools)
    if conversation == "open":
        assert prompt.endswith("The answer is")
    elif conversation == "two turns":
        assert prompt.index("Hello.") < prompt.index("Bye")
    elif conversation == "tools":
        assert "sunny" in prompt


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        (
            "google-gemma-2-2b-it",
            "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "Qwen-Qwen2.5-7B-Instruct",
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            "assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello."
            "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "microsoft-Phi-3.5-mini-instruct",
            "<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nBye<|end|>\n"
            "<|assistant|>\n",
        ),
    ],
)
def test_real_template_renders_the_recorded_prompt(name: str, prompt: str) -> None:
    assert real(name).render(CONVERSATIONS["two turns"]) == prompt


def test_real_template_refuses_with_its_own_words() -> None:
    with pytest.raises(TemplateError) as caught:
        real("google-gemma-2-2b-it").render([{"role": "system", "content": "x"}])
    assert str(caught.value) == "syntax error: System role not supported (in <string>:1)"


def test_templates_say_whether_they_tell_the_model_of_tools() -> None:
    plain = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    sets_it = ChatTemplate(
        "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools }}"
    )
    assert not ChatTemplates(plain).reads_tools
    assert ChatTemplates(sets_it).reads_tools
    both = ChatTemplates(plain, tool_use=sets_it)
    assert both.reads_tools
    assert both.sources == (sets_it.source, plain.source)
    assert ChatTemplates(plain).sources == (plain.source,)
