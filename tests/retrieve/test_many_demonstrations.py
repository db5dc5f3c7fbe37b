"""Orders of thousands of demonstrations: the quick way gives what the plain definition gives."""

import random
from collections import Counter

from icl.retrieve import build_order
from icl.values import Example, Hit


def by_definition(hits):
    """One hit after the other: the best whose label is not that before it, unless one label would be left over."""
    left, result = list(hits), []
    while left:
        counts = Counter(hit.example.target for hit in left)
        last = result[-1].example.target if result else None
        label, most = max(counts.items(), key=lambda pair: pair[1])
        urgent = 2 * most > len(left) and label != last
        fits = [hit for hit in left if hit.example.target != last and (not urgent or hit.example.target == label)]
        result.append(fits[0] if fits else left[0])
        left.remove(result[-1])
    return result[::-1]


def test_interleaved_is_its_definition():
    rng = random.Random(0)
    order = build_order("interleaved", labels=(), seed=0)
    for _ in range(500):
        labels = rng.choices("aaabcd"[rng.randrange(5) :], k=rng.randrange(14))
        hits = [Hit(f"{i}-0", -i, Example(f"{i}-0", {"text": str(i)}, label)) for i, label in enumerate(labels)]
        assert order(hits[0].example if hits else None, hits) == by_definition(hits)
