"""`icl train meta`: an adapter with which a language model learns better from demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Quiet
from .output import be_quiet, say, tell
from .train_settings import settings_from


@dataclass(frozen=True, slots=True)
class Without:
    """What the model is to be judged on, and so must not see."""

    exclude: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A task that is left out, `*` for anything; may be given several times.")
    ] = None
    held_out: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Data to be judged on: what has text in common with it is left out; may be given several times."),
    ] = None


@dataclass(frozen=True, slots=True)
class How:
    """Options of the training."""

    base: Annotated[str, typer.Option(metavar="NAME", help="The causal model: a catalogue name, a folder, a hub id.")] = "smollm2"
    episodes: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts that are trained on.")] = 2_000
    shots: Annotated[int, typer.Option(metavar="K", min=1, help="Demonstrations of each, at most.")] = 8
    random_words: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="Share of the prompts with labels whose label words are random.")
    ] = 0.5
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting, such as max_tokens=512; may be given several times."),
    ] = None
    seed: Annotated[int, typer.Option(metavar="S", help="Of what is drawn, and of the adapter.")] = 0


def meta(
    tasks: Annotated[Path, typer.Argument(metavar="FOLDER", help="Tasks: NAME.jsonl or NAME/train.jsonl.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the adapter goes.")],
    without: Without,
    how: How,
    quiet: Quiet = False,
) -> None:
    """Train a LoRA adapter on few-shot prompts of many tasks, so that the model learns better from demonstrations (MetaICL).

    Judge it on tasks that it has not seen: name them with --exclude and give their data with --held-out. Interrupted, the same command
    goes on from its last checkpoint. Use it as `{model: BASE, adapter: FOLDER}` in a suite.
    """
    from ..train.meta import Tasks, train_meta
    from ..train.meta_settings import MetaSettings

    be_quiet(quiet)
    named = {"episodes": how.episodes, "shots": how.shots, "random_words": how.random_words}
    settings = settings_from(MetaSettings, named, how.set)
    which = Tasks(tasks, tuple(without.exclude or ()), tuple(without.held_out or ()))
    record = train_meta(which, out, base=how.base, settings=settings, seed=how.seed, on_point=_say_point)
    for name, why in record["left_out"].items():
        tell(f"left out: {name}: {why}")
    training, before = record["training"], record["validation_loss_before"]
    if before is not None and training["curve"]:
        tell(
            f"loss on {len(record['validation_tasks'])} other tasks: {before:.4f} before, {training['curve'][-1]['validation_loss']:.4f} after"
        )
    tell(
        f"{len(record['tasks'])} tasks, {settings.episodes:,} episodes with {record['n_answers']:,} answers, "
        f"{training['n_trained']:,} parameters trained in {training['seconds']:.0f} s"
    )
    say(str(out))
    tell(f"Next, in a suite: models: [{how.base}, {{model: {how.base}, adapter: {out}, name: meta}}]")


def _say_point(point: Mapping[str, Any]) -> None:
    judged = f", on other tasks {point['validation_loss']:.4f}" if "validation_loss" in point else ""
    say(f"step {point['step']}: loss {point['loss']:.4f}{judged}")
