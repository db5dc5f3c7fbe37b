"""Inputs that are longer than a prompt can hold: cut into overlapping windows, or shortened, if the user says so; never in silence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem
from ..prompt import Unfit
from ..values import Example, Hit, Prompt
from ._windows import Pack, joined, settings_from

if TYPE_CHECKING:
    from ..protocols import PromptCodec

GAP = " … "
"""Stands for what `head_tail` leaves out."""
SMALLEST = 16
"""Characters of a piece below which cutting is given up: something else fills the prompt."""
LONGEST_WORD = 64
"""Characters that are looked back for a word's beginning."""


class LongInputSettings(BaseModel):
    """What is done with an input that no prompt can hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    how: Literal["refuse", "slide", "head_tail", "truncate"] = Field(
        "refuse",
        description="refuse: unscored, with the reason; slide: overlapping windows, their scores pooled; head_tail, truncate: a part is read.",
    )
    pool: Literal["mean", "max"] = Field(
        "mean", description="slide: the mean of the windows' log-likelihoods, or each label's best window. The first one alone is truncate."
    )
    overlap: float = Field(0.25, ge=0, lt=1, description="slide: the share of a window that the next one begins with.")
    field: str | None = Field(None, description="The input field that is cut; default: the longest text.")


def long_input_of(value: Any) -> LongInputSettings:
    """What `long_input=` means: a way, or a mapping of settings (`{how: slide, pool: max}`). Raises InputError."""
    if isinstance(value, LongInputSettings):
        return value
    found: LongInputSettings = settings_from(LongInputSettings, dict(value) if isinstance(value, Mapping) else {"how": value}, "long_input")
    return found


def check_long_input(settings: LongInputSettings, *, writes: bool, inputs: Sequence[str]) -> None:
    """Raises InputError for windows of an input whose answer is written, and for a field that the task lacks."""
    if settings.how == "slide" and writes:
        message = "a sliding window pools label scores, and here an answer is written"
        raise InputError(Problem(message, "Use long_input: head_tail or truncate.", field="long_input"))
    if settings.field is not None and inputs and settings.field not in inputs:
        raise InputError(Problem(f"there is no input field '{settings.field}'", f"It has {', '.join(inputs)}.", field="long_input.field"))


def shortened(
    pack: Pack,
    query: Example,
    hits: tuple[Sequence[Hit], Sequence[str]],
    unfit: Unfit,
    settings: LongInputSettings,
    budget: tuple[PromptCodec, int],
) -> Prompt | Unfit:
    """The prompt, or the windows, of an input that does not fit.

    hits: demonstrations in prompt order, and their uids, most useful first. As many as fit into half of the token budget stay; what is
    left of the whole is the input's. unfit: why it does not fit as it is; given back where cutting does not help. budget: what counts
    tokens, and how many the prompt may have with its longest answer. A shortened prompt's `query` is what of the input it holds.
    """
    name = settings.field or _longest(query)
    text = query.fields.get(name or "")
    if name is None or not isinstance(text, str) or settings.how == "refuse":
        return unfit

    def piece(part: str) -> Example:
        return replace(query, fields={**query.fields, name: part})

    ordered, useful = _beside(pack, piece(""), hits)

    def packed(part: str) -> Prompt | None:
        made = pack(piece(part), ordered, useful)
        return None if isinstance(made, Unfit) or made.dropped else made

    base = packed("")
    if base is None:
        return unfit
    codec, most = budget
    whole = codec.count(text)
    # A guess, tried below: the tokens that are free, in characters of this text.
    size = min(len(text) - 1, max(len(text) * (most - (base.n_tokens or 0)) // max(whole, 1), SMALLEST))
    if settings.how == "slide":
        return _slid(packed, text, size, settings, query) or unfit
    made = _largest(lambda n: packed(_part(text, n, settings.how)), size, len(text))
    if made is None:
        return unfit
    n, prompt = made
    return replace(prompt, n_cut=max(whole - codec.count(_part(text, n, settings.how)), 1))


def _longest(query: Example) -> str | None:
    """The input field with the longest text."""
    texts = {name: len(value) for name, value in query.fields.items() if isinstance(value, str)}
    return max(texts, key=lambda name: texts[name]) if texts else None


def _beside(pack: Pack, blank: Example, hits: tuple[Sequence[Hit], Sequence[str]]) -> tuple[list[Hit], list[str]]:
    """The demonstrations that stay."""
    made = pack(blank, *hits, share=0.5)
    kept = set() if isinstance(made, Unfit) else {d.uid for d in made.demonstrations}
    return [hit for hit in hits[0] if hit.uid in kept], [uid for uid in hits[1] if uid in kept]


def _slid(packed: Callable[[str], Prompt | None], text: str, size: int, settings: LongInputSettings, query: Example) -> Prompt | None:
    """Windows of one size, the largest of those tried with which all fit."""
    while size >= SMALLEST:
        prompts: list[Prompt] = []
        for part in pieces(text, size, settings.overlap):
            made = packed(part)
            if made is None:
                break
            prompts.append(made)
        else:
            return _once_shown(joined(prompts, "max" if settings.pool == "max" else "product", query))
        size = size * 9 // 10
    return None


def _once_shown(prompt: Prompt) -> Prompt:
    """The demonstrations are the same in every window."""
    assert prompt.windows is not None
    return replace(prompt, demonstrations=prompt.windows.prompts[0].demonstrations)


def pieces(text: str, size: int, overlap: float) -> list[str]:
    """Pieces of about `size` characters, evenly spaced from the beginning to the end of the text, each but the first beginning with at
    least about `overlap` of the one before. They begin and end at words where those are not very long; no character is in none."""
    step = max(int(size * (1 - overlap)), 1)
    n = max(ceil((len(text) - size) / step), 0) + 1
    starts = [i * (len(text) - size) // (n - 1) for i in range(n)] if n > 1 else [0]
    return [text[_word(text, start) : _word(text, start + size) if i < n - 1 else len(text)] for i, start in enumerate(starts)]


def _word(text: str, at: int) -> int:
    """Where the word at this place begins; the place itself if no white space stands near before it."""
    before = text[max(at - LONGEST_WORD, 0) : at]
    found = re.search(r"\S*$", before)
    n = len(found[0]) if found else 0
    return at if n >= min(at, LONGEST_WORD) else at - n


def _part(text: str, n: int, how: str) -> str:
    """n characters of a text, or a few less: its beginning, or its beginning and its end."""
    if how == "truncate":
        return text[: _word(text, n)]
    return text[: _word(text, n // 2)] + GAP + text[_word(text, len(text) - n // 2) :]


def _largest(packed: Callable[[int], Prompt | None], size: int, most: int) -> tuple[int, Prompt] | None:
    """About the largest size that fits, and its prompt. most: does not fit."""
    best: tuple[int, Prompt] | None = None
    low, high = 0, most
    while high - low > max(SMALLEST, low // 64):
        made = packed(size)
        if made is None:
            high = size
        else:
            best, low = (size, made), size
        near = low * 9 // 8 if best else high * 3 // 4
        size = min(max(near, low + 1), (low + high + 1) // 2) if best else near
    return best
