"""`icl prompt`: exactly what the model reads for one query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Problem, suggest
from .output import columns, say_exactly, say_json, tell
from .pool import Folders, Prompting, few_shot
from .rows import Columns, as_fields, shortened
from .why import Explaining, explain, why_record

if TYPE_CHECKING:
    from ..evaluate.prepare import Prepared
    from ..methods import FewShotPredictor
    from ..values import Example, Prompt


@dataclass(frozen=True, slots=True)
class FromSuite:
    """Which prompt of a suite."""

    item: Annotated[int | None, typer.Option(metavar="N", min=0, help="With a suite: which test item, counted from 0.")] = None
    task: Annotated[str | None, typer.Option(metavar="NAME", help="With a suite: which task. [default: the first]")] = None
    method: Annotated[str | None, typer.Option(metavar="NAME", help="With a suite: which method. [default: the first few_shot]")] = None


@dataclass(frozen=True, slots=True)
class FromPool:
    """The rows that a prompt is put together from."""

    pool: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled rows, or the folder of an index; no language model is needed.")
    ] = None
    tokenizer: Annotated[
        str | None, typer.Option(metavar="T", help="With a pool: catalogue name, folder or hub id of a tokenizer, to count tokens.")
    ] = None
    model: Annotated[
        str | None, typer.Option(metavar="M", help="With a pool and --why: catalogue name, folder or hub id of the language model.")
    ] = None


def prompt(
    suite_or_query: Annotated[
        str, typer.Argument(metavar="SUITE|QUERY", help="A suite; with --pool the query, a text or a JSON object of fields.")
    ],
    suite: FromSuite,
    pool: FromPool,
    how: Prompting,
    explaining: Explaining,
    names: Columns,
    folders: Folders,
    trace: Annotated[
        bool, typer.Option("--trace", help="Also what each stage of the retriever did, and how the order changed it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Text, messages, demonstrations, stages and counts as JSON.")] = False,
) -> None:
    """Print exactly what the model reads for one query.

    Either SUITE --item N, or --template T --pool FILE "query"; --template to --seed are for a pool, a suite has its own. The prompt goes
    to stdout byte for byte; its demonstrations with their similarity, its token count and what was dropped go to stderr.
    """
    explaining.check()
    predictor: FewShotPredictor
    query: Any
    if pool.pool is not None:
        if explaining.why and pool.model is None:
            raise InputError(Problem("--why asks a language model, and none is named", "Add --model M.", field="--model"))
        predictor = few_shot(pool.pool, how, names, folders, model=pool.model, tokenizer=pool.tokenizer)
        query = as_fields(suite_or_query)
    elif suite.item is not None:
        predictor, query = _from_suite(suite_or_query, suite, folders)
    else:
        raise InputError(
            Problem(
                "neither an item of a suite nor a pool is named",
                'Write: icl prompt SUITE --item N, or: icl prompt --template T --pool FILE "query".',
            )
        )
    found = explain(predictor, query, explaining, as_json=as_json) if explaining.why else None
    made = found.prompt if found is not None else predictor.prompt(query)
    _tell_scored(predictor, made)
    if as_json:
        say_json({**as_record(made), **({"why": why_record(found)} if found is not None else {})})
        return
    if found is None:
        say_exactly(made.text)
    for line in [*(details(made) if found is None else ()), *(traced(made) if trace else ())]:
        tell(line)


def _from_suite(source: str, which: FromSuite, folders: Folders) -> tuple[FewShotPredictor, Example]:
    """What `run` asks for that item: the task after the leak guard, the largest label budget, the first seed."""
    from ..evaluate import load_suite
    from ..evaluate.prepare import prepare

    prepared = prepare(load_suite(source, templates=folders.templates or (), plugins=folders.plugins or ()))
    cells = [
        cell
        for cell in prepared.cells
        if cell.model is not None
        and which.task in (None, cell.task)
        and which.method in (None, cell.method)
        and cell.budget in (None, prepared.loaded.suite.budgets[-1])
    ]
    if not cells:
        raise InputError(_no_such_cell(prepared, which))
    # Without --method, one with demonstrations says more than zero_shot.
    cell = next((c for c in cells if which.method or c.budget is not None), cells[0])
    data = prepared.tasks[cell.task]
    assert which.item is not None
    if which.item >= len(data.test):
        raise InputError(
            Problem(f"task '{cell.task}' has {len(data.test)} test items, counted from 0; there is no item {which.item}", field="--item")
        )
    method = prepared.build(cell, prepared.lm(cell.model or ""))
    predictor: Any = method.fit(prepared.pool(cell), labels=data.task.labels, unlabelled=data.task.unlabelled)
    tell(f"{cell}, item {which.item}")
    return predictor, data.test[which.item]


def _tell_scored(predictor: Any, prompt: Prompt) -> None:
    """Of a channel, what is scored behind this prompt and those of the other labels."""
    if prompt.query is not None and predictor.bound.template.channel:
        tell(f"scored behind it, as behind the prompts of the other labels: {predictor.bound.scored(prompt.query, prompt.format)!r}")


def _no_such_cell(prepared: Prepared, which: FromSuite) -> Problem:
    prompting = sorted({cell.method for cell in prepared.cells if cell.model is not None})
    if which.task is not None and which.task not in prepared.tasks:
        return Problem(f"there is no task '{which.task}' in this suite", suggest(which.task, prepared.tasks), field="--task")
    return Problem(f"'{which.method or 'the suite'}' has no prompts", suggest(which.method or "", prompting), field="--method")


def as_record(prompt: Prompt) -> dict[str, Any]:
    """The prompt with everything known about it, as JSON values."""
    return {
        "text": prompt.text,
        "messages": list(prompt.messages),
        "format": prompt.format,
        "n_tokens": prompt.n_tokens,
        "demonstrations": [
            {
                "uid": d.uid,
                "shot": d.shot,
                "score": None if d.score is None else float(d.score),
                "shared": d.shared,
                "target": d.example.target,
                "fields": d.example.fields,
            }
            for d in prompt.demonstrations
        ],
        "dropped": list(prompt.dropped),
        "cache_break": prompt.cache_break,
        "steps": [{**step._asdict(), "dropped": dict(step.dropped)} for step in prompt.steps],
    }


def details(prompt: Prompt) -> list[str]:
    """The same for a reader, one line a demonstration."""
    rows = [
        (str(d.shot), d.uid, "" if d.score is None else f"{d.score:.4f}", str(d.example.target), shortened(d.example, 60))
        for d in prompt.demonstrations
    ]
    tokens = "not counted (no tokenizer)" if prompt.n_tokens is None else str(prompt.n_tokens)
    return [
        f"{len(rows)} demonstrations:",
        *columns(rows, "  "),
        f"tokens: {tokens}; format: {prompt.format}; dropped to fit: {', '.join(prompt.dropped) or 'none'}",
    ]


def traced(prompt: Prompt) -> list[str]:
    """What was done to the demonstrations, from stage to stage, one line each."""
    from ..report.stages import step_lines

    places = sorted(prompt.demonstrations, key=lambda d: -(d.score or 0.0))
    order = " ".join(str(places.index(d) + 1) for d in prompt.demonstrations)
    lines = ["stages:", *(f"  {line}" for line in step_lines(prompt.steps) or ["none: no demonstrations were looked for"])]
    if len({d.score for d in places}) > 1:
        lines.append(f"  order: by rank of their score they stand {order}; the last one is next to the query")
    lines.append(
        f"  pack: {len(prompt.dropped)} dropped to fit; {prompt.cache_break} of {len(prompt.messages)} messages are shared with other prompts"
    )
    return lines
