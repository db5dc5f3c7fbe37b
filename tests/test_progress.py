"""Progress of long work: lines where there is no terminal, bars on one, and both while something is trained."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from icl import progress as shown
from icl.progress import progress

WORK = """
import time
from icl.progress import progress
with progress("Outer work", 3, "cells") as outer:
    for _ in range(3):
        with progress("Inner work", 5, "steps") as inner:
            for _ in range(5):
                time.sleep(0.03)
                inner()
        outer()
print("after")
"""


@pytest.fixture
def talkative(monkeypatch):
    """A line after each unit of work."""
    monkeypatch.delenv("ICL_QUIET", raising=False)
    monkeypatch.setattr(shown, "PLAIN_EVERY_S", 0.0)


def test_lines_without_a_terminal(talkative, capsys):
    with progress("Work", 2, "rows") as advance:
        advance()
        advance()
    assert capsys.readouterr().err.splitlines() == ["Work: 1/2 rows, 0 s", "Work: 2/2 rows, 0 s", "Work: 2/2 rows done, 0 s"]


def test_a_training_says_how_far_it_is(talkative, capsys):
    sys.path.insert(0, str(Path(__file__).parent / "train"))
    import lessons

    from icl.train import train

    train(lessons.model(), lessons.lesson(16, validated=False), lessons.SETTINGS, description="Training a rule")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Training a rule: 1/8 steps")
    assert said[-1].startswith("Training a rule: 8/8 steps done")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_bars_on_a_terminal_share_one_display():
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI", "ICL_QUIET")} | {"TERM": "xterm", "COLUMNS": "100"}
    running = subprocess.Popen([sys.executable, "-c", WORK], stdout=theirs, stderr=theirs, env=clean)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert running.wait(30) == 0
    text = said.decode()
    assert "Outer work" in text
    assert "Inner work" in text
    assert "after" in text
    assert text.count("\x1b[?25l") == 1  # the cursor is hidden once: one display
    assert "steps" in text
    assert "cells" in text
