"""Runs one program in namespaces of its own. Started as a script with the standard library alone; never imported by icl.

Standard input: JSON, see `icl.evaluate.sandbox`. Standard output: one line of JSON. Three processes:

    launcher   stays outside: writes the user map, reads the output, watches time and memory, kills
    keeper     enters new user, mount, network, process, IPC, host name and cgroup namespaces
    first      process 1 inside: builds the root, gives up every right, starts the program, waits for it; if there are tests, starts a
               judge too, which alone is given them, and waits for that one (judged.py)

The program's root is a memory file system of its own, read-only but for /tmp, with the standard library and the shared libraries bound
read-only into it. There is no /proc, no home, no shell and no network. When process 1 ends, the kernel kills whatever is left inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import selectors
import signal
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NS, NEW_CGROUP, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (1 << n for n in (17, 25, 26, 27, 28, 29, 30))
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
MNT_DETACH, AT_RECURSIVE, MOUNT_SETATTR = 2, 0x8000, 442
PDEATHSIG, NO_NEW_PRIVS, SECCOMP, DUMPABLE = 1, 38, 22, 4
INSIDE = 1000
"""The user and the group of the program, as it sees them."""
OUTSIDE = (1_900_000_000, 65534)
"""For a launcher that is root: users that own nothing, so that the program is not root outside its namespace either."""
DEVICES = ("null", "zero", "full", "random", "urandom")
MSGQUEUE = 12
"""RLIMIT_MSGQUEUE, which the standard library has no name for."""
EVERY = 0.02
"""Seconds between two looks at the memory."""

# System calls that a program has no use for and that make the kernel's larger or less tested parts reachable, or memory that no limit counts.
REFUSED = {
    "x86_64": (
        "29 64 68 101 103 135 153 155 161 163 164 165 166 167 168 169 170 171 172 173 175 176 179 240 246 248 249 250 272 298 300 303 304 308 "
        "310 311 312 313 319 320 321 323 425 426 427 428 429 430 431 432 433 438 442 443 447"
    ),
    "aarch64": (
        "39 40 41 51 58 60 89 92 97 104 105 106 116 117 142 161 162 170 180 186 190 194 217 218 219 224 225 241 262 264 265 268 270 271 272 273 279 "
        "280 282 294 425 426 427 428 429 430 431 432 433 438 442 443 447"
    ),
}
CLONE = {"x86_64": 56, "aarch64": 220}
CAPSET = {"x86_64": 126, "aarch64": 91}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE3 = 435


class Missing(Exception):
    """What the machine does not allow."""


def call(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise Missing(f"{what}: {os.strerror(number)}")
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    call(LIBC.mount(*encoded, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def seal(target: str, attributes: int) -> None:
    """Read-only and so on, with all that is mounted below."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    result = LIBC.syscall(MOUNT_SETATTR, -100, os.fsencode(target), AT_RECURSIVE, wanted, ctypes.c_size_t(len(wanted)))
    call(result, f"mount_setattr {target} (Linux 5.12 or newer)")


def filter_calls() -> None:
    """From here on the refused system calls fail, in this process and all its children, for good."""
    machine = platform.machine()
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    fails, allow, kill = 0x50000, 0x7FFF0000, 0x80000000
    code = [(load, 0, 0, 4), (equal, 1, 0, AUDIT[machine]), (give, 0, 0, kill), (load, 0, 0, 0)]
    if machine == "x86_64":
        code += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]  # the 32-bit calls of the same processor
    for number in REFUSED[machine].split():
        code += [(equal, 0, 1, int(number)), (give, 0, 0, fails | errno.EPERM)]
    # clone3 hides its flags in memory; told that it does not exist, the C library takes clone, whose flags can be looked at.
    code += [(equal, 0, 1, CLONE3), (give, 0, 0, fails | errno.ENOSYS)]
    code += [(equal, 0, 3, CLONE[machine]), (load, 0, 0, 16), (any_bit, 0, 1, 0x7E020000), (give, 0, 0, fails | errno.EPERM)]
    code += [(give, 0, 0, allow)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(packed))
    call(LIBC.prctl(SECCOMP, 2, program, 0, 0), "seccomp")


def build_root(job: dict[str, object], sources: list[tuple[str, int]]) -> None:
    """A root of our own, entered; the old one is gone."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    root = "/tmp"
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,nr_inodes=4096,mode=755")
    for path, source in sources:
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{source}"):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)
        seal(target, ATTR_RDONLY | ATTR_NOSUID | (0 if path.startswith("/dev/") else ATTR_NODEV))
    for link, target in job["links"]:  # type: ignore[attr-defined]
        os.makedirs(os.path.dirname(root + link), exist_ok=True)
        os.symlink(target, root + link)
    with open(root + "/program.py", "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(str(job["program"]))
    if job["tests"]:
        with open(root + "/judged.py", "w", encoding="utf-8") as file:
            file.write(str(job["judged"]))
    os.makedirs(root + "/tmp")
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={job['disk']},nr_inodes=1024,mode=700")
    os.makedirs(root + "/old")
    os.chdir(root)
    call(LIBC.syscall(PIVOT_ROOT[platform.machine()], b".", b"old"), "pivot_root")
    os.chdir("/")
    call(LIBC.umount2(b"/old", MNT_DETACH), "umount")
    os.rmdir("/old")
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/tmp")


def limits(job: dict[str, object]) -> None:
    seconds, memory, disk = int(float(str(job["seconds"]))) + 1, int(str(job["memory"])), int(str(job["disk"]))
    # The keeper, process 1 and the judge count as processes of this user too.
    for what, most in (
        ("AS", memory), ("CPU", seconds), ("FSIZE", disk), ("NOFILE", 64), ("NPROC", int(str(job["processes"])) + 3), ("CORE", 0),
        ("MEMLOCK", 0), ("MSGQUEUE", 0), ("STACK", min(memory, 64 << 20)),
    ):  # fmt: skip
        resource.setrlimit(getattr(resource, f"RLIMIT_{what}", MSGQUEUE), (most, most))


def start(job: dict[str, object], out: tuple[int, int], arguments: tuple[str, ...], files: tuple[int, ...]) -> int:
    """Start Python inside, with nothing open but its output and these files, as 3, 4 and so on. Returns its number here."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 1024) for fd in files]  # out of the way of the numbers they will have
    for at, fd in enumerate((os.open("/dev/null", os.O_RDONLY), *out, *high)):
        os.dup2(fd, at)
    limits(job)
    os.closerange(3 + len(files), 2048)
    command = [str(job["python"]), "-I", "-B", "-X", "utf8", *arguments]
    return os.execve(command[0], command, dict(job["environment"]))  # type: ignore[call-overload]


def first(job: dict[str, object], sources: list[tuple[str, int]], out: tuple[int, int], report: int) -> None:
    """Process 1. Never returns."""
    try:
        build_root(job, sources)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        no_rights = struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
        call(LIBC.syscall(CAPSET[platform.machine()], struct.pack("Ii", 0x20080522, 0), no_rights), "capset")
        call(LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        call(LIBC.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
        tests = os.memfd_create("tests") if job["tests"] else 0  # a file without a name, and refused from here on
        filter_calls()
        if job["tests"]:
            os.write(tests, json.dumps(job["tests"]).encode("ascii"))
            os.lseek(tests, 0, os.SEEK_SET)
            questions, answers = os.pipe(), os.pipe()
            start(job, out, ("/judged.py", "program"), (questions[0], answers[1]))
            program = start(job, out, ("/judged.py", "judge"), (tests, answers[0], questions[1]))
            for fd in (tests, *questions, *answers):
                os.close(fd)
        else:
            program = start(job, out, ("/program.py",), ())
        for fd in out:
            os.close(fd)
        while True:
            ended, status = os.wait()
            if ended == program:
                break
        os.write(report, json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    except BaseException as error:  # what it is goes to the launcher: nobody else could say it
        os.write(report, json.dumps({"missing": f"{error}"}).encode() + b"\n")
    os._exit(0)


def keeper(job: dict[str, object], pipes: dict[str, tuple[int, int]]) -> None:
    """Enters the namespaces, waits for its user map, starts process 1. Never returns."""
    report = pipes["report"][1]
    try:
        LIBC.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        call(LIBC.unshare(NEW_USER | NEW_NS | NEW_PID | NEW_NET | NEW_IPC | NEW_UTS | NEW_CGROUP), "unshare (user and other namespaces)")
        os.write(pipes["ready"][1], b"1")
        if os.read(pipes["go"][0], 1) != b"1":
            os._exit(0)
        # Opened while this is still the user who may read them; the program's own user may not enter, say, a home folder.
        wanted = [*job["binds"], *(f"/dev/{name}" for name in DEVICES)]  # type: ignore[misc]
        sources = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in wanted if os.path.exists(path)]
        with contextlib.suppress(OSError):  # not allowed to a user who is not root; its groups mean nothing to the few files there are
            os.setgroups([])
        os.setresgid(INSIDE, INSIDE, INSIDE)
        os.setresuid(INSIDE, INSIDE, INSIDE)
        LIBC.prctl(DUMPABLE, 1, 0, 0, 0)  # its own /proc entries stay its own after the change of user
        LIBC.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        child = os.fork()
        if child == 0:
            first(job, sources, (pipes["out"][1], pipes["err"][1]), report)
        os.write(report, json.dumps({"pid": child}).encode() + b"\n")
        for name in ("out", "err"):
            os.close(pipes[name][1])
        os.waitpid(child, 0)
    except BaseException as error:
        os.write(report, json.dumps({"missing": f"{error}"}).encode() + b"\n")
    os._exit(0)


def write_map(pid: int) -> None:
    """Who the keeper is outside: a user that owns nothing if the launcher is root, else the launcher's own."""
    tried = ""
    for outside in (*OUTSIDE, os.geteuid()) if os.geteuid() == 0 else (os.geteuid(),):
        group = outside if os.geteuid() == 0 and outside else os.getegid()
        try:
            with open(f"/proc/{pid}/setgroups", "w") as file:
                file.write("allow" if os.geteuid() == 0 else "deny")
            for name, number in (("gid_map", group), ("uid_map", outside)):
                with open(f"/proc/{pid}/{name}", "w") as file:
                    file.write(f"{INSIDE} {number} 1\n")
            return
        except OSError as error:
            tried = str(error)
    raise Missing(f"a user map: {tried}")


def memory_of(root: int) -> int:
    """Bytes in memory of a process and all below it."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(name))
            except OSError:
                continue
    total, left = 0, [root]
    while left:
        pid = left.pop()
        left += parents.get(pid, [])
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                total += int(file.read().split()[1]) * resource.getpagesize()
        except OSError:
            continue
    return total


def watch(job: dict[str, object], pipes: dict[str, tuple[int, int]], keeper_pid: int) -> dict[str, object]:
    """Read the output, and end everything at the first limit."""
    seconds, memory, most = float(str(job["seconds"])), int(str(job["memory"])), int(str(job["output"]))
    started = time.monotonic()
    texts: dict[str, bytes] = {"out": b"", "err": b"", "report": b""}
    reading = selectors.DefaultSelector()
    for name in texts:
        reading.register(pipes[name][0], selectors.EVENT_READ, name)
    status, inside, looked, ended = "", 0, started, 0.0
    while reading.get_map():
        for key, _ in reading.select(EVERY):
            chunk = os.read(key.fd, 1 << 16)
            if not chunk:
                reading.unregister(key.fd)
            elif len(texts[key.data]) <= most:
                texts[key.data] += chunk
        now = time.monotonic()
        for line in texts["report"].split(b"\n"):
            found = json.loads(line) if line.startswith(b"{") and line.endswith(b"}") else {}
            inside = found.get("pid", inside)
            if ("code" in found or "missing" in found) and not ended:
                ended = now
        if not status and not ended:
            if now - started > seconds:
                status = "time"
            elif max(len(texts["out"]), len(texts["err"])) > most:
                status = "output"
            elif inside and now - looked > EVERY:
                looked = now
                status = "memory" if memory_of(inside) > memory else ""
            if status:
                for pid in filter(None, (inside, keeper_pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                ended = now
        if ended and now - ended > 0.5:
            break  # something outlives the kill for a moment; its output is of no use
    return {
        "status": status,
        "seconds": time.monotonic() - started,
        "texts": {k: v[:most].decode(errors="replace") for k, v in texts.items()},
    }


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    LIBC.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if platform.machine() not in REFUSED or struct.calcsize("P") != 8:
        print(json.dumps({"missing": f"the system calls of a processor of the kind {platform.machine()} are not known"}))
        return
    pipes = {name: os.pipe() for name in ("ready", "go", "report", "out", "err")}
    pid = os.fork()
    if pid == 0:
        keeper(job, pipes)
    for name in ("ready", "report", "out", "err"):
        os.close(pipes[name][1])
    problem = ""
    if os.read(pipes["ready"][0], 1) == b"1":
        try:
            write_map(pid)
        except Missing as error:
            problem = str(error)
        os.write(pipes["go"][1], b"0" if problem else b"1")
    found = watch(job, pipes, pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    texts = found["texts"]
    said: dict[str, object] = {}
    for line in str(texts["report"]).splitlines():  # type: ignore[index]
        said |= json.loads(line)
    missing = problem or said.get("missing")
    if missing and not found["status"]:
        print(json.dumps({"missing": missing}))
        return
    result = {"status": found["status"], "code": said.get("code"), "seconds": found["seconds"]}
    print(json.dumps({**result, "stdout": texts["out"], "stderr": texts["err"]}))  # type: ignore[index]


if __name__ == "__main__":
    main()
