"""The part of `icl prompt` that asks why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Problem
from ..files import write_text
from .output import say, tell

if TYPE_CHECKING:
    from ..methods import FewShotPredictor, Why
    from ..methods._why import Effect


@dataclass(frozen=True, slots=True)
class Explaining:
    """What is to be explained, and how."""

    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="In place of the prompt, what its answer rests on: the model answers without each demonstration, and without each word of the query.",
        ),
    ] = False
    answer: Annotated[str | None, typer.Option(metavar="A", help="With --why: explain this answer. [default: what is answered]")] = None
    attention: Annotated[bool, typer.Option("--attention", help="With --why: also where the answering position looks.")] = False
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="With --why: also a page with the heat-map.")] = None

    def check(self) -> None:
        """Raises InputError for options that only say how to explain."""
        given = {"--answer": self.answer is not None, "--attention": self.attention, "--html": self.html is not None}
        problems = [Problem(f"{name} says how to explain an answer", "Add --why.", field=name) for name, there in given.items() if there]
        if problems and not self.why:
            raise InputError(problems)


def explain(predictor: FewShotPredictor, query: Any, how: Explaining, *, as_json: bool) -> Why:
    """Show why, as asked for; JSON is the caller's."""
    from ..report.why import why_table
    from ..report.why_html import why_page

    found = predictor.why(query, answer=how.answer, attention=how.attention)
    if how.html is not None:
        write_text(how.html, why_page(found))
        tell(f"written to {how.html}")
    if not as_json:
        say(why_table(found))
    return found


def why_record(found: Why) -> dict[str, Any]:
    """As JSON values."""
    from ..report.why import attention_shares

    looked = attention_shares(found)
    return {
        "answer": found.answer,
        "log_probability": found.log_probability,
        "predicted": found.prediction.answer,
        "demonstrations": [
            {
                "uid": each.demonstration.uid,
                "shot": each.demonstration.shot,
                "target": each.demonstration.example.target,
                "similarity": each.similarity,
                **_effect(each.left_out),
                **({"attention": looked[i]} if looked else {}),
            }
            for i, each in enumerate(found.demonstrations)
        ],
        "words": [{**each.place._asdict(), "text": each.text, **_effect(each.left_out)} for each in found.words],
        "n_prompts": found.n_prompts,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {"effect": effect.effect, "log_probability": effect.log_probability, "answer": effect.answer, "changed": effect.changed}
