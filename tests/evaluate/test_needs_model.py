"""A method whose settings say whether it uses the suite's language model."""

import pytest

from icl.errors import InputError
from icl.evaluate.cells import cells
from icl.evaluate.check import load_suite

METHOD = '''"""Uses the language model unless it has a base of its own."""

from pydantic import BaseModel

KIND = "method"
NEEDS_LABELS = True
NEEDS_MODEL = True


class Settings(BaseModel):
    base: str | None = None


def needs_model(settings, folders):
    return settings.get("base") is None


def build(settings, context):
    return None
'''


def suite(tmp_path, *methods, models=("one", "two")):
    (tmp_path / "either.py").write_text(METHOD)
    for name in models:
        (tmp_path / name).mkdir(exist_ok=True)
    task = {"name": "t", "train": [{"text": "a", "label": "x"}], "test": [{"text": "b", "label": "x"}]}
    models = [str(tmp_path / name) for name in models]
    return load_suite({"models": models, "tasks": [task], "methods": list(methods)}, plugins=[tmp_path])


def test_it_is_run_per_model_or_once(tmp_path):
    loaded = suite(tmp_path, "either", {"name": "own", "either": {"base": "three"}})
    assert [(cell.method, cell.model) for cell in cells(loaded)] == [("own", None), ("either", "one"), ("either", "two")]


def test_a_model_is_asked_for_only_where_it_is_needed(tmp_path):
    assert suite(tmp_path, {"either": {"base": "three"}}, models=()).methods
    with pytest.raises(InputError, match="'either' needs a language model and 'models' is empty"):
        suite(tmp_path, "either", models=())
