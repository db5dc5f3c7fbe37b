"""Share of the items that at least one of k programs solves, run against the item's tests in a sandbox; only with `run: true`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InputError, Problem
from ...plugins import Context
from ...readout import cut_thoughts
from ...values import Example, Prediction, digest, field_text
from .. import sandbox

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["KINDS", "SAMPLES", "PassAtK", "Settings", "build", "code_of", "estimate", "fields_of", "joined"]

KINDS = frozenset({"answer"})
SAMPLES = "k"
"""The option that says how many samples of an item are needed."""
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
_FIELD = re.compile(r"\{(\w+)\}")


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    run: bool = Field(False, description="Whether what a model wrote may be run. Without it the metric is refused.")
    k: int = Field(1, ge=1, description="Programs that are tried for an item; as many `samples` at least are needed.")
    tests: str = Field("tests", description="The input field with the tests.")
    before: str | None = Field(
        None, description="An input field that stands before the program, such as the signature that it goes on from."
    )
    call: str | None = Field(None, description="A line behind the tests, with fields in braces, such as check({entry_point}).")
    seconds: float = Field(10.0, gt=0, le=600, description="Longest time of a program.")
    memory_mb: int = Field(512, ge=64, description="Most memory of a program.")


class PassAtK:
    """Chen et al. 2021, https://arxiv.org/abs/2107.03374, sec. 2.1: of n programs for an item, c of which pass, the chance that k of them drawn
    without replacement hold one that passes. All samples of a prediction are used; a method without samples has one.

    An item without an answer, one without tests, and one with fewer than k samples, is not scored.
    """

    bounds = (0.0, 1.0)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.verdicts: dict[str, float] = {}
        """Whether a program passed (1) or not (0), by a digest of all that could change it."""

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1]. A program is run once, however often the metric is asked."""
        import numpy as np

        limits = sandbox.Limits(seconds=self.settings.seconds, memory_mb=self.settings.memory_mb)
        programs = [[(_key(*each, limits), *each) for each in self.programs(p, e)] for p, e in zip(predictions, examples, strict=True)]
        new = {key: (program, tests) for group in programs for key, program, tests in group if key not in self.verdicts}
        found = sandbox.run_many([program for program, _ in new.values()], limits, tests=[tests for _, tests in new.values()])
        self.verdicts |= {key: float(one.passed) for key, one in zip(new, found, strict=True)}
        return np.array([estimate([self.verdicts[key] > 0 for key, *_ in group], self.settings.k) for group in programs], dtype=np.float64)

    def programs(self, prediction: Prediction, example: Example) -> list[tuple[str, sandbox.Checks]]:
        """The whole programs of an item, and what each is run against; none where there is no answer, or no test."""
        if prediction.answer is None:
            return []
        before, tests = (field_text(example.fields.get(name, "")) if name else "" for name in (self.settings.before, self.settings.tests))
        call = _FIELD.sub(lambda found: field_text(example.fields.get(found[1], "")), self.settings.call or "")
        if not f"{tests}{call}".strip():
            return []
        judged = sandbox.Checks(f"{tests}\n{call}\n", given_of(before))
        return [(joined(before, code_of(text)), judged) for text in _texts(prediction)]


def _key(program: str, tests: sandbox.Checks, limits: sandbox.Limits) -> str:
    return digest([program, tests.text, tests.given, limits.seconds, limits.memory_mb])


def joined(before: str, code: str) -> str:
    """A signature and what was written behind it: the body, or, with a first line that is not indented, a whole definition that replaces it."""
    if before and code and not code.lstrip("\n")[:1].isspace() and _is_open(before):
        return f"{before.rstrip()}\n    pass\n{code}"
    return before + code


def _is_open(before: str) -> bool:
    """Whether a text ends within a function, so that an indented line may follow."""
    try:
        ast.parse(before.rstrip() + "\n    pass\n")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def given_of(before: str) -> str:
    """What a text defines before the function that it ends in: the tests may use it, and no program replaces it there."""
    try:
        body = ast.parse(before.rstrip() + "\n    pass\n" if _is_open(before) else before).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return ast.unparse(ast.Module(body[:-1] if _is_open(before) else body, []))


def _texts(prediction: Prediction) -> list[str]:
    """What was written: the samples, the one text, or the answer of a method that does not write."""
    text = prediction.text if prediction.text is not None else prediction.answer or ""
    if text.startswith('["'):
        try:
            found = json.loads(text)
        except ValueError:
            return [text]
        if isinstance(found, list) and len(found) > 1 and all(isinstance(each, str) for each in found):
            return found
    return [text]


def code_of(text: str) -> str:
    """The program in what a model wrote: its first fenced block, or all of it, with the white space at its start, which a body needs."""
    text, _ = cut_thoughts(text)
    fenced = _FENCE.search(text)
    return fenced[1] if fenced else text.rstrip()


def estimate(passed: Sequence[bool], k: int) -> float:
    """1 - C(n - c, k) / C(n, k) for c of n that passed; nan for n < k."""
    n, c = len(passed), sum(passed)
    if n < k:
        return float("nan")
    missed = 1.0
    for i in range(n - c + 1, n + 1):  # the product of Chen et al., which does not overflow
        missed *= 1 - k / i
    return 1 - missed if n - c >= k else 1.0


def fields_of(settings: Settings) -> list[str]:
    """The input fields that an item must have; with a `call` the tests may be in it alone, and what may not run reads nothing."""
    if not settings.run:
        return []
    tests = [] if settings.call else [settings.tests]
    return [*tests, *([settings.before] if settings.before else []), *_FIELD.findall(settings.call or "")]


def build(settings: Settings, context: Context) -> PassAtK:
    """Raises InputError unless running is asked for, and where there is no sandbox: both before a model is loaded."""
    if not settings.run:
        fix = "If you want that: {pass_at_k: {run: true}}, or --set metrics.N.pass_at_k.run=true (N: its place in the list, from 0)."
        raise InputError(Problem("'pass_at_k' runs programs that a model wrote, and this was not asked for", fix, field="metrics"))
    sandbox.check()
    return PassAtK(settings)
