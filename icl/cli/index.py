"""`icl index`: the demonstration index on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .guard import guarded
from .options import AsJson, Quiet
from .output import be_quiet, columns, say, say_json, tell
from .rows import Columns, as_fields, read_rows_as_task, shortened

if TYPE_CHECKING:
    from ..retrieve.approximate import Kind

app = typer.Typer(help="Build, inspect and search a demonstration index.", no_args_is_help=True, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of an index.")]


@app.command()
@guarded
def build(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled rows: CSV, TSV, JSONL or Parquet.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the index goes.")],
    names: Columns,
    encoder: Annotated[str, typer.Option(metavar="NAME", help="A catalogue name, a hub id or a sentence-transformers folder.")] = "minilm",
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="exact, hnsw or ivf; auto is exact up to 200,000 rows, ivf beyond.")
    ] = "auto",
    quiet: Quiet = False,
) -> None:
    """Embed every row of a file and write rows, vectors and manifest into one folder."""
    from ..retrieve import DemoIndex

    be_quiet(quiet)
    pool = read_rows_as_task(file, names, holdout=0).train
    index = DemoIndex.build(pool, path=to, encoder=encoder, kind=cast("Kind", kind))
    say(str(to))
    if index.recall is not None and index.kind != "exact":
        tell(_recall(index.kind, index.recall))
    tell(f'{len(index)} rows indexed. Next: icl index search {to} "a query"')


@app.command()
@guarded
def info(folder: Folder, as_json: AsJson = False) -> None:
    """Say what an index holds, from its manifest."""
    from ..retrieve.store import open_folder

    manifest = open_folder(folder).manifest
    facts = {
        "rows": manifest.n,
        "dimensions": manifest.d,
        "metric": manifest.metric,
        "search": manifest.search.kind if manifest.search else "exact",
        "recall at 8": manifest.search.recall if manifest.search else 1.0,
        "encoder": manifest.encoder.name,
        "encoder fingerprint": manifest.encoder.fingerprint,
        "digest": manifest.digest,
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    if as_json:
        say_json(facts)
    else:
        for line in columns([(name, str(value)) for name, value in facts.items()]):
            say(line)


@app.command()
@guarded
def verify(folder: Folder) -> None:
    """Check every byte of an index against its manifest. Exit code 2 if it is damaged."""
    from ..retrieve import DemoIndex

    index = DemoIndex.open(folder)
    index.verify()
    say(f"{folder}: {len(index)} rows, whole")
    if index.recall is not None and index.kind != "exact":
        say(_recall(index.kind, index.recall))


def _recall(kind: str, recall: float) -> str:
    return f"{kind} finds {recall:.1%} of the 8 nearest rows, measured with rows of this index"


@app.command()
@guarded
def search(
    folder: Folder,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A text; a JSON object of fields where there are several.")],
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many rows.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Show the rows nearest to a query: similarity, label, uid, text."""
    from ..retrieve import DemoIndex

    (hits,) = DemoIndex.open(folder).search([as_fields(query)], k)
    if as_json:
        say_json([{"uid": h.uid, "score": float(h.score), "target": h.example.target, "fields": h.example.fields} for h in hits])
        return
    for line in columns([(f"{h.score:.4f}", str(h.example.target), h.uid, shortened(h.example)) for h in hits]):
        say(line)
