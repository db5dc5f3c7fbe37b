"""Broken input: every message names the file, the line or column, and the fix; all problems come at once; fuzzing finds no other error."""

import json
import random

import pytest

from icl.data import Task
from icl.errors import InputError


def problems_of(source, **options):
    with pytest.raises(InputError) as caught:
        Task.load(source, **options)
    assert caught.value.exit_code == 2
    for problem in caught.value.problems:
        assert problem.message
        assert problem.fix or "stopped after" in problem.message
    return caught.value.problems


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_missing_column_names_the_nearest_one(tmp_path):
    train = write(tmp_path / "train.csv", "review,sentiment\ngood,pos\n")
    test = write(tmp_path / "test.jsonl", '{"review": "bad", "label": "neg"}\n')
    found = problems_of(train, test=test, input="reviews", label="sentiment")
    assert [(p.file, p.line, p.field, p.message) for p in found] == [
        (str(train), 1, "input", "there is no column 'reviews'"),
        (str(test), 1, "input", "there is no column 'reviews'"),
        (str(test), 1, "label", "there is no column 'sentiment'"),
    ]
    assert "Did you mean 'review'?" in found[0].fix
    assert "Known: label, review." in found[2].fix


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", ""), ("a.jsonl", "\n \n"), ("a.tsv", b"\xef\xbb\xbf\r\n"), ("a.json", ""), ("a.parquet", "")]
)
def test_an_empty_file(tmp_path, name, content):
    (problem,) = problems_of(write(tmp_path / name, content))
    assert (problem.message, problem.file) == ("the file is empty", str(tmp_path / name))


@pytest.mark.parametrize(("name", "content"), [("a.csv", "text,label\n"), ("a.json", "[]")])
def test_a_file_without_rows(tmp_path, name, content):
    (problem,) = problems_of(write(tmp_path / name, content))
    assert (problem.message, problem.file) == ("there is no row", str(tmp_path / name))


@pytest.mark.parametrize("named", [{"label": "label"}, {"references": "label"}, {"label": "kind", "rationale": "label"}])
def test_no_input_column_holds_the_answer(named):
    rows = [{"title": f"t{i}", "label": f"a{i % 2}", "kind": f"k{i % 2}"} for i in range(8)]
    (problem,) = problems_of(rows, input=["title", "label"], **named)
    assert "would show its own answer" in problem.message
    assert problem.field == "input"


def test_an_unknown_label(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nx,pos\ny,neg\nz,postive\n")
    (problem,) = problems_of(path, labels=["pos", "neg", "positive"])
    assert (problem.file, problem.line, problem.field) == (str(path), 4, "label")
    assert "'postive'" in problem.message
    assert "Did you mean 'positive'?" in problem.fix


def test_an_unknown_label_of_many_rows_is_one_problem_and_names_the_likest_of_many_labels(tmp_path):
    labels = [f"intent_{i}" for i in range(150)]
    path = write(
        tmp_path / "a.csv", "text,label\n" + "".join(f"x{i},{'oos' if i % 2 else labels[i]}\n" for i in range(40)) + "y,intent_7a\n"
    )
    oos, typo = problems_of(path, labels=labels)
    assert (oos.line, typo.line) == (3, 42)
    assert "(20 rows, of which this is the first)" in oos.message
    assert "rows" not in typo.message
    assert "Did you mean 'intent_7'? Known are 150 names" in typo.fix
    assert len(oos.fix) < 400


def test_a_duplicate_header(tmp_path):
    path = write(tmp_path / "a.csv", "text,label,text\nx,pos,y\n")
    (problem,) = problems_of(path)
    assert (problem.file, problem.line, problem.field) == (str(path), 1, "text")
    assert "2 times" in problem.message


def test_a_duplicate_key_in_json(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "label": "a"}\n{"text": "x", "text": "y", "label": "a"}\n')
    (problem,) = problems_of(path)
    assert (problem.line, "the key 'text' stands twice" in problem.message) == (2, True)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_bad_utf8_names_every_line(tmp_path, name):
    path = write(tmp_path / name, b"text,label\nx,pos\ncaf\xe9,neg\nx,pos\n\xff,neg\n")
    found = problems_of(path)
    assert [(p.line, p.message) for p in found if "UTF-8" in p.message] == [(3, "byte 0xe9 is not UTF-8"), (5, "byte 0xff is not UTF-8")]
    assert "iconv" in found[0].fix or name != "a.csv"


def test_utf16_is_named(tmp_path):
    (problem,) = problems_of(write(tmp_path / "a.csv", "text,label\nx,y\n".encode("utf-16")))
    assert "UTF-16" in problem.message


def test_ragged_rows_are_listed_up_to_twenty(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines",a\none\nthree,b,c\n')
    found = problems_of(path)
    assert [(p.line, p.message) for p in found] == [
        (4, "the row has 1 columns, the header has 2"),
        (5, "the row has 3 columns, the header has 2"),
    ]
    found = problems_of(write(tmp_path / "b.csv", "text,label\n" + "x\n" * 100))
    assert [p.line for p in found] == [*range(2, 22), None]


def test_an_open_quote_is_found_where_it_begins(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\nx,a\n"y,b\nz,c\n')
    (problem,) = problems_of(path)
    assert (problem.line, "not valid CSV" in problem.message) == (3, True)


def test_bad_json_names_every_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "label": "a"}\n{"text": "x"\n[1]\n{"text": NaN}\n' + "[" * 100_000 + "\n")
    found = problems_of(path)
    assert [p.line for p in found] == [2, 3, 4, 5]
    path = write(tmp_path / "a.json", '[{"text": "x", "label": "a"},\n {"text": "y" "label": "a"}]')
    assert problems_of(path)[0].line == 2
    for content, line in (('"text"', 1), ('[{"text": "x"} {"text": "y"}]', 1), ("[1,\n2]", 1), ("[{}]\nmore", 2), ("[{},\n", 2)):
        assert problems_of(write(tmp_path / "b.json", content))[0].line == line


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path):
    write(tmp_path / "train.csv", "text,label\nx,y\n")
    (problem,) = problems_of(tmp_path / "trian.csv")
    assert "Did you mean 'train.csv'?" in problem.fix
    (problem,) = problems_of(tmp_path / "nowhere" / "train.csv")
    assert "does not exist either" in problem.fix
    (problem,) = problems_of(tmp_path / "rows.jsonl")
    assert problem.fix == "Check the path: there is no .jsonl file in its folder."
    (problem,) = problems_of(write(tmp_path / "train.xlsx", "x"))
    assert ".parquet" in problem.fix


def test_a_damaged_parquet_file(tmp_path):
    pytest.importorskip("pyarrow")
    (problem,) = problems_of(write(tmp_path / "a.parquet", b"PAR1" + b"x" * 100))
    assert "Parquet" in problem.message


def test_no_usable_row_lists_the_reasons(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n,a\nx,\n,b\n")
    (problem,) = problems_of(path)
    assert problem.message == "none of the 3 rows can be used: 2 × empty text, 1 × no label"


def test_options_that_cannot_be_right_are_named_together():
    found = problems_of([{"text": "x", "label": "y"}], input="my text", kind="clasify", holdout=0.9, labels=[])
    assert {p.field for p in found} == {"input", "kind", "holdout", "labels"}
    assert any('input={"my_text": "my text"}' in p.fix for p in found)
    assert "Did you mean 'classify'?" in next(p.fix for p in found if p.field == "kind")


def test_options_that_do_not_fit_the_kind_are_refused():
    rows = [{"text": "x", "choices": ["a", "b"], "label": 0}]
    assert problems_of(rows, choices="choices", labels=["a"])[0].field == "labels"
    assert problems_of(rows, choices="choices", kind="answer")[0].field == "choices"
    assert problems_of(rows, references="choices", kind="classify")[0].field == "references"
    assert problems_of(rows, kind="choose")[0].field == "choices"
    assert problems_of(rows, label=None)[0].field == "label"


SEEDS = {
    "csv": "text,label,extra\r\n" + "".join(f'"row {i}, ""quoted""",{"ab"[i % 2]},{i}\r\n' for i in range(12)),
    "tsv": "text\tlabel\n" + "".join(f"row {i} größer\t{'ab'[i % 2]}\n" for i in range(12)),
    "jsonl": "".join(
        json.dumps({"text": f"row {i} é", "label": i % 3, "extra": [i, None]}, ensure_ascii=i % 2 == 0) + "\n" for i in range(12)
    ),
    "json": json.dumps([{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(12)], indent=1),
}
PIECES = [b"\xef\xbb\xbf", b"\r\n", b"\r", b"\0", b"\xed\xa0\x80", b"\\ud800", b"\xe9", b'"', b",", b"\t", b"\n\n", b"{", b"[[", b"]", b"}", b"null", b"NaN", b"\xff\xfe", b"1e999", b"-", "\u2028".encode()]  # fmt: skip


def mutated(rng, content):
    raw = bytearray(content.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        action = rng.randrange(6)
        if action == 0:
            raw[at:at] = rng.choice(PIECES)
        elif action == 1:
            del raw[at : at + rng.randint(1, 30)]
        elif action == 2 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif action == 3:
            lines = raw.split(b"\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))  # a row twice, or the header
            raw = bytearray(b"\n".join(lines))
        elif action == 4:
            raw = raw[:at]
        else:
            raw = bytearray(raw.decode("utf-8", "ignore").encode(rng.choice(["latin-1", "utf-16", "utf-8-sig"]), "ignore"))
    return bytes(raw)


@pytest.mark.parametrize("ending", SEEDS)
def test_mutated_files_lose_no_row_and_raise_nothing_but_input_errors(tmp_path, ending):
    rng = random.Random(4)
    loaded = refused = 0
    unplaced = []
    for case in range(120):
        path = write(tmp_path / f"{case}.{ending}", mutated(rng, SEEDS[ending]))
        try:
            task = Task.load(path, holdout=0.3)
        except InputError as error:
            refused += 1
            unplaced += [p for p in error.problems if not (p.message and p.file)]
            continue
        loaded += 1
        assert len(task.train) + len(task.test) + len(task.rejected) == task.n_rows["train"]
        for example in (*task.train, *task.test):
            assert json.dumps([example.fields, example.target], ensure_ascii=False).encode()
    assert not unplaced
    assert loaded > 5
    assert refused > 5
