"""Is a method as good for every group of items? Each group's figure and the largest gap between two; and a model's bias to a label."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .choice import figure
from .intervals import resamples, statistic
from .paired import Side

N_RESAMPLES = 2000
SMALLEST = 10
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupFigure:
    """The metric on the items of one group: the mean over runs."""

    group: Hashable
    value: float | None
    """None: nothing in it could be scored."""
    low: float | None
    high: float | None
    """95 % interval of this group alone; one in twenty misses its mark, so with many groups look at the gap."""
    n_items: int
    n_unscored: int
    """Items, counted once per run, that could not be scored; left out."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference between two groups."""

    highest: Hashable
    lowest: Hashable
    value: float
    """As seen. Among many small groups a large gap is seen even where there is none, so go by the interval."""
    low: float
    """Above 0 only if some two groups do differ: wrong in at most one case in twenty, however many groups there are."""
    high: float


@dataclass(frozen=True, slots=True)
class ByGroup:
    """All groups' figures, in order of first occurrence, and the largest gap."""

    figures: tuple[GroupFigure, ...]
    gap: Gap | None
    """None with fewer than two groups that are large enough."""
    left_out: tuple[Hashable, ...]
    """Groups with too few scored items to count in the gap."""


def by_group(side: Side, groups: Sequence[Hashable], rng: np.random.Generator, smallest: int = SMALLEST) -> ByGroup:
    """side: what a metric said of the items in every run. groups: (n_items,) the group of each item. smallest: items a group needs, scored
    in every run, to count in the gap.

    The gap's interval is simultaneous over all pairs of groups: the 95 % point of the largest studentized difference of resampled figures
    takes the place of 1.96 (Tukey's comparison of all pairs, by the bootstrap: Westfall and Young 1993, Resampling-Based Multiple Testing,
    sec. 2.5). Items are resampled within their group, and what runs do to single groups is added, with one variance for all groups: what
    items and runs have together counts in both, so the interval is rather wide than narrow. For it a mean gets one made-up item at either
    end of its range, so that a small group that is all right is not taken for certain (Agresti and Caffo 2000,
    doi:10.1080/00031305.2000.10474560, carried over to the bootstrap).
    """
    assert len(groups) == side.values.shape[1], f"{len(groups)} groups for {side.values.shape[1]} items"
    places: dict[Hashable, list[int]] = {}
    for n, group in enumerate(groups):
        places.setdefault(group, []).append(n)
    figures, counted = [], {}
    for group, at in places.items():
        positions = np.array(at)
        value, low, high = figure(side, positions, rng)
        figures.append(GroupFigure(group, value, low, high, len(at), int(np.isnan(side.values[:, positions]).sum())))
        scored = positions[~np.isnan(side.values[:, positions]).any(axis=0)]
        if len(scored) >= smallest:
            counted[group] = scored
    gap = _gap(side, counted, rng) if len(counted) > 1 else None
    return ByGroup(tuple(figures), gap, tuple(group for group in places if group not in counted))


def _gap(side: Side, places: dict[Hashable, NDArray[np.int64]], rng: np.random.Generator) -> Gap:
    functions = side.functions or tuple(statistic(None, run, (), ()) for run in side.values)
    n_runs, names = len(functions), list(places)
    runs = np.array([[float(f(at[None])[0]) for f in functions] for at in places.values()])
    means = runs.mean(axis=1)
    drawn = [_resampled(side, at, rng) for at in places.values()]
    centres, errors = np.array([centre for centre, _ in drawn]), np.stack([error for _, error in drawn], axis=1)
    # A small group's variance is itself not well known: Student's t here too.
    freedom = np.array([len(at) - 1 for at in places.values()])
    normal, student = errors, errors / np.sqrt(rng.chisquare(freedom, errors.shape) / freedom)
    if n_runs > 1:
        # What a run does to all groups alike takes no part in a difference. One variance for all groups: of a few runs, that of each pair by
        # itself would be small somewhere by chance, and the largest gap is looked for just there.
        own = runs - runs.mean(axis=1, keepdims=True) - runs.mean(axis=0) + runs.mean()
        freedom_of_runs = (n_runs - 1) * (len(names) - 1)
        luck = rng.standard_normal(errors.shape) * math.sqrt(float((own**2).sum()) / freedom_of_runs / n_runs)
        normal = errors + luck
        student = student + luck / np.sqrt(rng.chisquare(freedom_of_runs, (N_RESAMPLES, 1)) / freedom_of_runs)
    one, other = np.triu_indices(len(names), 1)
    spread = np.maximum((normal[:, one] - normal[:, other]).std(axis=0), 1e-12)
    critical = float(np.quantile(np.abs((student[:, one] - student[:, other]) / spread).max(axis=1), 0.95))
    differences = np.abs(centres[one] - centres[other])
    highest, lowest = int(means.argmax()), int(means.argmin())
    low, high = float((differences - critical * spread).max()), float((differences + critical * spread).max())
    value = float(means[highest] - means[lowest])
    return Gap(names[highest], names[lowest], value, min(value, max(0.0, low)), max(value, high))


def _resampled(side: Side, at: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, Floats]:
    """A group's figure, and (N_RESAMPLES,) what resampling its items moves it by, in all runs together."""
    if side.functions:
        centre = float(np.mean([f(at[None])[0] for f in side.functions]))
        drawn = [np.mean([f(at[rows]) for f in side.functions], axis=0) for rows in resamples(len(at), rng, N_RESAMPLES)]
    else:
        values = side.values[:, at]
        ends = side.bounds or (float(values.min()), float(values.max()))
        values = np.concatenate([values, np.tile(ends, (len(values), 1))], axis=1)
        centre = float(values.mean())
        each = values.mean(axis=0)
        drawn = [each[rows].mean(axis=1) for rows in resamples(len(each), rng, N_RESAMPLES)]
    figures: Floats = np.concatenate(drawn)
    return centre, np.nan_to_num(figures - np.nanmean(figures))


@dataclass(frozen=True, slots=True)
class LabelBias:
    """What a model answers when the input says nothing."""

    shares: tuple[float, ...]
    """(n_labels,) the mean probability of each label."""
    bias: float
    """Half the sum of |share - 1 / n_labels|: 0 without bias, up to 1 - 1 / n_labels."""


def label_bias(scores: Floats) -> LabelBias:
    """scores: (n_inputs, n_labels) log-likelihoods in nats of the labels behind content-free inputs ("N/A", "", "[MASK]").

    Inputs without content: Zhao et al. 2021, https://arxiv.org/abs/2102.09690, sec. 5; for the distance to uniform answers (total variation)
    compare the BiasScore of Reif and Schwartz 2024, https://arxiv.org/abs/2405.02743.
    """
    assert scores.ndim == 2, f"scores of shape {scores.shape}: (n_inputs, n_labels) expected"
    assert scores.size, "no scores"
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = (likelihoods / likelihoods.sum(axis=1, keepdims=True)).mean(axis=0)
    return LabelBias(tuple(float(share) for share in shares), float(np.abs(shares - 1 / len(shares)).sum() / 2))
