"""Templates that nobody should trust: none runs code, changes its caller's values, reads a file, or takes long."""

import copy
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icl.errors import InputError
from icl.prompt import Template, bind
from icl.values import Example

CLASSES = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
ESCAPES = {
    "subclasses": CLASSES,
    "subscript": "{{ ''['__class__']['__base__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "attr twice": "{{ ()|attr('__class__')|attr('__base__')|attr('__subclasses__')() }}",
    "map attribute": "{{ [text]|map(attribute='__class__')|list }}",
    "map attribute dotted": "{{ [text]|map(attribute='upper.__self__.__class__')|list }}",
    "map attr": "{{ [text]|map('attr', '__class__')|list }}",
    "format attribute": "{{ '{0.__class__}'.format(text) }}",
    "format item": "{{ '{0[__class__]}'.format(turns[0]) }}",
    "format indirect": "{{ ['{0.__class__.__init__.__globals__}'.format]|map('upper')|first }}",
    "format via variable": "{% set f = '{0.__class__}'.format %}{{ f(text) }}",
    "format via map": "{{ ['{0.__class__}']|map(attribute='format')|map('string')|list }}",
    "format call of map": "{{ (['{0.__class__.__mro__}']|map(attribute='format')|first)(text) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': text}) }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "code of a macro": "{% macro m() %}{% endmacro %}{{ m._func.__code__ }}",
    "cycler globals": "{{ cycler.__init__.__globals__.os.popen('touch pwned').read() }}",
    "lipsum globals": "{{ lipsum.__globals__['os'].system('touch pwned') }}",
    "joiner": "{{ joiner.__init__.__globals__ }}",
    "namespace init": "{{ namespace.__init__.__globals__ }}",
    "range class": "{{ range.__class__ }}",
    "range globals": "{{ range.__globals__ }}",
    "dict class": "{{ dict.__base__ }}",
    "dict mro": "{{ dict.mro() }}",
    "dict fromkeys": "{{ dict.fromkeys }}",
    "loop internals": "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "loop class": "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "self": "{{ self.__init__.__globals__ }}",
    "self block": "{{ self.answer() }}",
    "super": "{{ super() }}",
    "config": "{{ config.items() }}",
    "request": "{{ request.application.__globals__ }}",
    "context": "{{ _context }}",
    "environment": "{{ environment }}",
    "import os": "{% import 'os' as os %}{{ os.popen('id') }}",
    "from import": "{% from 'x.jinja' import y %}",
    "include": "{% include '/etc/passwd' %}",
    "include list": "{% include ['../secret.jinja', 'x'] ignore missing %}",
    "extends": "{% extends 'base.jinja' %}",
    "do": "{% do turns.append(1) %}",
    "debug": "{% debug %}",
    "append": "{{ turns.append({'role': 'x', 'text': 'y'}) }}",
    "pop": "{{ turns.pop() }}",
    "clear": "{{ turns[0].clear() }}",
    "update": "{{ turns[0].update({'text': 'changed'}) }}",
    "setdefault": "{{ turns[0].setdefault('x', 'y') }}",
    "pop in map": "{{ [turns]|map(attribute='pop')|first() }}",
    "sort in place": "{{ turns.sort() }}",
    "setitem": "{{ turns.__setitem__(0, 1) }}",
    "xmlattr": "{{ {'a b': 1}|xmlattr }}",
    "random": "{{ [1, 2, 3]|random }}",
    "pprint": "{{ turns|pprint }}",
    "encode": "{{ text.encode('utf-8') }}",
    "translate": "{{ text.translate({97: 'b' }) }}",
    "bit tricks": "{{ (5).to_bytes(100000000, 'big') }}",
    "an address": "{{ range }}",
    "another address": "{{ [text.upper]|join }}",
    "third address": "{{ '%s' % (text.upper,) }}",
    "fourth address": "{{ '{}'.format(text.upper) }}",
    "fifth address": "{{ text.upper ~ '' }}",
    "undefined in map": "{{ turns|map(attribute='nope')|list|length }}",
    "undefined path": "{{ turns|map(attribute='nope.deeper')|list|length }}",
    "undefined": "{{ nope }}",
    "undefined attribute": "{{ turns[0].nope }}",
    "private name": "{% set _x = 1 %}{{ _x }}",
    "filter block": "{% filter attr('__class__') %}x{% endfilter %}",
    "call block": "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}x{% endcall %}",
}
BOMBS = {
    "string times": "{{ 'a' * 10**9 }}",
    "times string": "{{ 10**9 * text }}",
    "list times": "{{ ([1] * 10**9)|length }}",
    "list times list": "{% set a = ['aaaaaaaaaa'] * 100000 %}{% for i in range(1000) %}{% set b = a * 100 %}{% endfor %}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "power of power": "{{ (((9 ** 99) ** 99) ** 99) ** 99 }}",
    "product": "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "range": "{% for i in range(10**12) %}x{% endfor %}",
    "nested range": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "nested loops in macros": "{% macro m() %}{% for j in range(99999) %}{% endfor %}{% endmacro %}{% for i in range(99999) %}{{ m() }}{% endfor %}",
    "nested loops writing": "{% for i in range(9999) %}{% for j in range(9999) %}aaaaaaaaaaaaaaaa{% endfor %}{% endfor %}",
    "macro writing": "{% macro m() %}" + "b" * 50_000 + "{% endmacro %}{% set x %}{% for i in range(99999) %}{{ m() }}{% endfor %}{% endset %}",
    "set block writing": "{% set x %}{% for i in range(99999) %}" + "c" * 50_000 + "{% endfor %}{% endset %}{{ x }}",
    "center": "{{ text.center(10**9) }}",
    "center filter": "{{ text|center(10**9) }}",
    "ljust": "{{ text.ljust(10**9) }}",
    "rjust": "{{ text.rjust(10**9) }}",
    "zfill": "{{ text.zfill(10**9) }}",
    "centers": "{% for i in range(99999) %}{{ text.center(9999) }}{% endfor %}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "percent precision": "{{ '%.1000000000f' % 1.0 }}",
    "percent mapping": "{{ '%(a)1000000000s' % {'a': 1} }}",
    "percent filter": "{{ '%1000000000d'|format(1) }}",
    "percents": "{{ ('%999d' * 100000) % ((1,) * 100000) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format nested": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "format fill": "{{ '{:a>1000000000}'.format('x') }}",
    "formats": "{{ ('{:999}' * 100000).format(*range(100000)) }}",
    "indent": "{{ ('\\n' * 100000)|indent(10000) }}",
    "indent string": "{{ ('\\n' * 100000)|indent('a' * 100000) }}",
    "replace": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replace method": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "replace empty": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "join": "{{ range(100000)|join('a' * 100000) }}",
    "join method": "{{ ('a' * 100000).join(['b'] * 100000) }}",
    "batch": "{{ [1]|batch(1000000000, 'x')|list }}",
    "slice filter": "{{ [1]|slice(1000000000)|list }}",
    "wordwrap": "{{ ('a ' * 500000)|wordwrap(1) }}",
    "tojson": "{{ ([[[[]]]] * 1000000)|tojson(8) }}",
    "round": "{{ 1.5|round(1000000000, 'ceil') }}",
    "lipsum": "{{ lipsum(n=1000000000) }}",
    "sum of lists": "{{ ([[1] * 1000] * 1000)|sum(start=[]) }}",
    "doubling set": "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
    "doubling plus": "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "doubling list": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|string|length }}",
    "doubling tuple hash": "{% set x = (1, 2) %}" + "{% set x = (x, x) %}" * 60 + "{{ {x: 1}|length }}",
    "doubling compare": "{% set x = [1] %}{% set y = [1] %}" + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60 + "{{ x == y }}",
    "doubling dict": "{% set x = {'a': 1} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x|tojson }}",
    "doubling macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "endless macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "endless caller": "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}{{ n() }}",
    "recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "slices": "{% set n = namespace(l=[]) %}{% set a = 'a' * 1000000 %}{% for i in range(99999) %}{% set n.l = n.l + [a[1:]] %}{% endfor %}",
    "in a list": "{% set l = range(99999)|list %}{% for i in range(99999) %}{% if -1 in l %}{% endif %}{% endfor %}",
    "test in": "{% set l = range(99999)|list %}{{ range(99999)|select('in', l)|list|length }}",
    "uppers": "{% set a = 'a' * 1000000 %}{% for i in range(99999) %}{% set b = a.upper() %}{% endfor %}",
    "lowers": "{% set a = 'a' * 1000000 %}{{ range(99999)|map('string')|map('replace', '', a)|list|length }}",
    "splits": "{% set a = 'a ' * 1000000 %}{% for i in range(99999) %}{% set b = a.split() %}{% endfor %}",
    "sorts": "{% set l = range(99999)|list %}{% for i in range(99999) %}{% set b = l|sort(reverse=true) %}{% endfor %}",
    "many tests": "{% set a = 'a' * 1000000 %}" + "{% if 'b' in a %}{% endif %}" * 2000,
    "deep brackets": "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
    "deep lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "long sum": "{{ " + "1+" * 30_000 + "1 }}",
    "long number": "{{ " + "9" * 10_000 + " }}",
    "deep loops": "{% for i in [1] %}" * 60 + "{% endfor %}" * 60,
    "deep ifs": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
}  # fmt: skip
HOSTILE = {**ESCAPES, **BOMBS}
TURNS = [{"role": "customer", "text": "hello"}, {"role": "agent", "text": "hi"}]


def hostile_source(body: str) -> str:
    return "---\ninput: [text, turns]\n---\n\n{% block example %}" + body + "{% endblock %}{% block answer %} {{ answer }}{% endblock %}"


def attempt(name: str) -> dict:
    """Parse and render one hostile template as a user would."""
    example = Example("x-0", {"text": "a text", "turns": copy.deepcopy(TURNS)}, "yes")
    started = time.process_time()
    try:
        template = Template.parse(hostile_source(HOSTILE[name]), "hostile", "hostile.jinja")
        bound = bind(template, kind="classify", inputs=["text", "turns"], labels=["yes", "no"])
        text = bound.query(example)
        outcome = f"rendered {text[:80]!r}"
        files = lines = ok = False
    except InputError as error:
        outcome = str(error)[:500]
        files = all(p.file == "hostile.jinja" and p.message for p in error.problems)
        lines = all(p.line in (None, 5) for p in error.problems)
        ok = True
    return {
        "name": name,
        "outcome": outcome,
        "ok": ok and files and lines,
        "seconds": time.process_time() - started,
        "unchanged": example.fields["turns"] == TURNS,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """Peak memory of this program. Not ru_maxrss where it can be helped: Linux hands that down from the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    for each in HOSTILE:
        print(json.dumps(attempt(each)), flush=True)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All of them in one process of their own, in an empty folder, so that its peak memory is theirs."""
    folder = tmp_path_factory.mktemp("hostile")
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, __file__], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(folder.iterdir()) == []
    return {item["name"]: item for item in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_a_clear_error(outcomes, name):
    found = outcomes[name]
    assert found["ok"], found["outcome"]
    assert "0x7" not in found["outcome"]
    assert found["unchanged"]
    assert found["seconds"] < 2
    assert found["peak_mb"] < 512
