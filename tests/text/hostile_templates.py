# ruff: noqa: E501  a template a line
"""Templates that a malicious model might come with."""

FOR_EVER = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a loop whose condition never holds": "{% for a in range(99999) %}{% for b in range(99999) if a < 0 %}"
    "{% endfor %}{% endfor %}",
    "macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "recursive loop with a depth": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 99 }}{% endfor %}",
    "block that shows itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "call blocks": "{% macro f(n) %}{% if n %}{% call f(n - 1) %}{% endcall %}{% call f(n - 1) %}{% endcall %}"
    "{% endif %}{{ caller() }}{% endmacro %}{% call f(50) %}{% endcall %}",
    "filters in a row": "{% set x = range(99999) %}{{ x"
    + " | map('string')" * 60
    + " | list | length }}",
    "filters of filters": "{% for a in range(99999) %}{{ range(99999) | map('string') | join | length }}{% endfor %}",
    "tests of many": "{% for a in range(99999) %}{{ range(99999) | select('odd') | list | length }}{% endfor %}",
    "long comparisons": "{% set x = range(99999) | list %}{% set y = range(99999) | list %}"
    "{% for a in range(99999) %}{% if x == y and x == y and x == y and x == y %}{% endif %}{% endfor %}",
    "long comparisons in a row": "{% set x = range(99999) | list %}{% set y = range(99999) | list %}"
    + "{{ x == y }}" * 1500,
    "long searches": "{% set x = 'a' * 4000000 %}{{ x.rfind('b' + 'a' * 2000000) }}",
    "long strips": "{% set x = 'a' * 4000000 %}{{ x.strip('b' * 2000000 + 'a') }}",
    "long trims": "{% set x = 'a' * 4000000 %}{{ x | trim('b' * 2000000 + 'a') }}",
    "many searches": "{% set x = 'a' * 4000000 %}{% for a in range(99999) %}{{ 'b' in x }}{{ x | trim | length }}{% endfor %}",
    "keys that hash alike": "{% set x = dict.fromkeys(range(0, (2 ** 61 - 1) * 99999, 2 ** 61 - 1)) %}{{ x | length }}",
    "values that hash alike": "{{ range(0, (2 ** 61 - 1) * 99999, 2 ** 61 - 1) | list | unique | list | length }}",
    "pairs that hash alike": "{% set r = range(0, (2 ** 61 - 1) * 99999, 2 ** 61 - 1) %}"
    "{{ dict(r | batch(2)) }}",
    "sums of lists": "{% set x = [[1] * 1000] * 400 %}{{ (x * 20) | sum(start=[]) | length }}",
    "slow wrap": "{{ ('a' * 3000000) | wordwrap(1) }}",
    "slow links": "{{ ('http://a.' * 300000) | urlize }}",
    "slow tags": "{{ ('<!--' * 300000) | striptags }}",
    "slow print": "{{ range(99999) | list | pprint }}",
    "idle division": "{% set x = ('f' * 1000000) | int(base=16) %}{{ x // 3 }}",
    "big powers": "{{ 7 ** (10 ** 8) % 2 }}",
    "big powers step by step": "{% set ns = namespace(x=3) %}{% for a in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "growing numbers": "{% set ns = namespace(x=3) %}{% for a in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
}

LARGE = {
    "text times number": "{% set x = 'a' * 10 ** 9 %}",
    "number times text": "{{ 1000000000 * 'a' }}",
    "list times number": "{{ ([0] * 10 ** 9) | length }}",
    "tuple times number": "{{ ((0, 1) * 10 ** 9) | length }}",
    "text in a list times number": "{{ ([['a' * 1000] * 1000] * 1000) }}",
    "printed width": "{{ '%1000000000d' % 1 }}",
    "printed precision": "{{ '%.1000000000f' % 1 }}",
    "printed width as a value": "{{ '%*d' % (1000000000, 1) }}",
    "printed width of a name": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "many names": "{{ ('%(a)s' * 100000) % {'a': 'a' * 100000} }}",
    "many widths": "{{ ('%9999d' * 1000000) % 1 }}",
    "remainder that formats": "{{ '%1000000000d' is divisibleby 1 }}",
    "odd that formats": "{{ '%1000000000d' is odd }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "format method with a value": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format method with a name": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "format method of many": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "centers": "{{ range(99999) | map('center', 100000) | list | length }}",
    "center method": "{{ 'a'.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "rjust": "{{ 'a'.rjust(1000000000, 'b') }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "tabs": "{{ ('\t' * 1000).expandtabs(1000000) }}",
    "replace": "{{ ('a' * 100000) | replace('a', 'b' * 100000) | length }}",
    "replace nothing": "{{ ('a' * 100000) | replace('', 'b' * 100000) | length }}",
    "replace method": "{{ ('a' * 100000).replace('a', 'b' * 100000) | length }}",
    "join": "{{ range(99999) | join('a' * 100000) | length }}",
    "joins": "{{ ([[1] * 1000] * 99) | map('join', 'a' * 8000) | join }}",
    "join method": "{{ ('a' * 100000).join('a' * 100000) | length }}",
    "batch": "{{ [1] | batch(1000000000, 'a') | list | length }}",
    "slices": "{{ [1] | slice(1000000000) | list | length }}",
    "indent": "{{ ('a\n' * 100000) | indent(100000) | length }}",
    "indent with a text": "{{ ('a\n' * 100000) | indent('b' * 100000) | length }}",
    "indented JSON": "{{ [[1]] | tojson(indent=1000000000) }}",
    "separators in JSON": "{{ range(99999) | list | tojson(separators=(',' * 100000, ':')) }}",
    "round": "{{ 'a' | round(9, 'ceil') }}{{ 1.5 | round(1000000000, 'ceil') }}",
    "to bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "encode": "{{ ('a' * 1000000).encode('idna') }}",
    "joined to itself": "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "added to itself": "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "added in a row": "{% set x = 'a' * 8000000 %}{{ (x" + " + x" * 400 + ") | length }}",
    "joined in a row": "{% set x = 'a' * 8000000 %}{{ (x" + " ~ x" * 400 + ") | length }}",
    "doubled list": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "nested list": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "nested tuple": "{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
    "nested object": "{% set ns = namespace(x={}) %}{% for i in range(99) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
    "nested dict": "{% set ns = namespace(x={}) %}{% for i in range(99) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x == ns.x | list }}",
    "nested arguments": "{% macro f(n) %}{% if n %}{{ f(n - 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}{% endmacro %}{{ f(90, 1) }}",
    "nested keywords": "{% macro f(n) %}{% if n %}{{ f(n - 1, a=kwargs, b=kwargs) }}{% else %}{{ kwargs }}{% endif %}{% endmacro %}{{ f(90, a=1) }}",
    "nested cycles": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = cycler(ns.x, ns.x).items %}{% endfor %}{{ ns.x }}",
    "namespaces that hold each other": "{% set ns = namespace(x=namespace()) %}{% for i in range(99) %}"
    "{% set n = namespace(a=ns.x, b=ns.x) %}{% set ns.x = n %}{% endfor %}{{ [ns.x, ns.x] }}"
    + "{{ 'a' * 10 ** 9 }}",
    "deep tuple": "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% for j in range(9) %}{% set ns.x = (ns.x,) %}{% endfor %}{% endfor %}{{ {ns.x: 1} | length }}",
    "characters as a list": "{{ ('Ж' * 8000000) | list | length }}",
    "characters as arguments": "{{ cycler(*('Ж' * 8000000)).next() }}",
    "characters joined": "{{ ''.join('Ж' * 8000000) | length }}",
    "many fields": "{{ ('{0}' * 1000000).format('') }}",
    "texts in namespaces": "{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
    "{% set ns.x = namespace(a='a' * 1000000, b=ns.x) %}{% endfor %}",
    "short texts in namespaces": "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% for j in range(9) %}"
    "{% set ns.x = namespace(a='😀' * 4000 ~ i, b=ns.x) %}{% endfor %}{% endfor %}",
    "short texts in lists": "{% set ns = namespace(x=1) %}{% set t = '😀' * 4000 %}{% for k in range(9999) %}"
    "{% set ns.x = namespace(a=range(2000) | map('replace', 0, t) | list, b=ns.x) %}{% endfor %}",
    "parts of texts": "{% set t = ('😀ab' * 1300 ~ ' ') * 2000 %}{% set ns = namespace(x=1) %}{% for i in range(999) %}"
    "{% set ns.x = namespace(a=t.split(' '), b=ns.x) %}{% endfor %}",
    "small parts of texts": "{% set t = '😀 ' * 400000 %}{% set ns = namespace(x=1) %}{% for i in range(999) %}"
    "{% set ns.x = namespace(a=t.split(' '), b=ns.x) %}{% endfor %}",
    "numbers in lists": "{% set ns = namespace(x=1) %}{% for i in range(999) %}"
    "{% set ns.x = namespace(a=range(99999) | list, b=ns.x) %}{% endfor %}",
    "cut texts in namespaces": "{% set ns = namespace(x=1) %}{% set t = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{% set ns.x = namespace(a=t[1:], b=ns.x) %}{% endfor %}",
    "output": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "output of constants": "{% for i in range(99999) %}" + "a" * 1000 + "{% endfor %}",
    "output of a macro": "{% macro f() %}{% for i in range(99999) %}"
    + "a" * 1000
    + "{% endfor %}{% endmacro %}{{ f() | length }}",
    "assigned output": "{% set x %}{% for i in range(99999) %}"
    + "a" * 1000
    + "{% endfor %}{% endset %}",
    "filtered output": "{% filter length %}{% for i in range(99999) %}"
    + "a" * 1000
    + "{% endfor %}{% endfilter %}",
    "time": "{{ strftime_now('%1000000000d') }}",
    "long time": "{{ strftime_now('%c' * 1000000) }}",
    "upper": "{{ ('ΐ' * 8000000).upper() | length }}",
    "escaped": "{{ ('<' * 8000000) | e | length }}",
    "printed lists": "{% set x = ['\x01' * 7000000] %}{{ x }}",
    "JSON of escapes": "{% set x = ['\x01' * 7000000] %}{{ x | tojson }}",
}

FORBIDDEN = {
    "class of a text": "{{ ''.__class__.__mro__ }}",
    "class of a list": "{{ []['__class__'] }}",
    "attr filter": "{{ '' | attr('__class__') | attr('__mro__') }}",
    "attributes by map": "{{ [''] | map(attribute='__class__') | list }}"
    + "{{ ([''] | map(attribute='__class__') | first).x }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format by map": "{{ ['{0.__class__}'] | map('format', 1) | join }}{{ '{0.__class__}'.format('') }}",
    "format of marked": "{{ ('{0.__class__}' | safe).format(1) }}",
    "generator frame": "{{ ([1] | map('string')).gi_frame.f_globals }}",
    "generator code": "{{ ([1] | map('string')).gi_code.co_consts }}",
    "generator method": "{{ ([1] | map('string')).throw(1) }}",
    "macro globals": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "macro environment": "{% macro f() %}{% endmacro %}{{ f._environment.x }}",
    "caller": "{% macro f() %}{{ caller._func.__globals__ }}{% endmacro %}{% call f() %}{% endcall %}",
    "loop": "{% for a in [1] %}{{ loop._iterator.x }}{% endfor %}",
    "self": "{{ self._TemplateReference__context.x }}",
    "self and class": "{{ self.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "cycler's method": "{{ cycler(1).next.__globals__ }}",
    "joiner": "{{ joiner.__init__.__globals__ }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "namespace with a name": "{% set n = namespace(__class__=1) %}",
    "namespace with a name from a list": "{% set n = namespace([('__class__', 1)]) %}",
    "namespace that is set": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "functions": "{{ raise_exception.__globals__ }}",
    "functions' code": "{{ strftime_now.func_code.co_code }}{{ strftime_now.__code__.co_code }}",
    "range": "{{ range.__globals__ }}",
    "dict": "{{ dict.__class__.x }}{{ dict.mro() }}",
    "undefined": "{{ missing.__init__.__globals__ }}",
    "change of messages": "{{ messages.append(1) }}",
    "change of a message": "{{ messages[0].update(role='system') }}",
    "change by pop": "{{ messages[0].pop('content') }}",
    "mapping": "{{ {}.items().mapping.x.y }}",
    "call of a view": "{{ {}.items().isdisjoint([]) }}",
    "import": "{% import 'os' as os %}",
    "from": "{% from 'os' import system %}",
    "include": "{% include '/etc/passwd' %}",
    "include of the first": "{% include ['/etc/passwd', 'x'] %}",
    "extends": "{% extends '/etc/passwd' %}",
    "numbers": "{{ (1).from_bytes([1], 'big') }}",
    "number's real": "{{ (1).real.__class__.x }}",
    "float's": "{{ (1.5).fromhex('1') }}",
    "extension": "{{ environment.extensions.x }}",
    "context": "{{ context.environment.x }}",
    "the code's own names": "{{ meter.limits.x }}{{ checked.x }}{{ _v.x }}",
}

AT_START = {
    "long": "a" * 300_000,
    "many parts": "{{ 1 }}" * 20_000,
    "many sets and conditions": "".join(f"{{% set a{i} = 1 %}}" for i in range(3000))
    + "{% if a %}{% endif %}" * 1500,
    "many names and conditions": "{{ ["
    + ",".join(f"a{i}" for i in range(9000))
    + "] }}"
    + "{% if a %}{% endif %}" * 5000,
    "many macros": "".join(f"{{% macro b{i}() %}}{{% endmacro %}}" for i in range(7500)),
    "number that Python does not read": "{{ " + "1" * 250_000 + " }}",
    "nested conditions": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "nested loops": "{% for a in b %}" * 3000 + "{% endfor %}" * 3000,
    "nested lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "nested brackets": "{{ " + "(" * 20_000 + ")" * 20_000 + " }}",
    "nested calls": "{{ " + "a(" * 3000 + ")" * 3000 + " }}",
    "long sum": "{{ 1" + " + 1" * 5000 + " }}",
    "many minus signs": "{{ " + "-" * 19_000 + "1 }}",
    "many nots": "{{ " + "not " * 19_000 + "1 }}",
    "many filters": "{{ 1" + " | string" * 9000 + " }}",
    "long chain": "{{ a" + ".a" * 9000 + " }}",
}
"""Those that are not even templates: too long, or nested too deep."""

COMPUTED_AT_START = {
    "text": "{% if false %}{{ 'a' * 1000000000 }}{% endif %}",
    "center": "{% if false %}{{ 'a' | center(1000000000) }}{% endif %}",
    "format": "{% if false %}{{ '%1000000000d' % 1 }}{% endif %}",
    "power": "{% if false %}{{ 9 ** 9 ** 9 }}{% endif %}",
    "list": "{% if false %}{% set x = [0] * 1000000000 %}{% endif %}",
    "format method": "{% if false %}{{ '{:1000000000}'.format(1) }}{% endif %}",
    "odd": "{% if false %}{{ '%1000000000d' is odd }}{% endif %}",
    "join": "{% if false %}{{ ('a' ~ 'b') * 1000000000 }}{% endif %}",
    "range": "{% if false %}{{ range(99999) | list }}{% endif %}",
}
"""What a compiler might compute at once, though it is never shown."""
