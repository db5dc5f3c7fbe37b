"""A disk that is full, and folders that cannot be written: a clear end, nothing older harmed, and the run goes on from there."""

import os
from contextlib import contextmanager

import pytest

from icl import suite as suites
from icl.cli import main
from icl.errors import IclError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="limits the size of files by a POSIX resource limit")


@contextmanager
def room(n_bytes):
    """No file may grow beyond this: what a disk says that is full, for each file alone."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def go(folder, out):
    return suites.run(folder / "suite.yaml", folder / out, plugins=[folder / "plugins"])


def test_a_run_goes_on_once_there_is_room(folder):
    whole = (go(folder, "whole").folder / "results.json").read_bytes()
    ended = 0
    for n_bytes in (500, 9_000, 40_000, 70_000, 150_000, 220_000):
        with room(n_bytes):
            try:
                go(folder, "out")
            except (IclError, OSError):
                ended += 1
                assert not (folder / "out" / "results.json").exists()
    assert ended >= 4
    assert (go(folder, "out").folder / "results.json").read_bytes() == whole


def test_an_older_run_is_not_harmed(folder):
    run = go(folder, "out")
    before = {path: path.read_bytes() for path in (run.folder / "results.json", run.folder / "manifest.json")}
    with room(300), pytest.raises((IclError, OSError)):
        go(folder, "out")
    assert all(path.read_bytes() == text for path, text in before.items())
    assert suites.open_run(run.folder).results == run.results
    assert not list(run.folder.rglob("*.tmp"))


def test_the_command_says_what_is_wrong(folder, capsys):
    (folder / "file").write_text("")
    for out in (folder / "file", folder / "file" / "below", "/proc/nothing"):
        assert main(["run", str(folder / "suite.yaml"), "--plugins", str(folder / "plugins"), "--out", str(out)]) in (1, 2)
        said = capsys.readouterr().err
        assert "unexpected" not in said, said
        assert str(out) in said, said
    with room(300):
        assert main(["run", str(folder / "suite.yaml"), "--plugins", str(folder / "plugins"), "--out", str(folder / "out")]) == 1
    assert "space" in capsys.readouterr().err
