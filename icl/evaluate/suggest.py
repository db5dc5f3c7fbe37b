"""What to label next: of rows without a label those that teach most, within a label budget, each with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from ..errors import InputError, Problem
from ..errors import suggest as known_names
from ..protocols import Encoder, Predictor
from ..values import Example, embedded_text, normalised_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

By: TypeAlias = Literal["auto", "uncertainty", "disagreement", "diversity", "votek"]
LABEL_FREE = ("diversity", "votek")
HEADS = {"logistic": "logistic regression", "kernel": "a kernel", "knn": "the nearest rows"}
"""The methods that may disagree, as reasons call them."""
MOST_ASKED = 256
"""Rows that other predictors are asked about."""
MOST_CLUSTERS = 500
"""By diversity, or the budget, if that is more: k-means takes time proportional to rows times clusters."""
TIMES = 10
"""The most doubtful rows, so many times the budget, are clustered."""
LEAST = 1e-3
"""Weight of a row that no method doubts: it may be the middle of a cluster, and never decides where one lies."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A row to label."""

    example: Example
    reason: str
    guess: str | None = None
    """What logistic regression on the labelled rows takes it for."""
    uncertainty: float | None = None
    """1 less the distance of its two likeliest labels, by logistic regression: from 0 (sure) to 1 (a tie)."""
    disagreement: float | None = None
    """Of the methods, in nats: 0 if all give the same probabilities."""


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The rows to label."""

    rows: tuple[Suggestion, ...]
    """The most useful first."""
    by: By
    """What they were chosen by; never "auto"."""
    n_labelled: int
    n_unlabelled: int
    """Rows to choose among."""
    n_copies: int
    """Further rows that are left out: their text has a label already, or stands there before."""
    n_asked: int = 0
    """Rows that the other predictors were asked about; only those can be chosen then."""


@dataclass(frozen=True, slots=True)
class _Views:
    """What the methods make of n rows."""

    labels: list[str]
    names: list[str]
    shares: NDArray[np.float64]
    """(methods, n, labels)"""


def suggest(
    unlabelled: Sequence[Example],
    budget: int,
    *,
    labelled: Sequence[Example] = (),
    by: By = "auto",
    encoder: str | Encoder = "minilm",
    predictors: Sequence[Predictor] = (),
    most_asked: int = MOST_ASKED,
    seed: int = 0,
) -> Suggestions:
    """Choose `budget` rows to label next; labels of `unlabelled` are not looked at.

    "uncertainty" and "disagreement" take the rows in most doubt, 10 for each row of the budget, cluster their embeddings into as many clusters
    as the budget has rows (k-means, a row's weight its doubt) and take the middle row of each, so that rows are not all of one kind
    (Zhdanov 2019, https://arxiv.org/abs/1901.05954). The doubt is 1 less the margin of the two likeliest labels (Scheffer et al. 2001)
    by logistic regression on the labelled rows, or the disagreement of a committee (McCallum and Nigam 1998: mean divergence from the
    mean, in nats): logistic regression, a kernel, the nearest rows, and `predictors`, any fitted ones that give probabilities, such as a
    prompt; those are asked about the `most_asked` most uncertain rows only, and the choice is among them.
    "diversity" clusters all rows, the labelled ones too, into as many clusters as there will be labels (at most 500, or the budget) and takes
    the middle row of each, those without a labelled row first, the larger first (TypiClust, Hacohen et al. 2022,
    https://arxiv.org/abs/2202.02794, with the nearest to the centre for the densest). "votek" is vote-k's first stage beside the labelled
    rows (`icl.retrieve.vote_k`). Both need no label. "auto" is uncertainty where the labelled rows have two labels or more
    (disagreement, if there are predictors), diversity otherwise.

    Raises InputError, with all problems at once, for a budget below 1, no rows to choose among, and labels that a choice needs and has not.
    """
    import numpy as np

    from ..retrieve import load_encoder

    known = [row for row in labelled if row.target is not None]
    chosen_by = _checked(unlabelled, budget, known, by, predictors)
    rows = _new_texts(unlabelled, known)
    facts: dict[str, Any] = {"n_labelled": len(known), "n_unlabelled": len(rows), "n_copies": len(unlabelled) - len(rows)}
    embed: Encoder = load_encoder(encoder)
    old, new = _vectors(embed, known), _vectors(embed, rows)
    if chosen_by in LABEL_FREE:
        voted = chosen_by == "votek"
        found = tuple(_voted(rows, budget, known, embed, old) if voted else _unlike(rows, budget, old, new, seed))
        return Suggestions(found, chosen_by, **facts)
    views = _views(known, old, new, seed)
    uncertain = uncertainty(views.shares[0])
    kept = np.arange(len(rows))
    if predictors:
        kept = np.sort(np.argsort(-uncertain, kind="stable")[: max(most_asked, budget)])
        views = _with_predictors(views, predictors, [rows[i] for i in kept], kept)
        facts["n_asked"] = len(kept)
    differ = disagreement(views.shares)
    doubt = differ if chosen_by == "disagreement" else uncertain[kept]
    found = tuple(
        _suggestion(rows[kept[i]], i, n_like, views, float(uncertain[kept[i]]), float(differ[i]), chosen_by)
        for i, n_like in _spread(new[kept], doubt, budget, seed)
    )
    return Suggestions(found, chosen_by, **facts)


def uncertainty(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) from (n, labels), two labels or more: 1 less the distance of the two largest probabilities."""
    import numpy as np

    largest = np.sort(shares, axis=1)[:, -2:]
    margin: NDArray[np.float64] = largest[:, 1] - largest[:, 0]
    return 1.0 - margin


def disagreement(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) from (methods, n, labels): the mean Kullback-Leibler divergence of the methods' probabilities from their mean, in nats."""
    import numpy as np

    mean = shares.mean(axis=0)
    logs = np.log(np.maximum(shares, 1e-300)) - np.log(np.maximum(mean, 1e-300))
    result: NDArray[np.float64] = np.maximum((shares * logs).sum(axis=2).mean(axis=0), 0.0)
    return result


def _checked(unlabelled: Sequence[Example], budget: int, known: Sequence[Example], by: str, predictors: Sequence[Predictor]) -> By:
    problems = []
    if by not in get_args(By):
        problems.append(Problem(f"there is no way to choose named '{by}'", known_names(by, get_args(By)), field="by"))
    if budget < 1:
        problems.append(Problem(f"the label budget is {budget}", "Give at least 1.", field="budget"))
    if not len(unlabelled):
        problems.append(Problem("there are no rows without a label to choose among", "Give some.", field="unlabelled"))
    if any(row.choices or row.references for row in known):
        problems.append(Problem("rows with choices, or with answers in words, have no label that others share", "Give rows of a classification task.", field="labelled"))  # fmt: skip
    n_labels = len({row.target for row in known})
    if by == "auto":
        by = "uncertainty" if n_labels > 1 else "diversity"
        by = "disagreement" if predictors and n_labels > 1 else by
    if by in ("uncertainty", "disagreement") and n_labels < 2:
        message = f"the labelled rows have {n_labels} labels, so there is nothing to be unsure about"
        problems.append(Problem(message, "Give labelled rows of two labels, or choose by diversity.", field="by"))
    if predictors and by == "diversity":
        problems.append(
            Problem("predictors have no say in a choice by diversity", "Choose by disagreement, or leave them out.", field="by")
        )
    if problems:
        raise InputError(problems)
    return cast("By", by)


def _new_texts(unlabelled: Sequence[Example], known: Sequence[Example]) -> list[Example]:
    """Of rows with the same text the first; none whose text has a label. Raises InputError if none is left."""
    seen = {normalised_text(embedded_text(row.fields)) for row in known}
    rows = []
    for row in unlabelled:
        if (text := normalised_text(embedded_text(row.fields))) not in seen:
            seen.add(text)
            rows.append(row)
    if not rows:
        raise InputError(Problem("all rows to choose among have a text that is labelled already", "Give other rows.", field="unlabelled"))
    return rows


def _vectors(encoder: Encoder, rows: Sequence[Example]) -> NDArray[np.float32]:
    import numpy as np

    return np.ascontiguousarray(encoder.encode([embedded_text(row.fields) for row in rows]), dtype=np.float32)


def _unlike(rows: Sequence[Example], budget: int, old: NDArray[np.float32], new: NDArray[np.float32], seed: int) -> list[Suggestion]:
    """The middle row of each cluster, and if there are too few of them then the rows next to the middle."""
    import numpy as np

    from ..retrieve.clusters import cluster_members

    n = len(old)
    every = np.concatenate([old, new]) if n else new
    members = cluster_members(every, min(n + budget, max(MOST_CLUSTERS, budget), len(every)), seed)
    parted = [([i - n for i in each if i >= n], sum(i < n for i in each)) for each in members]
    parted.sort(key=lambda each: (each[1], -len(each[0])))
    found: list[Suggestion] = []
    for at in range(max(len(each) for each, _ in parted)):
        for each, n_known in parted:
            if at < len(each) and len(found) < budget:
                beside = f", beside {n_known:,} labelled" if n_known else ", none labelled" if n else ""
                alike = f"one of {len(each):,} rows alike" if len(each) > 1 else "like no other row"
                found.append(Suggestion(rows[each[at]], f"{alike}{beside}"))
        if len(found) >= budget:
            break
    return found


def _voted(rows: Sequence[Example], budget: int, known: Sequence[Example], encoder: Encoder, old: NDArray[np.float32]) -> list[Suggestion]:
    from ..retrieve import vote_k

    chosen = vote_k(rows, budget, labelled=known, encoder=encoder)
    if not len(known):
        return [Suggestion(row, "near to many rows, and unlike the rows above") for row in chosen]
    near = (_vectors(encoder, chosen) @ old.T).max(axis=1)
    return [Suggestion(row, f"near to many rows; its nearest labelled row has a cosine of {near[i]:.2f}") for i, row in enumerate(chosen)]


def _views(known: Sequence[Example], old: NDArray[np.float32], new: NDArray[np.float32], seed: int) -> _Views:
    import numpy as np

    from ..methods._heads import HeadKind, fit_head

    labels = sorted({str(row.target) for row in known})
    targets = [labels.index(str(row.target)) for row in known]
    shares = [fit_head(cast("HeadKind", kind), old, targets, len(labels), seed=seed).shares(new) for kind in HEADS]
    return _Views(labels, list(HEADS.values()), np.stack(shares))


def _with_predictors(views: _Views, predictors: Sequence[Predictor], rows: Sequence[Example], kept: NDArray[np.int64]) -> _Views:
    """The rows that are kept alone, with what the predictors say of them; where one says nothing it has the others' mean."""
    import numpy as np

    answers = [predictor.predict(rows) for predictor in predictors]
    more = {label for each in answers for prediction in each for label in prediction.probabilities or ()}
    labels = [*views.labels, *sorted(more - set(views.labels))]
    heads = np.pad(views.shares[:, kept], ((0, 0), (0, 0), (0, len(labels) - len(views.labels))))
    place = {label: i for i, label in enumerate(labels)}
    shares = [*heads]
    for each in answers:
        said = heads.mean(axis=0)
        for row, prediction in zip(said, each, strict=True):
            if prediction.probabilities is not None:
                row[:] = 0.0
                for label, value in prediction.probabilities.items():
                    row[place[label]] = value
        shares.append(said)
    names = [str(getattr(predictor, "name", f"predictor {i}")) for i, predictor in enumerate(predictors, 1)]
    return _Views(labels, [*views.names, *names], np.stack(shares))


def _spread(vectors: NDArray[np.float32], doubt: NDArray[np.float64], budget: int, seed: int) -> list[tuple[int, int]]:
    """(position, rows in its cluster): the middle row of each cluster, the cluster with the most doubt first; if clusters are fewer than the
    budget, then the most doubtful of the other rows, which stand for themselves."""
    import numpy as np

    from ..retrieve.clusters import cluster_members

    ranked = np.argsort(-doubt, kind="stable")
    kept = np.sort(ranked[: TIMES * budget])
    weights = np.maximum(doubt[kept] / max(float(doubt.max()), 1e-12), LEAST)
    members = [kept[each] for each in cluster_members(vectors[kept], min(budget, len(kept)), seed, weights.astype(np.float32))]
    members.sort(key=lambda each: -float(doubt[each].sum()))
    found = [(int(each[0]), len(each)) for each in members]
    taken = {i for i, _ in found}
    others = [i for i in ranked.tolist() if i not in taken]
    return [*found, *((i, 1) for i in others[: budget - len(found)])]


def _suggestion(row: Example, i: int, n_like: int, views: _Views, uncertain: float, differ: float, by: By) -> Suggestion:
    logistic = views.shares[0, i]
    first, second = logistic.argsort()[::-1][:2]
    guess = views.labels[first]
    if by == "uncertainty":
        why = f"{guess} {logistic[first]:.2f}, {views.labels[second]} {logistic[second]:.2f}"
    else:
        said = [views.labels[each[i].argmax()] for each in views.shares]
        groups = {label: [name for name, own in zip(views.names, said, strict=True) if own == label] for label in dict.fromkeys(said)}
        why = "; ".join(f"{label}: {', '.join(names)}" for label, names in groups.items())
        why += f" ({differ:.2f} nat)"
    like = f"; one of {n_like:,} rows alike" if n_like > 1 else ""
    return Suggestion(row, why + like, guess, uncertain, differ)
