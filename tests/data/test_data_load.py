"""Rows in: every format gives the same task, labels keep their bytes, and every row is used or rejected with its reason."""

import csv
import json

import pytest

from icl.data import Task, read_rows, report
from icl.errors import InputError
from icl.values import content_digest

ROWS = [
    {"text": "Where is my parcel?", "label": "no"},
    {"text": 'He said "hi",\r\nthen left', "label": "012"},
    {"text": "Größe 42; drei\nZeilen", "label": "true"},
    {"text": "  spaces kept  ", "label": " padded "},
    {"text": "one more", "label": "no"},
]


def write_csv(path, rows, delimiter=",", encoding="utf-8", end="\n"):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def values(examples):
    return [(e.uid, dict(e.fields), e.target) for e in examples]


@pytest.fixture
def expected():
    return values(Task.load(ROWS, holdout=0).train)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_delimited_files_give_the_rows_as_they_are(tmp_path, expected, ending, delimiter, encoding, end):
    path = write_csv(tmp_path / f"rows.{ending}", ROWS, delimiter, encoding, end)
    task = Task.load(path, holdout=0)
    assert values(task.train) == expected
    assert task.labels == ("no", "012", "true", " padded ")


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json"])
def test_json_files_give_the_rows_as_they_are(tmp_path, expected, ending):
    path = tmp_path / f"rows.{ending}"
    if ending == "json":
        path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8-sig")
    else:
        write_jsonl(path, ROWS)
    assert values(Task.load(str(path), holdout=0).train) == expected


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars"])
def test_dataframes_give_the_rows_as_they_are(expected, library):
    module = pytest.importorskip(library)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    frame = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    assert values(Task.load(frame, holdout=0).train) == expected


def test_parquet_gives_the_rows_as_they_are(tmp_path, expected):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert values(Task.load(tmp_path / "rows.parquet", holdout=0).train) == expected


def test_json_values_that_are_no_text_become_the_text_they_are_written_as(tmp_path):
    path = tmp_path / "rows.jsonl"
    written = ["1", "1.0", "1e3", "true", "false", "-0", "12345678901234567890123"]
    path.write_text("".join(f'{{"text": "row {i}", "label": {label}}}\n' for i, label in enumerate(written)))
    assert Task.load(path, holdout=0).labels == tuple(written)


def test_a_missing_label_in_a_dataframe_is_rejected():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", None, pd.NA]})
    task = Task.load(frame, holdout=0)
    assert (len(task.train), task.reasons) == (1, {"no label": 2})


def test_numbers_are_fields_and_conversations_are_turns(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "agent", "text": "Hello"}]
    path = write_jsonl(
        tmp_path / "t.jsonl",
        [{"talk": turns, "stars": 4, "price": 1.5, "label": "x"}, {"talk": ["no turn"], "stars": 1, "price": 1, "label": "x"}],
    )
    task = Task.load(path, input=["talk", "stars", "price"], holdout=0)
    fields = task.train[0].fields
    assert fields == {"talk": [{"role": "user", "text": "Hi"}, {"role": "agent", "text": "Hello"}], "stars": 4, "price": 1.5}
    assert task.reasons == {"a list that is no conversation where an input is expected": 1}


def test_inputs_are_mapped_and_uids_follow_content_and_occurrence():
    rows = [{"body": "same", "label": "a"}, {"body": "other", "label": "a"}, {"body": "same", "label": "b"}]
    task = Task.load(rows, test=rows[:1], input={"text": "body"})
    digest = content_digest({"text": "same"})
    assert task.inputs == ("text",)
    assert [e.uid for e in task.train] == [f"{digest}-0", f"{content_digest({'text': 'other'})}-0", f"{digest}-1"]
    assert task.test[0].uid == f"{digest}-0"


def test_a_choose_task_reads_indices_and_texts():
    rows = [{"q": "2+2", "choices": ["1", "4", "0"], "label": 1}, {"q": "1-1", "choices": ["1", "4", "0"], "label": 2}]
    assert [e.target for e in Task.load(rows, input="q", choices="choices", holdout=0).train] == ["4", "0"]
    as_text = [row | {"label": row["choices"][row["label"]]} for row in rows]
    assert (
        Task.load(as_text, input="q", choices="choices", holdout=0).train == Task.load(rows, input="q", choices="choices", holdout=0).train
    )


def test_choices_in_csv_are_json_lists_and_digits_are_read_alike_in_all_rows(tmp_path):
    rows = [{"q": "a?", "choices": '["0", "1", "2"]', "label": "1"}, {"q": "b?", "choices": '["x", "y", "z"]', "label": "2"}]
    task = Task.load(write_csv(tmp_path / "c.csv", rows), input="q", choices="choices", holdout=0)
    assert [e.target for e in task.train] == ["1", "z"]
    assert task.source["choice labels"] == "index"


def test_bad_choices_are_rejected_with_the_reason():
    def row(choices, label):
        return {"q": "?", "choices": choices, "label": label}

    good = row(["a", "b"], 0)
    rows = [
        good,
        row([], 0),
        row(None, 0),
        row(["a"], 0),
        row(["a", " "], 0),
        row(["a", "b"], 2),
        row(["a", "b"], -1),
        row("a b", 0),
        row(["a", "b"], None),
    ]
    task = Task.load(rows, input="q", choices="choices", holdout=0)
    assert len(task.train) == 1
    assert [(r.line, r.reason) for r in task.rejected] == [
        (2, "no choices"),
        (3, "no choices"),
        (4, "fewer than two choices"),
        (5, "an empty choice"),
        (6, "label index out of range"),
        (7, "the label is no index from 0"),
        (8, "choices are no list"),
        (9, "no label"),
    ]


def test_answers_come_from_lists_and_from_references():
    listed = Task.load([{"q": "capital?", "label": ["Paris", "paris", "Paris"]}, {"q": "x", "label": []}], input="q", holdout=0)
    assert (listed.kind, listed.train[0].target, listed.train[0].references) == ("answer", "Paris", ("Paris", "paris"))
    assert listed.reasons == {"no answer": 1}
    rows = [{"q": "say", "target": "A", "targets": ["B", "A"], "label": 7}]
    assert Task.load(rows, input="q", references="targets", holdout=0).train[0].references == ("B", "A")
    assert Task.load(rows, input="q", label="target", references="targets", holdout=0).train[0].references == ("A", "B")
    assert Task.load(rows, input="q", label="target", kind="answer", holdout=0).train[0].references == ("A",)


def test_rows_that_cannot_be_used_are_counted():
    rows = [
        {"text": "fine", "label": "a"},
        {"text": " \n", "label": "a"},
        {"text": "no label", "label": " "},
        {"text": "null label", "label": None},
        {"label": "a"},
        {"text": "a\0b", "label": "a"},
        {"text": "a\ud800", "label": "a"},
        {"text": {"a": 1}, "label": "a"},
        {"text": "list label", "label": {"a": 1}},
    ]
    task = Task.load(rows, test=rows[:1])
    assert task.n_rows == {"train": 9, "test": 1}
    assert len(task.train) + len(task.test) + len(task.rejected) == 10
    assert task.reasons == {
        "empty text": 2,
        "no label": 2,
        "a dict where a text is expected": 2,
        "a NUL character": 1,
        "half a surrogate pair, which is no text": 1,
    }
    assert any("8 of 10 rows are rejected" in str(w) for w in task.warnings)


def test_labels_that_a_split_lacks_stay_with_a_warning():
    task = Task.load([{"text": "a", "label": "x"}, {"text": "b", "label": "X "}], test=[{"text": "c", "label": "y"}])
    assert task.labels == ("x", "X ", "y")
    messages = [w.message for w in task.warnings]
    assert any(m.startswith("train has no row for 1 of 3 labels: 'y'") for m in messages)
    assert any("'x', 'X ' differ only in case" in m for m in messages)


def test_an_id_of_several_rows_is_warned_of(tmp_path):
    """Nothing was said, and the leak guard takes every row away that shares its id with a test row."""
    file = tmp_path / "rows.csv"
    file.write_text("key,text,label\n7,one,x\n8,two,y\n7,three,x\n,four,y\n ,five,x\n8,six,x\n7,seven,y\n")
    task = Task.load(file, test=[{"key": 7, "text": "eight", "label": "x"}, {"key": 9, "text": "nine", "label": "y"}], id="key")
    (warning,) = task.warnings
    assert warning.message == "the id '7' stands 3 times, first in lines 2 and 4; 1 more id stands more than once"
    assert (warning.file, warning.line, warning.field) == (str(file), 2, "key")
    assert task.ids["train"].keys() == {e.uid for e in task.train if e.fields["text"] not in ("four", "five")}  # an empty cell is no id
    assert f"{file}: the id '7' stands 3 times" in "\n".join(report(task, None).lines())
    assert Task.load(file, test=[{"text": "eight", "label": "x"}, {"text": "nine", "label": "y"}]).warnings == ()


def test_given_labels_set_the_order():
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert Task.load(rows, labels=["y", "z", "x"], holdout=0).labels == ("y", "z", "x")


def test_unlabelled_rows_need_no_label():
    task = Task.load([{"text": "a", "label": "x"}], unlabelled=[{"text": "b"}, {"text": ""}], holdout=0)
    assert [e.target for e in task.unlabelled] == [None]
    assert task.n_rows["unlabelled"] == 2


def test_the_digest_changes_with_any_row_and_with_nothing_else():
    rows = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(30)]
    again = Task.load([dict(row, extra=1) for row in rows])
    assert Task.load(rows).digest == again.digest
    assert Task.load([*rows[:-1], rows[-1] | {"label": "c"}]).digest != again.digest
    assert Task.load(rows, seed=1).digest != again.digest


def test_read_rows_streams_lines_and_plain_values(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1, "b": 1.5}\n\n{"a": "t", "b": [2, {"c": 1e999}]}\n')
    assert list(read_rows(path)) == [(1, {"a": 1, "b": 1.5}), (3, {"a": "t", "b": [2, {"c": "1e999"}]})]
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"two\nlines"\n3,4\n')
    assert list(read_rows(path)) == [(2, {"a": "1", "b": "two\nlines"}), (4, {"a": "3", "b": "4"})]


def test_tsv_without_quoting_is_read_as_it_stands(tmp_path):
    path = tmp_path / "glue.tsv"
    path.write_text('text\tlabel\n"Hello he said\t1\n6" pipe\t0\n"both" sides" odd\t1\n')
    assert [row["text"] for _, row in read_rows(path)] == ['"Hello he said', '6" pipe', '"both" sides" odd']


def test_a_field_of_ten_megabytes_is_read(tmp_path):
    text = "x" * 10_000_000
    for name, content in {"b.csv": f"text,label\n{text},a\n", "b.jsonl": json.dumps({"text": text, "label": "a"}) + "\n"}.items():
        (tmp_path / name).write_text(content)
        assert len(Task.load(tmp_path / name, holdout=0).train[0].fields["text"]) == 10_000_000


def test_a_source_that_holds_no_rows_is_refused():
    for source in (3, {"text": "a"}, b"x", ["a", "b"], None):
        with pytest.raises(InputError):
            Task.load(source)


def test_labels_that_are_not_to_be_seen():
    """Nothing is learned from their rows; they stay in the label set and among the rows to judge by, and are accounted for."""
    train = [{"text": f"text {i}", "label": "abo"[i % 3]} for i in range(9)]
    test = [{"text": f"other {i}", "label": "abo"[i % 3]} for i in range(6)]
    task = Task.load(train, test=test, unseen=["o"])
    assert [e.target for e in task.train] == ["a", "b"] * 3
    assert [e.target for e in task.test] == ["a", "b", "o"] * 2
    assert task.labels == ("a", "b", "o")
    assert [(row.split, row.line) for row in task.rejected] == [("train", 3), ("train", 6), ("train", 9)]
    assert task.n_rows["train"] == len(task.train) + len(task.rejected)
    assert task.source["unseen"] == ["o"]
    assert task.digest != Task.load(train, test=test).digest
    held = Task.load([{**row, "text": f"{row['text']} {n}"} for n in range(60) for row in train], unseen=["o"])
    assert {e.target for e in held.train} == {"a", "b"}
    assert {e.target for e in held.test} == {"a", "b", "o"}  # held out before anything is hidden
    with pytest.raises(InputError, match="no label 'oo' to keep unseen"):
        Task.load(train, test=test, unseen=["oo"])
    with pytest.raises(InputError, match="no row to learn from is left"):
        Task.load(train, test=test, unseen=["a", "b", "o"])
