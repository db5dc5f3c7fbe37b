"""decision.json: the question and the plan, so that the same comparison goes on, and in the end the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..evaluate.answer import as_json
from ..evaluate.manifest import differences
from ..evaluate.planning import Estimate, Plan
from ..evaluate.results import DECISION, MANIFEST, write_json
from ..files import read_text
from .contest import Contest, metric_of

SCHEMA = 1


@dataclass(frozen=True)
class State:
    """What decision.json holds until the answer is there: the question and the plan, so that the same comparison goes on."""

    folder: Path
    facts: Mapping[str, Any]
    plan: Plan
    estimates: Sequence[Estimate]
    ended: Mapping[str, Any] | None = None
    """Of a run that came to its end: the cells it left out, and why."""
    paid: float = 0.0
    """Money that the plan's own encoder cost, which no run counts. What the model cost for the plan is counted by the run, which has it too."""

    @classmethod
    def read(cls, folder: Path, contest: Contest) -> State | None:
        """None if nothing was begun there. Raises InputError if it was another decision, or a run."""
        path = folder / DECISION
        if not path.is_file():
            if (folder / MANIFEST).is_file():
                raise InputError(Problem("this folder holds a run, and no decision", "Give another --out.", str(folder)))
            return None
        try:
            value = json.loads(read_text(path))
            facts, planned = value["asked"], dict(value["plan"])
            estimates = [Estimate(**{**e, "fit": {int(b): s for b, s in e["fit"].items()}}) for e in value["estimates"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(Problem(f"damaged: {error}", "Give another --out.", str(path))) from None
        now = json.loads(json.dumps(facts_of(contest)))
        if facts != now:
            head = Problem("this folder holds another decision", "Give another --out, or ask what was asked.", str(folder))
            raise InputError([head, *differences(facts, now)])
        planned |= {"methods": tuple(planned["methods"]), "budgets": tuple(planned["budgets"])}
        planned["left_out"] = tuple((name, seconds) for name, seconds in planned["left_out"])
        return cls(folder, facts, Plan(**planned), estimates, value.get("ended"), value.get("paid", 0.0))

    def write(self, **more: Any) -> None:
        plain = {
            "schema": SCHEMA,
            "asked": self.facts,
            "plan": as_json(self.plan),
            "estimates": as_json(self.estimates),
            "ended": self.ended,
            "paid": self.paid,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / DECISION, {**plain, **more})


def facts_of(contest: Contest) -> dict[str, Any]:
    """What must be the same for a decision to go on. The margin may change where the run does not depend on it."""
    request = contest.request
    return {
        "task": contest.task.digest,
        "model": None if contest.lm is None else contest.lm.fingerprint,
        "template": request.template,
        "metric": metric_of(contest.task, request),
        "budgets": None if request.budgets is None else list(request.budgets),
        "methods": None if request.methods is None else list(request.methods),
        "seeds": request.seeds,
        "minutes": request.minutes,
        "encoder": request.encoder,
        "until_decided": request.margin if request.until_decided else None,
    }
