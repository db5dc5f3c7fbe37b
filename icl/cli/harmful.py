"""`icl index harmful`: the demonstrations that most harm the answers of a pool's other rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import write_text
from .options import AsJson, Quiet
from .output import be_quiet, say, say_json, tell
from .pool import Folders, Prompting, few_shot
from .rows import Columns

if TYPE_CHECKING:
    from ..evaluate.harmful import Harmful


@dataclass(frozen=True, slots=True)
class Asking:
    """How much is asked, and what is shown of it."""

    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Rows of the pool that are asked, drawn with the seed.")] = 64
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many demonstrations are shown.")] = 20
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also a page with the table.")] = None


def harmful(
    pool: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="Labelled rows, or the folder of an index.")],
    model: Annotated[str, typer.Option(metavar="M", help="The language model: a catalogue name, folder or hub id.")],
    asking: Asking,
    how: Prompting,
    names: Columns,
    folders: Folders,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The demonstrations that most harm the answers of the pool's other rows.

    Some rows of the pool are asked as queries, each with the demonstrations it would get, never itself. Each demonstration is left out in
    turn: if the row's own label then becomes more likely, it harmed. A row of wrong label often does.
    """
    from ..evaluate.harmful import harmful as find
    from ..report.why import harmful_table
    from ..report.why_html import harmful_page

    be_quiet(quiet)
    found = find(few_shot(pool, how, names, folders, model=model), asking.rows, how.seed)
    if asking.html is not None:
        write_text(asking.html, harmful_page(found, asking.top))
        tell(f"written to {asking.html}")
    if as_json:
        say_json(_record(found))
    else:
        say(harmful_table(found, asking.top))


def _record(found: Harmful) -> dict[str, Any]:
    """As JSON values, all demonstrations."""
    rows = [
        {
            "uid": each.example.uid, "target": each.example.target, "fields": each.example.fields, "effect": each.effect, "n": each.n,
            "error": each.error, "n_broken": each.n_broken, "n_mended": each.n_mended,
        }
        for each in found.rows
    ]  # fmt: skip
    return {"rows": rows, "n_asked": found.n_asked, "n_prompts": found.n_prompts, "n_pool": found.n_pool, "unscored": list(found.unscored)}
