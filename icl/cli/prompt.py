"""`icl prompt`: exactly what the model reads for one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Problem, suggest
from ..files import load_yaml
from .options import Plugins, Templates
from .output import columns, say_exactly, say_json, tell
from .rows import Columns, as_fields, read_rows_as_task, shortened

if TYPE_CHECKING:
    from ..evaluate.prepare import Prepared
    from ..values import Example, Kind, Prompt


@dataclass(frozen=True, slots=True)
class FromSuite:
    """Which prompt of a suite."""

    item: Annotated[int | None, typer.Option(metavar="N", min=0, help="With a suite: which test item, counted from 0.")] = None
    task: Annotated[str | None, typer.Option(metavar="NAME", help="With a suite: which task. [default: the first]")] = None
    method: Annotated[str | None, typer.Option(metavar="NAME", help="With a suite: which method. [default: the first few_shot]")] = None


@dataclass(frozen=True, slots=True)
class FromPool:
    """How a prompt is put together from a pool."""

    template: Annotated[str, typer.Option(metavar="T", help="With a pool: a template's name or path.")] = "default"
    pool: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled rows, or the folder of an index; no language model is needed.")
    ] = None
    shots: Annotated[int, typer.Option(metavar="K", min=0, help="With a pool: demonstrations per prompt.")] = 8
    retriever: Annotated[
        str,
        typer.Option(
            metavar="R", help="With a pool: how they are chosen (icl ls selectors), or stages as in a suite: '[{knn: {n: 64}}, mmr]'."
        ),
    ] = "knn"
    order: Annotated[str, typer.Option(metavar="O", help="With a pool: how they are ordered (icl ls orders).")] = "similar_last"
    format: Annotated[str, typer.Option(metavar="F", help="With a pool: auto, plain or chat.")] = "auto"
    tokenizer: Annotated[
        str | None, typer.Option(metavar="T", help="With a pool: catalogue name, folder or hub id of a tokenizer, to count tokens.")
    ] = None
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="With a pool and a tokenizer: token budget of the prompt.")] = (
        None
    )
    seed: Annotated[int, typer.Option(metavar="S", help="With a pool: seed of what is drawn.")] = 0


def prompt(
    suite_or_query: Annotated[
        str, typer.Argument(metavar="SUITE|QUERY", help="A suite; with --pool the query, a text or a JSON object of fields.")
    ],
    suite: FromSuite,
    pool: FromPool,
    names: Columns,
    templates: Templates = None,
    plugins: Plugins = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Also what each stage of the retriever did, and how the order changed it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Text, messages, demonstrations, stages and counts as JSON.")] = False,
) -> None:
    """Print exactly what the model reads for one query.

    Either SUITE --item N, or --template T --pool FILE "query". The prompt goes to stdout byte for byte; its demonstrations with their
    similarity, its token count and what was dropped go to stderr.
    """
    if pool.pool is not None:
        made = _from_pool(suite_or_query, pool, names, templates, plugins)
    elif suite.item is not None:
        made = _from_suite(suite_or_query, suite, templates, plugins)
    else:
        raise InputError(
            Problem(
                "neither an item of a suite nor a pool is named",
                'Write: icl prompt SUITE --item N, or: icl prompt --template T --pool FILE "query".',
            )
        )
    if as_json:
        say_json(as_record(made))
        return
    say_exactly(made.text)
    for line in [*details(made), *(traced(made) if trace else ())]:
        tell(line)


def _from_pool(query: str, how: FromPool, names: Columns, templates: Sequence[Path] | None, plugins: Sequence[Path] | None) -> Prompt:
    from .. import FewShot
    from ..prompt import Template, template_folders

    assert how.pool is not None
    retriever: Any = load_yaml(how.retriever).value if how.retriever[:1] in "[{" else how.retriever
    examples: Sequence[Example]
    labels: Sequence[str] = ()
    kind: Kind | None = None
    if how.pool.is_dir():
        from ..retrieve import DemoIndex

        index = DemoIndex.open(how.pool)
        examples = index.examples
        retriever = index if how.retriever == "knn" else how.retriever
    else:
        task = read_rows_as_task(how.pool, names, holdout=0)
        examples, labels, kind = task.train, task.labels, task.kind
    template = Template.load(how.template, template_folders(templates or ()))
    readout = "channel" if template.channel else "sum"
    method = FewShot(
        None, template=template, readout=readout, retriever=retriever, order=how.order, shots=how.shots, format=how.format,
        max_tokens=how.max_tokens, templates=templates or None, plugins=tuple(plugins or ()), tokenizer=how.tokenizer, seed=how.seed,
    )  # fmt: skip
    predictor = method.fit(examples, labels=labels, kind=kind)
    made: Prompt = predictor.prompt(as_fields(query))
    _tell_scored(predictor, made)
    return made


def _from_suite(source: str, which: FromSuite, templates: Sequence[Path] | None, plugins: Sequence[Path] | None) -> Prompt:
    """What `run` gives the model for that item: the task after the leak guard, the largest label budget, the first seed."""
    from ..evaluate import load_suite
    from ..evaluate.prepare import prepare

    prepared = prepare(load_suite(source, templates=templates or (), plugins=plugins or ()))
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
    predictor = method.fit(prepared.pool(cell), labels=data.task.labels, unlabelled=data.task.unlabelled)
    tell(f"{cell}, item {which.item}")
    made: Prompt = predictor.prompt(data.test[which.item])
    _tell_scored(predictor, made)
    return made


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
