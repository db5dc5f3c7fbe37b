"""A program and its tests in two processes of one sandbox. Run as a script with the standard library alone; never imported by icl.

    program    runs what a model wrote, then calls what it is asked to call. It never has the tests.
    judge      runs the tests. What they use of the program is a stand-in that asks the other process; it ends with code 0 only behind the
               last test. Its code is the verdict.

A program that shares a process with its tests can always make them pass: it can find them in memory, replace what they call, return an object
that equals everything, or end with code 0. Here it can do no more than answer calls. Values are sent as data (JSON with a word for the type);
anything else stays with the program, and the judge holds a stand-in, which is equal to itself alone.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

CONTAINERS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
MUTABLE = (list, dict, set)
TYPES: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset, types.NoneType)
}


def pack(value: Any, keep: Callable[[Any], int]) -> Any:
    """What JSON can hold: scalars as they are, else [word, content]. keep: the number of an object that stays on this side."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", [[pack(key, keep), pack(each, keep)] for key, each in value.items()]]
    for word, kind in CONTAINERS.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return [word, [pack(each, keep) for each in value]]
    for name, kind in TYPES.items():
        if value is kind:
            return ["type", name]
    if hasattr(value, "__next__") or isinstance(value, range | type({}.keys()) | type({}.values()) | type({}.items())):
        return ["iterator", [pack(each, keep) for each in value]]
    return ["object", keep(value)]


def unpack(value: Any, object_of: Callable[[int], Any]) -> Any:
    """The other way round. Nothing but data is made of what was sent. Raises what a wrong form leads to."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise TypeError("not in the form that values are sent in")
        return value
    word, content = value
    if word in CONTAINERS:
        return CONTAINERS[word]([unpack(each, object_of) for each in content])
    if word == "dict":
        return {unpack(key, object_of): unpack(each, object_of) for key, each in content}
    if word == "complex":
        return complex(*content)
    if word == "bytes":
        return bytes.fromhex(content)
    if word == "type":
        return TYPES[content]
    if word == "iterator":
        return iter([unpack(each, object_of) for each in content])
    return object_of(int(content))


def send(out: BinaryIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message).encode("ascii") + b"\n")
    out.flush()


# ── the program's side ───────────────────────────────────────────────────────────────────────────────────────────────────


def program(source: str, asked: BinaryIO, out: BinaryIO) -> None:
    """Define what the source defines, then answer until nobody asks."""
    objects: list[Any] = []
    numbers: dict[int, int] = {}

    def keep(value: Any) -> int:
        if id(value) not in numbers:
            numbers[id(value)] = len(objects)
            objects.append(value)
        return numbers[id(value)]

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        on = names[question["name"]] if question["do"] == "name" else objects[question["on"]]
        values = [unpack(each, objects.__getitem__) for each in question["values"]]
        if question["do"] == "call":
            options = {name: unpack(each, objects.__getitem__) for name, each in question["options"].items()}
            result = on(*values, **options)
            return {"value": pack(result, keep), "changed": [pack(each, keep) if isinstance(each, MUTABLE) else None for each in values]}
        if question["do"] == "get":
            return {"value": pack(getattr(on, question["name"]), keep)}
        if question["do"] == "set":
            setattr(on, question["name"], values[0])
            return {"value": None}
        return {"value": pack(on, keep)}

    module = types.ModuleType("__main__")
    names = module.__dict__
    sys.modules["__main__"] = module
    try:
        exec(compile(source, "/program.py", "exec"), names)
        send(out, {"names": [name for name in names if isinstance(name, str)]})
    except BaseException:
        traceback.print_exc()
        send(out, {"names": None})
        return
    for line in asked:
        try:
            said = answer(json.loads(line))
        except BaseException as error:  # an exit too is only an answer
            said = {"raised": type(error).__name__, "said": str(error)[:1000]}
        send(out, said)


# ── the judge's side ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ProgramError(Exception):
    """The program raised what is no exception of Python's own, or it is gone."""


class Program:
    """The other process, asked one thing at a time."""

    def __init__(self, said: BinaryIO, out: BinaryIO) -> None:
        self._said, self._out = said, out
        self._known: dict[int, StandIn] = {}

    def read(self) -> dict[str, Any]:
        line = self._said.readline()
        found = json.loads(line) if line else None
        if not isinstance(found, dict):
            raise ProgramError("the program has ended")
        return found

    def ask(self, do: str, on: int, name: str, values: tuple[Any, ...] = (), options: dict[str, Any] | None = None) -> Any:
        question = {
            "do": do, "on": on, "name": name, "values": [pack(each, self._sent) for each in values],
            "options": {key: pack(each, self._sent) for key, each in (options or {}).items()},
        }  # fmt: skip
        send(self._out, question)
        said = self.read()
        if "raised" in said:
            kind: Any = getattr(builtins, str(said["raised"]), None)
            # SystemExit is no Exception, so no program ends its judge; StopIteration would end a loop of the tests as if all were done.
            known = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration | StopAsyncIteration)
            text = str(said.get("said", ""))
            try:
                error = kind(text) if known else ProgramError(f"{said['raised']}: {text}")
            except Exception:  # some need more than a text
                error = ProgramError(f"{said['raised']}: {text}")
            raise error
        result = unpack(said["value"], self._stand_in)
        for value, changed in zip(values, said.get("changed") or (), strict=False):
            if isinstance(value, MUTABLE) and isinstance(changed, list):
                _take_over(value, unpack(changed, self._stand_in))
        return result

    def _sent(self, value: Any) -> int:
        if isinstance(value, StandIn):
            return int(object.__getattribute__(value, "_number"))
        raise TypeError(f"the tests hand the program a value of the kind {type(value).__name__}, which cannot be sent to it")

    def _stand_in(self, number: int) -> StandIn:
        if number not in self._known:
            self._known[number] = StandIn(self, number)
        return self._known[number]


class StandIn:
    """What the tests have of a function, a class or an object of the program. Two are equal only if they are the same."""

    def __init__(self, program: Program, number: int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)

    def __call__(self, *values: Any, **options: Any) -> Any:
        return self._program.ask("call", self._number, "", values, options)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask("get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("set", self._number, name, (value,))

    def __len__(self) -> int:
        return int(self.__getattr__("__len__")())

    def __getitem__(self, key: Any) -> Any:
        return self.__getattr__("__getitem__")(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.__getattr__("__iter__")()))

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return str(self.__getattr__("__str__")())


def _take_over(ours: Any, theirs: Any) -> None:
    """What a call changed in a list, dict or set that it was given."""
    if isinstance(ours, list):
        ours[:] = theirs
    else:
        ours.clear()
        ours.update(theirs)


def asked_for(tests: str, own: set[str], theirs: set[str]) -> tuple[set[str], set[str]]:
    """(the names that the tests have from the program, the modules that they need and do not import).

    The program's are those that are neither set there nor Python's. Only if there is no such name, its function may be called like one of
    Python's, and that one alone: a program does not replace what the tests are written with. Nor does it by a module of its own called
    `math`.
    """
    nodes = list(ast.walk(ast.parse(tests)))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    own = own | {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {
        (name.asname or name.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    own |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    modules = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = (modules - own) & sys.stdlib_module_names & theirs
    used -= own | modules
    if free := {name for name in used if not hasattr(builtins, name)}:
        return free & theirs, modules
    return used & theirs if len(used & theirs) == 1 else set(), modules


def judge(given: str, tests: str, said: BinaryIO, out: BinaryIO) -> None:
    """Run the tests. Returns behind the last one; raises whatever they raise, and ProgramError for tests that use nothing of the program."""
    other = Program(said, out)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(given, "/given.py", "exec"), names)
    theirs = other.read()["names"]
    if not isinstance(theirs, list):
        raise ProgramError("the program does not get to its end")
    asked, modules = asked_for(tests, set(names), {each for each in theirs if isinstance(each, str)})
    names |= {name: importlib.import_module(name) for name in modules}
    names |= {name: other.ask("name", 0, name) for name in sorted(asked)}
    exec(compile(tests, "/tests.py", "exec"), names)
    if not asked:
        raise ProgramError("the tests ask nothing of the program")


def main() -> None:
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    if sys.argv[1] == "program":
        with open("/program.py", encoding="utf-8", errors="surrogatepass", newline="") as file:
            source = file.read()
        program(source, os.fdopen(3, "rb"), os.fdopen(4, "wb"))
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else it would be an exception that tests may catch
    with os.fdopen(3, encoding="utf-8", errors="surrogatepass") as file:
        job = json.load(file)
    try:
        judge(job["given"], job["tests"], os.fdopen(4, "rb"), os.fdopen(5, "wb"))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
