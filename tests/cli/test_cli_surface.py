"""What the command line promises as a whole: speed, exit codes, streams, messages without tracebacks."""

import json
import os
import subprocess
import sys
import time

import pytest

import icl
from icl.cli.guard import guarded
from icl.errors import FetchError, IclError, InputError, Problem

COMMANDS = ["init", "run", "prompt", "ls", "validate", "index", "predict", "export", "pull", "doctor", "train"]
HEAVY = ("torch", "faiss", "sentence_transformers", "transformers", "sklearn", "scipy")


def in_subprocess(code, *args, **env):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
    )


def test_help_ls_and_validate_are_light(tmp_path, reviews):
    """One process calls them all and then looks at what was imported; the time is for five calls and Python's start."""
    (tmp_path / "fine.jinja").write_text(
        "---\ninput: [text]\n---\n{% block example %}Text: {{ text }}\nLabel:{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n"
    )
    (tmp_path / "fine.yaml").write_text("tasks: [{name: t, train: reviews.csv}]\nmethods: [majority, knn_vote, few_shot]\n")
    code = f"""
import sys
from icl.cli import main
codes = [main(a) for a in (["--help"], ["ls"], ["ls", "templates", "--json"], ["validate", "fine.jinja"], ["validate", "fine.yaml"])]
heavy = [m for m in {HEAVY!r} if m in sys.modules]
assert not any(codes), codes
assert not heavy, heavy
"""
    started = time.perf_counter()
    done = in_subprocess(code)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 5  # 0.5 s on an idle machine


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(icl_cli, command):
    answer = icl_cli(command, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: icl {command}")
    assert command in icl_cli("--help").out


def test_version(icl_cli):
    assert icl_cli("--version").out == f"icl {icl.__version__}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["runn"], "Did you mean 'run'"),
        (["ls", "templats"], "Did you mean 'templates'"),
        (["run"], "SUITE"),
        (["ls", "--jsn"], "--json"),
        (["prompt", "x"], "--pool"),
    ],
)
def test_wrong_usage_is_2_and_says_what_would_be_right(icl_cli, args, says):
    answer = icl_cli(*args)
    assert answer.code == 2
    assert answer.out == ""
    assert says in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("module", ["icl", "icl.cli"])
def test_python_can_run_it_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, f"icl {icl.__version__}\n"), done.stderr


def raising(error):
    def command() -> None:
        raise error

    return guarded(command)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (IclError("the disk is full"), 1, "icl: the disk is full"),
        (FetchError("no index"), 1, "icl: no index"),
        (InputError([Problem("a", "do b", "f.csv", 3), Problem("c")]), 2, "icl: 2 problems:\nf.csv:3: a\n  do b\nc\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("resume with: icl run x"), 130, "resume with: icl run x"),
        (MemoryError(), 1, "out of memory"),
        (
            FileNotFoundError(2, "No such file or directory", "a/b"),
            1,
            "icl: a/b: No such file or directory\n  Either it was there and is gone",
        ),
        (FileExistsError(17, "File exists", "a/b"), 1, "No such file can be made there"),
        (ZeroDivisionError("division by zero"), 1, "icl: unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_errors_become_messages_and_codes(capsys, error, code, says):
    import typer

    with pytest.raises(typer.Exit) as stop:
        raising(error)()
    captured = capsys.readouterr()
    assert stop.value.exit_code == code
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_traceback_is_there_for_who_asks(capsys, monkeypatch):
    import typer

    with pytest.raises(typer.Exit):
        raising(ZeroDivisionError("x"))()
    assert "ICL_TRACEBACK=1" in capsys.readouterr().err
    monkeypatch.setenv("ICL_TRACEBACK", "1")
    with pytest.raises(typer.Exit):
        raising(ZeroDivisionError("x"))()
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_fault():
    """`icl ls | head -1`: closing the pipe must not print a traceback, not even when Python shuts down."""
    code = "import sys; from icl.cli import main; sys.stdin.read(1); sys.exit(main(['ls', 'methods']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # before anything is written
    process.stdin.write(b"x")
    process.stdin.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert stderr == b""


@pytest.mark.parametrize("kind", ["templates", "suites", "methods", "selectors", "orders", "metrics", "models"])
def test_ls_lists_and_json_says_the_same(icl_cli, kind):
    lines = icl_cli("ls", kind).out.splitlines()
    entries = json.loads(icl_cli("ls", kind, "--json").out)
    assert len(lines) == len(entries) > 0
    for line, entry in zip(lines, entries, strict=True):
        assert line.split()[0] == entry["name"]
        assert entry["origin"] == "packaged"
        assert entry["description"]


def test_ls_marks_what_is_your_own_and_what_it_hides(icl_cli, tmp_path):
    text = "---\ndescription: Mine\ninput: [text]\n---\n{% block example %}{{ text }}{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n"
    (tmp_path / "templates").mkdir()
    for name in ("sentiment", "brand_new"):
        (tmp_path / "templates" / f"{name}.jinja").write_text(text)
    (tmp_path / "plug" / "selectors").mkdir(parents=True)
    (tmp_path / "plug" / "selectors" / "knn.py").write_text('"""My neighbours."""\n')
    found = {e["name"]: e for e in json.loads(icl_cli("ls", "templates", "--json").out)}
    assert found["brand_new"]["origin"] == "own (templates)"
    assert found["sentiment"]["origin"] == "own, hides a packaged one (templates)"
    assert found["sentiment"]["description"] == "Mine"
    assert found["topic"]["origin"] == "packaged"
    selectors = {e["name"]: e for e in json.loads(icl_cli("ls", "selectors", "--plugins", tmp_path / "plug", "--json").out)}
    assert selectors["knn"]["origin"] == f"own, hides a packaged one ({tmp_path / 'plug'})"
    assert selectors["knn"]["description"] == "My neighbours."
