"""The demonstration index: rows, their unit vectors, exact search; kept in memory or mapped from a folder."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError, Problem
from ..protocols import Encoder
from ..values import Example, Hit, as_query, digest, embedded_text
from . import store
from .approximate import Approximate, Covered, Kind, approximate, kind_for, measured, search_rows, up_to_date
from .encoders import load_encoder, same_encoder, uncached
from .nearest import inner, nearest
from .rows import StoredRows, damaged, row_line, rows_sha256
from .unit_vectors import TOLERANCE, encoded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Query: TypeAlias = "Example | Mapping[str, Any] | str"
LOST_RECALL = 0.02
RE_ENCODED = 16
"""Rows that `verify` encodes again."""
_RECORDED = ("icl", "faiss-cpu", "numpy", "sentence-transformers", "transformers", "torch")


@dataclass(frozen=True, slots=True)
class _State:
    """One version of the content. Readers take it once, writers replace it, so a search never sees half a change."""

    examples: Sequence[Example]
    ids: NDArray[np.int64]
    """Given once, never reused: they tie a vector to its row however positions shift."""
    vectors: NDArray[np.float32]
    structure: Approximate | None = None
    """What finds rows approximately, as they were when it was made; None: the search is exact."""


class DemoIndex:
    """Examples that can be searched by the meaning of their input fields.

    Make one with `DemoIndex.build(examples)` or `DemoIndex.open(folder)`. The search (FAISS, inner product of unit vectors) is exact,
    unless there are many rows or another kind is asked for: then it is approximate, and `recall` is what was measured on these rows.
    Searching from several threads is safe, also while `add` and `remove` change the index.
    """

    def __init__(self, state: _State, encoder: Encoder | None, entry: store.EncoderEntry, next_id: int, folder: Path | None = None) -> None:
        self._state = state
        self._encoder = encoder
        self._entry = entry
        self._next_id = next_id
        self._folder = folder
        self._lock = threading.RLock()
        self._buffer: NDArray[np.float32] | None = None
        self._positions: tuple[_State, dict[str, int]] | None = None
        self._covers: tuple[_State, Covered] | None = None

    @classmethod
    def build(
        cls, examples: Sequence[Example], path: str | Path | None = None, encoder: str | Encoder = "minilm", kind: Kind = "auto"
    ) -> DemoIndex:
        """Encode the examples and index them; with `path` also save. Vectors come from the embedding cache where it has them.

        kind: `exact`; `hnsw` (a graph: the fastest search, slow to build) or `ivf` (lists), both approximate; `auto` is exact up to
        200,000 rows and ivf beyond.
        Raises InputError if a uid stands twice: uids are unique within a split, so an index holds rows of one split.
        """
        import numpy as np

        examples = list(examples)
        _refuse_repeated(examples, ())
        loaded = load_encoder(encoder)
        vectors = encoded(loaded, [embedded_text(e.fields) for e in examples])
        entry = store.EncoderEntry(name=loaded.name, fingerprint=loaded.fingerprint)
        index = cls(_State(examples, np.arange(len(examples)), vectors), loaded, entry, len(examples)).searched_by(kind)
        if path is not None:
            index.save(path)
        return index

    @classmethod
    def open(cls, folder: str | Path, encoder: str | Encoder | None = None) -> DemoIndex:
        """An index that `save` wrote. Vectors are mapped and rows read lazily, so size hardly matters.

        encoder: only needed if the one it was built with has moved, or is an object of your own. It is loaded with the first search
        and must be the one of the manifest. Raises InputError naming the file and the fix for anything damaged; `verify` checks more.
        """
        folder = Path(folder)
        opened = store.open_folder(folder)
        manifest = opened.manifest
        state = _State(opened.examples, opened.ids, opened.vectors, opened.structure)
        index = cls(state, None, manifest.encoder, manifest.next_id, folder)
        if encoder is not None and encoder != manifest.encoder.name:
            index._encoder = index._checked(load_encoder(encoder))
        return index

    def __len__(self) -> int:
        return len(self._state.ids)

    def __repr__(self) -> str:
        return f"DemoIndex({len(self)} examples, {self.kind} search, encoder {self._entry.name!r})"

    @property
    def kind(self) -> str:
        """`exact`, `hnsw` or `ivf`."""
        return self._state.structure.kind if self._state.structure else "exact"

    @property
    def recall(self) -> float | None:
        """Share of the 8 nearest rows that an approximate search finds, measured on rows of this index; None: too few to measure."""
        return self._state.structure.recall if self._state.structure else 1.0

    def searched_by(self, kind: Kind) -> DemoIndex:
        """An index of the same rows and vectors with another kind of search; changes of one are not seen by the other."""
        with self._lock:
            state = self._state
            chosen = kind_for(kind, len(state.ids))
            if chosen == self.kind:
                return self
            structure = None if chosen == "exact" else approximate(state.vectors, state.ids, chosen)
            return DemoIndex(replace(state, structure=structure), self._encoder, self._entry, self._next_id)

    @property
    def examples(self) -> Sequence[Example]:
        """The rows in index order, parallel to `vectors`; read from the folder as they are asked for."""
        return self._state.examples

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(n, d) float32 unit vectors. Do not write to them."""
        return self._state.vectors

    @property
    def encoder(self) -> Encoder:
        """Loaded when first asked for. Raises InputError if it is not the encoder that the index was built with."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._checked(load_encoder(self._entry.name))
            return self._encoder

    @property
    def fingerprint(self) -> str:
        """Changes with any row, their order, the encoder, or the kind of an approximate search."""
        state = self._state
        if isinstance(state.examples, StoredRows):
            rows = state.examples.sha256
        else:
            rows = rows_sha256(row_line(int(i), e) for i, e in zip(state.ids, state.examples, strict=True))
        return digest([self._entry.fingerprint, rows] if self.kind == "exact" else [self._entry.fingerprint, rows, self.kind])

    def search(self, queries: Sequence[Query], k: int, *, among: NDArray[np.int64] | None = None) -> list[list[Hit]]:
        """The k nearest rows of each query, best first, rows of equal score by position; all rows if there are fewer than k.

        queries: Example, dict of fields, or the text itself. A query that is a row of the index finds itself: leaving it out is
        the retriever's work. among: ascending positions of the only rows that may be found.
        """
        if isinstance(queries, str | Mapping | Example):
            raise InputError(Problem("search takes a list of queries, got a single one", "Write search([query], k)."))
        if k < 0:
            raise InputError(Problem(f"k is {k}", "Ask for at least 0 hits."))
        state = self._state
        if not len(state.ids) or not len(queries) or k == 0:
            return [[] for _ in queries]
        found = self._nearest(self._query_vectors(queries, state), k, state, among)
        rows = state.examples
        return [
            [Hit((example := rows[p]).uid, score, example) for p, score in zip(best.tolist(), scores.tolist(), strict=True)]
            for best, scores in zip(*found, strict=True)
        ]

    def nearest(
        self, vectors: NDArray[np.float32], k: int, *, among: NDArray[np.int64] | None = None
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        """As `search`, from unit vectors (m, d) to positions and scores."""
        return self._nearest(vectors, k, self._state, among)

    def _nearest(
        self, vectors: NDArray[np.float32], k: int, state: _State, among: NDArray[np.int64] | None
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        if state.structure is None or not len(state.ids):
            return nearest(vectors, state.vectors, k, among)
        with self._lock:
            if self._covers is None or self._covers[0] is not state:
                self._covers = state, Covered.of(state.structure, state.ids)
            covered = self._covers[1]
        return search_rows(covered, vectors, state.vectors, k, among)

    def similarities(self, queries: Sequence[Query], rows: Sequence[Sequence[Example]]) -> list[list[float]]:
        """Cosine of each query to each of its own rows; rows that the index does not hold are encoded."""
        import numpy as np

        flat = [example for row in rows for example in row]
        if not flat:
            return [[] for _ in rows]
        query_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        different = list({example.uid: example for example in flat}.values())
        place = {example.uid: i for i, example in enumerate(different)}
        row_of = np.array([place[example.uid] for example in flat])
        vectors = self.vectors_of(different)
        scores = iter(inner(self._query_vectors(queries, self._state), query_of, vectors, row_of).tolist())
        return [[next(scores) for _ in row] for row in rows]

    def encode(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """(n, d) unit vectors of queries, as `search` encodes them."""
        return self._query_vectors(queries, self._state)

    def vectors_of(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """(n, d) unit vectors of examples: the stored one for a row of the index, encoded for any other."""
        import numpy as np

        state, positions = self._by_uid()
        result = np.empty((len(examples), state.vectors.shape[1]), dtype=np.float32)
        known = [(i, positions[e.uid]) for i, e in enumerate(examples) if e.uid in positions]
        if known:
            into, of = np.array(known).T
            result[into] = state.vectors[of]
        others = [i for i, e in enumerate(examples) if e.uid not in positions]
        if others:
            result[others] = encoded(self.encoder, [embedded_text(examples[i].fields) for i in others], state.vectors.shape[1])
        return result

    def add(self, examples: Sequence[Example]) -> None:
        """Append rows. Raises InputError, and adds none, if a uid is there already."""
        import numpy as np

        examples = list(examples)
        with self._lock:
            state, positions = self._by_uid()
            _refuse_repeated(examples, positions)
            new = encoded(self.encoder, [embedded_text(e.fields) for e in examples], state.vectors.shape[1])
            n, total = len(state.ids), len(state.ids) + len(new)
            if self._buffer is None or total > len(self._buffer):
                self._buffer = np.empty((max(total, n + n // 2, 64), state.vectors.shape[1]), dtype=np.float32)
                self._buffer[:n] = state.vectors
            self._buffer[n:total] = new  # beyond what any older state looks at
            ids = np.concatenate([state.ids, np.arange(self._next_id, self._next_id + len(new))])
            self._next_id += len(new)
            self._changed(_State([*state.examples, *examples], ids, self._buffer[:total], state.structure))

    def remove(self, uids: Sequence[str]) -> None:
        """Take rows out. Raises InputError, and removes none, if a uid is not there."""
        import numpy as np

        if isinstance(uids, str):
            uids = [uids]
        with self._lock:
            state, positions = self._by_uid()
            unknown = sorted({uid for uid in uids if uid not in positions})
            if unknown:
                raise InputError(
                    Problem(
                        f"{len(unknown)} of the uids are not in the index: {_some(unknown)}", "Take uids from index.examples or from a Hit."
                    )
                )
            keep = np.ones(len(state.ids), dtype=bool)
            keep[[positions[uid] for uid in uids]] = False
            kept = [example for example, stays in zip(state.examples, keep, strict=True) if stays]
            self._buffer = None
            self._changed(_State(kept, state.ids[keep], state.vectors[keep], state.structure))

    def save(self, folder: str | Path) -> None:
        """Write the index into `folder`. Whoever is killed meanwhile leaves the index that was there before, or the new one.

        The structure of an approximate search is brought up to date: extended by rows that were added, built anew if some are gone.
        """
        folder = Path(folder)
        with self._lock:
            state = self._state = replace(self._state, structure=up_to_date(self._state.structure, self._state.vectors, self._state.ids))
            try:
                store.write(
                    folder,
                    state.examples,
                    state.ids,
                    state.vectors,
                    next_id=self._next_id,
                    encoder=self._entry,
                    versions=_versions(),
                    search=state.structure,
                )
            except OSError as error:
                raise InputError(
                    Problem(
                        f"the index cannot be saved: {error.strerror or error}",
                        "Give a folder that can be written, with room.",
                        str(folder),
                    )
                ) from error
            self._folder = folder

    def verify(self) -> None:
        """Check all there is to check: every file's sha256, that 16 rows encoded again give the vectors that are stored, and that an
        approximate search has the recall that was measured when it was built.

        Raises InputError naming the file and the fix.
        """
        import numpy as np

        state = self._state
        where = self._folder or Path("(index in memory)")
        if self._folder is not None:
            store.check_everything(self._folder)
        for start in range(0, len(state.ids), 4096):
            lengths = np.linalg.norm(state.vectors[start : start + 4096].astype(np.float64), axis=1)
            if not np.all(np.abs(lengths - 1) < TOLERANCE):
                raise damaged(where, f"some of the vectors from row {start + 1} on are not of length 1")
        chosen = np.unique(np.linspace(0, max(len(state.ids) - 1, 0), min(RE_ENCODED, len(state.ids))).astype(int))
        if len(chosen):
            fresh = encoded(uncached(self.encoder), [embedded_text(state.examples[int(i)].fields) for i in chosen], state.vectors.shape[1])
            cosines = (fresh.astype(np.float64) * state.vectors[chosen]).sum(axis=1)
            if np.any(np.abs(cosines - 1) > TOLERANCE):
                worst = int(chosen[int(np.argmin(cosines))])
                raise damaged(where, f"row {worst + 1} encoded again is not its vector (cosine {cosines.min():.4f})")

        structure = state.structure
        if structure is not None and structure.recall is not None and structure.n == len(state.ids):
            now = measured(structure, state.vectors)
            if now is None or now < structure.recall - LOST_RECALL:
                raise damaged(where, f"the search finds {now} of the nearest rows, and found {structure.recall} when it was built")

    def _by_uid(self) -> tuple[_State, dict[str, int]]:
        with self._lock:
            if self._positions is None or self._positions[0] is not self._state:
                self._positions = self._state, {example.uid: i for i, example in enumerate(self._state.examples)}
            return self._positions

    def _changed(self, state: _State) -> None:
        self._state = state
        self._folder = None  # what was saved is another index now

    def _checked(self, encoder: Encoder) -> Encoder:
        if not same_encoder(encoder.fingerprint, self._entry.fingerprint):
            raise InputError(
                Problem(
                    f"the index was built with encoder '{self._entry.name}' ({self._entry.fingerprint}), "
                    f"'{encoder.name}' is another one ({encoder.fingerprint})",
                    "Open it with encoder= the one it was built with, or build it again: icl index build FILE --to FOLDER",
                    str((self._folder or Path()) / store.MANIFEST),
                )
            )
        return encoder

    def _query_vectors(self, queries: Sequence[Query], state: _State) -> NDArray[np.float32]:
        return encoded(self.encoder, [self._text(query, state) for query in queries], state.vectors.shape[1])

    def _text(self, query: Query, state: _State) -> str:
        if isinstance(query, str):
            return query
        if isinstance(query, Mapping):
            query = as_query(query, list(state.examples[0].fields))
        if not isinstance(query, Example):
            raise InputError(
                Problem(f"a query is a text, a dict of fields or an Example, got {type(query).__name__}", "Pass one of these.")
            )
        return embedded_text(query.fields)


def _refuse_repeated(examples: Sequence[Example], known: Any) -> None:
    counts = Counter(example.uid for example in examples)
    repeated = [uid for uid, n in counts.items() if n > 1 or uid in known]
    if repeated:
        raise InputError(
            Problem(
                f"{len(repeated)} uids are in the index twice: {_some(repeated)}",
                "A uid is unique within a split: index the rows of one split, and add a row once.",
            )
        )


def _some(uids: Sequence[str]) -> str:
    return ", ".join(uids[:3]) + (", …" if len(uids) > 3 else "")


def _versions() -> dict[str, str]:
    found = {}
    for package in _RECORDED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
