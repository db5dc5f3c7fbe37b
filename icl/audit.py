"""`icl.compare`: two methods on the same items. `icl.leave_out`: what each stage of a method gains, by leaving it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from .errors import InputError, Problem, UnknownNameError
from .evaluate.before import Places, Source, command_of, folders_of
from .evaluate.check import load_suite
from .evaluate.compare import Contender, StoredRun
from .evaluate.compare import compare as compare_runs
from .evaluate.loading import MethodEntry
from .evaluate.store import STORE
from .plugins import Context, build, find, parse_spec
from .report import comparison_table
from .suite import Run
from .suite import run as run_suite

STAND_IN = "random"
"""What finds demonstrations where no stage is left that does."""
NAME_LENGTH = 80


@dataclass(frozen=True)
class Comparison:
    """Pairs of methods compared on the same items."""

    records: Sequence[Mapping[str, Any]]
    """See `icl.evaluate.compare.compare`."""
    run: Run | None = None
    """Of `leave_out`: the run that was made."""

    def table(self, *, per_seed: bool = False) -> str:
        """The comparisons as plain text. per_seed: also under each seed."""
        text = comparison_table(self.records, per_seed=per_seed)
        return text if self.run is None else f"a - b: what the method gains by the stage that b is without\n\n{text}"


def compare(
    run: Run | str | Path,
    *what: Run | str | Path,
    model: str | None = None,
    metrics: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
) -> Comparison:
    """Compare methods on the same items: `compare(run, "a", "b")`, `compare(run1, run2)`, `compare(run1, run2, "a", "b")`.

    run, what: one or two runs (or their folders), then methods. In one run the first method is compared with each of the others, with all
    others if it stands alone; of two runs every method that both have, the one named, or the first one's `a` with the second one's `b`.
    model, metrics: these only; by default all. plugins: folders with metrics of your own.
    Raises InputError for unknown names, and for runs that are not judged on the same items.
    """
    runs, names = [_folder(run)], list(what)
    if (names and not isinstance(names[0], str)) or (names and (Path(str(names[0])) / STORE).is_file()):
        runs.append(_folder(names.pop(0)))
    methods = [str(name) for name in names]
    stored = [StoredRun.open(folder) for folder in runs]
    pairs = _within(stored[0], methods) if len(stored) == 1 else _between(stored[0], stored[1], methods)
    return Comparison(compare_runs(pairs, model=model, metrics=metrics, plugins=tuple(Path(p) for p in plugins)))


def _folder(run: Run | str | Path) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)


def _within(run: StoredRun, methods: Sequence[str]) -> list[tuple[Contender, Contender]]:
    if not methods:
        message = f"no method is named; this run has {', '.join(run.methods)}"
        raise InputError(Problem(message, "Name two to compare, or one to compare with all others.", str(run.folder)))
    for name in methods:
        if name not in run.methods:
            raise UnknownNameError("method in this run", name, run.methods, file=str(run.folder))
    others = methods[1:] or [name for name in run.methods if name != methods[0]]
    if not others or methods[0] in others:
        raise InputError(Problem("a method cannot be compared with itself", "Name another one.", str(run.folder)))
    return [(Contender(run, methods[0]), Contender(run, other)) for other in others]


def _between(first: StoredRun, second: StoredRun, methods: Sequence[str]) -> list[tuple[Contender, Contender]]:
    if len(methods) > 2:
        raise InputError(Problem(f"{len(methods)} methods of two runs", "Name one method of each run at most.", str(first.folder)))
    if methods:
        return [(Contender(first, methods[0]), Contender(second, methods[-1]))]
    both = [name for name in first.methods if name in second.methods]
    if not both:
        message = f"the two runs have no method in common: {', '.join(first.methods)} and {', '.join(second.methods)}"
        raise InputError(Problem(message, "Name one of each.", str(first.folder)))
    return [(Contender(first, name), Contender(second, name)) for name in both]


def leave_out(
    suite: Source,
    method: str,
    out: str | Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    cache: bool = True,
    max_cost: float | None = None,
    **places: Unpack[Places],
) -> Comparison:
    """What each stage of a suite's method gains: the method beside itself without the stage, compared on the same items.

    Left out in turn: each stage of the retriever (where nothing that finds demonstrations is left, `random` takes its place), the order
    (the default, similar_last, takes its place), the read-out (`sum`) and the calibration. The other arguments are those of `icl.run`;
    the run is kept and goes on like any other, and what the variants have in common is scored once (`cache`).
    The records compare the whole method (a) with each variant (b), so a positive difference is what the stage gains.
    Raises InputError where the method has nothing to leave out.
    """
    loaded = load_suite(suite, overrides=overrides, templates=folders_of(places.get("templates")), plugins=places.get("plugins", ()))
    entry = next((entry for entry in loaded.methods if entry.name == method), None)
    if entry is None:
        raise UnknownNameError("method in this suite", method, [e.name for e in loaded.methods], file=loaded.source)
    variants = without_each(entry, loaded.plugins)
    if not variants:
        fix = "Choose one with several retriever stages, an order, or a calibration."
        raise InputError(loaded.problem(f"'{method}' has nothing that could be left out", fix, "methods", entry.position))
    changes = {**(overrides or {}), "methods": [_written(entry, entry.name, entry.spec.settings), *variants], "thresholds": {}}
    done = run_suite(suite, out, limit, seed, changes, cache=cache, max_cost=max_cost, **places)
    again = command_of(loaded, done.folder, limit, seed, overrides, places, max_cost=max_cost, cache=cache).replace(
        "icl run", "icl compare", 1
    )
    done = replace(
        done,
        command=f"{again} --leave-out {method}" if loaded.doc.file is not None else f"icl.leave_out(…, {method!r}, {str(done.folder)!r})",
    )
    stored = StoredRun.open(done.folder)
    names = [variant["name"] for variant in variants if variant["name"] in stored.methods]
    pairs = [(Contender(stored, method), Contender(stored, name)) for name in names] if method in stored.methods else []
    return Comparison(compare_runs(pairs, plugins=loaded.plugins), done)


def without_each(entry: MethodEntry, plugins: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """The method without each of its stages, as entries of a suite named `METHOD.without-STAGE`."""
    settings = dict(entry.spec.settings)
    options = find("method", entry.spec.name, plugins).load().Settings.model_fields
    found: list[tuple[str, dict[str, Any]]] = []
    if "retriever" in options:
        written = settings.get("retriever", options["retriever"].default)
        stages = list(written) if isinstance(written, list) else [written]
        for at, stage in enumerate(stages):
            rest = stages[:at] + stages[at + 1 :]
            if all(_is_filter(other, plugins) for other in rest):
                rest.insert(at, STAND_IN)
            if rest != stages:
                found.append((parse_spec(stage, "selector").name, {**settings, "retriever": rest}))
    for option in ("order", "readout", "calibration"):
        if option == "readout" and settings.get(option) == "channel":  # its template has no other
            continue
        if option in options and settings.get(option, options[option].default) not in (options[option].default, None):
            found.append((option, {key: value for key, value in settings.items() if key != option}))
    names = [what for what, _ in found]
    return [_written(entry, _name(entry.name, names, at), changed) for at, (_, changed) in enumerate(found)]


def _name(method: str, whats: Sequence[str], at: int) -> str:
    """Stages of one name are told apart by their number."""
    number = f"-{whats[: at + 1].count(whats[at])}" if whats.count(whats[at]) > 1 else ""
    ending = f".without-{whats[at]}{number}"
    return method[: NAME_LENGTH - len(ending)] + ending


def _written(entry: MethodEntry, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A method as a suite writes it."""
    tasks = {} if entry.tasks is None else {"tasks": list(entry.tasks)}
    return {"name": name, entry.spec.name: dict(settings), **tasks}


def _is_filter(stage: Any, plugins: Sequence[Path]) -> bool:
    """Whether a stage only takes rows out, so that it cannot stand alone."""
    from .retrieve import Filter

    try:
        return isinstance(build("selector", stage, Context(folders=tuple(plugins)), plugins), Filter)
    except Exception:  # it needs a model or a pool, so it is no filter
        return False
