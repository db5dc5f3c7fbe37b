"""A saved predictor: a folder with `predictor.json` and the method's own files. Written whole or not at all; never a pickle."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError, Problem
from ..files import inside, read_text, replace_folder, sha256_file, write_text
from ..plugins import find
from ..protocols import LanguageModel, Predictor
from ..values import Example, Prediction

SCHEMA = 1
PREDICTOR = "predictor.json"
ROWS = "rows.jsonl"
INDEX = "index"
README = "README.md"
TEMPLATE_FILE = "template.jinja"
REGRESSION = "regression.jsonl"
"""A few queries, one a line, with the predictions expected."""
N_REGRESSION = 8


def save_predictor(folder: Path | str, state: Mapping[str, Any], write: Callable[[Path], None] | None = None) -> None:
    """Write `state` (JSON data with a key `method`) and the files that `write` puts into the folder it is given.

    An older predictor in that folder is replaced in one rename. Raises InputError if the folder holds anything else.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / PREDICTOR).is_file()):
        raise InputError(Problem("this holds something that is not a saved predictor", "Save into a new folder.", str(folder)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        if write is not None:
            write(staging)
        files = {p.relative_to(staging).as_posix(): sha256_file(p) for p in _own_files(staging)}
        whole = {"schema": SCHEMA, "icl": __version__, **state, "files": files}
        write_text(staging / PREDICTOR, json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
        write_text(staging / README, _readme(whole))
        replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _own_files(folder: Path) -> list[Path]:
    """All files but those of an index, which carries checksums of its own and may be large."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and INDEX not in p.relative_to(folder).parts[:-1])


def read_state(folder: Path | str) -> dict[str, Any]:
    """What `predictor.json` says, after the other files were compared with their checksums.

    Raises InputError: no such folder, no predictor in it, written by a newer version, a file missing or changed.
    """
    folder = Path(folder)
    path = folder / PREDICTOR
    if not folder.is_dir():
        raise InputError(Problem("there is no such folder", "Give the folder that `save` or `icl export` wrote.", str(folder)))
    if not path.is_file():
        fix = "Give the folder that `save` or `icl export` wrote."
        if (folder / "results.json").is_file():
            fix = f"This is a run; export its winner first: icl export {folder} --to FOLDER"
        raise InputError(Problem(f"not a saved predictor: there is no {PREDICTOR} in it", fix, str(folder)))
    try:
        state = json.loads(read_text(path))
        schema, files = int(state["schema"]), dict(state["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(f"damaged: {error}", "Save or export the predictor again.", str(path))) from None
    if schema > SCHEMA:
        raise InputError(
            Problem(
                f"written by icl {state.get('icl')} in format {schema}; this version reads up to {SCHEMA}",
                "Update: pip install --upgrade icl",
                str(path),
            )
        )
    problems = [p for name, sha256 in files.items() if (p := _check(folder, name, sha256))]
    if problems:
        raise InputError(problems)
    return dict(state)


def model_of(folder: Path | str) -> str:
    """The language model that a saved predictor names, as `load_model` takes it; empty if it has none, or is no saved predictor."""
    try:
        state = json.loads(read_text(Path(folder) / PREDICTOR))
        return str(((state.get("model") or {}).get("reference") or {}).get("name", ""))
    except (InputError, ValueError, AttributeError):
        return ""


def _check(folder: Path, name: str, sha256: str) -> Problem | None:
    path = inside(folder, name)
    if not path.is_file():
        return Problem("is missing from the saved predictor", "Save or export the predictor again.", str(path))
    if sha256_file(path) != sha256:
        return Problem("was changed after it was saved", "Save or export the predictor again.", str(path))
    return None


def load_predictor(
    folder: Path | str, *, lm: LanguageModel | None = None, device: str | None = None, plugins: Sequence[Path] = ()
) -> Predictor:
    """The predictor in that folder. A language model that it needs is loaded when it first predicts, unless `lm` is given."""
    state = read_state(folder)
    module = find("method", str(state.get("method")), plugins, where=str(Path(folder) / PREDICTOR)).load()
    predictor: Predictor = module.load(Path(folder), state, lm=lm, device=device)
    return predictor


def row_of(example: Example) -> dict[str, Any]:
    """An Example as JSON data."""
    row: dict[str, Any] = {"uid": example.uid, "fields": dict(example.fields), "target": example.target}
    row |= {k: list(v) for k, v in (("choices", example.choices), ("references", example.references)) if v}
    return row | ({"rationale": example.rationale} if example.rationale is not None else {})


def example_of(row: Mapping[str, Any]) -> Example:
    """The other half of `row_of`."""
    choices, references = tuple(row.get("choices", ())), tuple(row.get("references", ()))
    return Example(row["uid"], row["fields"], row["target"], choices, references, row.get("rationale"))


def write_rows(path: Path, examples: Iterable[Example]) -> None:
    """Examples as JSON lines, whole."""
    write_text(path, "".join(json.dumps(row_of(e), ensure_ascii=False) + "\n" for e in examples))


def read_rows(path: Path) -> list[Example]:
    """The other half of `write_rows`."""
    return [example_of(json.loads(line)) for line in read_text(path).split("\n") if line]


def write_regression(folder: Path | str, queries: Sequence[Example], predictions: Sequence[Prediction]) -> None:
    """Put a few queries and what was predicted for them into a saved predictor, for `icl.ship.check`. Their targets are left out."""
    lines = []
    for query, prediction in list(zip(queries, predictions, strict=True))[:N_REGRESSION]:
        row = {**row_of(query), "target": None}
        row.pop("references", None)
        shares = None if prediction.probabilities is None else dict(prediction.probabilities)
        lines.append({"query": row, "answer": prediction.answer, "probabilities": shares})
    write_text(Path(folder) / REGRESSION, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _readme(state: Mapping[str, Any]) -> str:
    inputs, name = list(state.get("inputs", ())), state.get("name") or state["method"]
    query = '"…"' if len(inputs) == 1 else "{" + ", ".join(f'"{i}": "…"' for i in inputs) + "}"
    lines = [f"# {name}", "", f"A predictor saved by icl {__version__} (method `{state['method']}`, kind `{state.get('kind')}`).", ""]
    lines += ["```python", "import icl", f'icl.load("FOLDER").predict([{query}])', "```", "", "Or: `icl predict FOLDER FILE`", ""]
    if state.get("labels"):
        lines += ["Labels: " + ", ".join(f"`{label}`" for label in state["labels"]), ""]
    if state["method"] in ("few_shot", "zero_shot"):
        lines += ["Its prompt for use without icl, with fixed demonstrations: `icl export FOLDER --prompt prompt.json` (or `.txt`)", ""]
    return "\n".join(lines)
