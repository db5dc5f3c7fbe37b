"""`icl train retriever`: an encoder that finds the demonstrations that a language model does best with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .options import Quiet, Templates
from .output import be_quiet, say, tell
from .rows import Columns, read_rows_as_task

if TYPE_CHECKING:
    from ..retrieve.selectors.epr import Settings


@dataclass(frozen=True, slots=True)
class HowTrained:
    """Options of the training; their defaults are those of the selector `epr`."""

    base: Annotated[
        str, typer.Option(metavar="NAME", help="The encoder to start from: a catalogue name, a hub id or a sentence-transformers folder.")
    ] = "minilm"
    candidates: Annotated[int, typer.Option(metavar="N", min=2, help="Rows that are each tried as the one demonstration of a query.")] = 8
    candidates_by: Annotated[str, typer.Option(metavar="S", help="What finds them: bm25 or knn.")] = "bm25"
    queries: Annotated[int, typer.Option(metavar="N", min=2, help="Rows that are training queries; a fifth only measures the result.")] = (
        128
    )
    measure: Annotated[str, typer.Option(metavar="M", help="A candidate's score: log_likelihood or log_probability.")] = "log_likelihood"
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="How often training goes over the queries.")] = 4
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of what is drawn and of training.")] = 0


def retriever(
    pool: Annotated[Path, typer.Option(metavar="FILE", help="Labelled rows: CSV, TSV, JSONL or Parquet.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the encoder goes.")],
    names: Columns,
    how: HowTrained,
    model: Annotated[str, typer.Option(metavar="M", help="The language model whose scores it learns from.")] = "smollm2",
    template: Annotated[str, typer.Option(metavar="T", help="The prompt's template: a name or a path.")] = "default",
    templates: Templates = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use the first N rows only.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train an encoder that finds the demonstrations a language model does best with (EPR).

    Rows of the pool are queries, others their candidates; the model scores the right label after each candidate alone, and an encoder is
    trained to have the good ones near. Use the folder as retriever: {knn: {encoder: FOLDER}}.
    """
    from .. import FewShot, load_model
    from ..plugins import find, settings_of
    from ..train.retriever import train_retriever

    be_quiet(quiet)
    options = {name: getattr(how, name) for name in ("candidates", "candidates_by", "queries", "measure", "epochs")}
    settings = cast("Settings", settings_of(find("selector", "epr"), options, "epr"))
    task = read_rows_as_task(pool, names, holdout=0)
    rows = task.train[:limit]
    predictor = FewShot(load_model(model), template=template, templates=templates or None, seed=how.seed).fit(
        rows, labels=task.labels, kind=task.kind
    )
    about = {"model": model, "template": template}
    record = train_retriever(
        rows, predictor.score_many, out, labels=predictor.labels, settings=settings, base=how.base, seed=how.seed, about=about
    )
    rank = record["mean_reciprocal_rank"]
    say(str(out))
    tell(
        f"mean reciprocal rank of the candidate that {model} does best with, on {record['n_held_out']} rows held out: "
        f"{rank['before']:.3f} before, {rank['after']:.3f} after training; {rank['by_chance']:.3f} by chance"
    )
    tell(f"Next, in a suite: {{few_shot: {{retriever: {{knn: {{encoder: {out}}}}}}}}}")
