"""A task: the user's labelled rows, read whole, every row used or rejected with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Problem
from ..values import Example, Kind, digest
from .leaks import duplicate_groups

LABELLED = ("train", "test", "dev")
SPLITS = (*LABELLED, "unlabelled")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used."""

    split: str
    """The source it was read from."""
    line: int
    """Line in the file; row number from 1 where there are no lines."""
    reason: str
    """The same words for every such row."""


@dataclass(frozen=True)
class Task:
    """Labelled examples to learn from, and test items to judge by. See `Task.load`."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    """Names of the input fields, as templates know them."""
    train: tuple[Example, ...]
    """The pool."""
    test: tuple[Example, ...] = ()
    dev: tuple[Example, ...] = ()
    unlabelled: tuple[Example, ...] = ()
    """Examples without a target."""
    labels: tuple[str, ...] = ()
    """classify: the label set, in the order given, else of first appearance in train, test, dev. Other kinds: empty."""
    rejected: tuple[Rejected, ...] = ()
    n_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows read per source: together, rows used + rows rejected. Held-out test rows count under the `train` they came from."""
    holdout: float | None = None
    """Share of the rows held out as test set; None if a test set was given."""
    ids: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """split -> uid -> the user's own id, where an id column was named."""
    grouped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column -> uid of a test item -> its value there, for the columns that figures are shown by."""
    digest: str = ""
    """Over everything that was loaded: kind, labels, and all rows in order."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """What was loaded: per split where it came from, and the columns, for the manifest."""
    warnings: tuple[Problem, ...] = ()
    """What the user should know and nothing fails on: labels that train or test lacks, labels that differ only in case, an id of several rows, …"""

    @classmethod
    def load(
        cls,
        train: Any,
        *,
        test: Any = None,
        dev: Any = None,
        unlabelled: Any = None,
        kind: Kind | None = None,
        input: str | Sequence[str] | Mapping[str, str] = "text",
        label: str | None = "label",
        choices: str | None = None,
        references: str | None = None,
        rationale: str | None = None,
        id: str | None = None,
        holdout: float = 0.3,
        seed: int = 0,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        data_root: Path | str | None = None,
        unseen: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> Task:
        """Read a task.

        train, test, dev, unlabelled: a path (.csv, .tsv, .jsonl, .json, .parquet), a dataframe, a list of dicts, or
        `hf:owner/name[/config][@revision][:split]` (a copy `<data_root>/<name>/{train,dev,test}.jsonl` is used where it is there; a
        name without a split brings its test and dev splits along unless others are given).
        input: the column with the text, several columns, or {template field: column}.
        label: the label's column. choices: a column with lists, which makes the kind choose; the label is then the 0-based index or
        the text of the right one (`choice_mode`). references: a column with the accepted answers, which makes the kind answer, as
        does a label column that holds lists; `label` then counts only if it is named and is not "label". Else the kind is classify.
        `kind` overrides. rationale, id: optional columns; ids serve the leak guard.
        Without test, a share `holdout` of the rows is held out: 50 to 500 rows, never more than half, stratified by label, chosen
        by hash of (seed, uid); rows of the same normalised text stay on one side.
        labels: the label set and its order; a label outside it is an error.
        groups: columns by whose values figures are shown, each group's own and the largest gap; no method sees them.
        unseen: labels that nothing is learned from: their rows are taken out of train and stay in test and dev, as out of scope.

        Labels are the text in the source, byte for byte; JSON numbers, booleans are the text they are written as. Rows without
        text, label or valid choices are rejected and counted. Raises InputError with all problems (file, line, column, fix) for
        sources that cannot be read, missing columns, unknown labels, and sources of which no row can be used.
        """
        from .load import Request, load_task

        fields = (train, test, dev, unlabelled)
        request = Request(
            sources={split: source for split, source in zip(SPLITS, fields, strict=True) if source is not None},
            kind=kind,
            input=input,
            columns={"label": label, "choices": choices, "references": references, "rationale": rationale, "id": id},
            holdout=holdout,
            seed=seed,
            name=name,
            labels=None if labels is None else tuple(labels),
            data_root=data_root,
            unseen=tuple(unseen),
            groups=tuple(groups),
        )
        return load_task(request)

    @property
    def groups(self) -> Mapping[str, frozenset[str]]:
        """`duplicate_groups` over all labelled splits: uid -> uids of the rows with the same normalised text."""
        return duplicate_groups([*self.train, *self.dev, *self.test])

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejected rows by reason, most frequent first."""
        return dict(Counter(row.reason for row in self.rejected).most_common())


def task_digest(task: Task) -> str:
    """Hex digest of kind, inputs, labels and every row of every split, in order."""
    rows = {split: [[e.uid, e.target, list(e.choices), list(e.references), e.rationale] for e in getattr(task, split)] for split in SPLITS}
    more = [{column: [values[e.uid] for e in task.test] for column, values in task.grouped.items()}] if task.grouped else []
    return digest([task.kind, list(task.inputs), list(task.labels), rows, *more])
