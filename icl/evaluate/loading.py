"""A suite from a file, a packaged name or a dict, with changes applied; every problem at once, each with file, line and field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import InputError, Problem, UnknownNameError, suggest
from ..files import Path_, Yaml, packaged, read_yaml
from ..methods import schema_of
from ..plugins import find, parse_spec
from ..values import Spec, digest
from ..weights import CATALOGUE
from .schema import NEUTRAL_OPTIONS, ModelEntry, Prices, Seeds, Suite, TaskEntry

STAGE_ENCODERS = ("encoder", "base")
"""Options of selectors that name an encoder: one to search with, one to train from."""


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method of a suite."""

    name: str
    """What the results call it: the user's name for it, else the method's."""
    spec: Spec
    """The method and its settings."""
    position: int
    tasks: tuple[str, ...] | None = None
    """Names of the only tasks that it does; None: all."""

    def does(self, task: str) -> bool:
        """Whether the method is judged on a task."""
        return self.tasks is None or task in self.tasks


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """A suite that passed every check, and where it came from."""

    suite: Suite
    name: str
    folder: Path
    """What its paths are relative to."""
    methods: tuple[MethodEntry, ...]
    metrics: tuple[Spec, ...] | None
    """None: the usual ones of each task's kind."""
    doc: Yaml
    """With the changes applied."""
    source: str
    """As the user named it, for messages and for the command to resume."""
    plugins: tuple[Path, ...] = ()
    templates: tuple[Path, ...] = ()
    """The template folders, in the order of search."""

    def problem(self, message: str, fix: str, *path: str | int) -> Problem:
        """A problem at a place of the suite."""
        return problem_at(self.doc, message, fix, path)

    def template_path(self, name: str) -> str:
        """A template as `Template.load` takes it: a path beside the suite becomes whole, a name stays one."""
        beside = self.folder / name
        return str(beside) if name.endswith(".jinja") and beside.is_file() else name

    def beside(self, name: str) -> str:
        """A model, encoder or folder as its loader takes it: what lies beside the suite becomes a whole path, any other name stays one."""
        path = self.folder / name
        return str(path) if name not in CATALOGUE and path.exists() else name

    def resolved(self, spec: Spec) -> Spec:
        """A method with the paths among its settings made whole."""
        how = {"path": self.beside, "encoder": self.beside, "base": self.beside, "template": self.template_path}
        settings = {k: how[k](v) if k in how and isinstance(v, str) else v for k, v in spec.settings.items()}
        settings |= {option: {inner.name: self.resolved(inner).settings} for option, inner in inner_methods(spec, self.plugins)}
        inside = {"retriever": self._stages, "augment": self._augment}
        settings |= {option: made_whole(settings[option]) for option, made_whole in inside.items() if option in settings}
        return Spec(spec.name, settings)

    def _stages(self, value: Any) -> Any:
        """The stages of a retriever with the encoders that they name made whole."""
        if isinstance(value, list):
            return [self._stages(part) for part in value]
        if not isinstance(value, Mapping):
            return value
        return {k: self.beside(v) if k in STAGE_ENCODERS and isinstance(v, str) else self._stages(v) for k, v in value.items()}

    def _augment(self, value: Any) -> Any:
        """An augmentation with the model and the template of its paraphrases made whole."""
        how = value.get("paraphrase") if isinstance(value, Mapping) else None
        if not isinstance(how, Mapping):
            return value
        whole = {"model": self.beside, "template": self.template_path}
        return {**value, "paraphrase": {k: whole[k](v) if k in whole and isinstance(v, str) else v for k, v in how.items()}}

    def as_dict(self) -> dict[str, Any]:
        """The suite with all defaults written out, as JSON values; rows given in memory are left out (the tasks' digests stand for them)."""
        value = self.suite.model_dump(exclude={"tasks"})
        value["tasks"] = [
            task.model_dump(exclude=set(task.sources())) | {split: source_name(source) for split, source in task.sources().items()}
            for task in self.suite.tasks
        ]
        return value

    @property
    def digest(self) -> str:
        """Of all that could change a result."""
        value = self.as_dict()
        del value["encoder_price"]  # changes no result
        value["tasks"] = [{k: v for k, v in task.items() if k != "label_bias" or v} for task in value["tasks"]]  # as before there was one
        models = [m if isinstance(m, str) else {k: v for k, v in m.items() if k not in NEUTRAL_OPTIONS} for m in value["models"]]
        return digest({**value, "models": models})


def inner_methods(spec: Spec, plugins: Sequence[Path] = ()) -> Iterator[tuple[str, Spec]]:
    """(option, method) of the methods that a method is made of, as a teacher and a student: its file lists such options, with their
    defaults, as `INNER`."""
    inner: Mapping[str, str] = getattr(find("method", spec.name, plugins).load(), "INNER", {})
    yield from ((option, parse_spec(spec.settings.get(option, default), "method")) for option, default in inner.items())


def all_methods(spec: Spec, plugins: Sequence[Path] = ()) -> Iterator[tuple[tuple[str, ...], Spec]]:
    """(where its settings stand below the method's, the method) of a method and of all it is made of."""
    yield (spec.name,), spec
    for option, inner in inner_methods(spec, plugins):
        yield from (((spec.name, option, *path), each) for path, each in all_methods(inner, plugins))


def stage_encoders(retriever: Any) -> Iterator[str]:
    """The encoders that the stages of a retriever name."""
    parts: Iterable[Any] = retriever if isinstance(retriever, list) else ()
    if isinstance(retriever, Mapping):
        yield from (value for key, value in retriever.items() if key in STAGE_ENCODERS and isinstance(value, str))
        parts = retriever.values()
    for part in parts:
        yield from stage_encoders(part)


def source_name(source: Any) -> str:
    """What stands for a source of rows in a manifest."""
    return source if isinstance(source, str) else source.as_posix() if isinstance(source, Path) else f"<{type(source).__name__} in memory>"


def answer_schema(loaded: LoadedSuite, entry: TaskEntry) -> dict[str, Any] | None:
    """The schema of a task's records. Raises InputError for a file that is missing or holds none."""
    schema: dict[str, Any] | None = schema_of(loaded.folder / entry.answer if isinstance(entry.answer, str) else entry.answer)
    return schema


def answer_problems(loaded: LoadedSuite, entry: TaskEntry, n: int) -> Iterator[Problem]:
    """What is wrong with that schema. n: the place of the task."""
    from ..model.constraint import schema_problem

    try:
        schema = answer_schema(loaded, entry)
    except InputError as error:
        for problem in error.problems:
            yield problem if problem.file else loaded.problem(problem.message, problem.fix, "tasks", n, "answer")
        return
    here = any(not model.remote for model in loaded.suite.model_entries)  # what a provider can follow is its own matter
    if schema is not None and here and (wrong := schema_problem(schema)) is not None:
        yield loaded.problem(wrong.message, wrong.fix, "tasks", n, "answer")


def list_suites() -> dict[str, Path]:
    """The packaged suites: name -> file. Those in a folder are named with it, `public/NAME`."""
    root = packaged("eval_suites")
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def read_source(source: str | Path | Mapping[str, Any]) -> tuple[Yaml, str, Path]:
    """(document, name, folder) of a suite. Raises InputError if it cannot be read, UnknownNameError if there is none of that name."""
    if isinstance(source, Mapping):
        return Yaml(dict(source), {(): 0}, None), str(source.get("name", "suite")), Path.cwd()
    path = Path(source)
    if not path.is_file():
        known = list_suites()
        if str(source) in known:
            path = known[str(source)]
        elif path.suffix not in (".yaml", ".yml") and "/" not in str(source):
            raise UnknownNameError("suite file or packaged suite", str(source), known)
    return read_yaml(path, what="suite"), path.stem, path.resolve().parent


def apply_overrides(doc: Yaml, overrides: Mapping[str, Any]) -> Yaml:
    """The document with dotted keys changed: `budgets`, `tasks.0.limit`, `methods.2.few_shot.shots`.

    A place that is not there yet is made inside a mapping (its name is checked with the rest), never inside a list. Raises InputError.
    """
    if not overrides:
        return doc
    value = _copy(doc.value)
    lines = dict(doc.lines)
    problems = []
    for dotted, new in overrides.items():
        path = dotted.split(".")
        place: Any = {"": value}
        key: str | int = ""
        done: list[str | int] = []
        for part in path:
            current = place[key] if not isinstance(place, dict) or key in place else None
            if current is None or current == part:  # an absent mapping, or a component by its bare name, which gets settings
                current = place[key] = {part: {}} if current == part else {}
            if isinstance(current, list) and (not part.isdigit() or int(part) >= len(current)):
                fix = f"'{'.'.join(map(str, done))}' is a list of {len(current)}: count from 0."
                problems.append(Problem(f"there is no entry '{part}'", fix, field=dotted))
                break
            if not isinstance(current, list | dict):
                problems.append(
                    Problem(f"'{'.'.join(map(str, done))}' is {current!r} and has no parts", "Change it as a whole.", field=dotted)
                )
                break
            place, key = current, int(part) if isinstance(current, list) else part
            done.append(key)
        else:
            place[key] = _copy(new)
            lines = {at: line for at, line in lines.items() if at[: len(done)] != tuple(done)} | {tuple(done): 0}
    if problems:
        raise InputError(problems)
    return Yaml(value, lines, doc.file)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def problem_at(doc: Yaml, message: str, fix: str, path: Sequence[str | int]) -> Problem:
    """A problem with file and line. A value changed from the command line has neither (it is marked with line 0)."""
    line = doc.line(tuple(path))
    return Problem(message, fix, doc.file if line else None, line or None, ".".join(map(str, path)) or None)


def parse(doc: Yaml) -> tuple[Suite, list[Problem]]:
    """(the document as a Suite, problems of its form). What is wrong is left out of the suite, so that the rest can be checked too.

    Raises InputError with the problems if nothing usable is left.
    """
    if not isinstance(doc.value, Mapping):
        raise InputError(problem_at(doc, "a suite is a mapping of keys to values", "Start with 'tasks:' and 'methods:'.", ()))
    value = {key: part for key, part in doc.value.items() if not (key == "name" and doc.file is None)}
    try:
        return Suite.model_validate(value), []
    except ValidationError as error:
        problems = _problems(doc, error)
    try:
        return Suite.model_validate(_without(value, problems)), list(problems.values())
    except ValidationError:
        raise InputError(problems.values()) from None


def _without(value: Mapping[str, Any], places: Iterable[Path_]) -> dict[str, Any]:
    """A copy without the keys at (or, for an entry of a list, around) these places."""
    copy: dict[str, Any] = _copy(dict(value))
    for place in places:
        *outer, key = place[: max((n + 1 for n, part in enumerate(place) if isinstance(part, str)), default=0)] or ("",)
        inner: Any = copy
        for part in outer:
            inner = inner[part] if isinstance(part, int) or part in inner else {}
        inner.pop(key, None)
    return copy


_MODELS: Mapping[str, type[BaseModel]] = {"tasks": TaskEntry, "models": ModelEntry, "seeds": Seeds}


def _problems(doc: Yaml, error: ValidationError) -> dict[Path_, Problem]:
    """Place -> its one problem: what pydantic says of each branch of a union is put together."""
    places: dict[Path_, list[Any]] = {}
    for item in error.errors():
        places.setdefault(_place(doc.value, item["loc"], item["type"]), []).append(item)
    problems: dict[Path_, Problem] = {}
    for place, items in places.items():
        if any(other[: len(place)] == place and other != place for other in places):
            continue  # a mapping that one branch took as such: its own problem is further in
        field, first = ".".join(map(str, place)), items[0]
        if first["type"] == "extra_forbidden":
            model = Prices if "prices" in place else _MODELS.get(str(place[0]), Suite) if len(place) > 1 else Suite
            message, fix = f"unknown key '{place[-1]}'", suggest(str(place[-1]), model.model_fields)
        elif first["type"] == "missing":
            message, fix = f"'{field}' is missing", f"Add '{place[-1]}:'."
        else:
            said = dict.fromkeys(item["msg"].removeprefix("Value error, ") for item in items)
            message, fix = ", or ".join(text[0].lower() + text[1:] for text in said), _got(first["input"])
            if place[-1] == "api_key_env":  # what stands there may be the key itself
                message, fix = (
                    "this is not the name of an environment variable",
                    "Export the key as one, such as OPENAI_API_KEY, and name that.",
                )
        problems[place] = problem_at(doc, message, fix, place)
    return problems


def _place(value: Any, loc: Path_, kind: str) -> Path_:
    """The part of pydantic's location that exists in the document; names of union branches are left out."""
    place: list[str | int] = []
    for n, part in enumerate(loc):
        is_key = isinstance(value, Mapping) and part in value
        if is_key or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
        elif not (n == len(loc) - 1 and kind == "missing"):
            continue
        place.append(part)
    return tuple(place)


def _got(value: Any) -> str:
    text = repr(value)
    return f"Got {text if len(text) <= 80 else text[:77] + '…'}."
