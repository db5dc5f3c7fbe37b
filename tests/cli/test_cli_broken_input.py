"""Twelve kinds of broken input through the command line: where it is, what it is, how to mend it; exit code 2, no traceback."""

import pytest

GOOD = "---\ninput: [text]\n---\n{% block example %}Text: {{ text }}\nLabel:{% endblock %}\n{% block answer %} {{ answer }}{% endblock %}\n"


@pytest.fixture
def refused(icl_cli):
    """Calls the command line, checks what holds for every refusal, and returns stderr."""

    def call(*args, names, fix):
        answer = icl_cli(*args)
        assert answer.code == 2, answer
        assert "Traceback" not in answer.err
        for part in (*names, fix):
            assert part in answer.err, answer.err
        return answer.err

    return call


def test_missing_column(refused, reviews):
    refused("validate", reviews, "--label", "lable", names=["reviews.csv:1", "lable"], fix="Did you mean 'label'?")


def test_empty_file(refused, tmp_path):
    (tmp_path / "rows.csv").write_text("")
    refused("validate", "rows.csv", names=["rows.csv:1", "empty"], fix="Give a file with at least one row")


def test_unknown_label(refused, reviews, tmp_path):
    (tmp_path / "s.yaml").write_text("tasks: [{name: t, train: reviews.csv, labels: [positive, negativ]}]\nmethods: [majority]\n")
    refused("run", "s.yaml", names=["reviews.csv:2", "'negative'"], fix="Did you mean 'negativ'?")


def test_duplicate_header(refused, tmp_path):
    (tmp_path / "rows.csv").write_text("text,label,text\na,b,c\n")
    refused("validate", "rows.csv", names=["rows.csv:1", "'text' 2 times"], fix="Give every column its own name")


def test_bad_utf8(refused, tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"text,label\nfine,x\ncaf\xe9,y\n")
    refused("validate", "rows.csv", names=["rows.csv:3", "0xe9"], fix="iconv -f latin1 -t utf-8")


def test_ragged_rows_are_all_named(refused, tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\nfine,x\none,two,three\nonly\n")
    refused("validate", "rows.csv", names=["2 problems", "rows.csv:3", "rows.csv:4", "the header has 2"], fix="complete the row")


def test_unknown_template(refused, reviews):
    refused(
        "prompt",
        "--template",
        "sentimnt",
        "--pool",
        reviews,
        "fine food",
        names=["template", "'sentimnt'"],
        fix="Did you mean 'sentiment'?",
    )


def test_template_syntax_error_with_its_line(refused, tmp_path):
    (tmp_path / "t.jinja").write_text(GOOD.replace("{{ text }}", "{{ text }"))
    refused("validate", "t.jinja", names=["t.jinja:4"], fix="  ")


def test_undefined_field(refused, tmp_path):
    (tmp_path / "t.jinja").write_text(GOOD.replace("{{ text }}", "{{ txt }}"))
    refused("validate", "t.jinja", names=["t.jinja:4", "'txt'"], fix="Did you mean 'text'?")


def test_suite_typo(refused, reviews, tmp_path):
    (tmp_path / "s.yaml").write_text("tasks:\n  - {name: t, train: reviews.csv}\nmethods: [majority, knn_vot]\nbudgts: [16]\n")
    refused("validate", "s.yaml", names=["s.yaml:4: budgts"], fix="Did you mean 'budgets'?")
    (tmp_path / "s.yaml").write_text("tasks:\n  - {name: t, train: reviews.csv}\nmethods: [majority, knn_vot]\n")
    refused("validate", "s.yaml", names=["s.yaml:3: methods.1", "knn_vot"], fix="Did you mean 'knn_vote'?")


def test_missing_model_folder(refused, reviews, tmp_path):
    (tmp_path / "s.yaml").write_text("models: [./models/mine]\ntasks: [{name: t, train: reviews.csv}]\nmethods: [zero_shot]\n")
    refused("run", "s.yaml", names=["s.yaml:1: models.0", "./models/mine"], fix="relative to the suite")
    refused("doctor", "./models/mine", names=["./models/mine"], fix="  ")


@pytest.mark.minilm
def test_damaged_index(refused, icl_cli, reviews, tmp_path):
    assert icl_cli("index", "build", reviews, "--to", "idx").code == 0
    vectors = max((tmp_path / "idx").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    damaged = bytearray(vectors.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    vectors.write_bytes(damaged)
    refused("index", "verify", "idx", names=[vectors.name], fix="icl index build")
    vectors.write_bytes(damaged[:-100])
    refused("index", "search", "idx", "soup", names=[vectors.name], fix="icl index build")


def test_all_problems_of_all_paths_at_once(icl_cli, tmp_path):
    (tmp_path / "t.jinja").write_text(GOOD.replace("{{ text }}", "{{ txt }}"))
    (tmp_path / "good.jinja").write_text(GOOD)
    (tmp_path / "rows.csv").write_text("")
    answer = icl_cli("validate", "t.jinja", "good.jinja", "rows.csv", "nowhere.yaml")
    assert answer.code == 2
    assert answer.out == "good.jinja: fine\n"
    for part in ("t.jinja:4", "rows.csv:1", "nowhere.yaml"):
        assert part in answer.err
