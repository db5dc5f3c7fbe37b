"""A run, or several side by side, as one HTML page that needs nothing else.

Self-contained: its policy allows its own style and its own script by their digests, and nothing from anywhere. Every text of a row, a name
or an error is escaped, or is data that the script shows as text. Light and dark by the reader's setting; it prints.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path

from ..errors import InputError
from ..evaluate.compare import StoredRun
from ..evaluate.results import DECISION
from ..files import read_text
from .items import Packed, pack_items
from .markup import Safe, Section, clean, esc, fitted, n_bytes, name, paragraph
from .page_about import data_section, manifest_section, work_section
from .page_answer import Answer, answer_section, default_answer
from .page_differences import differences_section
from .page_groups import groups_section
from .page_results import cost_section, curves_section, figures_section
from .page_spread import spread_section
from .page_training import training_section
from .page_trust import confusion_section, trust_section
from .plots import Crossing
from .runs import Runs, Series, Source, best_of

MOST = 2_900_000
"""Bytes of a page."""
_NAMES = re.compile('aria-labelledby="t(?P<key>[0-9a-f]+) d(?P=key)">.*?<desc id="d(?P=key)">', re.DOTALL)
"""From a figure's reference to its title and description up to those."""
LEAST_ITEMS = 200_000
"""Bytes that are kept free for the items, however large the rest is."""


def report_page(sources: Sequence[Source], answer: Answer | None = None) -> str:
    """The page of one run or of several. answer: what stands on top; by default the decision that the run was made for, or which method leads.

    Raises InputError if a run's store is damaged or missing.
    """
    runs = Runs(tuple(sources))
    stored, missing = _stored(runs)
    decided = stored_answer(sources[0].folder) if len(sources) == 1 else None
    shown = answer or decided or default_answer(runs)
    sections = [
        figures_section(runs),
        curves_section(runs, shown),
        differences_section(runs, stored),
        cost_section(runs),
        spread_section(runs, stored),
        trust_section(runs),
        confusion_section(runs, stored),
        groups_section(runs),
        work_section(runs),
        training_section(runs),
        data_section(runs),
        manifest_section(runs, stored),
    ]
    room = MOST - len(_asset("page.css")) - len(_asset("page.js")) - 20_000
    sections = fitted(sections, room - LEAST_ITEMS)
    packed = pack_items(runs, stored, room - sum(n_bytes(section.body) for section in sections))
    sections.insert(7, _items(packed, missing, _leader(runs)))
    top = f"{_head(runs)}{answer_section(shown) if shown else ''}{_notices(runs)}"
    return clean(_page(runs, top, [section for section in sections if section.body], packed))


def stored_answer(folder: Path) -> Answer | None:
    """What `icl decide` kept with its run for the top of the page; None if the run was made for no decision, or has no answer yet."""
    try:
        kept = json.loads(read_text(folder / DECISION))["page"]
        if kept["crossing"] is not None:
            estimate, low, high, tip = kept["crossing"]
            low, high = (math.inf if end == "beyond" else float(end) for end in (low, high))
            kept["crossing"] = Crossing(estimate, low, high, str(tip))
        return Answer(**kept)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None


def _stored(runs: Runs) -> tuple[dict[int, StoredRun], list[str]]:
    """The runs by number, and what to say of those that did not keep their items."""
    stored, missing = {}, []
    for n, source in enumerate(runs.sources):
        try:
            stored[n] = StoredRun.open(source.folder)
        except InputError as error:
            missing.append("\n".join(p.message for p in error.problems))
    return stored, missing


def _head(runs: Runs) -> Safe:
    manifests = [source.document["manifest"] for source in runs.sources]
    names = list(dict.fromkeys(str(each.get("name")) for each in manifests))
    said = list(dict.fromkeys(str(each["description"]) for each in manifests if each.get("description")))
    models = list(dict.fromkeys(model for each in manifests for model in each.get("models", {})))
    seeds = {cell.get("replicate", cell["seed"]) for _, cell in runs.of("cells") if cell["seed"] is not None}
    n_items = sum(runs.facts(task)["n_items"] for task in runs.tasks)
    facts = [
        f"{len(runs.sources)} runs" if len(runs.sources) > 1 else "",
        f"{len({(series.model, series.method) for series in runs.names})} methods",
        f"{len(runs.tasks)} task" + "s" * (len(runs.tasks) != 1),
        f"{n_items:,} test items",
        f"{len(seeds)} draw" + "s" * (len(seeds) != 1) + " of labels" if seeds else "",
        f"model {', '.join(models)}" if models else "no language model",
    ]
    title = f"{' and '.join(names)}"
    listed = "".join(f"<li>{name(fact)}</li>" for fact in facts if fact)
    return Safe(f"<header><h1>{name(title)}</h1>{''.join(paragraph(name(each)) for each in said)}<ul class='facts'>{listed}</ul></header>")


def _notices(runs: Runs) -> Safe:
    """What a reader must know before the figures."""
    lines = []
    for title, source in zip(runs.titles, runs.sources, strict=True):
        where = f"{title}: " if len(runs.sources) > 1 else ""
        if not source.document["complete"]:
            planned = source.document.get("n_planned")
            so_far = f": {len(source.document['cells']):,} of {planned:,} cells" if planned else ""
            lines.append(f"{where}not finished{so_far}. The figures are of the methods and label budgets that are complete.")
        for t in source.document["thresholds"]:
            if not t["met"]:
                value = "none scored" if t["value"] is None else f"{t['value']:.3f}"
                of = " · ".join(part for part in (t["task"], t["model"], t["method"]) if part)
                lines.append(f"{where}threshold missed: {of}: {t['metric']} {value}, stated {t['threshold']:g}.")
    seeds = {cell.get("replicate", cell["seed"]) for _, cell in runs.of("cells") if cell["seed"] is not None}
    if len(seeds) == 1:
        lines.append("One draw of the labelled examples: another draw may rank the methods differently.")
    return Safe(f'<ul class="notices">{"".join(f"<li>{name(line)}</li>" for line in lines)}</ul>' if lines else "")


def _leader(runs: Runs) -> int:
    """The number of the method whose items are listed first: the best of the first task at the largest label budget."""
    best = best_of(runs.sources[0].document, next(iter(runs.sources[0].document["tasks"]), ""))
    series = None if best is None else Series(0, *best["best"])
    return runs.number(series) if series in runs.names else 0


def _items(packed: Packed, missing: Sequence[str], first: int) -> Section:
    notes = "".join(paragraph(name(note), "note") for note in (*packed.left_out, *missing))
    if not packed.text:
        return Section("items", "Every item", notes, "Items")
    body = (
        '<noscript><p class="note">The list of items needs script to be allowed.</p></noscript>'
        f'<div id="explorer" data-first="{first}"><p class="note">Unpacking …</p></div>'
    )
    return Section("items", "Every item", notes + body, "Items")


def _page(runs: Runs, top: str, sections: Sequence[Section], packed: Packed) -> str:
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    links = "".join(f'<li><a href="#{section.key}">{esc(section.short or section.title)}</a></li>' for section in sections)
    data = json.dumps({"packed": packed.text}).replace("<", "\\u003c")
    title = " and ".join(dict.fromkeys(str(source.document["manifest"].get("name")) for source in runs.sources))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{esc(title)} · icl</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{top}\n"
        f'<nav aria-label="Parts of the page"><ul>{links}</ul></nav>\n'
        + _numbered("\n".join(section.html() for section in sections))
        + f'\n</main>\n<script type="application/json" id="packed">{data}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _numbered(html: str) -> str:
    """Figures that are the same have the same ids; on one page each needs its own."""
    numbers = count()
    return _NAMES.sub(lambda found: found[0].replace(found["key"], f"{found['key']}-{next(numbers)}"), html)


@cache
def _asset(file: str) -> str:
    """The style or the script, as it lies beside this module."""
    return (files(__package__) / file).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Of an inline style or script, as a policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
