"""The packed prefix tree: everything shared once, nothing seen that should not be."""

import random

from icl.model.tree import Item, batches, pack, pack_apart


def ancestors(row, node):
    return [k for k in range(node + 1) if node < row.end[k]]


def random_items(n, seed):
    rng = random.Random(seed)
    items = []
    for i in range(n):
        prefix = tuple(rng.choice(((1,) * 40, (1,) * 35 + (2,) * 10, (3,)))) + tuple(rng.randint(1, 3) for _ in range(rng.randint(0, 6)))
        items.append(Item(i, prefix, tuple(tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 5)))))
    return items


def test_every_read_sees_exactly_its_own_sequence():
    for seed in range(20):
        items = random_items(12, seed)
        rows = pack(items, 120)
        seen = {}
        for row in rows:
            for read in row.reads:
                path = ancestors(row, read.node)
                assert [row.positions[k] for k in path] == list(range(len(path)))
                seen.setdefault((read.item, read.continuation), []).append(([row.tokens[k] for k in path], read.target))
        for item in items:
            for number, ids in enumerate(item.continuations):
                expected = [([*item.prefix, *ids[:at]], target) for at, target in enumerate(ids)]
                assert sorted(seen[item.index, number], key=lambda x: len(x[0])) == expected


def test_each_unique_token_once():
    shared = tuple(range(100, 150))
    items = [Item(i, (*shared, i), ((7, 8, 9), (7, 8, 5), (7,))) for i in range(4)]
    [row] = pack(items, 1000)
    assert len(row) == 50 + 4 * (1 + 2)  # the shared part, then each query's own token and "7 8" under it
    assert row.n_read_nodes == 4 * 3


def test_rows_stay_within_the_limit_and_lose_no_item():
    items = random_items(40, 5)
    rows = pack(items, 90)
    assert sorted(i.index for row in rows for i in row.items) == list(range(40))
    assert all(len(row) <= 90 for row in rows)


def test_unrelated_queries_do_not_share_a_row():
    items = [Item(i, tuple(range(100 * i, 100 * i + 50)), ((7,),)) for i in range(3)]
    assert len(pack(items, 1000)) == 3


def test_batches_hold_similar_lengths_within_all_limits():
    rows = pack_apart(random_items(40, 6))
    found = batches(rows, max_tokens=200, max_rows=5, max_reads=12)
    assert sum(map(len, found)) == len(rows)
    for batch in found:
        assert len(batch) == 1 or (len(batch) * len(batch[0]) <= 200 and len(batch) <= 5 and sum(r.n_read_nodes for r in batch) <= 12)
    assert [len(r) for b in found for r in b] == sorted((len(r) for r in rows), reverse=True)
