"""The walk over the prefix tree: every unique token once, in chunks that hold what they may, and each attending to its ancestors alone."""

import random

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import icl.model.groups as grouping
from icl.model.check import sums
from icl.model.chunks import BLOCK, Room, blocks, chunks, halves, trunk
from icl.model.flat import chunk_values
from icl.model.forward import row_values
from icl.model.groups import Places, calls, groups
from icl.model.tree import Item, pack_apart

TOKENS = st.lists(st.integers(12, 14), min_size=1, max_size=5).map(tuple)
ITEMS = st.lists(
    st.tuples(st.lists(st.integers(12, 14), min_size=1, max_size=9).map(tuple), st.lists(TOKENS, min_size=1, max_size=4)), max_size=8
)
ROOMS = st.builds(Room, st.integers(1, 40), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 3)))


def made(drawn):
    return [Item(i, prefix, tuple(continuations)) for i, (prefix, continuations) in enumerate(drawn)]


def n_unique(items):
    """What one chunk without limits computes."""
    return sum(map(len, chunks(items, Room(1 << 60, 1 << 60))))


def sequences(found):
    """What each token of each chunk is conditioned on, itself included, followed through the kept path."""
    path, result = [], []
    for chunk in found:
        before = path[: chunk.n_kept]
        assert len(before) == chunk.n_kept
        seen = []
        for q in range(len(chunk)):
            own = [k for k in range(q + 1) if q < chunk.ends[k]]
            depth = chunk.depths[q]
            ids = [*before[: depth + 1 - len(own)], *(chunk.tokens[k] for k in own)]
            assert len(ids) == depth + 1
            seen.append(tuple(ids))
        result.append(seen)
        after = []
        for run in chunk.path:
            assert run.depth == len(after)
            source = before if run.kept else chunk.tokens
            after += source[run.start : run.start + run.length]
        path = after
    return result


@given(ITEMS, ROOMS)
@settings(max_examples=300, deadline=None)
def test_every_continuation_is_read_behind_its_own_tokens(drawn, room):
    items = made(drawn)
    found = list(chunks(items, room))
    read = {}
    for chunk, seen in zip(found, sequences(found), strict=True):
        assert chunk.nodes == {r.node for r in chunk.reads}
        for r in chunk.reads:
            read.setdefault((r.item, r.continuation), []).append((*seen[r.node], r.target))
    assert set(read) == {(item.index, n) for item in items for n in range(len(item.continuations))}
    for item in items:
        for n, ids in enumerate(item.continuations):
            whole = (*item.prefix, *ids)
            assert sorted(read[item.index, n], key=len) == [whole[: len(item.prefix) + i + 1] for i in range(len(ids))]


@given(ITEMS)
@settings(max_examples=200, deadline=None)
def test_each_unique_token_is_computed_once(drawn):
    """Prompts may be equal; here none goes on with what another continues with (its own token divides them)."""
    items = [Item(i.index, (*i.prefix, 9), i.continuations) for i in made(drawn)]
    unique = {(*item.prefix, *ids)[: i + 1] for item in items for ids in item.continuations for i in range(len(item.prefix) + len(ids) - 1)}
    assert n_unique(items) == len(unique)
    [*found] = chunks(items, Room(10**6, 10**6))
    assert len(found) <= 1
    assert [s for seen in sequences(found) for s in seen] == list(dict.fromkeys(s for seen in sequences(found) for s in seen))


@given(ITEMS, st.integers(8, 40))
@settings(max_examples=200, deadline=None)
def test_small_chunks_repeat_little(drawn, tokens):
    """At most the last token of a prompt, and the beginning of a continuation, once for each chunk that an item's do not fit into."""
    items = [Item(i.index, (*i.prefix, 9), i.continuations) for i in made(drawn)]
    found = list(chunks(items, Room(tokens, 10**6)))
    assert sum(map(len, found)) - n_unique(items) <= sum(5 * (1 + item.n_tail // (tokens // 2)) for item in items)
    assert all(len(chunk) <= max(tokens, 1 + max(len(c) for item in items for c in item.continuations)) for chunk in found)


@given(ITEMS, ROOMS)
@settings(max_examples=200, deadline=None)
def test_halves_are_the_same_work(drawn, room):
    for chunk in chunks(made(drawn), room):
        if len(chunk) < 2:
            continue
        kept = [("kept", i) for i in range(chunk.n_kept)]
        first, second = halves(chunk)
        assert first.tokens + second.tokens == chunk.tokens
        middle = len(first)

        def names(runs, kept, local):
            return [name for run in runs for name in (kept if run.kept else local)[run.start : run.start + run.length]]

        local = [("own", i) for i in range(len(chunk))]
        between = names(first.path, kept, local[:middle])
        assert len(between) == second.n_kept
        assert names(second.path, between, local[middle:]) == names(chunk.path, kept, local)
        for q in range(middle, len(chunk)):
            whole = [local[k] for k in range(q + 1) if q < chunk.ends[k]]
            parts = [second.tokens and local[middle + k] for k in range(q - middle + 1) if q - middle < second.ends[k]]
            above = between[: second.depths[q - middle] + 1 - len(parts)]
            assert [name for name in above + parts if name[0] == "own"] == whole
        assert sorted((r.node, r.target) for r in chunk.reads) == sorted(
            [(r.node, r.target) for r in first.reads] + [(r.node + middle, r.target) for r in second.reads]
        )


@given(ITEMS, ROOMS, st.integers(1, 12), st.one_of(st.none(), st.integers(1, 6)))
@settings(max_examples=200, deadline=None)
def test_groups_show_each_token_its_ancestors(drawn, room, small, window):
    before = grouping.SMALL
    grouping.SMALL = small
    try:
        for chunk in chunks(made(drawn), room):
            found = list(groups(chunk))
            assert sorted(q for g in found for q in range(g.start, g.stop)) == list(range(len(chunk)))
            for call in calls(found):
                places = Places(call, chunk)
                visible = places.visible(window)
                for row, group in enumerate(call.groups):
                    for i, q in enumerate(range(group.start, group.stop)):
                        assert places.queries[row, i] == q
                        depth, own = chunk.depths[q], [k for k in range(q + 1) if q < chunk.ends[k]]
                        expected = [*range(depth + 1 - len(own)), *(chunk.n_kept + k for k in own)]
                        expected = expected[-window:] if window is not None else expected
                        assert sorted(places.keys[row][visible[row, i]]) == expected
                        if call.causal and window is None:
                            assert np.array_equal(visible[row, i][: i + 1], np.ones(i + 1, bool))
    finally:
        grouping.SMALL = before


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gemma3"])
def test_any_cut_gives_the_same_numbers(name):
    rng = random.Random(0)
    model = tiny.model(name)
    base = [rng.randrange(12, 400) for _ in range(60)]
    items = []
    for i in range(16):
        prefix = base[: rng.choice([1, 5, 20, 60])] + [rng.randrange(12, 400) for _ in range(rng.choice([0, 3, 30]))]
        labels = [tuple(rng.randrange(12, 16) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 6))]
        items.append(Item(i, tuple(prefix), tuple(labels)))
    apart = pack_apart(items)
    expected = sums(apart, [row_values(model, [row], "single")[0] for row in apart])
    for room in (Room(10**6, 10**6), Room(64, 1000), Room(17, 30), Room(40, 8, 3)):
        found, kept = {}, []
        for chunk in chunks(items, room):
            values, kept = chunk_values(model, chunk, kept)
            for read, value in zip(chunk.reads, values, strict=True):
                key = (read.item, read.continuation)
                found[key] = found.get(key, 0.0) + value
        assert max(abs(found[key] - expected[key]) for key in expected) <= 1e-4


def test_a_trunk_is_what_all_begin_with_in_whole_blocks():
    common = tuple(range(300))
    items = [Item(i, (*common, 300 + i), ((7, 8), (7, 9))) for i in range(3)]
    above = trunk(items, 10**6)
    assert above == common[: 300 // BLOCK * BLOCK]
    assert trunk(items, BLOCK + 5) == common[:BLOCK]
    assert trunk(items[:1], 10**6) == common[: 301 // BLOCK * BLOCK]
    assert trunk([*items, Item(3, common[:BLOCK], ((1,),))], 10**6) == ()  # its last token is needed for the reads
    assert [s for seen in sequences([*blocks(above, 0), *chunks(items, Room(64, 100), above=above)]) for s in seen][: len(above)] == [
        above[: i + 1] for i in range(len(above))
    ]
    assert len(above) + sum(map(len, chunks(items, Room(10**6, 100), above=above))) == n_unique(items)
