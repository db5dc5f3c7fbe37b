"""Options for prompts from a pool of labelled rows, shared by the commands that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..files import load_yaml
from .options import Plugins, Templates
from .rows import Columns, read_rows_as_task

if TYPE_CHECKING:
    from ..methods import FewShotPredictor
    from ..values import Example, Kind


@dataclass(frozen=True, slots=True)
class Folders:
    """The user's own parts."""

    templates: Templates = None
    plugins: Plugins = None


@dataclass(frozen=True, slots=True)
class Prompting:
    """How prompts are put together from a pool."""

    template: Annotated[str, typer.Option(metavar="T", help="A template's name or path.")] = "default"
    shots: Annotated[int, typer.Option(metavar="K", min=0, help="Demonstrations per prompt.")] = 8
    retriever: Annotated[
        str, typer.Option(metavar="R", help="How they are chosen (icl ls selectors), or stages as in a suite: '[{knn: {n: 64}}, mmr]'.")
    ] = "knn"
    order: Annotated[str, typer.Option(metavar="O", help="How they are ordered (icl ls orders).")] = "similar_last"
    format: Annotated[str, typer.Option(metavar="F", help="auto, plain or chat.")] = "auto"
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Token budget of a prompt; needs a tokenizer or a model to count them.")
    ] = None
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of what is drawn.")] = 0


def few_shot(
    pool: Path, how: Prompting, names: Columns, folders: Folders, *, model: str | None = None, tokenizer: str | None = None
) -> FewShotPredictor:
    """A few-shot predictor over the rows of a file, or of an index's folder. model: None prompts without one."""
    from .. import FewShot, load_model
    from ..prompt import Template, template_folders

    retriever: Any = load_yaml(how.retriever).value if how.retriever[:1] in "[{" else how.retriever
    examples: Sequence[Example]
    labels: Sequence[str] = ()
    kind: Kind | None = None
    if pool.is_dir():
        from ..retrieve import DemoIndex

        index = DemoIndex.open(pool)
        examples = index.examples
        retriever = index if how.retriever == "knn" else how.retriever
    else:
        task = read_rows_as_task(pool, names, holdout=0)
        examples, labels, kind = task.train, task.labels, task.kind
    template = Template.load(how.template, template_folders(folders.templates or ()))
    method = FewShot(
        load_model(model) if model is not None else None, template=template, readout="channel" if template.channel else "sum", retriever=retriever, order=how.order, shots=how.shots,
        format=how.format, max_tokens=how.max_tokens, templates=folders.templates or None, plugins=tuple(folders.plugins or ()),
        tokenizer=tokenizer, seed=how.seed,
    )  # fmt: skip
    return cast("FewShotPredictor", method.fit(examples, labels=labels, kind=kind))
