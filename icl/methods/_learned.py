"""What selectors and orders learned from the model, in the folder of a saved predictor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..errors import InputError, Problem
from ..files import read_text, write_text
from ..plugins import Learned

VALUES = "learned.json"
FOLDERS = "learned"


def write_learned(folder: Path, learned: Learned) -> None:
    """Values into one file, folders into one folder each; nothing where nothing was learned."""
    if learned.values:
        write_text(folder / VALUES, json.dumps(learned.values, ensure_ascii=False) + "\n")
    for key, source in learned.folders.items():
        shutil.copytree(source, folder / FOLDERS / key)


def read_learned(folder: Path) -> Learned:
    """The other half of `write_learned`. Raises InputError if the file is damaged."""
    path, folders = folder / VALUES, folder / FOLDERS
    try:
        values = dict(json.loads(read_text(path))) if path.is_file() else {}
    except ValueError as error:
        raise InputError(Problem(f"damaged: {error}", "Save or export the predictor again.", str(path))) from None
    return Learned(values, {each.name: each for each in sorted(folders.iterdir()) if each.is_dir()} if folders.is_dir() else {})
