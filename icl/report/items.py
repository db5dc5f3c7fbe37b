"""Every item of a run as data for the page's script: texts, answers, scores, demonstrations, exact prompts. Packed to a size.

Strings, rows and lines of prompts are kept once and referred to by number. What does not fit is left out and said: first the details of all
seeds but the first, then items, evenly spread over the test set.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..evaluate.cells import Cell
from ..evaluate.compare import StoredRun
from ..evaluate.store import RunStore
from ..values import Example, Prediction, field_text
from .runs import Runs, Series, in_order

MOST_PREDICTIONS = 80_000
"""Predictions that are looked at, to bound the work of a very large run."""
SAMPLED = 2_000
"""Predictions that are packed to see how large all of them would be."""
MOST_SCORES = 8
"""Candidates of an item whose scores are shown, the likeliest first."""
TIE, DROPPED, WINDOWED, CUT, LOST, ABSTAINED = 1, 2, 4, 8, 16, 32


class Packed(NamedTuple):
    """The data as text that is safe anywhere in a page, and what is not in it."""

    text: str
    """Base64 of JSON compressed by gzip's method with a zlib head; empty if there are no items."""
    left_out: tuple[str, ...]


def pack_items(runs: Runs, stored: Mapping[int, StoredRun], most: int) -> Packed:
    """stored: of every run that kept its items, by its number. most: characters that the text may have."""
    n_items = {task: max(len(run.tests.get(task, ())) for run in stored.values()) for task in runs.tasks} if stored else {}
    n_predictions = sum(len(run.tests[cell.task]) for run in stored.values() for cell in run.cells)
    if not n_predictions:
        return Packed("", ())
    share = min(1.0, MOST_PREDICTIONS / n_predictions)
    first_only = False
    if n_predictions > SAMPLED:  # so that a large run is not packed several times; a sample shares less, so it seems larger than it is
        sampled, n_sampled = _packed(runs, stored, share * SAMPLED / n_predictions, first_only)
        first_only = len(sampled) * share * sum(n_items.values()) / max(1, n_sampled) > 2 * most
    while True:
        text, n_shown = _packed(runs, stored, share, first_only)
        if len(text) <= most or n_shown <= len(n_items):
            break
        if not first_only:
            first_only = True
        else:
            share *= min(0.9, 0.95 * most / len(text))
    notes = []
    if n_shown < sum(n_items.values()):
        notes.append(
            f"{n_shown:,} of {sum(n_items.values()):,} items are listed, evenly spread over the test items; all figures are about all of them. "
            "The others are in the run's store: run.predictions(method) reads them."
        )
    if first_only and any(cell.seed not in (None, _first_seed(run)) for run in stored.values() for cell in run.cells):
        notes.append("Scores, demonstrations and prompts are listed for the first seed only, the answers for all.")
    return Packed(text if len(text) <= most else "", tuple(notes) if len(text) <= most else ("The items do not fit on this page.",))


def _first_seed(run: StoredRun) -> int | None:
    return min((cell.seed for cell in run.cells if cell.seed is not None), default=None)


def _packed(runs: Runs, stored: Mapping[int, StoredRun], share: float, first_only: bool) -> tuple[str, int]:
    tables = _Tables()
    tasks, n_shown = [], 0
    cells = []
    for t, task in enumerate(runs.tasks):
        places: dict[str, int] = {}
        items: list[list[Any]] = []
        for n, run in stored.items():
            kept = spread(len(run.tests.get(task, ())), share)
            new = [at for at in kept if run.tests[task][at].uid not in places]
            for at in new:
                places[run.tests[task][at].uid] = len(items)
                items.append(tables.item(at, run.tests[task][at]))
            with RunStore.read_only(run.folder) as store:
                tables.rows_of(store.shown(task))
                for cell in sorted((c for c in run.cells if c.task == task), key=_in_order):
                    is_whole = not first_only or cell.seed in (None, _first_seed(run))
                    head = {"series": _series(runs, n, cell), "task": t, "budget": cell.budget, "seed": cell.seed}
                    cells.append({**head, **_columns(tables, store, cell, (run.tests[task], kept, places), is_whole)})
        n_shown += len(items)
        tasks.append({"name": task, "kind": runs.facts(task)["kind"], "items": items})
    payload = {"series": list(runs.names.values()), "tasks": tasks, "cells": cells, **tables.as_dict()}
    data = zlib.compress(json.dumps(payload, separators=(",", ":")).encode(), 9)
    return base64.b64encode(data).decode(), n_shown


def _in_order(cell: Cell) -> tuple[float, int]:
    return in_order(cell.budget), -1 if cell.seed is None else cell.seed


def _series(runs: Runs, run: int, cell: Cell) -> int:
    series = Series(run, cell.model, cell.method)
    return runs.number(series) if series in runs.names else -1


def spread(n: int, share: float) -> list[int]:
    """A share of the positions 0 to n - 1, evenly spread, at least one."""
    kept = max(1, round(n * share)) if n else 0
    return sorted({int(at * n / kept) for at in range(kept)})


class _Tables:
    """What the data refers to by number."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.lines: dict[str, int] = {}
        self.rows: list[list[Any]] = []
        self._rows: dict[str, int] = {}
        self._known: dict[str, Example] = {}

    def string(self, text: str | None) -> int:
        return -1 if text is None else self.strings.setdefault(text, len(self.strings))

    def prompt(self, text: str | None) -> list[int]:
        return [] if text is None else [self.lines.setdefault(line, len(self.lines)) for line in text.split("\n")]

    def item(self, position: int, example: Example) -> list[Any]:
        """[position, uid, {field: text}, right answer, other accepted answers, choices]"""
        fields = {key: field_text(value) for key, value in example.fields.items()}
        more = [[self.string(each) for each in part] for part in (example.references[1:], example.choices)]
        return [position, example.uid, fields, self.string(example.target), *more]

    def rows_of(self, known: Mapping[str, Example]) -> None:
        """Rows that demonstrations may refer to from here on."""
        self._known, self._rows = dict(known), {}

    def row(self, uid: str) -> int:
        """[uid, label, text] of a row shown as a demonstration; without label and text where the run did not keep it."""
        if uid not in self._rows:
            example = self._known.get(uid)
            text = None if example is None else "\n".join(field_text(value) for value in example.fields.values())
            self._rows[uid] = len(self.rows)
            self.rows.append([uid, -1 if example is None else self.string(example.target), text])
        return self._rows[uid]

    def as_dict(self) -> dict[str, Any]:
        return {"strings": list(self.strings), "lines": list(self.lines), "rows": self.rows}


def _columns(
    tables: _Tables, store: RunStore, cell: Cell, items: tuple[Sequence[Example], Sequence[int], Mapping[str, int]], is_whole: bool
) -> dict[str, Any]:
    """A cell's predictions, a list per kind of fact; `i` says which item of the task each is about."""
    tests, kept, places = items
    predictions = store.some(cell.key, kept)
    found = [(places[tests[at].uid], at, predictions[at]) for at in kept if at in predictions]
    columns: dict[str, Any] = {
        "i": [item for item, _, _ in found],
        "a": [tables.string(p.answer) for _, _, p in found],
        "v": [_right(p, tests[at]) for _, at, p in found],
        "p": [None if p.confidence is None else round(p.confidence, 3) for _, _, p in found],
        "f": [_flags(p) for _, _, p in found],
        "n": [p.n_tokens for _, _, p in found],
    }
    for key, texts in (("w", [p.why for _, _, p in found]), ("x", [p.text for _, _, p in found]), ("h", [p.withheld for _, _, p in found])):
        if any(texts):
            columns[key] = [tables.string(text) for text in texts]
    if is_whole:
        prompts = store.prompts(cell.key)
        columns["d"] = [[tables.row(uid) for uid in p.demonstrations] for _, _, p in found]
        columns["k"] = [_scores(tables, p) for _, _, p in found]
        columns["q"] = [tables.prompt(prompts.get(at)) for _, at, _ in found] if prompts else []
    return columns


def _right(prediction: Prediction, example: Example) -> int | None:
    """1 or 0; None where there is no answer. An answer in words counts as right if it is one of the accepted ones, case and space aside."""
    if prediction.answer is None:
        return None
    accepted = example.references or (example.target,)
    return int(_plain(prediction.answer) in {_plain(each) for each in accepted if each is not None})


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _flags(p: Prediction) -> int:
    flags = ((p.tie, TIE), (p.n_dropped, DROPPED), (p.n_windows > 1, WINDOWED), (p.n_cut, CUT), (p.lost, LOST), (p.abstained, ABSTAINED))
    return sum(bit for is_set, bit in flags if is_set)


def _scores(tables: _Tables, prediction: Prediction) -> list[Any]:
    """Flat triples of the likeliest candidates: name, log-likelihood in nats, probability; None for what is not known."""
    sums = _sums(prediction)
    probabilities = prediction.probabilities or {}
    by: Mapping[str, float] = probabilities or sums
    names = sorted(by, key=by.__getitem__, reverse=True)[:MOST_SCORES]
    return [
        part
        for each in names
        for part in (
            tables.string(each),
            round(sums[each], 2) if each in sums else None,
            round(probabilities[each], 4) if each in probabilities else None,
        )
    ]


def _sums(prediction: Prediction) -> dict[str, float]:
    """Log-likelihood per answer: of the likeliest of its continuations where it has several."""
    scores = prediction.scores
    if scores is None:
        return {}
    groups = scores.groups or tuple((at,) for at in range(len(scores.sums)))
    names = prediction.candidates if len(prediction.candidates) == len(groups) else tuple(scores.candidates[g[0]] for g in groups if g)
    return {each: max(scores.sums[at] for at in group) for each, group in zip(names, groups, strict=False) if group}
