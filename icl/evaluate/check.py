"""Everything that can be known to be wrong with a suite before any data is loaded: names, settings, kinds, files, columns, thresholds.

Nothing here imports torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem, suggest
from ..files import NAME, Yaml
from ..methods import readout_problems, refuse_without_labels
from ..plugins import Plugin, available, find, lacks, parse_spec, settings_of
from ..values import Kind, Spec
from .check_models import model_problems
from .loading import LoadedSuite, MethodEntry, all_methods, answer_problems, apply_overrides, parse, problem_at, read_source
from .schema import DEFAULT_METRICS, TaskEntry

TABLES = (".csv", ".tsv")


def load_suite(
    source: str | Path | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    templates: Sequence[str | Path] = (),
    plugins: Sequence[str | Path] = (),
) -> LoadedSuite:
    """Read and check a suite: a path, the name of a packaged suite, or a dict.

    overrides: dotted keys and their new values. templates, plugins: folders searched first. Raises InputError with every problem found,
    each with file, line, field and what to do.
    """
    from ..prompt import template_folders

    raw, name, folder = read_source(source)
    doc = apply_overrides(raw, overrides or {})
    suite, problems = parse(doc)
    checker = _Checker(doc, folder, tuple(Path(p) for p in plugins))
    methods = checker.methods(suite.methods, [task.name for task in suite.tasks])
    metrics = checker.metrics(suite.metrics)
    folders = template_folders(tuple(Path(p) for p in templates), beside=folder)
    label = str(source) if not isinstance(source, Mapping) else name
    loaded = LoadedSuite(suite, name, folder, methods, metrics, doc, label, checker.plugins, tuple(folders))
    problems += [*checker.problems, *model_problems(loaded), *_tasks(loaded), *_references(loaded), *_metric_fields(loaded)]
    problems += [*_metric_samples(loaded), *_thresholds(loaded)]
    if problems:
        raise InputError(sorted(dict.fromkeys(problems), key=lambda p: (p.file != doc.file, p.line or 0)))
    return loaded


class _Checker:
    """Collects the problems of components by name."""

    def __init__(self, doc: Yaml, folder: Path, plugins: tuple[Path, ...]) -> None:
        self.doc, self.folder, self.plugins = doc, folder, plugins
        self.problems: list[Problem] = []
        for plugin_folder in plugins:
            if not plugin_folder.is_dir():
                self.problems.append(
                    Problem("there is no such folder", "Give a folder with Python files.", str(plugin_folder), field="plugins")
                )

    def spec(self, kind: str, value: Any, *path: str | int) -> Spec | None:
        """A component that exists and whose settings are right; None if there is a problem, which is noted."""
        try:
            spec = parse_spec(value, kind)
            settings_of(find(kind, spec.name, self.plugins), spec.settings, spec.name)
        except InputError as error:
            at = (*path, *value) if isinstance(value, Mapping) and len(value) == 1 else path
            for problem in error.problems:
                inner = (problem.field or "").split(".")[1:] if problem.field else []
                self.problems.append(
                    problem_at(self.doc, problem.message, problem.fix, (*at, *(int(p) if p.isdigit() else p for p in inner)))
                )
            return None
        return spec

    def methods(self, values: Sequence[Any], tasks: Sequence[str]) -> tuple[MethodEntry, ...]:
        entries: list[MethodEntry] = []
        for n, value in enumerate(values):
            own: Any = None
            only: tuple[str, ...] | None = None
            if isinstance(value, Mapping) and len(value) > 1:
                own = value.get("name")
                only = self.only(value["tasks"], tasks, n) if "tasks" in value else None
                value = {key: part for key, part in value.items() if key not in ("name", "tasks")}
            spec = self.spec("method", value, "methods", n)
            if spec is None:
                if isinstance(value, Mapping) and len(value) == 1 and isinstance(settings := next(iter(value.values())), Mapping):
                    inner = Spec(str(next(iter(value))), settings)
                    self.options(inner, ("methods", n, inner.name))  # what is named inside it may be wrong too
                continue
            name = spec.name if own is None else own
            if not isinstance(name, str) or not NAME.fullmatch(name):
                fix = "Use letters, digits, '.', '_' and '-', at most 80."
                self.problems.append(problem_at(self.doc, f"{name!r} cannot be a method's name", fix, ("methods", n, "name")))
            elif any(entry.name == name for entry in entries):
                fix = f"Give each a name of its own: {{name: {name}-2, {spec.name}: …}}."
                self.problems.append(problem_at(self.doc, f"two methods are called '{name}'", fix, ("methods", n)))
            else:
                self.options(spec, ("methods", n, spec.name))
                entries.append(MethodEntry(name, spec, n, only))
        return tuple(entries)

    def only(self, names: Any, tasks: Sequence[str], n: int) -> tuple[str, ...]:
        """The tasks that a method is limited to, none if it is left out; those that the suite lacks are noted."""
        path = ("methods", n, "tasks")
        if not isinstance(names, list):
            fix = "Leave it out for all tasks; an empty list leaves the method out."
            self.problems.append(problem_at(self.doc, f"'tasks' is a list of task names, got {names!r}", fix, path))
            return ()
        for name in names:
            if name not in tasks:
                self.problems.append(problem_at(self.doc, f"there is no task '{name}' in this suite", suggest(str(name), tasks), path))
        return tuple(str(name) for name in names)

    def options(self, spec: Spec, path: tuple[str | int, ...]) -> None:
        """Check the components that a method's settings name. path: where they stand."""
        settings = spec.settings
        known = available("method", self.plugins)
        for option in getattr(known[spec.name].load(), "INNER", ()) if spec.name in known else ():
            if option in settings and (found := self.spec("method", settings[option], *path, option)) is not None:
                self.options(found, (*path, option, found.name))
        for stage, value in _stages(settings.get("retriever")):
            self.spec("selector", value, *path, "retriever", *stage)
        for option in ("order", "calibration"):
            if isinstance(settings.get(option), str | Mapping):
                self.spec(option, settings[option], *path, option)
        if spec.name == "zero_shot":
            try:
                refuse_without_labels(settings.get("calibration"), self.plugins)
            except InputError as error:
                self.problems += [problem_at(self.doc, p.message, p.fix, (*path, "calibration")) for p in error.problems]
        if (readout := settings.get("readout")) is not None:
            readouts = [readout] if isinstance(readout, str) else readout if isinstance(readout, list) else []
            self.problems += [problem_at(self.doc, p.message, p.fix, (*path, "readout")) for p in readout_problems(readouts)]
        if spec.name == "saved" and isinstance(settings.get("path"), str):
            folder = self.folder / settings["path"]
            if not folder.is_dir():
                self.problems.append(
                    problem_at(self.doc, f"there is no folder '{settings['path']}'", f"Looked for {folder}.", (*path, "path"))
                )

    def metrics(self, values: Sequence[Any] | None) -> tuple[Spec, ...] | None:
        if values is None:
            return None
        specs: list[Spec] = []
        for n, value in enumerate(values):
            spec = self.spec("metric", value, "metrics", n)
            if spec is not None and any(s.name == spec.name for s in specs):
                self.problems.append(problem_at(self.doc, f"the metric '{spec.name}' stands here twice", "Remove one.", ("metrics", n)))
            elif spec is not None:
                specs.append(spec)
                self.problems += [problem_at(self.doc, p.message, p.fix, ("metrics", n)) for p in lacks("metric", spec.name, self.plugins)]
        return tuple(specs)


def _stages(retriever: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(retriever, list):
        yield from (((n,), stage) for n, stage in enumerate(retriever))
    elif isinstance(retriever, str | Mapping):
        yield (), retriever


def kind_of(task: TaskEntry) -> Kind | None:
    """The task's kind where the suite alone tells it; a column of lists in a JSONL or Parquet file may still make it `answer`."""
    if task.kind is not None:
        return task.kind
    if task.choices is not None:
        return "choose"
    if task.references is not None:
        return "answer"
    if task.labels is not None or (isinstance(task.train, str) and task.train.endswith(TABLES)):
        return "classify"
    return None


def metrics_for(loaded: LoadedSuite, kind: Kind) -> tuple[Spec, ...]:
    """The metrics that judge a task of this kind, in the suite's order."""
    if loaded.metrics is None:
        return tuple(Spec(name) for name in DEFAULT_METRICS[kind])
    return tuple(spec for spec in loaded.metrics if kind in kinds_of("metric", spec.name, loaded.plugins))


def kinds_of(component: str, name: str, plugins: Sequence[Path]) -> frozenset[Kind]:
    """The task kinds that a method or metric declares; all three if it declares none."""
    kinds: frozenset[Kind] = getattr(find(component, name, plugins).load(), "KINDS", frozenset(("classify", "choose", "answer")))
    return kinds


def kind_problems(loaded: LoadedSuite, task: TaskEntry, kind: Kind) -> list[Problem]:
    """Methods that cannot do a task of this kind, and a task that no metric judges."""
    problems = []
    for entry in loaded.methods:
        if not entry.does(task.name):
            continue
        can = kinds_of("method", entry.spec.name, loaded.plugins)
        if kind not in can:
            fix = f"It does {', '.join(sorted(can))}. Take the method out, or put the task into a suite of its own."
            message = f"the method '{entry.name}' cannot do task '{task.name}', which is of kind '{kind}'"
            problems.append(loaded.problem(message, fix, "methods", entry.position))
    if loaded.metrics and len(loaded.metrics) == len(loaded.suite.metrics or ()) and not metrics_for(loaded, kind):
        fix = f"Add one of: {', '.join(DEFAULT_METRICS[kind])}."
        problems.append(loaded.problem(f"no metric here judges task '{task.name}', which is of kind '{kind}'", fix, "metrics"))
    return problems


def _tasks(loaded: LoadedSuite) -> Iterator[Problem]:
    names: list[str] = []
    for n, task in enumerate(loaded.suite.tasks):
        if task.name in names:
            yield loaded.problem(f"two tasks are called '{task.name}'", "Give each a name of its own.", "tasks", n, "name")
        names.append(task.name)
        if (kind := kind_of(task)) is not None:
            yield from kind_problems(loaded, task, kind)
        for split, source in task.sources().items():
            yield from _source(loaded, task, source, "tasks", n, split)
        yield from answer_problems(loaded, task, n)
        yield from template_problems(loaded, task, n)


def _source(loaded: LoadedSuite, task: TaskEntry, source: Any, *path: str | int) -> Iterator[Problem]:
    """A missing file, one that cannot be read from its start, and columns that a table lacks."""
    from ..data import read_rows

    if not isinstance(source, str | Path):
        if loaded.doc.file is not None:
            yield loaded.problem("a data file is named by its path", "Write a path relative to the suite, or hf:NAME.", *path)
        return
    if str(source).startswith("hf:"):
        return
    file = loaded.folder / source
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else [], n=1)
        fix = f"Did you mean '{near[0]}'? " if near else ""
        yield loaded.problem(f"there is no file '{source}'", f"{fix}Looked for {file}; paths are relative to the suite.", *path)
        return
    if file.suffix.lower() not in TABLES:
        return
    try:
        columns = list(next(iter(read_rows(file)), (0, {}))[1])
    except InputError as error:
        yield from error.problems
        return
    for field, column in _columns(task, str(path[-1])):
        if columns and column not in columns and column not in task.derive:
            yield loaded.problem(f"'{source}' has no column '{column}'", suggest(column, columns), *path[:-1], field)


def _columns(task: TaskEntry, split: str) -> Iterator[tuple[str, str]]:
    """(key of the task, column it names) for every column that a split must have."""
    inputs = [task.input] if isinstance(task.input, str) else task.input.values() if isinstance(task.input, Mapping) else task.input
    yield from (("input", column) for column in inputs)
    if split != "unlabelled" and task.references is None:
        yield "label", task.label


def template_problems(loaded: LoadedSuite, task: TaskEntry, n: int) -> Iterator[Problem]:
    """The task's template, and those that methods name instead: each must exist, parse, and fit the task's fields and labels."""
    uses: list[tuple[str, tuple[str | int, ...]]] = [(task.template, ("tasks", n, "template"))]
    for entry in loaded.methods:
        for at, spec in all_methods(entry.spec, loaded.plugins):
            if isinstance(own := spec.settings.get("template"), str) and entry.does(task.name):
                uses.append((own, ("methods", entry.position, *at, "template")))
    for name, path in uses:
        yield from _template(loaded, task, name, path)
    yield from _channels(loaded, task, n)


def _channels(loaded: LoadedSuite, task: TaskEntry, n: int) -> Iterator[Problem]:
    """Methods whose read-out and template do not go together: a channel needs a template of its own."""
    from ..prompt import Template
    from ..prompt.bind import channel_problems

    for entry in loaded.methods:
        if entry.spec.name not in ("few_shot", "zero_shot") or not entry.does(task.name):
            continue
        readout = entry.spec.settings.get("readout", "sum")
        name = entry.spec.settings.get("template") or task.template
        try:
            template = Template.load(loaded.template_path(name), loaded.templates)
        except InputError:  # said already
            continue
        for problem in channel_problems(template, "channel" in ([readout] if isinstance(readout, str) else readout)):
            yield loaded.problem(f"{problem.message} ({template.file})", problem.fix, "methods", entry.position, entry.spec.name, "readout")


def _template(loaded: LoadedSuite, task: TaskEntry, name: str, path: Sequence[str | int]) -> Iterator[Problem]:
    from ..prompt import Template, bind

    kind = kind_of(task)
    labels = tuple(task.labels or ())
    try:
        template = Template.load(loaded.template_path(name), loaded.templates)
        if kind is not None and (labels or kind != "classify"):
            bind(template, kind=kind, inputs=task.fields, labels=labels if kind == "classify" else (), words=task.words)
    except InputError as error:
        for problem in error.problems:
            if problem.file is None:
                yield loaded.problem(problem.message, problem.fix, *path)
            else:
                yield problem


def _references(loaded: LoadedSuite) -> Iterator[Problem]:
    """Metrics that judge no task at all, where every task's kind is known."""
    kinds = {kind_of(task) for task in loaded.suite.tasks}
    if None in kinds or loaded.metrics is None:
        return
    for n, value in enumerate(loaded.suite.metrics or ()):
        spec = parse_spec(value, "metric")
        if any(s.name == spec.name for s in loaded.metrics) and not kinds & kinds_of("metric", spec.name, loaded.plugins):
            yield loaded.problem(f"the metric '{spec.name}' judges no task of this suite", "Take it out.", "metrics", n)


def _sound_metrics(loaded: LoadedSuite) -> Iterator[tuple[int, Spec, Plugin]]:
    """The metrics of the suite, by their position; those that have a problem of their own, which comes first, are left out."""
    for n, value in enumerate(loaded.suite.metrics or ()):
        spec = parse_spec(value, "metric")
        if any(s.name == spec.name for s in loaded.metrics or ()):
            yield n, spec, find("metric", spec.name, loaded.plugins)


def _metric_fields(loaded: LoadedSuite) -> Iterator[Problem]:
    """Metrics that read an input field which no task has: they would score nothing, which is seen when all the work is done."""
    known = {field for task in loaded.suite.tasks for field in task.fields}
    for n, spec, found in _sound_metrics(loaded):
        reads = getattr(found.load(), "fields_of", None)
        for field in reads(settings_of(found, spec.settings, spec.name)) if reads is not None else ():
            if field not in known:
                fix = f"{suggest(field, known)} A metric reads input fields: name it in the 'input' of the task too."
                yield loaded.problem(f"'{spec.name}' reads the field '{field}', which no task has", fix, "metrics", n)


def _metric_samples(loaded: LoadedSuite) -> Iterator[Problem]:
    """Metrics that need more samples of an item than any method of the suite writes: they would score nothing, which is seen at the end."""
    if len(loaded.methods) < len(loaded.suite.methods):
        return  # the methods' own problems come first
    for n, spec, found in _sound_metrics(loaded):
        option = getattr(found.load(), "SAMPLES", None)
        if option is None:
            continue
        needed = getattr(settings_of(found, spec.settings, spec.name), option)
        kinds = kinds_of("metric", spec.name, loaded.plugins)
        judged = {task.name for task in loaded.suite.tasks if kind_of(task) in (None, *kinds)}
        counts = {entry.name: _samples(loaded, entry) for entry in loaded.methods if any(entry.does(task) for task in judged)}
        known = {name: count for name, count in counts.items() if count is not None}
        if counts.keys() != known.keys() or needed <= max(known.values(), default=needed):
            continue
        most = max(known, key=lambda name: known[name])
        message = f"'{spec.name}' with {option}: {needed} needs {needed} samples of an item, and the most that a method here writes is "
        fix = f"Set samples: {needed} in the methods that it shall judge, or {option}: {known[most]}."
        yield loaded.problem(f"{message}{known[most]} ('{most}')", fix, "metrics", n)


def _samples(loaded: LoadedSuite, entry: MethodEntry) -> int | None:
    """Texts that a method writes for an item; None where only its own code or its saved folder tells."""
    found = find("method", entry.spec.name, loaded.plugins)
    given = getattr(settings_of(found, entry.spec.settings, entry.spec.name), "samples", None)
    if isinstance(given, int):
        return given
    return 1 if found.origin == "icl" and entry.spec.name != "saved" else None


def _thresholds(loaded: LoadedSuite) -> Iterator[Problem]:
    methods = [entry.name for entry in loaded.methods]
    if len(methods) < len(loaded.suite.methods):
        return  # the methods' own problems come first
    known = {s.name for s in loaded.metrics} if loaded.metrics is not None else {m for names in DEFAULT_METRICS.values() for m in names}
    for method, limits in loaded.suite.thresholds.items():
        if method not in methods:
            yield loaded.problem(f"there is no method '{method}' in this suite", suggest(method, methods), "thresholds", method)
        for metric in limits:
            if metric not in known:
                yield loaded.problem(f"the metric '{metric}' is not computed here", suggest(metric, known), "thresholds", method, metric)
