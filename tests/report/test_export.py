"""A run in the formats of others: what is read back is what the run found, whatever stands in its texts."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import icl
from icl.cli import main
from icl.errors import InputError, UnknownNameError
from icl.evaluate.store import RunStore
from icl.report.export import export_run
from icl.values import Prediction, canonical_json

HOSTILE = '"><script>alert(1)</script>&amp;\x0b\r \u2028,;\n=cmd|x'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    texts = [f"film {n} {HOSTILE if n % 5 == 0 else ''}" for n in range(60)]
    rows = [{"text": text, "label": "good" if n % 3 else HOSTILE[:12]} for n, text in enumerate(texts)]
    suite = {
        "name": "out",
        "models": [],
        "tasks": [{"name": "t", "train": rows[:40], "test": rows[40:]}],
        "methods": ["majority"],
        "budgets": [8, "all"],
        "seeds": 2,
        "metrics": ["accuracy", "macro_f1"],
        "thresholds": {"majority": {"accuracy": 0.99, "macro_f1": 0.0}},
    }
    return icl.run(suite, root / "run")


def value(run, metric, budget, seed):
    (found,) = (r["value"] for r in run.results if (r["metric"], r["budget"], r["seed"]) == (metric, budget, seed))
    return found


def test_csv(run, tmp_path):
    files = run.export("csv", tmp_path)
    assert [f.name for f in files] == ["figures.csv", "items.csv"]
    figures, items = (list(csv.DictReader(io.StringIO(f.read_text(encoding="utf-8"), newline=""))) for f in files)
    assert len(figures) == len(run.results)
    assert len(items) == 4 * 20
    mine = [row for row in items if (row["budget"], row["seed"]) == ("all", "1")]
    assert sum(float(row["accuracy"]) for row in mine) / 20 == pytest.approx(value(run, "accuracy", "all", 1))
    answers = [p.answer for p in run.predictions("majority", budget="all", seed=1)]
    assert [row["answer"] for row in mine] == answers
    assert "macro_f1" not in mine[0]  # it says nothing of one item


def test_parquet(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    figures, items = (parquet.read_table(f).to_pylist() for f in export_run(run.folder, "parquet", tmp_path))
    assert {row["budget"] for row in figures} == {"8", "all"}
    mine = [row["accuracy"] for row in items if (row["budget"], row["seed"]) == ("8", 0)]
    assert sum(mine) / 20 == pytest.approx(value(run, "accuracy", 8, 0))


def test_junit_fails_where_a_threshold_was_missed(run, tmp_path):
    (file,) = export_run(run.folder, "junit", tmp_path)
    root = ElementTree.parse(file).getroot()
    assert (root.get("name"), root.get("tests"), root.get("failures")) == ("out", "4", "1")
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["majority · all labels · accuracy"]
    assert "stated 0.99" in root.find(".//failure").get("message")


def test_lm_eval(run, tmp_path):
    files = export_run(run.folder, "lm-eval", tmp_path)
    results = json.loads(files[0].read_text())
    assert set(results["results"]) == {f"t-majority-{b}-s{s}" for b in (8, "all") for s in (0, 1)}
    assert results["results"]["t-majority-all-s1"]["accuracy,none"] == value(run, "accuracy", "all", 1)
    assert results["higher_is_better"]["t-majority-8-s0"] == {"accuracy": True, "macro_f1": True}
    samples = [json.loads(line) for line in (tmp_path / "samples_t-majority-all-s1.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [s["doc_id"] for s in samples] == list(range(20))
    assert sum(s["accuracy"] for s in samples) / 20 == pytest.approx(value(run, "accuracy", "all", 1))
    assert results["n-shot"]["t-majority-8-s0"] == 0
    assert [s["filtered_resps"] for s in samples] == [[p.answer] for p in run.predictions("majority", budget="all", seed=1)]


def test_what_is_no_utf8_is_kept_as_its_escape(run, tmp_path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    cell = canonical_json([None, "t", "majority", 8, 0])
    with RunStore.open(folder) as store:
        store.put(cell, {3: Prediction(store.predictions(cell)[3].uid, None, why="said \ud800 <b>")})
    for name in ("csv", "parquet", "junit", "lm-eval"):
        export_run(folder, name, tmp_path / name)
    row = json.loads((tmp_path / "lm-eval" / "samples_t-majority-8-s0.jsonl").read_text(encoding="utf-8").split("\n")[3])
    assert row["why"] == "said \ud800 <b>"
    assert row["accuracy"] is None
    with (tmp_path / "csv" / "items.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file))[3]["why"] == "said \\ud800 <b>"


def test_the_command_and_wrong_use(run, tmp_path, capsys):
    assert main(["report", str(run.folder), "--export", "junit", "--export", "csv", "--to", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"junit.xml", "figures.csv", "items.csv"}
    assert str(tmp_path / "out" / "junit.xml") in capsys.readouterr().err
    assert main(["report", str(run.folder), "--export", "jnuit"]) == 2
    assert "Did you mean 'junit'" in capsys.readouterr().err
    with pytest.raises(UnknownNameError):
        export_run(run.folder, "xml")
    with pytest.raises(InputError, match="not a finished run"):
        export_run(tmp_path, "csv")


def test_parquet_without_pyarrow_says_what_to_install(run, tmp_path):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from icl.cli import main\n"
        f"sys.exit(main(['report', {str(run.folder)!r}, '--export', 'parquet', '--to', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'icl[data]'" in done.stderr
