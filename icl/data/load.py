"""From sources to a Task: columns checked, kind settled, rows made into Examples, a test set held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, Problem, suggest
from ..values import KINDS, Example, Kind
from .checks import repeated_ids, task_warnings
from .examples import Columns, Reader, RejectedRow, as_list, as_text, choice_mode, label_text
from .holdout import split_off
from .hub import has_split, local_names
from .rows import MAX_PROBLEMS, Table
from .source import load_table
from .task import LABELLED, Rejected, Task, task_digest

MOST_GROUPS = 100
MISSING = "(none)"
"""The group of rows that have no value in a column."""


@dataclass(frozen=True)
class Request:
    """What `Task.load` was asked for."""

    sources: Mapping[str, Any]
    kind: Kind | None
    input: str | Sequence[str] | Mapping[str, str]
    columns: Mapping[str, str | None]
    holdout: float
    seed: int
    name: str | None
    labels: tuple[str, ...] | None
    data_root: Path | str | None
    unseen: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass
class Read:
    """The usable rows of one source."""

    examples: list[Example]
    lines: list[int]
    ids: list[str | None]
    """None also for one of white space alone: two rows without an id share none."""
    rejected: list[Rejected]
    groups: list[tuple[str, ...]]
    """Per example the value of each column that figures are shown by."""


def load_task(request: Request) -> Task:
    """See `Task.load`."""
    inputs = _inputs(request)
    tables = _tables(request)
    inputs, named = local_names(inputs, request.columns, tables.values())
    request = replace(request, columns=named)
    columns, kind = _settle(request, inputs, tables)
    labelled = [table for split, table in tables.items() if split in LABELLED]
    mode: Literal["index", "text"] = "text"
    if kind == "choose":
        mode = choice_mode([row for table in labelled for _, row in table.rows], columns)
    _check_groups(request, tables)
    reads = {
        split: _read(split, table, Reader(kind, columns, mode, split in LABELLED), request.groups if split == judged_on(tables) else ())
        for split, table in tables.items()
    }
    _check_usable(tables, reads)
    labels = _labels(request, kind, tables, reads)
    splits, ids, holdout = _splits(request, kind, reads)
    grouped = _grouped(request, splits["test"], reads[judged_on(tables)])
    splits["train"], hidden = _hidden(request, labels, splits["train"], reads["train"])
    task = Task(
        name=request.name or _name(request.sources["train"]),
        kind=kind,
        inputs=tuple(columns.inputs),
        train=splits["train"],
        test=splits["test"],
        dev=splits["dev"],
        unlabelled=splits["unlabelled"],
        labels=labels,
        rejected=(*(row for read in reads.values() for row in read.rejected), *hidden),
        n_rows={split: len(table.rows) for split, table in tables.items()},
        holdout=holdout,
        ids=ids,
        grouped=grouped,
        source={
            "splits": {split: dict(table.origin) for split, table in tables.items()},
            "columns": columns.named(),
            **({"unseen": list(request.unseen)} if request.unseen else {}),
            **({"groups": list(request.groups)} if request.groups else {}),
            "choice labels": mode if kind == "choose" else None,
            "holdout": None if holdout is None else {"share": holdout, "seed": request.seed, "rows": len(splits["test"])},
        },
        warnings=(),
    )
    repeats = (
        problem for split, read in reads.items() for problem in repeated_ids(tables[split].name, columns.id or "", read.ids, read.lines)
    )
    return replace(task, digest=task_digest(task), warnings=(*task_warnings(task), *repeats))


def _inputs(request: Request) -> dict[str, str]:
    """Template field -> column. Raises InputError for options that cannot be right whatever the data."""
    given = request.input
    if isinstance(given, str):
        inputs = {given: given}
    elif isinstance(given, Mapping):
        inputs = {str(name): str(column) for name, column in given.items()}
    else:
        inputs = {str(name): str(name) for name in given}
    problems = list(_option_problems(request))
    if not inputs:
        problems.append(Problem("no input column is named", "Name at least one.", field="input"))
    for name in inputs:
        if not name.isidentifier():
            word = "".join(c if c.isalnum() else "_" for c in name).strip("_")
            word = word if word.isidentifier() else f"x_{word}"
            problems.append(
                Problem(f"'{name}' cannot be used as a field of a template", f'Map it: input={{"{word}": "{name}"}}.', field="input")
            )
    if problems:
        raise InputError(problems)
    return inputs


def _option_problems(request: Request) -> Iterable[Problem]:
    if request.kind is not None and request.kind not in KINDS:
        yield Problem(f"there is no kind '{request.kind}'", suggest(str(request.kind), KINDS), field="kind")
    if isinstance(request.holdout, bool) or not 0 <= request.holdout <= 0.5:
        yield Problem(f"holdout is a share from 0 to 0.5, got {request.holdout}", "For example 0.3.", field="holdout")
    if request.labels is not None and (len(set(request.labels)) != len(request.labels) or not request.labels):
        yield Problem("labels= is empty or names a label twice", "Name every label once.", field="labels")
    if request.kind == "choose" and not request.columns["choices"]:
        yield Problem("the kind choose needs choices=", "Name the column with the list of choices.", field="choices")
    if request.kind in ("classify", "answer") and request.columns["choices"]:
        yield Problem(f"choices= does not go with the kind {request.kind}", "Leave out kind, or choices.", field="choices")
    if "train" not in request.sources:
        yield Problem("train= is None", "Give the rows to learn from.", field="train")


def _tables(request: Request) -> dict[str, Table]:
    """Every source read whole; the problems of all of them at once."""
    tables: dict[str, Table] = {}
    problems: list[Problem] = []
    sources = dict(request.sources)
    train = sources["train"]
    if isinstance(train, str) and train.startswith("hf:"):
        for split in ("test", "dev"):
            if split not in sources and has_split(train, split, request.data_root):
                sources[split] = train
    for split, source in sources.items():
        try:
            tables[split] = load_table(source, split=split, data_root=request.data_root)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tables


def _settle(request: Request, inputs: Mapping[str, str], tables: Mapping[str, Table]) -> tuple[Columns, Kind]:
    """The columns really used, and the kind. Raises InputError for missing columns, with the nearest one there is."""
    asked = dict(request.columns)
    kind = request.kind
    if kind is None and asked["choices"]:
        kind = "choose"
    if asked["references"] and kind in (None, "answer"):
        kind = "answer"
        if asked["label"] == "label":  # the default: with references named, a column of that name may hold anything
            asked["label"] = None
    elif asked["references"]:
        raise InputError(Problem(f"references= does not go with the kind {kind}", "Leave out one of the two.", field="references"))
    columns = Columns(dict(inputs), **asked)
    problems = [problem for split, table in tables.items() for problem in _missing(columns, split, table)]
    if not (columns.label or columns.references):
        problems.append(Problem("no label column is named", "Name it with label=, or references= for answers.", field="label"))
    for option in ("label", "references", "rationale"):
        if (column := getattr(columns, option)) is not None and column in inputs.values():
            message = f"the column '{column}' is read as an input and is {option}= too, so that every row would show its own answer"
            problems.append(Problem(message, "Take it out of input=.", field="input"))
    if problems:
        raise InputError(problems)
    if kind is None:
        lists = any(
            as_list(row.get(columns.label or "")) is not None
            for _, row in tables["train"].rows
            if not isinstance(row.get(columns.label or ""), str)
        )
        kind = "answer" if lists else "classify"
    return columns, kind


def _missing(columns: Columns, split: str, table: Table) -> Iterable[Problem]:
    for option, column in columns.named().items():
        if column in table.columns or not _needed(option, split):
            continue
        hint = suggest(column, [name for name in table.columns if name])
        yield Problem(f"there is no column '{column}'", f"{hint} If the file has no header line, add one.", table.name, 1, option)


def _needed(option: str, split: str) -> bool:
    """Test rows need no rationale, unlabelled rows nothing but their input."""
    if option == "rationale":
        return split == "train"
    return split in LABELLED or option.startswith(("input", "choices"))


def judged_on(tables: Mapping[str, Table]) -> str:
    """The source that test items come from."""
    return "test" if "test" in tables else "train"


def _check_groups(request: Request, tables: Mapping[str, Table]) -> None:
    table = tables[judged_on(tables)]
    problems = []
    for column in request.groups:
        if column not in table.columns:
            fix = suggest(column, [name for name in table.columns if name])
            problems.append(Problem(f"there is no column '{column}'", fix, table.name, 1, "groups"))
        elif (n := len({_group(row.get(column)) for _, row in table.rows})) > MOST_GROUPS:
            fix = "Name a column with a few values, such as a region or a language."
            problems.append(Problem(f"the column '{column}' has {n} values, too many to be groups", fix, table.name, 1, "groups"))
    if problems:
        raise InputError(problems)


def _group(value: Any) -> str:
    try:
        return as_text(value) or MISSING
    except RejectedRow:
        return MISSING


def _grouped(request: Request, test: Sequence[Example], read: Read) -> dict[str, dict[str, str]]:
    """Column -> uid -> value, for the test items."""
    values = dict(zip((example.uid for example in read.examples), read.groups, strict=True)) if request.groups else {}
    return {column: {example.uid: values[example.uid][n] for example in test} for n, column in enumerate(request.groups)}


def _read(split: str, table: Table, reader: Reader, groups: Sequence[str] = ()) -> Read:
    read = Read([], [], [], [], [])
    seen: Counter[str] = Counter()
    for line, row in table.rows:
        try:
            example = reader.example(row)
            own = label_text(row.get(reader.columns.id)) if reader.columns.id else None
        except RejectedRow as reason:
            read.rejected.append(Rejected(split, line, str(reason)))
            continue
        read.examples.append(replace(example, uid=f"{example.uid}-{seen[example.uid]}"))
        seen[example.uid] += 1
        read.lines.append(line)
        read.ids.append(own)
        read.groups.append(tuple(_group(row.get(column)) for column in groups))
    return read


def _check_usable(tables: Mapping[str, Table], reads: Mapping[str, Read]) -> None:
    problems = []
    for split, read in reads.items():
        if not read.examples:
            reasons = Counter(row.reason for row in read.rejected).most_common()
            listing = ", ".join(f"{n} × {reason}" for reason, n in reasons)
            problems.append(
                Problem(
                    f"none of the {len(read.rejected)} rows can be used: {listing}",
                    "Check that input, label and choices name the right columns.",
                    tables[split].name,
                    read.rejected[0].line,
                )
            )
    if problems:
        raise InputError(problems)


def _labels(request: Request, kind: Kind, tables: Mapping[str, Table], reads: Mapping[str, Read]) -> tuple[str, ...]:
    if kind != "classify":
        if request.labels is not None:
            raise InputError(
                Problem(f"labels= does not go with the kind {kind}", "Leave it out: only classify has a label set.", field="labels")
            )
        return ()
    found: dict[str, None] = {}
    unknown: dict[tuple[str, str], list[int]] = {}  # (split, label) -> its lines
    for split in LABELLED:
        if split not in reads:
            continue
        for example, line in zip(reads[split].examples, reads[split].lines, strict=True):
            assert example.target is not None
            found.setdefault(example.target)
            if request.labels is not None and example.target not in request.labels:
                unknown.setdefault((split, example.target), []).append(line)
    if unknown:
        raise InputError(
            [_unknown(request, tables[split].name, label, lines) for (split, label), lines in [*unknown.items()][:MAX_PROBLEMS]]
        )
    return request.labels if request.labels is not None else tuple(found)


def _unknown(request: Request, file: str, label: str, lines: Sequence[int]) -> Problem:
    assert request.labels is not None
    more = f" ({len(lines):,} rows, of which this is the first)" if len(lines) > 1 else ""
    fix = f"{suggest(label, request.labels)} Correct the row, or add the label to labels=."
    return Problem(f"the label '{label}' is not in labels={more}", fix, file, lines[0], request.columns["label"])


def _splits(
    request: Request, kind: Kind, reads: Mapping[str, Read]
) -> tuple[dict[str, tuple[Example, ...]], dict[str, dict[str, str]], float | None]:
    """Examples and ids per split, and the share held out."""
    positions: dict[str, tuple[Read, Sequence[int]]] = {split: (read, range(len(read.examples))) for split, read in reads.items()}
    holdout = None
    if "test" not in reads:
        holdout = request.holdout
        keep, held = split_off(reads["train"].examples, holdout, request.seed, stratify=kind == "classify")
        positions["train"] = (reads["train"], keep)
        positions["test"] = (reads["train"], held)
    empty: tuple[Read, Sequence[int]] = (Read([], [], [], [], []), ())
    splits: dict[str, tuple[Example, ...]] = {}
    ids: dict[str, dict[str, str]] = {}
    for split in (*LABELLED, "unlabelled"):
        read, chosen = positions.get(split, empty)
        splits[split] = tuple(read.examples[i] for i in chosen)
        own = {read.examples[i].uid: found for i in chosen if (found := read.ids[i]) is not None}
        if own:
            ids[split] = own
    return splits, ids, holdout


def _hidden(request: Request, labels: Sequence[str], train: tuple[Example, ...], read: Read) -> tuple[tuple[Example, ...], list[Rejected]]:
    """The rows to learn from without those of labels that shall not be seen, and the rows left out."""
    unknown = [label for label in request.unseen if label not in labels]
    kept = tuple(example for example in train if example.target not in request.unseen)
    problems = [Problem(f"there is no label '{label}' to keep unseen", suggest(label, labels), field="unseen") for label in unknown]
    if not kept and not problems:
        problems = [Problem("no row to learn from is left without the unseen labels", "Name fewer of them.", field="unseen")]
    if problems:
        raise InputError(problems)
    if len(kept) == len(train):
        return kept, []
    lines = dict(zip((example.uid for example in read.examples), read.lines, strict=True))
    return kept, [Rejected("train", lines[e.uid], "its label is not to be seen") for e in train if e.target in request.unseen]


def _name(source: Any) -> str:
    if isinstance(source, str) and source.startswith("hf:"):
        return source[3:].split(":")[0].split("@")[0].replace("/", "-")
    if isinstance(source, str | Path):
        path = Path(source)
        return path.parent.name if path.stem in LABELLED and path.parent.name else path.stem
    return "task"
