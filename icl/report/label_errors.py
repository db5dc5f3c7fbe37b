"""Likely label errors of a pool, in the console, as rows of a file, and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from .why import beside_text, plain, shown
from .why_html import escaped, fields_html, page_of

if TYPE_CHECKING:
    from ..evaluate.label_errors import Doubt, LabelErrors

PAIRS = 5
"""Pairs of labels that are named."""
EXPLAINED = (
    "own: probability of the row's label; other: of the likeliest other one. What stands first is unlike the rows of its label: an error, or a rare",
    "use of the right label. Look before you change it",
)


def label_errors_table(found: LabelErrors, n: int = 20) -> str:
    """The most doubtful labels, at most `n`."""
    rows = [["own", "other", "", "label", "other label", "text"]]
    rows += [
        [*_figures(each), "*" if each.flagged else "", plain(label), plain(other), shown(each.example)]
        for each, label, other in _named(found, n)
    ]
    return "\n".join([*beside_text(rows, left=0), "", *label_errors_notes(found)])


def label_errors_notes(found: LabelErrors, mark: str = "marked *") -> list[str]:
    """What was judged, what it comes to, and what the columns are."""
    n = len(found.rows)
    left_out = {"rows without a label": found.n_unlabelled, "rows that are the only ones of their label": found.n_alone}
    less = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    pairs = ", ".join(f"{plain(a)} → {plain(b)} {count:,}" for (a, b), count in islice(found.pairs.items(), PAIRS))
    return [
        f"{n:,} labels judged, each by what was learned from other parts of the pool" + (f"; not judged: {less}" if less else ""),
        f"{found.n_flagged:,} are {mark}: wrong, as confident learning counts; about {found.estimate:,.0f} ({found.estimate / n:.1%}) by its estimate",
        f"{found.agreement:.1%} of the labels are what the other parts would give; the lower this is, the more right labels are {mark}",
        *([f"most often: {pairs}"] if pairs else []),
        *EXPLAINED,
    ]


def label_errors_page(found: LabelErrors, n: int = 200) -> str:
    """The same as a page, at most `n` rows."""
    heads = "".join(f'<th class="n">{name}</th>' for name in ("own", "other"))
    rows = []
    for each, label, other in _named(found, n):
        figures = "".join(f'<td class="n">{figure}</td>' for figure in _figures(each))
        tint = ' class="against" style="--a:.25"' if each.flagged else ""
        names = f"<td><bdi>{escaped(label)}</bdi></td><td><bdi>{escaped(other)}</bdi></td>"
        rows.append(f'<tr{tint}>{figures}{names}<td class="row">{fields_html(each.example.fields)}</td></tr>')
    table = f"<table><thead><tr>{heads}<th>label</th><th>other label</th><th>text</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    *notes, first, second = label_errors_notes(found, "coloured")
    return page_of("Likely label errors", [*(f"<p>{escaped(line)}</p>" for line in (*notes, f"{first} {second}")), table])


def label_errors_rows(found: LabelErrors) -> list[Mapping[str, Any]]:
    """One record for each row that was judged, the most doubtful first."""
    return [
        {
            "uid": each.example.uid, "label": each.example.target, "probability": each.probability, "suggested": each.suggested,
            "suggested_probability": each.suggested_probability, "flagged": each.flagged, "fields": each.example.fields,
        }
        for each in found.rows
    ]  # fmt: skip


def _figures(each: Doubt) -> list[str]:
    return [f"{each.probability:.3f}", f"{each.suggested_probability:.3f}"]


def _named(found: LabelErrors, n: int) -> list[tuple[Doubt, str, str]]:
    return [(each, str(each.example.target), each.suggested) for each in found.rows[:n]]
