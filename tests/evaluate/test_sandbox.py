"""Programs that try to do harm: nothing changes outside, each ends within its limit and a second, and the run goes on."""

import os
import select
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
from icl.evaluate.sandbox import Checks, Limits, Outcome

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
    "memory bit by bit": ("x = []\nwhile True: x.append(bytearray(2**20))", {"failed", "memory", "time"}),
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
    "connects to this machine": (  # 101: the network cannot be reached; nothing is waited for
        "import socket\nfor kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n    assert socket.socket(type=kind).connect_ex(('127.0.0.1', PORT)) == 101",
        {"passed"},
    ),
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
    yield {
        "CANARY": str(canary),
        "PORT": str(server.getsockname()[1]),
        "PARENT": str(os.getpid()),
        "SOCKET": path,
        "file": canary,
        "server": server,
    }
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
    found = _ended(program, may)
    assert outside["file"].read_text(encoding="utf-8") == "untouched"
    assert len(found.stdout) <= SHORT.output_kb << 10
    assert select.select([outside["server"]], [], [], 0) == ([], [], []), "it reached a server of this machine"
    assert sandbox._run("print('still here')", SHORT).stdout == "still here\n"


# Programs that would rather pass than be right. The tests: add(1, 2) == 3, and that add(2, 2) is in a list.
ADD = Checks("assert add(1, 2) == 3\nassert add(2, 2) in [4]")
CHEATING = {
    "equals everything": "class E:\n    def __eq__(self, other): return True\n    __hash__ = object.__hash__\ndef add(a, b): return E()",
    "equals everything as a number": "class E(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef add(a, b): return E(9)",
    "ends with 0 at once": "import os\nos._exit(0)",
    "ends with 0 when it is called": "import os\ndef add(a, b): os._exit(0)",
    "asks to end when it is called": "def add(a, b): raise SystemExit(0)",
    "ends with 0 at the end": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0",
    "ends with 0 by a signal": "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\ndef add(a, b): os.kill(os.getpid(), signal.SIGTERM)",
    "replaces what tests call": "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.len = lambda *_: 0\ndef add(a, b): return 0",
    "has names of Python's own": "AssertionError = list = int = __builtins__ = __debug__\ndef add(a, b): return 0",
    "says that everything raised": "import os\ndef add(a, b):\n    os.write(4, b'{\"raised\": \"SystemExit\", \"said\": \"0\"}\\n')\n    return 0",
    "answers in the judge's place": "import os\nfor _ in range(9): os.write(4, b'{\"value\": true, \"changed\": []}\\n')\ndef add(a, b): return 0",
    "says what is no value": "import os\ndef add(a, b):\n    os.write(4, b'{\"value\": {\"__class__\": \"E\"}}\\n')\n    return 0",
    "reads the tests in its files": (
        "import os\nfound = ''\nfor folder in ('/', '/tmp'):\n    for name in os.listdir(folder):\n        try: found += open(folder + '/' + name).read()\n        except (OSError, ValueError): pass\n"
        "for fd in range(256):\n    try: found += os.pread(fd, 10**6, 0).decode()\n    except (OSError, ValueError): pass\n"
        "def add(a, b): return a + b if 'assert add' + '(1' in found else 0"
    ),
    "reads the tests in memory": (
        "import gc, sys\nfound = [o for o in gc.get_objects() if 'assert add' + '(1' in repr(o)[:10**5]]\nframe = sys._getframe()\n"
        "while frame:\n    found += [v for v in frame.f_locals.values() if v is not found and 'assert add' + '(1' in repr(v)[:10**5]]\n    frame = frame.f_back\n"
        "texts = [t for t in found if isinstance(t, (str, bytes)) and len(t) < 99]\ndef add(a, b): return a + b if texts else 0"
    ),
    "reads the judge's memory": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nfor pid in range(1, 9):\n    if pid != os.getpid() and libc.ptrace(16, pid, 0, 0) == 0: raise SystemExit\n"
        "    try: open(f'/proc/{pid}/mem', 'rb'); found = True\n    except OSError: found = False\ndef add(a, b): return a + b if found else 0"
    ),
    "signals to the judge": (
        "import os, signal\ndef add(a, b):\n    for pid in range(1, 9):\n        for sig in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):\n"
        "            try: pid != os.getpid() and os.kill(pid, sig)\n            except OSError: pass\n    return 0"
    ),
    "prints what passed": "print('passed', flush=True)\nimport json\nprint(json.dumps({'code': 0, 'status': ''}))\ndef add(a, b): return 0",
    "counts the calls": "calls = []\ndef add(a, b):\n    calls.append(a)\n    return 3 if len(calls) > 1 else None",
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("name", CHEATING)
def test_a_program_that_cheats_does_not_pass(name):
    found = sandbox._run(CHEATING[name], Limits(seconds=20), ADD)
    assert (found.status, found.passed) == ("failed", False), found


@needs_sandbox
def test_a_program_replaces_nothing_that_the_tests_are_written_with():
    program = "import math\nmath.isclose = lambda *_: True\ndef add(a, b): return 0\ndef helper(x): return 4"
    for tests in (
        Checks("assert math.isclose(add(2, 2), 4)"),
        Checks("assert helper(add(2, 2)) == 4", "def helper(x): return x"),
        Checks("def helper(x): return x\nassert helper(add(2, 2)) == 4"),
        Checks("from math import isclose\nassert isclose(add(2, 2), 4)"),
    ):
        assert sandbox._run(program, Limits(seconds=20), tests).status == "failed"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def add(a, b): raise StopIteration", "for found in map(add, [1, 2], [1, 2]): assert found == 2"),
        ("def sum(a, b): return 0\ndef set(x): return 0", "assert set([sum(1, 2)]) == set([3])"),
        ("def add(a, b): return 0", "def check(candidate):\n    assert candidate(1, 2) == 3"),  # and never called
        ("def add(a, b): return 0", ""),
    ],
)
def test_no_program_passes_tests_that_it_cuts_short_or_that_ask_it_nothing(program, tests):
    assert sandbox._run(program, Limits(seconds=20), Checks(tests)).status == "failed"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def add(a, b): return a + b", ADD),
        ("def f(x):\n    x.append(1)\n    return (x, {1: {2}}, 1.5, None, b'x', 2j)", Checks("y = [0]\nassert f(y) == ([0, 1], {1: {2}}, 1.5, None, b'x', 2j)\nassert y == [0, 1]")),
        ("def f(n):\n    yield from range(n)", Checks("assert list(f(3)) == [0, 1, 2]")),
        ("def f(x):\n    if x < 0: raise ValueError('below 0')\n    return x", Checks("try:\n    f(-1)\nexcept ValueError as error:\n    assert str(error) == 'below 0'\nelse:\n    assert False")),
        ("class Node:\n    def __init__(self, n): self.n, self.next = n, None\ndef last(node):\n    while node.next: node = node.next\n    return node.n", Checks("a = Node(1)\na.next = Node(2)\nassert last(a) == 2\nassert a.next.n == 2")),
        ("def sum(a, b): return a - b", Checks("assert sum(3, 1) == 2")),
        ("LIMIT = 3\ndef f(): return LIMIT", Checks("assert f() == LIMIT")),
        ("def f(n): return 10 ** n", Checks("assert f(5000) == 10 ** 5000")),
        ("def f(x): return x", Checks("assert str(f(float('nan'))) == 'nan' and f(float('inf')) > 1 and f('\\ud800 ä') == '\\ud800 ä'")),
        ("import math, sys\nmath.isclose = lambda *_: True\ndef f(x, kind): return [each for each in x if type(each) is kind]", Checks("assert math.isclose(1, 1) and f([1, 'a'], int) == [1] and sys.maxsize > 1")),
        ("def helper(x): return 0\ndef f(x): return x", Checks("assert helper(f(2)) == 4", "def helper(x): return 2 * x")),
    ],
)  # fmt: skip
def test_tests_use_a_program_as_if_it_were_theirs(program, tests):
    found = sandbox._run(program, Limits(seconds=20), tests)
    assert found.passed, found.stderr
    assert not sandbox._run(program, Limits(seconds=20), Checks(tests.text + "\nassert False", tests.given)).passed


@needs_sandbox
def test_limits_hold_for_a_program_that_is_judged():
    for program, may in (
        ("while True: pass", {"time"}),
        ("def add(a, b):\n    while True: pass", {"time"}),
        ("def add(a, b): return bytearray(10 * 2**30)", {"failed"}),
        ("def add(a, b):\n    while True: print('x' * 10**6)", {"output", "time"}),
        ("import itertools\ndef add(a, b): return itertools.count()", {"time", "memory", "failed"}),
    ):
        _ended(program, may, ADD)


def _ended(program, may, tests=None):
    """What becomes of a program that ends within its limit and leaves no process. The clock of a busy machine may show more than the
    program took, so a run that seems late is made again: one that gets round its limit is late each time."""
    for _ in range(3):
        before = _processes()
        started = time.monotonic()
        found = sandbox._run(program, SHORT, tests)
        took = time.monotonic() - started
        assert found.status in may, (program, found)
        assert _gone(before), "processes are left"
        if found.seconds < SHORT.seconds + 1 and took < SHORT.seconds + 2:  # of which one second for the launcher's own start
            return found
    return pytest.fail(f"{took:.1f} s with a limit of {SHORT.seconds}: {program}")


def _processes():
    """Launchers, and what runs as the sandbox's user."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"launcher.py" in line or b"/program.py" in line or b"/judged.py" in line:
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
