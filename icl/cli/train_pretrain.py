"""`icl train pretrain`: a language model from plain text, or one that goes on learning from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Quiet
from .output import be_quiet, say, tell
from .train_settings import settings_from
from .trained import BatchSize, Seed, Set

if TYPE_CHECKING:
    from ..train.pretrain_settings import PretrainSettings


class Objective(StrEnum):
    causal = "causal"
    masked = "masked"


@dataclass(frozen=True, slots=True)
class Texts:
    """Which texts."""

    field: Annotated[str, typer.Option(metavar="COLUMN", help="Column with the text, in files of rows.")] = "text"
    eval: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Text to measure on, may be given several times. [default: a tenth of the documents, by hash]"),
    ] = None
    held_out: Annotated[int, typer.Option(metavar="N", min=1, help="Most documents to measure on.")] = 100


@dataclass(frozen=True, slots=True)
class How:
    """Options of the training."""

    base: Annotated[str | None, typer.Option(metavar="NAME", help="What is continued: smollm2, minilm, a folder or a hub id.")] = None
    config: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="From scratch: small (1 M parameters), medium (13 M), large (110 M) or a config.json."),
    ] = None
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Steps of the optimiser. [default: the text once]")] = None
    length: Annotated[int, typer.Option(metavar="N", min=8, help="Tokens of a row.")] = 256
    batch_size: BatchSize = 16
    learning_rate: Annotated[
        float | None,
        typer.Option(metavar="X", help="Of AdamW, at its highest. [default: 3e-3 causal, 2e-3 masked from scratch; 1e-4 continued]"),
    ] = None
    set: Set = None
    seed: Seed = 0


def pretrain(
    text: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Plain text (.txt, .md) or rows with a column of it; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model goes.")],
    texts: Texts,
    how: How,
    objective: Annotated[Objective, typer.Option(help="Predict the next token, or masked ones.")] = Objective.causal,
    quiet: Quiet = False,
) -> None:
    """Train a language model on plain text, from scratch or continued, and measure its perplexity on documents held out.

    The folder is a model of transformers: a causal one for `--model` and icl.load_model, a masked one as the base of a classifier.
    Interrupted, the same command goes on from its last checkpoint.
    """
    from ..train.pretrain import Corpus
    from ..train.pretrain import pretrain as run

    be_quiet(quiet)
    settings = _settings(how)
    say(_line("step", "loss", "held-out loss"))
    corpus = Corpus(tuple(text), texts.field, tuple(texts.eval or ()), texts.held_out)
    record = run(
        corpus, out, objective=objective.value, base=how.base, config=how.config, settings=settings, seed=how.seed, on_point=_say_point
    )
    _say_record(record, out)


def _settings(how: How) -> PretrainSettings:
    from ..train.pretrain_settings import PretrainSettings

    named = {"length": how.length, "batch_size": how.batch_size, "learning_rate": how.learning_rate, "steps": how.steps}
    return settings_from(PretrainSettings, named, how.set)


def _say_point(point: Mapping[str, Any]) -> None:
    say(_line(point["step"], f"{point['loss']:.4f}", f"{point['validation_loss']:.4f}"))


def _say_record(record: Mapping[str, Any], out: Path) -> None:
    held, training = record["held_out"], record["training"]
    causal = record["objective"] == "causal"
    if record["new_weights"]:
        tell(
            f"the base has no output layer that predicts tokens: {len(record['new_weights'])} of its tensors began at random, so the ratio below says little"
        )
    tell(f"{'perplexity' if causal else 'masked perplexity'} on {held['n_documents']} documents held out, {held['n_words']:,} words:")
    for unit, found in record["perplexity"].items():
        interval = f" [{found['low']:.4f}, {found['high']:.4f}]" if "low" in found else ""
        tell(f"  per {unit:5} {found['before']:10.2f} before {found['after']:10.2f} after   ratio {found['ratio']:.4f}{interval}")
    tell(f"  per token, by the frequencies of tokens alone: {record['unigram_per_token']:.2f}")
    tell(
        f"{training['n_tokens']:,} tokens seen in {training['n_steps']} steps, {training['n_trained']:,} parameters trained in "
        f"{training['seconds']:.0f} s"
    )
    say(str(out))
    usable = f"icl run SUITE --set models=[{out}]" if causal else f"icl train classifier --train FILE --base {out}"
    tell(f"Next: {usable}")


def _line(*cells: Any) -> str:
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, (8, 10, 15), strict=True)).rstrip()
