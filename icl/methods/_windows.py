"""Demonstrations in several windows: a prompt of its own for each, and one answer out of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, Problem
from ..prompt import Unfit
from ..values import Combine, Demonstration, Example, Hit, LabelScores, Prompt, Windows

if TYPE_CHECKING:
    from ..prompt import BoundTemplate
    from ..protocols import LanguageModel, PromptCodec
    from ._written import Lost

NEXT = "\n\n--- next window ---\n\n"
"""Between the windows of a prompt where its text is shown."""


class WindowSettings(BaseModel):
    """Demonstrations in several windows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    n: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="How many; auto: as many as show all demonstrations.")
    combine: Literal["product", "mixture", "parallel"] = Field(
        "product",
        description="product or mixture of the windows' label probabilities, each window a prompt of its own; parallel: the query sees all.",
    )


class Pack(Protocol):
    """Packs one query with demonstrations in prompt order, the most useful named first."""

    def __call__(self, query: Example, ordered: Sequence[Hit], useful: Sequence[str], share: float = 1.0) -> Prompt | Unfit:
        """share: of the token budget."""


def windows_of(value: Any) -> WindowSettings | None:
    """What `windows=` means: None, a number, `auto`, or a mapping of settings. Raises InputError."""
    if value is None or isinstance(value, WindowSettings):
        return value
    found: WindowSettings = settings_from(WindowSettings, dict(value) if isinstance(value, Mapping) else {"n": value}, "windows")
    return found


def settings_from(kind: Any, options: Mapping[str, Any], field: str) -> Any:
    """Checked settings. Raises InputError."""
    try:
        return kind(**options)
    except ValidationError as error:
        fix = f"Its options are {', '.join(kind.model_fields)}."
        raise InputError([Problem(e["msg"], fix, field=".".join((field, *map(str, e["loc"])))) for e in error.errors()]) from None


def in_windows(pack: Pack, query: Example, ordered: Sequence[Hit], useful: Sequence[str], settings: WindowSettings) -> Prompt | Unfit:
    """The demonstrations, in prompt order, cut into runs of equal length, each with the query a prompt of its own; one prompt if there is
    one run.

    auto: all in one prompt if they fit; else as few windows as show all, found by their tokens.
    """
    if settings.n != "auto":
        return _cut(pack, query, ordered, useful, settings.n, settings.combine)
    made = pack(query, ordered, useful)
    if isinstance(made, Unfit) or not made.dropped or not made.demonstrations:
        return made
    n = ceil(len(ordered) / len(made.demonstrations))
    while True:
        found = _cut(pack, query, ordered, useful, n, settings.combine)
        # A demonstration that does not even fit alone is left out, as without windows.
        if isinstance(found, Unfit) or not found.dropped or n >= len(ordered):
            return found
        n = min(max(n + 1, ceil(n * 1.25)), len(ordered))


def _cut(pack: Pack, query: Example, ordered: Sequence[Hit], useful: Sequence[str], n: int, combine: Combine) -> Prompt | Unfit:
    n = max(1, min(n, len(ordered)))
    place = {uid: at for at, uid in enumerate(useful)}
    prompts: list[Prompt] = []
    for i in range(n):
        run = ordered[i * len(ordered) // n : (i + 1) * len(ordered) // n]
        made = pack(query, run, sorted((hit.uid for hit in run), key=lambda uid: place.get(uid, len(place))))
        if isinstance(made, Unfit):
            return made
        prompts.append(made)
    return joined(prompts, combine, query)


def joined(prompts: Sequence[Prompt], combine: Combine, query: Example) -> Prompt:
    """Several prompts of one query as one; a single one is itself."""
    if len(prompts) == 1:
        return prompts[0]
    counts = [prompt.n_tokens for prompt in prompts]
    shown = [demonstration for prompt in prompts for demonstration in prompt.demonstrations]
    return Prompt(
        text=NEXT.join(prompt.text for prompt in prompts),
        messages=(),
        demonstrations=tuple(Demonstration(d.example, shot, d.score, d.shared) for shot, d in enumerate(shown)),
        n_tokens=None if None in counts else sum(n or 0 for n in counts),
        dropped=tuple(uid for prompt in prompts for uid in prompt.dropped),
        format=prompts[0].format,
        query=query,
        windows=Windows(tuple(prompts), combine),
    )


def marked(prompt: Prompt, bound: BoundTemplate, codec: PromptCodec | None) -> Prompt | Unfit:
    """A prompt whose windows stand in parallel, with what they have in common: the tokens of the instruction, seen once, and of the query.

    The border between demonstrations and query is that of continuations: the longest token prefix that the text before the query and
    the whole prompt share. Raises InputError for chat prompts, whose turns no such border cuts.
    """
    windows = prompt.windows
    if windows is None or windows.combine != "parallel" or codec is None or not windows.prompts[0].token_ids:
        return prompt
    from ..model.boundary import common_length

    if prompt.format == "chat":
        raise InputError(Problem("parallel windows are for plain prompts", "Use format: plain, or combine: product.", field="windows"))
    assert prompt.query is not None
    instruction = bound.instruction(prompt.query)
    head = codec.plain(instruction + bound.template.separator if instruction else "").ids
    n_query = len(bound.query(prompt.query))
    ids = [window.token_ids for window in windows.prompts]
    before = [codec.plain(window.text[: len(window.text) - n_query]).ids for window in windows.prompts]
    n_head = min(common_length(head, each) for each in ids)
    n_tail = max(len(each) - common_length(each, known) for each, known in zip(ids, before, strict=True))
    if not n_tail or len({each[len(each) - n_tail :] for each in ids}) > 1 or any(len(each) < n_head + n_tail for each in ids):
        return Unfit("the query's tokens depend on the demonstration before it, so that windows cannot stand in parallel")
    return replace(prompt, windows=replace(windows, n_head=n_head, n_tail=n_tail))


def check_windows(settings: WindowSettings | None, *, writes: bool, lm: LanguageModel | None) -> None:
    """Raises InputError where windows cannot be had: text is written, or the model cannot let a query see several windows."""
    if settings is None or settings.n == 1:
        return
    if writes:
        message = "windows put label scores together, and here an answer is written"
        raise InputError(Problem(message, "Leave windows out, or use a model with log-probabilities.", field="windows"))
    if settings.combine == "parallel" and lm is not None:
        why = getattr(lm, "why_not_parallel", f"'{lm.name}' is elsewhere, or no causal model of this machine")
        if why is not None:
            raise InputError(Problem(f"parallel windows cannot be had: {why}", "Use combine: product or mixture.", field="windows"))


# ── scoring ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def spread(prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> tuple[list[Prompt], list[Sequence[str]]]:
    """What the model is given: each window with the continuations of its prompt. Parallel windows are one."""
    found = [(each, texts) for prompt, texts in zip(prompts, continuations, strict=True) for each in _apart(prompt)]
    return [each for each, _ in found], [texts for _, texts in found]


def gathered(prompts: Sequence[Prompt], found: Sequence[LabelScores | Lost]) -> list[LabelScores | Lost]:
    """The other half of `spread`: one result per prompt; lost if one of its windows is."""
    result: list[LabelScores | Lost] = []
    at = 0
    for prompt in prompts:
        own = found[at : at + len(_apart(prompt))]
        at += len(own)
        scores = [each for each in own if isinstance(each, LabelScores)]
        if len(scores) < len(own):
            result.append(next(each for each in own if not isinstance(each, LabelScores)))
        else:
            result.append(combined(scores, prompt.windows.combine) if prompt.windows is not None and len(own) > 1 else scores[0])
    return result


def _apart(prompt: Prompt) -> Sequence[Prompt]:
    return (prompt,) if prompt.windows is None or prompt.windows.combine == "parallel" else prompt.windows.prompts


def combined(scores: Sequence[LabelScores], combine: Combine) -> LabelScores:
    """The scores of several prompts as one; the raw ones stay in `parts`.

    product: the mean of each candidate's log-likelihoods, a product of experts (Hinton 2002; over demonstrations: Khalifa et al. 2023,
    https://arxiv.org/abs/2308.08780) raised to 1/n, so that the answer is that of the product and the probabilities do not sharpen with
    every window. mixture and max: the mean, or the largest, of each candidate's probability among the candidates, in nats, plus the mean
    log-likelihood of all candidates together. Of one prompt each gives the prompt's own.
    """
    import numpy as np

    values = np.array([each.sums for each in scores], dtype=np.float64)
    if combine == "product":
        found = values.mean(axis=0)
    else:
        together = np.logaddexp.reduce(values, axis=1, keepdims=True)
        shares = values - together
        found = shares.max(axis=0) if combine == "max" else np.logaddexp.reduce(shares, axis=0) - np.log(len(scores))
        found = found + together.mean()
    return replace(
        scores[0],
        sums=tuple(found.tolist()),
        first=(),
        first_of=(),
        straddle=any(each.straddle for each in scores),
        parts=tuple(each.sums for each in scores),
    )
