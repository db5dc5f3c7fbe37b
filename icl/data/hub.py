"""Hub data sets: `hf:owner/name[/config][@revision][:split]`, from a local copy where there is one, else by `datasets` (an extra)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingExtraError, Problem
from .rows import Row, Table, stream, table

_FORM = re.compile(r"hf:(?P<name>[^@:/]+(?:/[^@:/]+)?)(?:/(?P<config>[^@:/]+))?(?:@(?P<revision>[^:]+))?(?::(?P<split>[\w.\[\]%:+-]+))?")
_LOCAL_SPLITS = {"validation": "dev", "valid": "dev", "val": "dev"}
_ALSO_CALLED = {"clinc_oos": "clinc150", "rotten_tomatoes": "mr"}
"""Short name on the hub -> the name that everybody else uses, under which a local copy may lie too."""
_HUB_SPLITS = {"dev": ("validation", "dev", "valid"), "unlabelled": ("unsupervised", "unlabelled", "train")}


@dataclass(frozen=True, slots=True)
class HubName:
    """A hub data set as a user names it."""

    text: str
    name: str
    config: str | None
    revision: str | None
    split: str | None

    def folders(self) -> list[str]:
        """Where a local copy may lie below the data root, best first."""
        short = self.name.rsplit("/", 1)[-1]
        configured = [f"{self.name}/{self.config}", f"{short}/{self.config}", self.config] if self.config else []
        names = [*configured, self.name, short, *([_ALSO_CALLED[short]] if short in _ALSO_CALLED else [])]
        spelled = [spelling for n in names for spelling in (n.lower().replace("-", "_"), n.lower().replace("-", "").replace("_", ""))]
        return list(dict.fromkeys([*names, *spelled]))


def parse_hub_name(text: str) -> HubName:
    """Raises InputError with the form."""
    match = _FORM.fullmatch(text)
    if match is None or any(part in (".", "..") for part in re.split(r"[/:@]", text)):
        raise InputError(
            Problem(f"'{text}' is not the name of a hub data set", "Write hf:owner/name, or hf:owner/name/config@revision:split.", text)
        )
    return HubName(text, match["name"], match["config"], match["revision"], match["split"])


def local_copy(hub: HubName, split: str, data_root: Path | str | None) -> Path | None:
    """`<data_root>/<name>/{train,dev,test}.jsonl`, if it is there."""
    if data_root is None:
        return None
    wanted = hub.split or split
    wanted = _LOCAL_SPLITS.get(wanted, wanted)
    candidates = (Path(data_root) / folder / f"{wanted}.jsonl" for folder in hub.folders())
    return next((path for path in candidates if path.is_file()), None)


def load_hub(text: str, *, split: str, data_root: Path | str | None = None) -> Table:
    """The rows of a hub data set's split.

    split: used where the name gives none. The local copy is used if there is one, whatever the revision. Code that a data set
    brings along is never run. Raises InputError (nothing local and not to be had), MissingExtraError (`datasets` is not installed).
    """
    hub = parse_hub_name(text)
    path = local_copy(hub, split, data_root)
    if path is not None:
        return table(str(path), stream(path), {"hub": text, "local": path.name})
    where = f"'{data_root}' has no {hub.folders()[-1]}/{hub.split or split}.jsonl" if data_root else "no data root is given"
    fix = f"Check the name, or put a local copy at DATA/{hub.folders()[0]}/{hub.split or split}.jsonl and give DATA as the data root (--data-root DATA)."
    try:
        import datasets
    except ImportError:
        missing = MissingExtraError("datasets", "data", f"'{text}' ({where})")
        raise InputError([*missing.problems, Problem("and there is no local copy", fix, text)]) from None
    names = [hub.split] if hub.split else list(_HUB_SPLITS.get(split, (split,)))
    try:
        loaded = None
        for i, name in enumerate(names):
            try:
                loaded = datasets.load_dataset(hub.name, hub.config, split=name, revision=hub.revision)
                break
            except ValueError:  # no such split, among other things
                if i == len(names) - 1:
                    raise
    except Exception as error:
        # The library raises a dozen kinds of errors of its own and of the HTTP layers below it; all mean: not to be had.
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(Problem(f"the hub data set cannot be loaded ({message}), and {where}", fix, text)) from None
    return table(text, dataset_rows(loaded), {"hub": text, "fingerprint": str(getattr(loaded, "_fingerprint", None))})


ROLES = {"label": "label", "choices": "choices", "references": "answer", "rationale": "rationale"}


def local_names(
    inputs: Mapping[str, str], columns: Mapping[str, str | None], tables: Iterable[Table]
) -> tuple[dict[str, str], dict[str, str | None]]:
    """The columns as they are called in local copies, which may name a column by its role instead of as the hub does.

    inputs: template field -> column; columns: option -> column. An input may be called like its field, the others as in `ROLES`.
    A column that is there under the name asked for keeps it; nothing changes unless every table is a local copy.
    """
    given = list(tables)
    if not all("local" in table.origin for table in given):
        return dict(inputs), dict(columns)
    there = set.intersection(*(set(table.columns) for table in given)) if given else set()

    def called(column: str, role: str) -> str:
        return role if column not in there and role in there else column

    return (
        {name: called(column, name) for name, column in inputs.items()},
        {option: called(column, ROLES.get(option, column)) if column else column for option, column in columns.items()},
    )


def has_split(text: str, split: str, data_root: Path | str | None) -> bool:
    """True if a data set that is named without a split has this one (asked for `test` and `dev`, which are used if they are there)."""
    hub = parse_hub_name(text)
    if hub.split is not None:
        return False
    if local_copy(hub, "train", data_root) is not None:
        return local_copy(hub, split, data_root) is not None
    try:
        import datasets

        known = datasets.get_dataset_split_names(hub.name, hub.config, revision=hub.revision)
    except Exception:  # not installed, or not to be had: loading the train split will say so
        return False
    return any(name in known for name in _HUB_SPLITS.get(split, (split,)))


def dataset_rows(dataset: Any) -> Iterator[tuple[int, Row]]:
    """Rows of a `datasets.Dataset` from 1; class labels come as their names, and -1 (a label that is withheld) as None."""
    names = {key: feature.names for key, feature in dataset.features.items() if hasattr(feature, "names")}
    for number, row in enumerate(dataset, 1):
        for key, words in names.items():
            value = row.get(key)
            if isinstance(value, int):
                row[key] = words[value] if 0 <= value < len(words) else None
        yield number, row
