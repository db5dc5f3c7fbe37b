"""Runs a template that nobody has vouched for: it can compute text from plain values and nothing else.

Three fences. A list of what may be named at all (statements, filters, methods): the rest is refused before anything runs. Jinja's immutable
sandbox beneath it. And a meter: every value that a template makes is charged with its size *before* it is made, so neither
`'a' * 10**9` nor forty doublings in a row reach memory, and loops pay for each turn. The meter counts work, not seconds, so that a
template that renders on a fast machine renders on a slow one; the clock (processor time) only catches what is slow for its size.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any, cast

from jinja2 import StrictUndefined, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from . import filters

MAX_OUTPUT = 1_000_000
"""Characters that a block may write, beyond four times what it was given."""
MAX_WORK = 8_000_000
"""Units of work of one rendering, beyond sixteen times the characters it was given: one per character made, 16 per step."""
MAX_SECONDS = 1.0
"""Processor time of one rendering."""
MAX_BITS = 4_096
"""Size of a whole number."""
MAX_WIDTH = 10_000
"""Widest padding."""
STEP = 16

STATEMENTS = (
    nodes.Output, nodes.TemplateData, nodes.Block, nodes.If, nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock,
    nodes.Assign, nodes.AssignBlock, nodes.With, nodes.Scope, nodes.Template,
)  # fmt: skip
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        [
            "upper",
            "lower",
            "title",
            "capitalize",
            "swapcase",
            "casefold",
            "strip",
            "lstrip",
            "rstrip",
            "removeprefix",
            "removesuffix",
            "split",
            "rsplit",
            "splitlines",
            "partition",
            "rpartition",
            "startswith",
            "endswith",
            "find",
            "rfind",
            "index",
            "rindex",
            "count",
            "isalpha",
            "isdigit",
            "isnumeric",
            "isalnum",
            "isupper",
            "islower",
            "isspace",
            "istitle",
            "replace",
            "join",
            "center",
            "ljust",
            "rjust",
            "zfill",
            "format",
        ]
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"index", "count"}),
    tuple: frozenset({"index", "count"}),
    LoopContext: frozenset(
        [
            "index",
            "index0",
            "revindex",
            "revindex0",
            "first",
            "last",
            "length",
            "depth",
            "depth0",
            "previtem",
            "nextitem",
            "cycle",
            "changed",
        ]
    ),
}


class LimitError(Exception):
    """A template asked for more than it may have."""


class Meter:
    """What one rendering may still spend."""

    def __init__(self, given: int) -> None:
        self.left = MAX_WORK + 16 * given
        self.output = MAX_OUTPUT + 4 * given
        self.calls = 0
        self.deadline: float | None = None

    def charge(self, units: int) -> None:
        """Pay for one step and `units` characters or elements. Raises LimitError when nothing is left."""
        self.left -= units + STEP
        if self.left < 0:
            raise LimitError("does too much work")
        self.calls += 1
        if not self.calls & 63:  # asking for the time costs as much as a step
            now = time.thread_time()
            if self.deadline is None:
                self.deadline = now + MAX_SECONDS
            elif now > self.deadline:
                raise LimitError(f"runs for more than {MAX_SECONDS:g} s")

    def size(self, value: Any) -> int:
        """Characters and elements in a value, contents counted as often as they stand there. Stops at what is left."""
        total, stack = 0, [value]
        while stack:
            item = stack.pop()
            if isinstance(item, str | range):
                total += len(item)
            elif isinstance(item, list | tuple):
                total += 8 * len(item)
                stack.extend(item)
            elif isinstance(item, dict):
                total += 16 * len(item)
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, int) and item.bit_length() > MAX_BITS:
                raise LimitError(f"makes a number of more than {MAX_BITS} bits")
            if total > self.left:
                raise LimitError("makes a value that is too large")
        return total

    def made(self, value: Any) -> Any:
        """Charge a value that is there already; an iterator pays item by item."""
        if isinstance(value, Iterator):
            return self.each(value)
        self.charge(self.size(value))
        return value

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each paid for. An undefined one is an error here, since `map(attribute=…)` lets it through."""
        for item in items:
            self.charge(self.size(item))
            if isinstance(item, Undefined):
                str(item)  # StrictUndefined raises
            yield item


class MeteredContext(Context):
    """A rendering's variables, and its meter."""

    meter: Meter


class _Formatter(SandboxedFormatter):
    def __init__(self, environment: Any, meter: Meter) -> None:
        super().__init__(environment)
        self.meter = meter

    def format_field(self, value: Any, format_spec: str) -> str:
        filters.narrow(format_spec)
        result = str(super().format_field(filters.scalar(value), format_spec))
        self.meter.charge(len(result))
        return result


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The environment of all templates. Nothing in it changes once it is made."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))
    context_class = MeteredContext

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_written, optimized=False)
        known = self.filters
        self.filters = {name: _guarded(cast("Callable[..., Any]", known[name]), name) for name in filters.PLAIN | filters.TEXT}
        self.filters |= {name: _metered(function) for name, function in filters.OWN.items()}
        self.filters |= _GUARDS
        self.tests = {name: _guarded(cast("Callable[..., Any]", self.tests[name]), "test") for name in filters.TESTS}
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": Namespace}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, Namespace):
            return True
        return attr in METHODS.get(type(obj), ())

    def wrap_str_format(self, value: Any) -> Any:
        # `call` below runs the guarded formatter; nothing else can call what a template got hold of.
        return None

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = _meter(context)
        if operator in "+*":
            a, b = meter.size(left), meter.size(right)
            times = right if isinstance(right, int) else left if isinstance(left, int) else 1
            both_numbers = isinstance(left, int | float) and isinstance(right, int | float)
            meter.charge(a + b if operator == "+" or both_numbers else max(a, b, 1) * max(times, 0))
        elif operator == "**" and not (isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS):
            meter.charge(1)
        elif operator == "**":
            raise LimitError(f"makes a number of more than {MAX_BITS} bits")
        elif operator == "%" and isinstance(left, str):
            filters.narrow_percent(left, right)
            meter.charge(len(left) + left.count("%") * (meter.size(right) + 1000))
        return meter.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(__context)
        if isinstance(__obj, Undefined):
            str(__obj)  # StrictUndefined raises with the name
        owner = getattr(__obj, "__self__", None) if isinstance(__obj, BuiltinMethodType) else None
        if isinstance(owner, str):
            args = tuple(list(meter.each(a)) if isinstance(a, Iterator) else a for a in args)
            meter.charge(meter.size(owner) + meter.size(args) + meter.size(kwargs))
            if __obj.__name__ not in METHODS[str]:
                raise SecurityError(f"the method '{__obj.__name__}' is not allowed")
            if __obj.__name__ == "format":
                return _Formatter(__self, meter).vformat(owner, args, kwargs)
            meter.charge(filters.growth(__obj.__name__, owner, args))
        elif not (isinstance(owner, dict | list | tuple) or isinstance(__obj, Macro | LoopContext) or _callable(__obj)):
            raise SecurityError(f"{type(__obj).__name__} objects cannot be called")
        else:
            meter.charge(0)
        return meter.made(super().call(__context, __obj, *args, **kwargs))


def _callable(obj: Any) -> bool:
    """A global, or a method of `loop`."""
    return any(obj is known for known in ENVIRONMENT.globals.values()) or isinstance(getattr(obj, "__self__", None), LoopContext)


def _meter(context: Context) -> Meter:
    assert isinstance(context, MeteredContext)
    return context.meter


@pass_context
def _written(context: Context, value: Any) -> str:
    text = filters.scalar(value)
    _meter(context).charge(len(text))
    return text


def _guarded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """One of Jinja's own filters or tests: what goes in and what comes out is paid for."""
    passed = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def guarded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        if name in filters.TEXT:
            value = filters.scalar(value)
        if not isinstance(value, Iterator):
            meter.charge(meter.size(value) + meter.size(args) + meter.size(kwargs))
        extra = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        first = (extra[passed.name],) if passed else ()
        return meter.made(function(*first, value, *args, **kwargs))

    return guarded


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """One of our own filters: it is handed the meter, and pays for what it makes before it makes it."""

    @pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        if isinstance(value, Iterator):
            value = list(meter.each(value))
        meter.charge(meter.size(value) + meter.size(args) + meter.size(kwargs))
        return function(meter, value, *args, **kwargs)

    return metered


@pass_context
def _each(context: Context, value: Any) -> Any:
    return value if isinstance(value, Undefined) else _meter(context).each(value)


@pass_context
def _made(context: Context, value: Any) -> Any:
    return _meter(context).made(value)


@pass_context
def _slice(context: Context, value: Any, *bounds: Any) -> Any:
    _meter(context).charge(_meter(context).size(value))
    return value[slice(*bounds)]


@pass_context
def _concat(context: Context, values: Iterable[Any]) -> str:
    texts = [filters.scalar(v) for v in values]
    _meter(context).charge(sum(map(len, texts)))
    return "".join(texts)


# Names that no template can write; `guard.py` puts them around what Jinja does not let an environment intercept.
_GUARDS: Mapping[str, Callable[..., Any]] = {"<each>": _each, "<made>": _made, "<slice>": _slice, "<concat>": _concat}


def render(template: Any, variables: Mapping[str, Any], given: int) -> str:
    """Run a compiled template. given: characters in the variables, which its limits grow with. Lets every exception through."""
    context = template.new_context(variables)
    context.meter = Meter(given)
    parts, size = [], 0
    for part in template.root_render_func(context):
        parts.append(part)
        size += len(part)
        if size > context.meter.output:
            raise LimitError(f"writes more than {context.meter.output:,} characters")
    return "".join(parts)


ENVIRONMENT = TemplateEnvironment()
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def without_address(message: str) -> str:
    """An exception's text without memory addresses, so that it is the same in every process."""
    return _ADDRESS.sub("", message)
