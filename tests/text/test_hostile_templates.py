# ruff: noqa: E501  a template a line
"""A template comes with a model: whatever is in it, a rendering ends soon, takes little memory and
reaches nothing but the conversation."""

import itertools
import re
from pathlib import Path
from time import thread_time

import pytest

from tgi_llama.errors import ConfigError, TemplateError
from tgi_llama.text import template_meter
from tgi_llama.text.chat_template import ChatTemplate
from tgi_llama.text.template_meter import TemplateLimits

from .hostile_templates import AT_START, COMPUTED_AT_START, FOR_EVER, FORBIDDEN, LARGE

USER = {"role": "user", "content": "Hi"}
LIMITS = TemplateLimits(timeout_s=0.3)
ONE_STEP_S = 3.0
"""What the longest step between two looks at the time may take. All times here are those of this
thread alone: what other programs take of a machine does not count."""


def forget_peak_memory() -> None:
    """What the process takes now is its peak. Linux only, as all of this project's tests."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_kib() -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def outcome(source: str) -> str:
    """The prompt, or why there is none. The start asks with other words, so it finds nothing."""
    guarded = "{% if messages[0].content == '?' %}" + source + "{% endif %}"
    try:
        return ChatTemplate(guarded, limits=LIMITS).render([{"role": "user", "content": "?"}])
    except (ConfigError, TemplateError) as error:
        return f"ERROR {error}"


@pytest.mark.parametrize("source", FOR_EVER.values(), ids=FOR_EVER.keys())
def test_template_that_takes_long_is_stopped(source: str) -> None:
    started = thread_time()
    reason = outcome(source)
    assert thread_time() - started < LIMITS.timeout_s + ONE_STEP_S
    assert reason.startswith("ERROR ")
    assert "too costly" in reason or "recursion" in reason or "nested" in reason


@pytest.mark.parametrize("source", LARGE.values(), ids=LARGE.keys())
def test_template_that_makes_too_much_is_stopped_before_it_has_it(source: str) -> None:
    forget_peak_memory()
    before = peak_kib()
    started = thread_time()
    reason = outcome(source)
    assert thread_time() - started < LIMITS.timeout_s + ONE_STEP_S
    assert reason.startswith("ERROR ")
    assert peak_kib() - before < 300 * 1024


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_template_that_reaches_out_gets_nothing(source: str) -> None:
    reason = outcome(source)
    assert reason == "" or reason.startswith("ERROR ")


@pytest.mark.parametrize("source", AT_START.values(), ids=AT_START.keys())
def test_template_that_is_hard_to_compile_ends_the_start_or_not_but_soon(source: str) -> None:
    started = thread_time()
    reason = outcome(source)
    assert thread_time() - started < 10.0
    assert "\n" not in reason


@pytest.mark.parametrize("source", COMPUTED_AT_START.values(), ids=COMPUTED_AT_START.keys())
def test_nothing_is_computed_that_is_not_shown(source: str) -> None:
    assert ChatTemplate(source, limits=LIMITS).render([USER]) == ""


def test_limit_that_is_met_at_the_start_ends_it_naming_origin_reason_and_line() -> None:
    with pytest.raises(ConfigError) as caught:
        ChatTemplate("a\n{{ 'a' * 10 ** 9 }}", origin="--chat-template")
    assert str(caught.value) == (
        "--chat-template: too costly: the template makes more than 8388608 characters"
        " (in <string>:2)"
    )


def test_limits_that_are_given_hold_for_every_way_to_write_a_text() -> None:
    """Not those that are usual."""
    few = TemplateLimits(max_characters=100)
    many = TemplateLimits(max_characters=20 * 2**20, max_created_bytes=2**30)
    for source in (
        "{{ '{0}{0}{0}'.format('a' * N) | length }}",
        "{% block a %}{{ 'a' * N }}{{ 'a' * N }}{{ 'a' * N }}{% endblock %}",
        "{% set x %}{{ 'a' * N }}{{ 'a' * N }}{{ 'a' * N }}{% endset %}{{ x | length }}",
        "{% if self.a is defined %}{% endif %}{{ 'a' * N }}{{ 'a' * N }}{{ 'a' * N }}",
    ):
        with pytest.raises(ConfigError, match="too costly"):
            ChatTemplate(source.replace("N", "40"), limits=few)
        ChatTemplate(source.replace("N", "4000000"), limits=many).render([USER])


def test_limit_that_is_met_by_a_conversation_is_a_template_error() -> None:
    template = ChatTemplate("{{ 'a' * (messages | length) * 10 ** 7 if messages | length > 1 }}")
    assert template.render([USER]) == ""
    with pytest.raises(TemplateError, match="too costly: the template makes more than 8388608"):
        template.render([USER, USER])
    assert template.render([USER]) == ""


def test_time_that_others_had_the_processor_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clock it took seconds; the thread itself had little of them."""
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr(template_meter, "monotonic", lambda: next(clock))
    source = "{% for a in range(N) %}{{ a }}{% endfor %}"
    assert ChatTemplate(source.replace("N", "6")).render([USER]) == "012345"
    with pytest.raises(ConfigError, match="takes longer than 2 s"):
        ChatTemplate(source.replace("N", "60"))


def test_time_is_for_all_that_is_tried_with_a_conversation() -> None:
    source = (
        "{% if messages[0].content != 'Hi' %}{% for a in range(9999) %}{% for b in range(30) %}"
        "{% endfor %}{% endfor %}{{ tools[0].function.description + 1 }}{% endif %}"
    )
    template = ChatTemplate(source, limits=TemplateLimits(timeout_s=1e-4))
    with pytest.raises(TemplateError, match=r"takes longer than 0\.0001 s"):
        template.render([{"role": "user", "content": "?"}], [{"function": {}}])


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("{{ 'a' * 3 }}{{ 2 * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ [1] * 2 }}", "aaa610243[1, 1]"),
        ("{{ '%s: %05.1f%%' % ('a', 2) }}{{ '%(a)s' % {'a': 1} }}", "a: 002.0%1"),
        ("{{ '{}-{a:>4}'.format(1, a=2) }}{{ '{x}'.format_map({'x': 3}) }}", "1-   23"),
        ("{{ ('<{}>' | safe).format('<') }}", "<&lt;>"),
        ("{{ 'a'.center(5, '-') }}{{ 'a' | center(3) }}{{ '7'.zfill(3) }}", "--a-- a 007"),
        ("{{ 'a-b'.replace('-', '--') }}{{ 'a-b' | replace('-', '+') }}", "a--ba+b"),
        ("{{ ', '.join(['a', 'b']) }}", "a, b"),
        ("{{ '+'.join(['a', 'b'] | map('upper')) }}{{ [1, 2] | join('-') }}", "A+B1-2"),
        ("{{ [{'a': 1}, {'a': 2}] | join('|', attribute='a') }}", "1|2"),
        ("{{ [1, 2.5] | sum }}{{ [[1], [2]] | sum(start=[]) }}", "3.5[1, 2]"),
        ("{{ [{'a': 1}, {'a': 2}] | sum('a') }}", "3"),
        ("{{ [1, 2, 3] | batch(linecount=2, fill_with=0) | list }}", "[[1, 2], [3, 0]]"),
        ("{{ [1, 2, 3] | slice(2) | list }}", "[[1, 2], [3]]"),
        ("{{ 'a\nb' | indent(2) }}{{ 'a\nb' | indent(width='> ', first=true) }}", "a\n  b> a\n> b"),
        ("{{ 2.567 | round(1) }}{{ 2.5 | round(method='floor') }}", "2.62.0"),
        ("{{ [2, 1, 2] | unique | list }}{{ ['a', 'A'] | unique | list }}", "[2, 1]['a']"),
        ("{{ ' a ' | trim }}{{ 'xax' | trim('x') }}{{ 5 | trim }}", "aa5"),
        ("{{ 5 | string + '!' }}{{ '<' | e }}{{ 3 is odd }}{{ 4 is even }}", "5!&lt;TrueTrue"),
        ("{{ 9 is divisibleby 3 }}{{ 1 is eq 1 }}{{ 1 is in [1] }}", "TrueTrueTrue"),
        ("{{ 'abc'[1:] }}{{ 'abc'[::-1] }}{{ [1, 2, 3][:2] }}{{ 'abc'[-1] }}", "bccba[1, 2]c"),
        ("{{ 'a' ~ 1 ~ none ~ [2] }}", "a1None[2]"),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"),
        ("{% set j = joiner('-') %}{{ j() }}a{{ j() }}b", "a-b"),
        (
            "{% for a in 'abc' %}{{ loop.cycle(1, 2) }}{{ loop.changed(a) }}{% endfor %}",
            "1True2True1True",
        ),
        (
            "{% for a in [1, [2]] recursive %}{{ loop(a) if a is not number else a }}{% endfor %}",
            "12",
        ),
        ("{% block a %}x{% endblock %}{{ self.a() }}", "xx"),
        (
            "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 3, 4, c=5) }}",
            "13(4,){'c': 5}",
        ),
        (
            "{% macro f() %}<{{ caller('x') }}>{% endmacro %}{% call(a) f() %}{{ a }}{% endcall %}",
            "<x>",
        ),
        ("{% filter upper %}a{{ 'b' }}{% endfilter %}{% set x %}c{% endset %}{{ x }}", "ABc"),
        (
            "{{ dict([('a', 1)], b=2) }}{{ {'a': 1}.get('b', 3) }}{{ [1, 1].count(1) }}",
            "{'a': 1, 'b': 2}32",
        ),
        (
            "{{ 'a,b'.split(',') }}{{ 'a b'.title() }}{{ 'abc'.rfind('b') }}{{ ' x'.lstrip() }}",
            "['a', 'b']A B1x",
        ),
        ("{% for a in [1, 2, 3] if a != 2 %}{{ a }}{{ loop.last }}{% endfor %}", "1False3True"),
        (
            "{{ 'a' + 'b' + 'c' + 'd' + 'e' + 'f' + 'g' + 'h' + 'i' + 'j' + 'k' + 'l' }}",
            "abcdefghijkl",
        ),
        (
            "{{ messages | map(attribute='role') | list }}{{ 1 < 2 < 3 }}{{ 'i' in 'Hi' }}",
            "['user']TrueTrue",
        ),
        (
            "{{ [[1]] | tojson(indent=2) }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
            '[\n  [\n    1\n  ]\n]{"a": 2, "b": 1}',
        ),
    ],
)
def test_what_is_watched_works(source: str, prompt: str) -> None:
    assert ChatTemplate(source).render([USER]) == prompt


def test_long_conversations_are_far_from_the_limits() -> None:
    source = (
        "{% set ns = namespace(all=[], text='') %}{% for m in messages %}"
        "{% set ns.all = ns.all + [m] %}{{ '<' + m.role + '>' + m.content | trim }}"
        "{{ m.content.split('</think>')[-1].strip() }}{% endfor %}{{ messages | tojson }}"
    )
    chat = [{"role": "user", "content": "word " * 200} for _ in range(2000)]
    template = ChatTemplate(source)
    started = thread_time()
    assert len(template.render(chat)) > 5_000_000
    assert thread_time() - started < TemplateLimits().timeout_s
