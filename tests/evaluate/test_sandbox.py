"""Programs that try to do harm: nothing changes outside, each ends within its limit and a second, and the run goes on."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from icl.cli import main
from icl.errors import InputError
from icl.evaluate import sandbox
from icl.evaluate.sandbox import Limits, Outcome

MISSING = sandbox._missing()
needs_sandbox = pytest.mark.skipif(MISSING is not None, reason=f"no sandbox here: {MISSING}")
SHORT = Limits(seconds=2, memory_mb=256, processes=8, disk_mb=8, output_kb=64)
QUICK = (
    "10 GB of memory", "10 GB of output", "reads the home folder", "writes outside", "connects to this machine", "becomes root",
    "children that leave the session", "signals to the parent",
)  # fmt: skip
"""Those that are tried every time."""

# name -> (program, what may become of it). CANARY: a file of the user's; SECRET: in the environment of the caller; PARENT: the caller's
# process; PORT: a server that listens on this machine; SOCKET: a socket in the file system.
HOSTILE = {
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", {"time", "failed", "memory"}),
    "fork bomb of sleepers": (
        "import os, time\nwhile True:\n    try:\n        if not os.fork(): time.sleep(99)\n    except OSError: pass",
        {"time"},
    ),
    "threads without end": (
        "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n    except RuntimeError: pass",
        {"time", "memory", "failed"},
    ),
    "children that leave the session": (
        "import os, time\nfor _ in range(3):\n    if not os.fork():\n        os.setsid()\n        if not os.fork():\n            time.sleep(99)\n        os._exit(0)",
        {"passed"},
    ),
    "10 GB of memory": ("x = bytearray(10 * 2**30)", {"failed"}),
    "memory bit by bit": ("x = []\nwhile True: x.append(bytearray(2**20))", {"failed", "memory"}),
    "memory of many processes": (
        "import os, time\nfor _ in range(8):\n    try: child = os.fork()\n    except OSError: break\n    if not child: break\nx = b'x' * (150 * 2**20)\ntime.sleep(99)",
        {"memory", "failed", "time"},
    ),
    "memory in a map": ("import mmap\nm = [mmap.mmap(-1, 2**26) for _ in range(200)]", {"failed"}),
    "memory in a file of memory": (
        "import os\nfor i in range(99):\n    f = os.memfd_create('x')\n    os.write(f, bytes(2**22))",
        {"failed"},
    ),
    "10 GB of disk": ("f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(2**20))", {"failed"}),
    "many small files": ("for i in range(10**6): open(f'/tmp/{i}', 'w').write('x')", {"failed"}),
    "a sparse file": ("f = open('/tmp/x', 'wb')\nf.truncate(10 * 2**30)", {"failed"}),
    "10 GB of output": ("while True: print('x' * 10**6)", {"output"}),
    "10 GB of errors": ("import sys\nwhile True: sys.stderr.write('x' * 10**6)", {"output"}),
    "output and then silence": ("print('x' * 10**6, flush=True)\nwhile True: pass", {"output"}),
    "endless loop": ("while True: pass", {"time"}),
    "endless loop that ignores signals": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
        {"time"},
    ),
    "endless sleep": ("import time\ntime.sleep(10**6)", {"time"}),
    "waits for input": ("input()", {"failed"}),
    "an endless expression": ("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", {"time"}),
    "a huge number": ("print(len(str(7 ** (7 ** 10))))", {"time", "memory", "failed"}),
    "deep recursion": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\nf(0)", {"failed", "memory", "time"}),
    "a crash of the interpreter": ("import ctypes\nctypes.string_at(0)", {"failed"}),
    "reads the home folder": (
        "import os\nassert not os.path.exists('CANARY'), open('CANARY').read()\nprint(os.listdir(os.path.expanduser('~')))",
        {"passed"},
    ),
    "reads the password file": ("print(open('/etc/passwd').read())", {"failed"}),
    "reads the environment": ("import os\nassert 'SECRET' not in repr(os.environ) and len(os.environ) < 9, os.environ", {"passed"}),
    "reads other processes": ("import os\nprint(os.listdir('/proc'))", {"failed"}),
    "writes outside": (
        "for path in ('CANARY', '/program.py', '/x', '/usr/lib/x', '/etc/ld.so.cache', '/dev/x'):\n"
        "    try: open(path, 'w').write('changed')\n    except OSError: continue\n    raise SystemExit('wrote ' + path)",
        {"passed"},
    ),
    "deletes everything": ("import os, shutil\nshutil.rmtree('/', ignore_errors=True)\nassert os.path.exists('/lib')", {"passed", "time"}),
    "symlink race": (
        "import os, threading\ndef swap():\n    for _ in range(2000):\n        for to in ('CANARY', '/tmp/mine'):\n            try:\n                os.symlink(to, '/tmp/new'); os.replace('/tmp/new', '/tmp/link')\n            except OSError: pass\n"
        "t = threading.Thread(target=swap)\nt.start()\nfor _ in range(2000):\n    try: open('/tmp/link', 'w').write('changed')\n    except OSError: pass\nt.join()",
        {"passed", "time"},
    ),
    "links out of the folder": ("import os\nos.symlink('CANARY', '/tmp/l')\nopen('/tmp/l').read()", {"failed"}),
    "climbs out of the root": (
        "import os\nos.mkdir('/tmp/d')\ntry: os.chroot('/tmp/d')\nexcept OSError: pass\nfor _ in range(50): os.chdir('..')\nassert not os.path.exists('.' + 'CANARY')",
        {"passed"},
    ),
    "connects to this machine": ("import socket\nsocket.create_connection(('127.0.0.1', PORT), 2)", {"failed"}),
    "connects to the world": ("import socket\nsocket.create_connection(('192.0.2.1', 80), 2)", {"failed"}),
    "asks for a name": ("import socket\nsocket.getaddrinfo('example.com', 80)", {"failed"}),
    "connects to a socket in a folder": ("import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('SOCKET')", {"failed"}),
    "signals to the parent": (
        "import os, signal\nfor pid in (os.getppid(), PARENT, 1, -1):\n    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):\n"
        "        try: os.kill(pid, sig)\n        except OSError: pass",
        {"passed", "failed", "time"},
    ),
    "stops process 1": ("import os, signal\nos.kill(1, signal.SIGSTOP)\nos.kill(1, signal.SIGSEGV)\nwhile True: pass", {"time", "failed"}),
    "becomes root": (
        "import os, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.unshare(0x10000000) == -1\nassert libc.unshare(0x00020000) == -1\n"
        "try: os.setuid(0)\nexcept OSError: pass\nassert os.getuid() == 1000\nassert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1",
        {"passed"},
    ),
    "calls that are refused": (
        "import ctypes, platform\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.ptrace(0, 0, 0, 0) == -1\n"
        "for number in (425, 428, 442): assert libc.syscall(number, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1",
        {"passed"},
    ),
    "raises its own limits": (
        "import resource\nfor what in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):\n"
        "    try: resource.setrlimit(what, (resource.RLIM_INFINITY,) * 2)\n    except (OSError, ValueError): continue\n    raise SystemExit('raised')",
        {"passed"},
    ),
    "reaches for inherited files": (
        "import os\nopen_ones = [fd for fd in range(3, 256) if not __import__('errno') or os.path.exists(f'/dev/fd/{fd}')]\n"
        "for fd in range(3, 256):\n    try: os.fstat(fd)\n    except OSError: continue\n    os.write(fd, b'{\"code\": 0}')\n    raise SystemExit(f'fd {fd} is open')",
        {"passed"},
    ),
    "lies about how it ended": (
        'import os, signal\nprint(\'{"status": "", "code": 0}\')\nos.kill(os.getpid(), signal.SIGKILL)',
        {"failed"},
    ),
    "leaves without running the tests": ("import os\nos._exit(0)\nassert False", {"passed"}),
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What a program could harm."""
    folder = tmp_path_factory.mktemp("home")
    canary = folder / "canary.txt"
    canary.write_text("untouched", encoding="utf-8")
    server = socket.create_server(("127.0.0.1", 0))
    path = f"/tmp/icl-test-{os.getpid()}.sock"
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    local.listen()
    yield {"CANARY": str(canary), "PORT": str(server.getsockname()[1]), "PARENT": str(os.getpid()), "SOCKET": path, "file": canary}
    server.close()
    local.close()
    os.unlink(path)


@needs_sandbox
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE])
def test_a_hostile_program_changes_nothing_and_ends_in_time(name, outside, monkeypatch):
    monkeypatch.setenv("SECRET", "SECRET")
    program, may = HOSTILE[name]
    for word in ("CANARY", "PORT", "PARENT", "SOCKET"):
        program = program.replace(word, outside[word])
    before = _processes()
    started = time.monotonic()
    found = sandbox._run(program, SHORT)
    took = time.monotonic() - started
    assert found.status in may, found
    assert found.seconds < SHORT.seconds + 1
    assert took < SHORT.seconds + 2  # the start of the launcher itself, on a busy machine
    assert outside["file"].read_text(encoding="utf-8") == "untouched"
    assert len(found.stdout) <= SHORT.output_kb << 10
    assert _gone(before), "processes are left"
    assert sandbox._run("print('still here')", SHORT).stdout == "still here\n"


def _processes():
    """Launchers, and what runs as the sandbox's user."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"launcher.py" in line or b"/program.py" in line:
                found.add(entry.name)
    return found


def _gone(before):
    for _ in range(100):
        if not _processes() - before:
            return True
        time.sleep(0.02)
    return False


def test_there_are_40_of_them():
    assert len(HOSTILE) >= 40


@needs_sandbox
def test_what_a_program_says_and_how_it_ends():
    assert sandbox.run("import sys\nprint('häßlich')\nprint('e', file=sys.stderr)").stdout == "häßlich\n"
    assert sandbox.run("raise SystemExit(7)").code == 7
    failed = sandbox.run("assert 1 == 2, 'no'")
    assert (failed.status, failed.code, failed.passed) == ("failed", 1, False)
    assert "AssertionError: no" in failed.stderr
    assert sandbox.run("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)").code == -6
    assert sandbox.run("x = '\ud800'").status == "failed"  # half a surrogate pair is no character


@needs_sandbox
def test_ordinary_programs_have_what_they_need():
    program = """
import collections, dataclasses, datetime, decimal, fractions, hashlib, heapq, itertools, json, math, random, re, statistics, string, tempfile, zlib
import concurrent.futures, multiprocessing, subprocess, threading
from typing import List
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x" * 10**6)
with concurrent.futures.ThreadPoolExecutor(3) as pool:
    assert sum(pool.map(abs, range(-9, 9))) == 81
print(hashlib.md5(b"x").hexdigest(), exit)
"""
    found = sandbox.run(program)
    assert found.passed, found


@needs_sandbox
def test_many_at_once_stay_in_order():
    programs = [f"import time\ntime.sleep({0.05 * (i % 3)})\nprint({i})" for i in range(9)]
    assert [found.stdout for found in sandbox.run_many(programs, workers=3)] == [f"{i}\n" for i in range(9)]
    assert sandbox.run_many([]) == []


@needs_sandbox
def test_killing_the_caller_ends_its_programs():
    before = _processes()
    code = "from icl.evaluate import sandbox; sandbox._run('while True: pass', sandbox.Limits(seconds=60))"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2])
    for _ in range(1000):
        if any(b"/program.py" in (Path("/proc") / p / "cmdline").read_bytes() for p in _alive(_processes() - before)):
            break
        time.sleep(0.02)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert _gone(before)


def _alive(pids):
    return [p for p in pids if (Path("/proc") / p / "cmdline").exists()]


@needs_sandbox
def test_threads_of_the_caller_may_run_programs():
    found = []
    threads = [threading.Thread(target=lambda: found.append(sandbox.run("print(1)").passed)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3


def test_without_a_sandbox_nothing_is_run_and_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(sandbox, "_missing", lambda: "unshare (user and other namespaces): Operation not permitted")
    monkeypatch.setattr(sandbox, "_run", lambda *_: pytest.fail("it was run"))
    for call in (lambda: sandbox.run("print(1)"), lambda: sandbox.run_many(["print(1)"])):
        with pytest.raises(InputError, match="Operation not permitted"):
            call()


def test_the_doctor_says_whether_there_is_a_sandbox(capsys, monkeypatch):
    for why, said in ((None, "can be run in a sandbox"), ("no namespaces", "no sandbox here, so they are not run: no namespaces")):
        monkeypatch.setattr(sandbox, "_missing", lambda why=why: why)
        assert main(["doctor"]) == 0
        assert said in capsys.readouterr().out


def test_limits_are_positive():
    for wrong in ({"seconds": 0}, {"memory_mb": -1}, {"processes": 0}):
        with pytest.raises(InputError):
            Limits(**wrong)
    assert not Outcome("time", None, "", "", 1.0).passed
