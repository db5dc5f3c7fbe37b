"""A test set out of the rows of one file, where the user gives none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..seeds import seed_for
from ..values import Example
from .leaks import text_key

SMALLEST, LARGEST = 50, 500


def test_size(n: int, share: float) -> int:
    """`share` of n rows, 50 to 500 of them, never more than half."""
    return min(max(round(n * share), SMALLEST), LARGEST, n // 2)


def split_off(examples: Sequence[Example], share: float, seed: int, *, stratify: bool) -> tuple[list[int], list[int]]:
    """Positions of the rows to learn from, and of those to test on, each in the order of the file.

    Rows with the same normalised text stay together, so that none of them leaks. With `stratify`, every label gives its share
    (largest remainder), but no more than half of its rows. Which rows: by hash of (seed, uid), whatever the order of the file.
    """
    if share == 0:
        return list(range(len(examples))), []
    groups: dict[str, list[int]] = defaultdict(list)
    for position, example in enumerate(examples):
        groups[text_key(example).replace(" ", "")].append(position)  # coarser than any key of the leak guard
    strata: dict[str | None, list[list[int]]] = defaultdict(list)
    for members in groups.values():
        # A group may carry several labels; the smallest uid's decides, since it does not depend on the order of the file.
        first = min(members, key=lambda i: (examples[i].uid, str(examples[i].target)))
        strata[examples[first].target if stratify else None].append(members)
    sizes = {label: sum(map(len, stratum)) for label, stratum in strata.items()}
    quotas = _quotas(sizes, test_size(len(examples), share))
    chosen: set[int] = set()
    for label, stratum in strata.items():
        stratum.sort(key=lambda members: seed_for(seed, "holdout", min(examples[i].uid for i in members)))
        left = quotas[label]
        for members in stratum:
            if len(members) <= left:
                chosen.update(members)
                left -= len(members)
    return [i for i in range(len(examples)) if i not in chosen], sorted(chosen)


def _quotas(sizes: dict[str | None, int], total: int) -> dict[str | None, int]:
    """Shares of `total` by largest remainder, each at most half of its label's rows."""
    n = sum(sizes.values())
    if not n:
        return {}
    exact = {label: total * size / n for label, size in sizes.items()}
    quotas = {label: min(int(exact[label]), size // 2) for label, size in sizes.items()}
    for label in sorted(sizes, key=lambda key: (int(exact[key]) - exact[key], str(key))):
        if sum(quotas.values()) < total and quotas[label] < sizes[label] // 2:
            quotas[label] += 1
    return quotas
