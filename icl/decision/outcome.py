"""What was decided: the answer, and the predictor to use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..evaluate.answer import Findings, as_json
from ..evaluate.planning import Plan
from ..evaluate.results import RESULTS
from ..files import read_text
from ..methods import write_regression
from ..report.decision import as_html, decision_table, page_answer, paragraph, plan_lines
from ..report.notebook import predictor_html
from ..ship import figures_of, furnish, load
from ..suite import Run
from ..values import Example, Prediction
from .contest import Contest, name_of

if TYPE_CHECKING:
    from ..evaluate.crossover import Crossover

N_REGRESSION = 8
"""Test items whose predictions go along when the winner is saved."""


@dataclass(frozen=True)
class Winner:
    """The predictor to use: what was measured, fitted with the largest label budget and the first seed."""

    name: str
    predictor: Any
    """As `icl.load` gives it: `predict`, and whatever else its method can do (`prompt`, `add`, …)."""
    figures: Sequence[Mapping[str, Any]]
    """Its records of results.json; empty if it was refitted."""
    queries: Sequence[Example] = ()
    """A few test items, whose predictions go along when it is saved."""

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        """queries: Example, dict of fields, or str where there is one field. One Prediction each, in order."""
        found: list[Prediction] = self.predictor.predict(queries)
        return found

    def save(self, folder: Path | str) -> None:
        """Write a folder that `icl.load` takes, with a README, the measured figures, and a regression test of its own predictions."""
        folder = Path(folder)
        self.predictor.save(folder)
        if self.queries:
            write_regression(folder, self.queries, self.predict(self.queries))
        furnish(folder, self.figures)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "predictor":
            raise AttributeError(name)
        return getattr(self.predictor, name)

    def _repr_html_(self) -> str:
        known = [r for r in self.figures if r["seed"] is None and r["low"] is not None]
        shown = {f"{r['metric']}, {r['budget'] or 'no'} labels": f"{r['value']:.4f} [{r['low']:.4f}, {r['high']:.4f}]" for r in known}
        return predictor_html(self.name, shown or {"figures": "not measured"})


@dataclass(frozen=True)
class Decision:
    """What was decided, with the run behind it."""

    plan: Plan
    contest: Contest
    run: Run | None = None
    """The run behind it, which `icl report`, `icl compare` and `icl export` take; None if only a plan was asked for."""
    found: Findings | None = None
    notes: tuple[str, ...] = ()
    """About the run: why it ended early, what was left out."""

    @property
    def folder(self) -> Path:
        """Of the run. Raises InputError if only a plan was asked for."""
        if self.run is None:
            raise InputError(Problem("this is a plan without an answer", "Call icl.decide without only_plan."))
        return self.run.folder

    @property
    def findings(self) -> Findings:
        """All figures. Raises InputError if only a plan was asked for."""
        assert self.found is not None or self.folder
        assert self.found is not None
        return self.found

    @property
    def text(self) -> str:
        """The answer in one paragraph: the winner, the margin, the interval, the crossover, the cost, what would change the answer."""
        return paragraph(self.findings, self.notes)

    @property
    def crossover(self) -> Crossover | None:
        """From how many labels on training wins over the best prompt; None where there is only one side, or one label budget."""
        return self.findings.crossover

    @property
    def settled(self) -> bool:
        """Whether both halves of the test items choose the same method, or it was chosen on items of its own."""
        return self.findings.choice.settled

    @cached_property
    def winner(self) -> Winner:
        """The predictor to use: of the winning method, with the largest label budget and the first seed."""
        name = self.findings.choice.winner
        folder = self.folder / paths_of(self.folder)[name]
        predictor = load(folder, lm=self.contest.lm, plugins=self.contest.request.plugins)
        return Winner(name, predictor, figures_of(self.folder, name), self.contest.task.test[:N_REGRESSION])

    def refit(self) -> Winner:
        """The winning method fitted on all rows there are to learn from. How good that is was not measured; the test items were not seen,
        so it can be."""
        name, contest = self.findings.choice.winner, self.contest
        n = len(contest.task.train)
        (entry,) = (entry for entry in contest.methods if name_of(entry) == name)
        prepared = contest.prepared(contest.suite([entry], [n], 1, None))
        (cell,) = prepared.cells
        method = prepared.build(cell, contest.lm if cell.model is not None else None)
        predictor = method.fit(prepared.pool(cell), labels=contest.task.labels, unlabelled=contest.task.unlabelled)
        predictor.name = name
        return Winner(name, predictor, (), contest.task.test[:N_REGRESSION])

    def table(self) -> str:
        """Every method at every label budget, with intervals, the difference to the best, and costs."""
        return decision_table(self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The winner, the paragraph and all figures as JSON values; infinity is the string "beyond"."""
        page = as_json(page_answer(self.findings, self.notes)._asdict())
        figures = as_json(self.findings)
        return {"winner": self.findings.choice.winner, "answer": self.text, "table": self.table(), "findings": figures, "page": page}

    def to_html(self, path: Path | str) -> Path:
        """Write the answer, and the run behind it, as one HTML page that needs nothing else. Returns the path."""
        assert self.run is not None or self.folder
        assert self.run is not None
        return self.run.to_html(path, answer=page_answer(self.findings, self.notes))

    def save(self, folder: Path | str) -> None:
        """Copy the whole run: results, every prediction, the predictors, this decision. Raises InputError if the folder is not empty."""
        to = Path(folder)
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise InputError(Problem("is not an empty folder", "Name a folder that does not exist yet.", str(to)))
        shutil.copytree(self.folder, to, dirs_exist_ok=True)

    def __repr__(self) -> str:
        if self.found is None:
            more = self.contest.most_draws(self.plan.seeds) > self.plan.seeds
            return "\n".join(plan_lines(self.plan, self.contest.request.minutes, more=more))
        return f"{self.text}\n\n{self.table()}"

    def _repr_html_(self) -> str | None:
        return None if self.found is None else as_html(self.found, self.text)  # a plan shows itself as text


def paths_of(folder: Path) -> dict[str, str]:
    """Method -> where its predictor lies in the run's folder."""
    predictors = json.loads(read_text(folder / RESULTS))["predictors"]
    return {entry["method"]: entry["path"] for entry in predictors}
