"""The README and docs/ are true: examples run, commands and options exist, links lead somewhere.

A comment before a block says what happens to it: `<!-- runs: python -->`, `<!-- runs: shell -->`, `<!-- file: PATH -->` (written before the
blocks below it run). `needs weights` marks what loads the default language model.
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from typer.main import get_command

from icl.cli import main
from icl.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<what>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)\n```", re.DOTALL)


@dataclass
class Block:
    page: str
    what: str
    language: str
    code: str


def blocks(path: Path) -> list[Block]:
    return [Block(path.name, m["what"] or "", m["language"], m["code"] + "\n") for m in BLOCK.finditer(path.read_text(encoding="utf-8"))]


README = blocks(PAGES[0])


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like the checkout to whoever reads: the README's paths work, and nothing lands in the real one."""
    (tmp_path / "eval_suites").symlink_to(ROOT / "eval_suites")
    return tmp_path


def write_files(page: list[Block], folder: Path) -> None:
    for block in page:
        if block.what.startswith("file: "):
            path = folder / block.what.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")


def run_python(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    return out.getvalue()


def run_shell(code: str, capsys) -> str:
    """The `icl …` lines of a block, one after the other; the output of all."""
    said = ""
    for line in commands_in(code):
        assert main(line[1:]) == 0, line
        said += capsys.readouterr().out
    return said


def commands_in(code: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in code.splitlines()]
    return [line for line in lines if line and line[0].rsplit("/", 1)[-1] == "icl"]


def python_blocks(*, weights: bool) -> list[Block]:
    known = [b for b in README if b.what.startswith("runs: python") and "needs BERT" not in b.what]
    return [b for b in known if ("needs weights" in b.what) == weights]


@pytest.mark.minilm
def test_prompts_without_a_language_model(checkout):
    code = python_blocks(weights=False)[0].code
    said = run_python(code)
    assert "My parcel says delivered, but the porch is empty." in said
    assert "accuracy" in said
    assert "FewShot(None" in code


@pytest.mark.smollm2
@pytest.mark.minilm
def test_prompts_with_a_language_model(checkout):
    (block,) = python_blocks(weights=True)
    said = run_python(block.code).split()
    assert 0 < float(said[1]) <= 1
    assert len(said) == 3


@pytest.mark.minilm
def test_a_suite_from_a_script(checkout):
    said = run_python(python_blocks(weights=False)[1].code)
    assert "embedding_head" in said
    method, *_ = said.splitlines()[-1].split()
    assert method in ("knn_vote", "embedding_head")


@pytest.mark.filterwarnings("ignore:'pin_memory':UserWarning")  # torch's, where there is no accelerator
def test_the_recipe_for_bert(checkout):
    """In ten lines, from two CSV files and a BERT folder of that name; it is judged after each of the three epochs."""
    (block,) = (b for b in README if "needs BERT" in b.what)
    assert len([line for line in block.code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    tiny.save_bert(checkout / "bert-base-uncased", ["good", "bad", "film"])
    rows = "".join(f"a {word} film no {i},{word}\n" for i in range(20) for word in ("good", "bad"))
    for name in ("train", "eval"):
        (checkout / f"{name}.csv").write_text("text,label\n" + rows)
    said = run_python(block.code)
    assert said.count("eval_loss") == 3
    assert (checkout / "results").is_dir()


def test_a_template_dropped_into_a_folder(checkout, capsys):
    """At once in ls, validate, prompt and run, with no other edit."""
    write_files(README, checkout)
    (block,) = (b for b in README if b.what == "runs: shell")
    assert {line[1] for line in commands_in(block.code)} == {"ls", "validate", "prompt"}
    said = run_shell(block.code, capsys)
    assert "urgency" in said
    assert "templates/urgency.jinja: fine" in said
    assert said.endswith("Message: My bike broke an hour before the race!\nAnswer today:")
    assert said.count("Answer today: yes") + said.count("Answer today: no") == 2
    (checkout / "u.yaml").write_text(
        "tasks: [{name: u, train: messages.csv, template: urgency}]\nmethods: [zero_shot]\nmodels: [smollm2]\n"
    )
    assert main(["validate", "u.yaml"]) == 0


@pytest.mark.smollm2
def test_a_dropped_in_template_runs(checkout, capsys):
    write_files(README, checkout)
    (checkout / "u.yaml").write_text(
        "tasks: [{name: u, train: messages.csv, template: urgency}]\nmethods: [zero_shot]\nmodels: [smollm2]\n"
    )
    assert main(["run", "u.yaml", "--out", "r"]) == 0
    assert "zero_shot" in capsys.readouterr().out


def test_the_selector_of_the_docs_works(checkout, capsys):
    write_files([*README, *blocks(ROOT / "docs" / "extending.md")], checkout)
    assert main(["ls", "selectors", "--plugins", "plugins", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["longest"]["origin"] == "own (plugins)"
    assert listed["longest"]["description"] == "The longest examples, the same for every query."
    assert main(["prompt", "--pool", "messages.csv", "--plugins", "plugins", "--retriever", "longest", "--shots", "1", "hello"]) == 0
    assert "I was charged twice" in capsys.readouterr().out


def test_templates_in_the_docs_are_valid(tmp_path):
    from icl.prompt import lint

    found = [b for page in PAGES for b in blocks(page) if b.language == "jinja"]
    assert len(found) >= 3
    for n, block in enumerate(found):
        (tmp_path / f"t{n}.jinja").write_text(block.code, encoding="utf-8")
        assert lint(tmp_path / f"t{n}.jinja") == [], block.page


def test_the_suite_in_the_docs_is_valid(checkout):
    from icl.evaluate import load_suite

    block = next(b for b in blocks(ROOT / "docs" / "suites.md") if b.language == "yaml")
    (checkout / "data").symlink_to(ROOT / "eval_suites" / "data")
    (checkout / "s.yaml").write_text(block.code, encoding="utf-8")
    assert load_suite("s.yaml").suite.thresholds


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_and_option_exists(page):
    root = get_command(app)
    for block in blocks(page):
        for line in commands_in(block.code) if block.language == "sh" else ():
            words, command, path = line[1:], root, "icl"
            while hasattr(command, "commands"):
                assert words, line
                assert words[0] in command.commands, line
                command, path = command.commands[words[0]], f"{path} {words[0]}"
                words = words[1:]
            command.make_context(path, list(words))  # raises for an option that is not there


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^make (\S+)", "\n".join(b.code for b in README if b.language == "sh"), re.MULTILINE))
    assert named == {"quickstart", "test"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_tree_is_the_tree():
    (tree,) = (b.code for b in README if b.language == "text" and b.code.startswith("icl/\n"))
    named = set(re.findall(r"\b(\w+(?:\.py|/))", tree))
    rooms = {
        p.name + "/" if p.is_dir() else p.name for p in (ROOT / "icl").iterdir() if not p.name.startswith("_") and p.suffix in ("", ".py")
    }
    assert rooms <= named


def test_cli_page_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_cli.py", "--check"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_page_of_docs_is_linked():
    text = PAGES[0].read_text(encoding="utf-8")
    assert [p.name for p in PAGES[1:] if f"docs/{p.name}" not in text] == []
