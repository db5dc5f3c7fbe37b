"""The command line, called in this process: as a user sees it, without a second's start per call."""

from dataclasses import dataclass

import pytest


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def icl_cli(capsys):
    """`icl_cli("ls", "suites")` -> exit code, stdout, stderr."""
    from icl.cli import main

    def call(*args) -> Answer:
        capsys.readouterr()
        code = main([str(a) for a in args])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


REVIEWS = [
    ("The soup was cold and the waiter rude.", "negative"),
    ("A lovely evening, we will come again.", "positive"),
    ("Never had such a dry cake in my life.", "negative"),
    ("The dessert alone is worth the trip.", "positive"),
    ("Overpriced, noisy and far too slow.", "negative"),
    ("Friendly staff and a wonderful view.", "positive"),
    ("They forgot half of what we ordered.", "negative"),
    ("Best pasta in town, hands down.", "positive"),
]


@pytest.fixture
def reviews(tmp_path):
    """reviews.csv: 48 rows, `text` and `label`, each text its own."""
    rows = [f'"{text} Visit number {n}.",{label}' for n in range(6) for text, label in REVIEWS]
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path
