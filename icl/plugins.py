"""Components found by dropping a file into a folder.

A component is a Python file whose name is its name. It offers

    Settings     a pydantic model (extra="forbid") of its options; may be left out if there are none
    build(settings, context) -> …    what it returns depends on the kind; see `SHAPES`

and the first line of its docstring is what `icl ls` shows. Nothing is imported to list names. Besides the package's own folders,
entry points (`icl.selectors`, `icl.metrics`, …) and folders given with `--plugins FOLDER` are searched: FOLDER/selectors/NAME.py or
FOLDER/NAME.py with a line `KIND = "selector"`. Python in a folder is imported only when the user names that folder.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError, MissingExtraError, Problem, UnknownNameError, suggest
from .values import Example, Spec, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
PACKAGES: Mapping[str, str] = {
    "selector": "icl.retrieve.selectors",
    "order": "icl.retrieve.orders",
    "calibration": "icl.readout.calibrations",
    "metric": "icl.evaluate.metrics",
    "method": "icl.methods",
}
SHAPES: Mapping[str, str] = {
    "selector": "(queries, k, candidates: list[list[Hit]] | None) -> list[list[Hit]]",
    "order": "(query, hits best first) -> hits in prompt order",
    "calibration": "object with fit(scores[n, L]) -> state and apply(state, scores) -> log-probabilities",
    "metric": "(predictions, examples) -> float[n], and an optional aggregate",
    "method": "object with fit(pool, labels, unlabelled) -> predictor",
}


ScoreMany: TypeAlias = Callable[[Sequence[tuple[Example, Sequence[Example]]]], "list[NDArray[np.float64] | None]"]
"""Pairs (query, demonstrations in prompt order) -> per pair the log-scores of the labels (choose: of the query's choices), read out as
the method does but not calibrated, float64 (n_labels,); None for what cannot be scored."""
TrainEncoder: TypeAlias = Callable[[Sequence[Example], Any, ScoreMany, Path], bool]
"""(rows, settings of the selector `epr`, what scores, a folder that is not there yet) -> True if a sentence encoder now lies there, trained
on these scores; False if there were none."""


@dataclass
class Learned:
    """What components have asked the language model once for a pool. A predictor saves it, so that nothing is asked or trained again.

    Keys come from `learned_key`: what was learned of one pool is not taken for another.
    """

    values: dict[str, Any] = field(default_factory=dict)
    """Plain JSON data."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Folders of files that nobody changes."""

    def once(self, key: str, ask: Callable[[], T]) -> T:
        """The value of that key, asked for if it is not known yet."""
        if key not in self.values:
            self.values[key] = ask()
        value: T = self.values[key]
        return value

    def folder(self, key: str, fill: Callable[[Path], bool]) -> Path | None:
        """The folder of that key. If it is not known yet, `fill` writes one, which goes when this object does; None if it said False."""
        if key not in self.folders:
            temporary = Path(tempfile.mkdtemp(prefix="icl-"))
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            if not fill(temporary / key):
                return None
            self.folders[key] = temporary / key
        return self.folders[key]


def learned_key(name: str, settings: BaseModel, context: Context, pool: Sequence[Example]) -> str:
    """A file name for what a component learns of a pool: the same for the same settings, seed, labels and labelled rows."""
    rows = [[row.uid, row.target] for row in pool]
    return f"{name}-{digest([settings.model_dump(mode='json'), context.seed, list(context.labels), rows])}"


@dataclass(frozen=True, slots=True)
class Asking:
    """The language model as a predictor hands it to its retriever and order."""

    score_many: ScoreMany
    learned: Learned = field(default_factory=Learned)
    train_encoder: TrainEncoder | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a selector, order, calibration or metric may use."""

    pool: Sequence[Example] = ()
    index: Any = None
    """The DemoIndex over the pool; built on first use."""
    labels: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    """Names of the input fields."""
    seed: int = 0
    count_tokens: Callable[[str], int] | None = None
    score: Callable[..., Any] | None = None
    """(query, demonstrations) -> LabelScores; given to files that declare `NEEDS_MODEL = True`."""
    score_many: ScoreMany | None = None
    """As `score` for many pairs in one call, which shares the beginnings that prompts have in common, and read out per label."""
    learned: Learned = field(default_factory=Learned)
    """Where to keep what was asked once for the pool."""
    train_encoder: TrainEncoder | None = None
    """Trains a sentence encoder on the model's scores; given by methods, together with `score_many`."""
    folders: tuple[Path, ...] = ()
    """Where the user's own components lie, for those that name others."""


class NoSettings(BaseModel):
    """Settings of a component that has none."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where a component comes from. Listing does not import it."""

    kind: str
    name: str
    description: str
    module: str | None = None
    path: Path | None = None
    origin: str = "icl"
    """`icl`, the distribution of an entry point, or the folder it was dropped into."""

    def load(self) -> ModuleType:
        """Import the file."""
        if self.module:
            return importlib.import_module(self.module)
        assert self.path is not None
        return _import_file(self.path, self.kind)


@cache
def _import_file(path: Path, kind: str) -> ModuleType:
    name = f"icl_plugin_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(
            Problem(
                f"the {kind} cannot be imported: {type(error).__name__}: {error}", "Mend the file, or take it out of the folder.", str(path)
            )
        ) from error
    return module


def _head(path: Path) -> tuple[str, str | None]:
    """(first docstring line, KIND) of a Python file, without importing it."""
    stat = path.stat()
    return _head_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _head_of(path: Path, mtime_ns: int, size: int) -> tuple[str, str | None]:
    """A suite asks for dozens of components, and each answer looks through all files: a file is parsed again only if it changed."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return "(does not parse)", None
    kind = None
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and any(isinstance(t, ast.Name) and t.id == "KIND" for t in node.targets)
        ):
            kind = str(node.value.value)
    doc = (ast.get_docstring(tree) or "").strip()
    return (doc.splitlines() or [""])[0], kind


@cache
def _entries(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of the installed packages, which do not change while a process runs; finding them takes 20 ms."""
    return tuple(entry_points(group=group))


def available(kind: str, folders: Sequence[Path] = ()) -> dict[str, Plugin]:
    """All components of a kind by name. A user's own wins over the packaged one of the same name."""
    package = PACKAGES[kind]
    here = Path(__file__).resolve().parent.parent.joinpath(*package.split("."))
    found: dict[str, Plugin] = {}
    for path in sorted(here.glob("*.py")):
        if not path.stem.startswith("_"):
            found[path.stem] = Plugin(kind, path.stem, _head(path)[0], module=f"{package}.{path.stem}")
    for entry in _entries(f"icl.{kind}s"):
        found[entry.name] = Plugin(kind, entry.name, "", module=entry.value, origin=entry.dist.name if entry.dist else "entry point")
    for folder in folders:
        for path in [*sorted(folder.glob("*.py")), *sorted((folder / f"{kind}s").glob("*.py"))]:
            if path.stem.startswith("_"):
                continue
            description, declared = _head(path)
            if path.parent.name == f"{kind}s" or declared == kind:
                found[path.stem] = Plugin(kind, path.stem, description, path=path, origin=str(folder))
    return found


def parse_spec(value: Any, kind: str, where: str | None = None) -> Spec:
    """`"knn"` or `{"knn": {"n": 64}}` as a Spec. Raises InputError for anything else."""
    if isinstance(value, Spec):
        return value
    if isinstance(value, str):
        return Spec(value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, settings),) = value.items()
        if settings is None:
            settings = {}
        if isinstance(settings, Mapping):
            return Spec(str(name), dict(settings))
    raise InputError(
        Problem(
            f"a {kind} is a name or a mapping from one name to its settings, got {value!r}",
            "Write for example 'knn' or {knn: {n: 64}}.",
            field=where,
        )
    )


def find(kind: str, name: str, folders: Sequence[Path] = (), where: str | None = None) -> Plugin:
    """The component of that name. Raises UnknownNameError with the known names."""
    known = available(kind, folders)
    if name not in known:
        raise UnknownNameError(kind, name, known, field=where)
    return known[name]


def lacks(kind: str, name: str, folders: Sequence[Path] = ()) -> tuple[Problem, ...]:
    """The package that a component needs (`PACKAGE`, of the extra `EXTRA`) and that is not installed. Nothing of it is imported."""
    module = find(kind, name, folders).load()
    package = getattr(module, "PACKAGE", None)
    if package is None or importlib.util.find_spec(package) is not None:
        return ()
    return MissingExtraError(package, getattr(module, "EXTRA", package), f"the {kind} '{name}'").problems


def settings_of(plugin: Plugin, settings: Mapping[str, Any], where: str | None = None) -> BaseModel:
    """Check the settings of a component. Raises InputError with all problems and the options it has."""
    model: type[BaseModel] = getattr(plugin.load(), "Settings", NoSettings)
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        found = [_problem(plugin, model, settings, item, where) for item in joined(model, error.errors())]
        raise InputError([problem for problem in found if problem is not None]) from None


def joined(model: type[BaseModel], items: Sequence[Any]) -> list[dict[str, Any]]:
    """What pydantic says, with one complaint about an option that may be one of several plain forms, of each of which it says that it is not:
    what is wrong inside the form that was meant, or what it may be."""
    found: list[dict[str, Any]] = []
    forms: dict[str, list[Any]] = {}
    for item in items:
        option = str(item["loc"][0]) if item["loc"] else ""
        annotation = model.model_fields[option].annotation if option in model.model_fields else None
        plain = [form for form in get_args(annotation) if form is not NoneType] if get_origin(annotation) in (Union, UnionType) else []
        if len(plain) < 2 or _models_in(annotation) or len(item["loc"]) < 2:
            found.append(item)
        else:
            forms.setdefault(option, []).append(item)
    for option, each in forms.items():
        if inside := [{**item, "loc": (option, *item["loc"][2:])} for item in each if len(item["loc"]) > 2]:
            found += inside
        else:
            first, *others = (str(item["msg"]).partition(", unable")[0] for item in each)
            message = ", or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
            found.append({**each[0], "loc": (option,), "msg": message})
    return found


def _problem(
    plugin: Plugin, model: type[BaseModel], settings: Mapping[str, Any], item: Mapping[str, Any], where: str | None
) -> Problem | None:
    """What pydantic says, in the user's words. An option that may be a plain value or a mapping has a complaint of each form: None for
    the form that was not meant."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:  # what no single option is to blame for
        return Problem(f"{plugin.kind} '{plugin.name}': {message}", f"Got {dict(settings)!r}.", field=where)
    option, *inner = item["loc"]
    owner: type[BaseModel] = model
    forms = _models_in(model.model_fields[option].annotation) if option in model.model_fields else []
    if forms and inner:
        form = next((each for each in forms if each.__name__ in str(inner[0])), None)
        if isinstance(settings[option], Mapping) != (form is not None):
            return None
        owner, inner = form or owner, inner[1:]
    else:
        owner = _owner(model, item["loc"])
    parts = [str(part) for part in (option, *inner)]
    path = ".".join([where or f"{plugin.kind} {plugin.name}", *parts])
    last, what = str(item["loc"][-1]), f"the {plugin.kind} '{plugin.name}'" if owner is model else f"'{parts[-2] if inner else option}'"
    if item["type"] == "missing":
        known = owner.model_fields.get(last)
        return Problem(f"{what} needs the option '{last}'", (known.description if known else None) or "Give it.", field=path)
    if item["type"] != "extra_forbidden":
        return Problem(message, f"Got {item.get('input')!r}.", field=path)
    return Problem(f"{what} has no option '{last}'", suggest(last, owner.model_fields), field=path)


def _owner(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """The settings that the last name of a path belongs to, as far as options along it have settings of their own."""
    for name in path[:-1]:
        annotation = model.model_fields[str(name)].annotation if name in model.model_fields else None
        inner = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type) and issubclass(each, BaseModel)]
        if len(inner) != 1:
            break
        model = inner[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings that an option may be, among other forms; none if it has but one form."""
    return [each for each in get_args(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]


def needs_model(spec: Spec, folders: Sequence[Path] = ()) -> bool:
    """Whether a method uses the suite's language model: `NEEDS_MODEL` of its file, or where that depends on the settings, what its
    `needs_model(settings, folders)` says of them. They are as they stand in the suite, and may not be checked yet."""
    module = find("method", spec.name, folders).load()
    asked = getattr(module, "needs_model", None)
    return bool(getattr(module, "NEEDS_MODEL", False) if asked is None else asked(spec.settings, folders))


def build(kind: str, value: Any, context: Any, folders: Sequence[Path] = (), where: str | None = None) -> Any:
    """Find, check and build a component from a name or a mapping."""
    spec = parse_spec(value, kind, where)
    plugin = find(kind, spec.name, folders, where)
    return plugin.load().build(settings_of(plugin, spec.settings, where), context)
