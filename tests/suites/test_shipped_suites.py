"""Every packaged suite validates, every shipped template is run by one, and their tasks load."""

import json
from pathlib import Path

import pytest

from icl.data import Task
from icl.errors import InputError
from icl.evaluate import load_suite, suite_schema
from icl.evaluate.derive import with_derived
from icl.train.augment import Paraphrase

ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = sorted((ROOT / "eval_suites").glob("*.yaml"))
PUBLIC = sorted((ROOT / "eval_suites" / "public").glob("*.yaml"))
NAME = {"ids": lambda path: path.stem}


def load_task(loaded, entry, data_root=None):
    sources = {split: s if str(s).startswith("hf:") else loaded.folder / s for split, s in entry.sources().items()}
    sources = with_derived(sources, entry.derive, data_root) if entry.derive else sources
    options = {key: getattr(entry, key) for key in ("kind", "input", "label", "choices", "references", "rationale", "id")}
    return Task.load(**sources, **options, labels=None if entry.labels is None else list(entry.labels), data_root=data_root)


@pytest.mark.parametrize("path", SUITES + PUBLIC, **NAME)
def test_validates_and_points_editors_to_the_schema(path):
    loaded = load_suite(path)
    assert loaded.suite.description
    line = path.read_text(encoding="utf-8").splitlines()[0]
    schema = line.removeprefix("# yaml-language-server: $schema=")
    assert schema != line
    assert (path.parent / schema).is_file()


def test_the_schema_is_the_one_of_the_code():
    stored = json.loads((ROOT / "eval_suites" / "suite.schema.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(suite_schema()))


def test_every_shipped_template_is_run_by_a_suite_on_data_that_is_here():
    suites = [load_suite(path) for path in SUITES]
    used = {task.template for loaded in suites for task in loaded.suite.tasks}
    used |= {str(method.spec.settings.get("template")) for loaded in suites for method in loaded.methods}
    used.add(Paraphrase(model="smollm2").template)  # it augments rows, and answers no task
    shipped = {path.stem for path in (ROOT / "templates").glob("*.jinja")}
    assert len(shipped) >= 15
    assert shipped - used == set()


@pytest.mark.parametrize("path", SUITES, **NAME)
def test_no_row_of_the_shipped_data_is_rejected_and_the_template_fits(path):
    from icl.prompt import Template, bind

    loaded = load_suite(path)
    for entry in loaded.suite.tasks:
        task = load_task(loaded, entry)
        assert task.rejected == ()
        assert set(task.labels) == {e.target for e in task.test} or task.kind != "classify"
        template = Template.default(task.inputs, task.kind) if entry.template == "default" else Template.load(entry.template)
        bound = bind(template, kind=task.kind, inputs=task.inputs, labels=task.labels, words=entry.words)
        assert bound.plain(task.train[:2], task.test[0])


def test_quickstart_is_the_comparison_that_is_promised():
    loaded = load_suite(ROOT / "eval_suites" / "quickstart.yaml")
    (task,) = loaded.suite.tasks
    retrievers = {m.spec.settings.get("retriever") for m in loaded.methods if m.spec.name == "few_shot"}
    assert loaded.suite.budgets == [16, "all"]
    assert loaded.suite.seeds == 1
    assert task.limit is not None
    assert task.limit >= 100
    assert len(loaded.methods) >= 6
    assert {"random", "knn"} <= retrievers


@pytest.mark.parametrize("path", PUBLIC, **NAME)
def test_public_suites_read_a_local_copy(path, shared):
    loaded = load_suite(path)
    for entry in loaded.suite.tasks:
        task = load_task(loaded, entry, shared / "data")
        assert len(task.test) >= 100
        assert task.rejected == ()


@pytest.mark.parametrize("path", PUBLIC, **NAME)
def test_public_suites_without_data_say_what_is_missing(path, tmp_path):
    loaded = load_suite(path)
    with pytest.raises(InputError, match=r"hf:.*\n?.*(local copy|data root)"):
        load_task(loaded, loaded.suite.tasks[0], tmp_path)
