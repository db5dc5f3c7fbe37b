"""Programs that a model wrote, run where they can do no harm.

A program gets a user, a root, a process tree and a network of its own (Linux namespaces), a read-only root with the standard library of
Python in it and nothing else, 16 MB of /tmp in memory, no network, no /proc, no rights, a list of system calls it may not use, and limits on
time, memory, processes, files and output. Where one of these cannot be had, nothing is run and `check` says what is missing.

    launcher.py    the process that builds it, started once per program
    judged.py      a program and its tests, each in a process of its own
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ...errors import IclError, InputError, Problem

__all__ = ["Checks", "Limits", "Outcome", "SandboxError", "check", "missing", "run", "run_many"]

LAUNCHER = Path(__file__).with_name("launcher.py")
JUDGED = Path(__file__).with_name("judged.py")
Status = Literal["passed", "failed", "time", "memory", "output"]
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")
_ENVIRONMENT = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "/", "PYTHONHASHSEED": "0", "TMPDIR": "/tmp"}
_GRACE = 5.0
"""Seconds beyond the limit after which a launcher that does not answer is given up."""


class SandboxError(IclError):
    """The sandbox itself failed, not the program in it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use."""

    seconds: float = 10.0
    """By the clock; as much of the processor's time."""
    memory_mb: int = 512
    """Of each process (addresses), and of all together (pages in memory)."""
    processes: int = 16
    disk_mb: int = 16
    """Of /tmp, and of each file."""
    output_kb: int = 64
    """Of standard output and of standard error."""

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb", "processes", "disk_mb", "output_kb"):
            if not getattr(self, name) > 0:
                raise InputError(Problem(f"got {getattr(self, name)!r}", "Give a number above 0.", field=name))


@dataclass(frozen=True, slots=True)
class Checks:
    """What a program is run against, in a process that the program cannot reach: its code is the outcome's."""

    text: str
    """Python. Names that are neither set here nor Python's own are the program's."""
    given: str = ""
    """Python that stands before the tests and is not the program's, whatever the program calls by the same names."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program."""

    status: Status
    """passed: it ended by itself with code 0, or, if there are tests, they did so behind the last one. failed: with another code, or by a signal. Else the limit that ended it."""
    code: int | None
    """Exit code; minus the number of the signal that ended it; None where a limit did."""
    stdout: str
    stderr: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run(program: str, limits: Limits = Limits(), tests: Checks | None = None) -> Outcome:
    """Run the text of a Python program. Raises InputError where there can be no sandbox, SandboxError if it breaks down."""
    check()
    return _run(program, limits, tests)


def run_many(
    programs: Sequence[str], limits: Limits = Limits(), workers: int | None = None, tests: Sequence[Checks | None] | None = None
) -> list[Outcome]:
    """Each program in a sandbox of its own, in order; some at a time (default: half as many as there are processors)."""
    if not programs:
        return []
    check()
    with ThreadPoolExecutor(workers or max(1, (os.cpu_count() or 2) // 2)) as pool:
        return list(pool.map(lambda program, its: _run(program, limits, its), programs, tests or [None] * len(programs)))


def check() -> None:
    """Raises InputError if programs cannot be shut in here, with what is missing. It is tried once, with a program that tries to get out."""
    if problem := _missing():
        fix = (
            "Programs that a model wrote are only run inside a sandbox. It needs Linux 5.12 or newer, on x86-64 or ARM64, where a user may make "
            "namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a container, its own leave to)."
        )
        raise InputError(Problem(f"there is no sandbox on this machine: {problem}", fix))


def missing() -> str | None:
    """What keeps programs from being shut in on this machine; None if nothing does."""
    return _missing()


@cache
def _missing() -> str | None:
    """What keeps programs from being shut in; None if nothing does."""
    if not sys.platform.startswith("linux"):
        return f"this is {sys.platform}, and namespaces are Linux's"
    try:
        found = _run(_ESCAPE.replace("CANARY", repr(str(Path(__file__).resolve()))), Limits(seconds=20, processes=4))
    except SandboxError as error:
        return str(error)
    if found.passed:
        return None
    said = (found.stderr or found.stdout).strip().splitlines() or [f"it ended with {found.status}, code {found.code}"]
    return f"a program that tries to get out says: {said[-1]}"


_ESCAPE = """
import os, socket
assert os.getuid() == 1000, "it is another user than it should be"
assert not os.path.exists(CANARY), "it sees files outside"
assert not os.path.exists("/proc/1") and not os.path.exists("/home"), "it sees processes or homes"
for path in ("/x", "/lib/x", "/usr/x", os.path.dirname(os.__file__) + "/x"):
    try:
        open(path, "w")
    except OSError:
        continue
    raise AssertionError(f"it can write {path}")
try:
    socket.create_connection(("127.0.0.1", 1), 1)
except OSError as error:
    assert error.errno == 101, f"there is a network: {error}"
children = []
try:
    for _ in range(12):
        child = os.fork()
        if not child:
            os.read(os.pipe()[0], 1)
        children.append(child)
except OSError:
    pass
assert len(children) < 12, "the number of processes has no limit"
"""


def _run(program: str, limits: Limits, tests: Checks | None = None) -> Outcome:
    """One program in one sandbox, without the check."""
    binds, links = _paths()
    job = {
        "program": program,
        "python": str(_python()),
        "binds": binds,
        "links": links,
        "environment": _ENVIRONMENT,
        "seconds": limits.seconds,
        "memory": limits.memory_mb << 20,
        "processes": limits.processes,
        "disk": limits.disk_mb << 20,
        "output": limits.output_kb << 10,
        "tests": None if tests is None else {"tests": tests.text, "given": tests.given},
        "judged": None if tests is None else _judged(),
    }
    process = subprocess.Popen(
        [str(_python()), "-I", "-S", "-B", str(LAUNCHER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(json.dumps(job).encode("ascii"), timeout=limits.seconds + _GRACE)
    except subprocess.TimeoutExpired:
        raise SandboxError("the sandbox does not answer") from None
    finally:
        if process.poll() is None:  # its own children are killed with it
            process.kill()
            process.communicate()
    lines = out.decode().splitlines()
    if not lines:
        raise SandboxError(f"the sandbox broke down: {(err.decode(errors='replace').strip().splitlines() or ['it said nothing'])[-1]}")
    found = json.loads(lines[-1])
    if "missing" in found:
        raise SandboxError(str(found["missing"]))
    status: Status = found["status"] or ("passed" if found["code"] == 0 else "failed")
    return Outcome(status, found["code"] if not found["status"] else None, found["stdout"], found["stderr"], found["seconds"])


@cache
def _judged() -> str:
    return JUDGED.read_text(encoding="utf-8")


@cache
def _python() -> Path:
    """The interpreter behind a virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


@cache
def _paths() -> tuple[list[str], list[tuple[str, str]]]:
    """(what is bound into the root, links in it): the interpreter, its standard library, the shared libraries. Nothing below another."""
    prefix = Path(sys.base_prefix).resolve()
    wanted = [*_LIBRARIES, str(_python()), str(prefix / "lib"), str(prefix / "lib64")]
    links = [(path, os.readlink(path)) for path in dict.fromkeys(wanted) if os.path.islink(path)]
    there = [path for path in dict.fromkeys(wanted) if os.path.exists(path) and not os.path.islink(path)]
    inner = [path for path in there if any(path != other and path.startswith(f"{other}/") for other in there)]
    return [path for path in there if path not in inner], links
