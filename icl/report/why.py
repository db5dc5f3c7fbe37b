"""Why an answer is what it is, and the most harmful demonstrations of a pool, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..values import Example, embedded_text
from .console import aligned

if TYPE_CHECKING:
    from ..evaluate.harmful import Harm, Harmful
    from ..methods import Why

WIDTH = 60


def plain(text: str) -> str:
    """On one line, with nothing that steers a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def shown(example: Example, width: int = WIDTH) -> str:
    """The row's fields on one line, cut to `width` characters."""
    text = plain(embedded_text(example.fields))
    return text if len(text) <= width else text[: width - 1] + "…"


def why_table(why: Why) -> str:
    """The answer, then its demonstrations and the query's words with their effects."""
    blocks = [[f"{plain(why.answer)}: log-probability {why.log_probability:.3f} nat"]]
    if why.answer != why.prediction.answer:
        blocks[0].append(f"it is not what is answered: that is {plain(str(why.prediction.answer))}")
    if why.demonstrations:
        blocks.append(_demonstrations(why))
    if why.words:
        blocks.append(_words(why))
    effect = "effect: log-probability of the answer with it less that without it, in nats; above 0 it speaks for the answer"
    blocks.append([effect, f"({why.n_prompts:,} prompts scored, in each a part left out and all else in its place; effects do not add up)"])
    return "\n\n".join("\n".join(block) for block in blocks)


def _demonstrations(why: Why) -> list[str]:
    looked = attention_shares(why)
    rows = [["shot", "label", "similarity", "effect", "without it", "attention", "text"]]
    for i, each in enumerate(why.demonstrations):
        share = f"{looked[i]:.1%}" if looked else ""
        example = each.demonstration.example
        rows.append(
            [
                str(each.demonstration.shot),
                plain(str(example.target)),
                f"{each.similarity:.3f}",
                f"{each.left_out.effect:+.3f}",
                plain(str(each.left_out.answer)) if each.left_out.changed else "",
                share,
                shown(example),
            ]
        )
    return beside_text(rows, left=2)


def _words(why: Why) -> list[str]:
    rows = [["word", "effect", "without it"]]
    for each in why.words:
        rows.append([plain(each.text), f"{each.left_out.effect:+.3f}", plain(str(each.left_out.answer)) if each.left_out.changed else ""])
    return aligned(rows)


def attention_shares(why: Why) -> list[float]:
    """Per demonstration the mean over layers and heads of the weight it gets; empty without attention."""
    if why.attention is None:
        return []
    return [float(value) for value in why.attention.demonstrations.mean(axis=(0, 1))]


def harmful_table(found: Harmful, n: int = 20) -> str:
    """The demonstrations that harm most, at most `n`; below 0 they harm."""
    rows = [["mean effect", "±", "prompts", "broken", "mended", "label", "text"], *map(_harm, found.rows[:n])]
    return "\n".join([*beside_text(rows, left=0), "", *harmful_notes(found)])


def harmful_notes(found: Harmful) -> list[str]:
    """What was asked, and what the columns are."""
    asked = f"{found.n_asked:,} rows of the pool asked in {found.n_prompts:,} prompts"
    shown = f"{len(found.rows):,} of its {found.n_pool:,} rows were demonstrations in one of them, none of itself"
    left_out = [f"{len(found.unscored):,} further rows could not be asked: {plain(found.unscored[0])}"] if found.unscored else []
    return [
        f"{asked}; {shown}",
        *left_out,
        "effect: log-probability of a row's own answer with the demonstration less that without it, in nats, the mean over the prompts it was",
        "in and the standard error of that mean (none for one prompt); broken, mended: answers that are wrong, right only with it",
    ]


def _harm(each: Harm) -> list[str]:
    error = "" if each.error is None else f"{each.error:.3f}"
    counts = [f"{n:,}" if n else "" for n in (each.n_broken, each.n_mended)]
    return [f"{each.effect:+.3f}", error, f"{each.n:,}", *counts, plain(str(each.example.target)), shown(each.example)]


def beside_text(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as aligned lines, the last column, a text, as it is; the first `left` columns stand to the left. Empty columns are left out."""
    ends = [row[-1] for row in rows]
    heads = aligned([row[:-1] for row in rows], left=left)
    width = max(map(len, heads))
    return [f"{head.ljust(width)}  {end}".rstrip() for head, end in zip(heads, ends, strict=True)]
