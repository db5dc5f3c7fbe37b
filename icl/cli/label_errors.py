"""`icl index errors`: labels of a pool that are likely wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ..files import write_text
from .options import AsJson, Quiet
from .output import be_quiet, say, say_json, tell
from .records import check_out, write_records
from .rows import Columns, read_rows_as_task

if TYPE_CHECKING:
    from ..protocols import Encoder
    from ..values import Example


@dataclass(frozen=True, slots=True)
class Judging:
    """How labels are judged, and what is shown of it."""

    head: Annotated[
        Literal["logistic", "kernel", "knn"],
        typer.Option(metavar="KIND", help="What is learned on the embeddings: logistic, kernel or knn."),
    ] = "logistic"
    folds: Annotated[int, typer.Option(metavar="N", min=2, help="Parts of the pool; each is judged by the others.")] = 5
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the parts.")] = 0
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows are shown.")] = 20
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also all rows, the most doubtful first, in .csv or .jsonl.")] = None
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also a page with the table.")] = None


def errors(
    pool: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="Labelled rows, or the folder of an index.")],
    how: Judging,
    names: Columns,
    encoder: Annotated[str | None, typer.Option(metavar="NAME", help="A sentence encoder. [default: the index's, or minilm]")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The labels of a pool that are likely wrong, by confident learning.

    A head on embeddings that was fitted on the other parts of the pool says how likely each row's label is. No language model is needed.
    """
    from ..evaluate.label_errors import label_errors
    from ..report.label_errors import label_errors_page, label_errors_rows, label_errors_table

    be_quiet(quiet)
    check_out(how.out)
    rows, by = pool_rows(pool, names, encoder)
    found = label_errors(rows, encoder=by, head=how.head, folds=how.folds, seed=how.seed)
    if how.out is not None:
        write_records(how.out, label_errors_rows(found))
        tell(f"written to {how.out}")
    if how.html is not None:
        write_text(how.html, label_errors_page(found, max(how.top, found.n_flagged)))
        tell(f"written to {how.html}")
    if as_json:
        pairs = [{"label": a, "suggested": b, "n": n} for (a, b), n in found.pairs.items()]
        counts = {"n_pool": found.n_pool, "n_unlabelled": found.n_unlabelled, "n_alone": found.n_alone, "n_flagged": found.n_flagged}
        say_json({"rows": label_errors_rows(found), **counts, "estimate": found.estimate, "agreement": found.agreement, "pairs": pairs})
    else:
        say(label_errors_table(found, how.top))


def pool_rows(pool: Path, names: Columns, encoder: str | None) -> tuple[Sequence[Example], str | Encoder]:
    """(the rows of a file, or of an index's folder, and what embeds them)"""
    if pool.is_dir():
        from ..retrieve import DemoIndex

        index = DemoIndex.open(pool)
        return index.examples, cast("str | Encoder", encoder or index.encoder)
    return read_rows_as_task(pool, names, holdout=0).train, encoder or "minilm"
