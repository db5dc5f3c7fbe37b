"""`icl init`: the guess is right, says why, and what is written runs as it is."""

import json

import pytest

from icl.cli.guess import guess
from icl.cli.starter import budgets, file_name, in_words, quoted
from icl.evaluate import load_suite
from icl.files import load_yaml
from icl.prompt import Template


def write_csv(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tickets(tmp_path):
    """Columns with spaces, an id, a second column that could be the label, and text."""
    queues = ["billing", "returns", "card_notWorking"]
    rows = [f'T{n},"I would like to ask about matter {n}, please",{queues[n % 3]},{["low", "high"][n % 2]}' for n in range(120)]
    return write_csv(tmp_path / "My tickets.csv", "Ticket,Body text,Queue,priority", rows)


def test_writes_a_suite_and_a_template_that_hold(icl_cli, tickets, tmp_path):
    answer = icl_cli("init", tickets)
    assert answer.code == 0, answer.err
    assert answer.out == "wrote My_tickets.jinja\nwrote My_tickets.yaml\n"
    assert "input: 'Body text' (text," in answer.err
    assert "label: 'Queue' (3 different values, each 40 times on average; also possible: priority)" in answer.err
    assert "84 rows to learn from, 36 held out" in answer.err or "held out to test on" in answer.err
    assert "icl run My_tickets.yaml" in answer.err

    loaded = load_suite(tmp_path / "My_tickets.yaml")
    assert [m.name for m in loaded.methods] == ["majority", "knn_vote", "embedding_head", "zero_shot", "random-8", "knn-8"]
    assert loaded.suite.tasks[0].input == {"Body_text": "Body text"}
    assert loaded.suite.tasks[0].label == "Queue"
    template = Template.load(tmp_path / "My_tickets.jinja")
    assert template.words == {"billing": ("billing",), "returns": ("returns",), "card_notWorking": ("card not working",)}
    assert icl_cli("validate", "My_tickets.yaml", "My_tickets.jinja").code == 0


def test_does_not_overwrite_unless_told(icl_cli, tickets, tmp_path):
    assert icl_cli("init", tickets).code == 0
    (tmp_path / "My_tickets.jinja").write_text("mine")
    again = icl_cli("init", tickets)
    assert again.code == 2
    assert "My_tickets.jinja" in again.err
    assert "--force" in again.err
    assert (tmp_path / "My_tickets.jinja").read_text() == "mine"
    assert icl_cli("init", tickets, "--force").code == 0


def test_named_columns_are_taken(icl_cli, tickets):
    answer = icl_cli("init", tickets, "--input", "Ticket", "--label", "priority")
    assert answer.code == 0, answer.err
    assert "kind: classify (one of 2 labels)" in answer.err
    wrong = icl_cli("init", tickets, "--label", "Priority", "--force")
    assert wrong.code == 2
    assert "Did you mean 'priority'?" in wrong.err


def test_a_file_of_numbers_is_refused_with_what_was_seen(icl_cli, tmp_path):
    write_csv(tmp_path / "n.csv", "a,b", [f"{n},{n * 7}" for n in range(30)])
    answer = icl_cli("init", "n.csv")
    assert answer.code == 2
    assert "'a': 30 different values" in answer.err
    assert "--label COLUMN" in answer.err


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_in_words(icl_cli, tmp_path):
    write_jsonl(
        tmp_path / "qa.jsonl",
        [{"question": f"Which city has number {n} on its sign?", "answers": [f"city {n}", f"c{n}"]} for n in range(40)],
    )
    answer = icl_cli("init", "qa.jsonl")
    assert answer.code == 0, answer.err
    assert "kind: answer" in answer.err
    loaded = load_suite(tmp_path / "qa.yaml")
    assert loaded.suite.tasks[0].references == "answers"
    assert [m.name for m in loaded.methods] == ["majority", "nearest_answer", "zero_shot", "random-8", "knn-8"]


def test_choices_in_rows(icl_cli, tmp_path):
    rows = [{"question": f"What comes after the number {n}?", "choices": [str(n + 1), str(n + 5)], "label": n % 2} for n in range(40)]
    write_jsonl(tmp_path / "mc.jsonl", rows)
    answer = icl_cli("init", "mc.jsonl")
    assert answer.code == 0, answer.err
    assert "kind: choose" in answer.err
    assert load_suite(tmp_path / "mc.yaml").suite.tasks[0].choices == "choices"
    prompt = icl_cli("prompt", "--template", "mc.jinja", "--pool", "mc.jsonl", "--input", "question", "--choices", "choices", "--retriever", "random", "--shots", "1",
                     '{"question": "What comes after 7?", "choices": ["8", "9"]}')  # fmt: skip
    assert prompt.code == 0, prompt.err
    assert prompt.out.endswith("Question: What comes after 7?\nA. 8\nB. 9\nAnswer:")


def test_a_label_in_the_last_row_is_not_missed(tmp_path):
    rows = [f'"some text with number {n}",{"ab"[n % 2]}' for n in range(6000)] + [
        '"the last text of all",rare',
        '"another last one here",rare',
    ]
    found = guess(write_csv(tmp_path / "long.csv", "text,label", rows))
    assert found.n_rows == 6002
    assert found.values == {"a": 3000, "b": 3000, "rare": 2}


def test_pairs_of_texts_are_both_taken(tmp_path):
    rows = [f'"A dog number {n} runs.","An animal moves, {n}.",{["yes", "no"][n % 2]}' for n in range(20)]
    assert guess(write_csv(tmp_path / "p.csv", "premise,hypothesis,label", rows)).inputs == ("premise", "hypothesis")


@pytest.mark.parametrize(
    ("n_rows", "n_labels", "expected"),
    [(12, 2, ["all"]), (100, 4, [16, "all"]), (1000, 4, [16, 64, "all"]), (5000, 77, [256, 1024, "all"])],
)
def test_budgets_fit_the_file(tmp_path, n_rows, n_labels, expected):
    rows = [f'"some text with number {n}",label{n % n_labels}' for n in range(n_rows)]
    assert budgets(guess(write_csv(tmp_path / "f.csv", "text,label", rows))) == expected


def test_every_label_reads_back_as_itself():
    for label in [
        "no",
        "012",
        "true",
        "null",
        "a: b",
        "x # y",
        "- z",
        "",
        " padded ",
        '"quoted"',
        "{brace}",
        "[list]",
        "*star",
        "ünï",
        "1.5",
        "~",
    ]:
        assert load_yaml(f"key: {quoted(label)}").value == {"key": label}


def test_words():
    assert in_words("card_notWorking") == "card not working"
    assert in_words("USA") == "USA"
    assert in_words("Sci/Tech") == "Sci/Tech"
    assert file_name(__import__("pathlib").Path("a b/My tickets (2).csv")) == "My_tickets_2"


@pytest.mark.smollm2
@pytest.mark.minilm
def test_the_suite_runs_as_it_is(icl_cli, reviews):
    assert icl_cli("init", reviews).code == 0
    answer = icl_cli("run", "reviews.yaml", "--limit", "2", "--out", "r")
    assert answer.code == 0, answer.err
    for method in ("majority", "knn_vote", "embedding_head", "zero_shot", "random-8", "knn-8"):
        assert method in answer.out
    assert icl_cli("export", "r", "--to", "shipped", "--method", "majority").code == 0
