"""Why an answer is what it is, as one HTML page: a heat-map of demonstrations, of the query's words, and of attention by layer and head;
and the most harmful demonstrations of a pool as another.

Self-contained: no script, nothing from the network (a policy in the page forbids both), light and dark, and it prints. All texts of rows
are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ..values import field_text
from .why import attention_shares, harmful_notes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..evaluate.harmful import Harmful
    from ..methods import Why

CELL = 7
"""Pixels of a head in the attention grid."""
WIDEST = 420
"""Of a grid in pixels; its cells become narrower beyond."""
STRONGEST = 10
"""Words whose effects are also written out."""
_STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--line:#bbb;--for:0,114,178;--against:213,94,0;--look:0,158,115}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#161616;--line:#555;--for:86,180,233;--against:240,130,50;--look:60,200,150}}
@media print{:root{--ink:#000;--paper:#fff;--line:#999;--for:0,114,178;--against:213,94,0;--look:0,158,115}.grid{break-inside:avoid}}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .5rem;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.row,.word{white-space:pre-wrap;overflow-wrap:anywhere}.word{border-radius:.2rem;padding:.1rem 0}
.for{background:rgba(var(--for),var(--a))}.against{background:rgba(var(--against),var(--a))}
.changed{outline:2px solid rgb(var(--against))}
.query{border:1px solid var(--line);border-radius:.3rem;padding:.6rem;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9}
.grids{display:flex;flex-wrap:wrap;gap:1.2rem}.grid{margin:0}.grid figcaption{font-size:.85rem;max-width:16rem;overflow-wrap:anywhere}
svg{display:block;border:1px solid var(--line);max-width:100%}svg rect{fill:rgb(var(--look))}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def why_page(why: Why) -> str:
    """The whole page."""
    title = f"Why “{escaped(why.answer)}”"
    return page_of(
        title,
        [
            _summary(why),
            *(_demonstrations(why) if why.demonstrations else ()),
            *(_query(why) if why.words else ()),
            *(_attention(why) if why.attention is not None else ()),
        ],
    )


def harmful_page(found: Harmful, n: int = 100) -> str:
    """The demonstrations that harm most, at most `n`, as a page."""
    most = _largest(each.effect for each in found.rows[:n])
    heads = "".join(f'<th class="n">{name}</th>' for name in ("mean effect", "±", "prompts", "broken", "mended"))
    rows = []
    for each in found.rows[:n]:
        figures = [
            f"{each.effect:+.3f}",
            "" if each.error is None else f"{each.error:.3f}",
            each.n,
            each.n_broken or "",
            each.n_mended or "",
        ]
        cells = "".join(f'<td class="n">{figure}</td>' for figure in figures)
        label, text = escaped(str(each.example.target)), fields_html(each.example.fields)
        rows.append(f'<tr {_tint(each.effect, most, "")}>{cells}<td><bdi>{label}</bdi></td><td class="row">{text}</td></tr>')
    table = f"<table><thead><tr>{heads}<th>label</th><th>text</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return page_of("Most harmful demonstrations", [f"<p>{escaped(' '.join(harmful_notes(found)))}</p>", table])


def page_of(title: str, parts: Sequence[str]) -> str:
    """title: escaped."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _summary(why: Why) -> str:
    other = "" if why.answer == why.prediction.answer else f" It is not what is answered: that is “{escaped(str(why.prediction.answer))}”."
    return (
        f"<p>Log-probability {why.log_probability:.3f} nat.{other} Each part below was left out of the prompt in turn, all others in place, "
        f"and the answer scored again ({why.n_prompts:,} prompts). The effect is its log-probability with the part less that without it: "
        f'<span class="word for" style="--a:.5">above 0 it speaks for the answer</span>, '
        f'<span class="word against" style="--a:.5">below 0 against it</span>; '
        '<span class="word changed">outlined</span>: without it the answer is another one. Effects of several parts do not add up.</p>'
    )


def _demonstrations(why: Why) -> Iterable[str]:
    most = _largest(each.left_out.effect for each in why.demonstrations)
    looked = attention_shares(why)
    rows = []
    for i, each in enumerate(why.demonstrations):
        example, effect = each.demonstration.example, each.left_out
        without = escaped(str(effect.answer)) if effect.changed else ""
        share = f'<td class="n">{looked[i]:.1%}</td>' if looked else ""
        rows.append(
            f'<tr {_tint(effect.effect, most, "changed" if effect.changed else "")}><td class="n">{each.demonstration.shot}</td>'
            f'<td><bdi>{escaped(str(example.target))}</bdi></td><td class="n">{each.similarity:.3f}</td><td class="n">{effect.effect:+.3f}</td>'
            f'<td>{without}</td>{share}<td class="row">{fields_html(example.fields)}</td></tr>'
        )
    attention = '<th class="n">attention</th>' if looked else ""
    yield "<h2>Demonstrations, in prompt order</h2>"
    yield (
        '<table><thead><tr><th class="n">shot</th><th>label</th><th class="n">similarity</th><th class="n">effect</th><th>without it</th>'
        f"{attention}<th>text</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _query(why: Why) -> Iterable[str]:
    """The query's texts with their words marked."""
    most = _largest(each.left_out.effect for each in why.words)
    yield "<h2>The query, word by word</h2>"
    for name, value in why.query.fields.items():
        texts: Sequence[tuple[int | None, str, str]]
        if isinstance(value, str | int | float):
            texts = [(None, "", str(value))]
        else:
            texts = [(i, f"{turn['role']}: ", turn["text"]) for i, turn in enumerate(value)]
        caption = f"<b>{escaped(name)}</b> " if len(why.query.fields) > 1 else ""
        marked = "\n".join(escaped(role) + _marked(why, name, turn, text, most) for turn, role, text in texts)
        yield f'<div class="query"><bdi>{caption}{marked}</bdi></div>'
    strongest = sorted(why.words, key=lambda each: -abs(each.left_out.effect))[:STRONGEST]
    listed = ", ".join(f"<bdi>{escaped(each.text)}</bdi> {each.left_out.effect:+.3f}" for each in strongest)
    yield f"<p>Strongest: {listed}</p>"


def _marked(why: Why, name: str, turn: int | None, text: str, most: float) -> str:
    at, parts = 0, []
    for each in why.words:
        if (each.place.field, each.place.turn) != (name, turn):
            continue
        effect = each.left_out
        tip = f"{effect.effect:+.3f}" + (f", without it: {effect.answer}" if effect.changed else "")
        tint = _tint(effect.effect, most, "word changed" if effect.changed else "word")
        parts += [escaped(text[at : each.place.start]), f'<span {tint} title="{escaped(tip)}">{escaped(each.text)}</span>']
        at = each.place.end
    return "".join([*parts, escaped(text[at:])])


def _attention(why: Why) -> Iterable[str]:
    assert why.attention is not None
    shown = [
        (f"shot {each.demonstration.shot}: {each.demonstration.example.target}", why.attention.demonstrations[..., i])
        for i, each in enumerate(why.demonstrations)
    ]
    grids = [*shown, ("the query", why.attention.query), ("before the first demonstration", why.attention.head)]
    n_layers, n_heads = why.attention.query.shape
    yield "<h2>Where the answering position looks</h2>"
    yield (
        f"<p>Attention weights, summed over each part of the prompt: {n_layers} layers from top to bottom, {n_heads} heads from left to right; "
        "full colour is a weight of 1. Weights say where a head looked, not what came of it.</p>"
    )
    yield '<div class="grids">' + "".join(_grid(caption, values) for caption, values in grids) + "</div>"


def _grid(caption: str, values: NDArray[np.float32]) -> str:
    n_layers, n_heads = values.shape
    width = min(CELL, WIDEST / n_heads)
    cells = "".join(
        f'<rect x="{head}" y="{layer}" width="1" height="1" fill-opacity="{min(max(float(weight), 0.0), 1.0):.2f}"/>'
        for layer, row in enumerate(values)
        for head, weight in enumerate(row)
        if weight >= 0.005
    )
    mean = f"{float(values.mean()):.1%} on average, {float(values.max()):.1%} at most" if values.size else "none"
    return (
        f'<figure class="grid"><svg role="img" aria-label="{escaped(caption)}, {mean}" viewBox="0 0 {n_heads} {n_layers}" '
        f'width="{width * n_heads:.0f}" height="{CELL * n_layers}" preserveAspectRatio="none">{cells}</svg>'
        f"<figcaption><bdi>{escaped(caption)}</bdi><br>{mean}</figcaption></figure>"
    )


def _largest(effects: Iterable[float]) -> float:
    return max(map(abs, effects), default=0.0) or 1.0


def _tint(effect: float, most: float, more: str) -> str:
    """Attributes that colour an element by an effect, the largest the most."""
    return f'class="{(more + (" for" if effect >= 0 else " against")).strip()}" style="--a:{0.65 * abs(effect) / most:.3f}"'


def fields_html(fields: Mapping[str, Any]) -> str:
    """All of a row, with field names where there are several."""
    named = len(fields) > 1
    return "\n".join(
        f"<bdi>{f'<b>{escaped(name)}</b> ' if named else ''}{escaped(field_text(value))}</bdi>" for name, value in fields.items()
    )


def escaped(text: str) -> str:
    """Escaped, and without what no page may hold: control characters and halves of surrogate pairs."""
    return escape(
        "".join(c if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f" and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in text)
    )
