"""Before a run's first cell: where its parts are looked for, what cannot be, the reports on its data, and the command that does it again."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ..errors import InputError, Problem
from ..methods import model_of
from .loading import LoadedSuite, all_methods, stage_encoders
from .prepare import Prepared
from .results import REPORT, write_json

Source = str | Path | Mapping[str, Any]
REPORTED_ROWS = 5000
"""Most rows to learn from that are embedded for the data report alone."""


class Places(TypedDict, total=False):
    """Where a suite's parts are looked for, beside the suite itself."""

    templates: str | Path | Sequence[str | Path] | None
    """Folders with templates of your own, searched first."""
    plugins: Sequence[str | Path]
    """Folders with selectors, metrics, … of your own; the Python in them is imported."""
    data_root: str | Path | None
    """Local copies of hub data sets."""
    on: str | None
    """`ray` or `ray://HOST:PORT`: over the machines of that Ray cluster, which must see the same files."""
    cpus: float
    """Of each worker of the cluster; default 1."""
    gpus: float
    """Of each worker of the cluster; default 0."""


def check(loaded: LoadedSuite, places: Places, out: str | Path | None, margin: float, asked: Mapping[str, Any]) -> None:
    """Raises InputError for what a run is asked for and cannot be had. asked: `max_cost`, `retry_failed`, `models`, `schedule`, `until_decided`."""
    check_cost(loaded, asked["max_cost"])
    check_cluster(places, asked)
    if asked["until_decided"]:
        check_until(loaded, margin)
    if asked["retry_failed"] and out is None:
        raise InputError(Problem("there is nothing to try again in a new folder", "Name the run's folder with out (--out).", field="out"))


def check_cost(loaded: LoadedSuite, max_cost: float | None) -> None:
    """Raises InputError for a limit that is none, and for endpoints whose cost could not be told."""
    if max_cost is None:
        return
    problems = (
        [] if max_cost > 0 else [Problem(f"a cost limit of {max_cost} leaves nothing to spend", "Give more than 0.", field="max_cost")]
    )
    for n, entry in enumerate(loaded.suite.model_entries):
        if entry.remote and entry.prices is None:
            fix = "Give prices: {input: …, output: …} per million tokens, or run without --max-cost."
            problems.append(loaded.problem(f"a cost limit needs the prices of '{entry.key}'", fix, "models", n))
    if "://" in loaded.suite.encoder and loaded.suite.encoder_price is None:
        fix = "Give encoder_price: money per million tokens, or run without --max-cost."
        problems.append(loaded.problem("a cost limit needs the price of the encoder", fix, "encoder"))
    for method in loaded.methods:
        if method.spec.name == "saved" and "://" in model_of(loaded.folder / str(method.spec.settings["path"])):
            fix = "Leave the method out, or run without --max-cost."
            message = f"'{method.name}' asks an endpoint of its own, whose cost cannot be limited here"
            problems.append(loaded.problem(message, fix, "methods", method.position))
        if any("://" in _paraphraser(spec.settings) for _, spec in all_methods(method.spec, loaded.plugins)):
            message = f"'{method.name}' has an endpoint paraphrase its rows, whose cost cannot be limited here"
            fix = "Paraphrase by a model on this machine, or run without --max-cost."
            problems.append(loaded.problem(message, fix, "methods", method.position))
        own = {name for _, spec in all_methods(method.spec, loaded.plugins) for name in _encoders(spec.settings) if "://" in name}
        if own - {loaded.suite.encoder}:
            message = f"'{method.name}' has an encoder of its own behind an address, whose cost cannot be limited here"
            fix = "Name it as the suite's encoder, with its encoder_price, or run without --max-cost."
            problems.append(loaded.problem(message, fix, "methods", method.position))
    for n, metric in enumerate(loaded.metrics or ()):
        if "://" in str(metric.settings.get("model", "")):
            fix = "Judge by a model on this machine, or run without --max-cost."
            problems.append(loaded.problem(f"'{metric.name}' asks a judge whose cost cannot be limited here", fix, "metrics", n))
    if problems:
        raise InputError(problems)


def _encoders(settings: Mapping[str, Any]) -> list[str]:
    """The encoders that a method names, for itself or in a stage of its retriever."""
    return [str(settings.get("encoder", "")), *stage_encoders(settings.get("retriever"))]


def _paraphraser(settings: Mapping[str, Any]) -> str:
    """The language model that a method has say its rows in other words; "" for none."""
    augment = settings.get("augment")
    how = augment.get("paraphrase") if isinstance(augment, Mapping) else None
    return str(how.get("model", "")) if isinstance(how, Mapping) else ""


def check_until(loaded: LoadedSuite, margin: float) -> None:
    """Raises InputError for a suite that cannot end as soon as it is settled."""
    suite, problems = loaded.suite, []
    if not (math.isfinite(margin) and margin >= 0):
        problems.append(Problem(f"a margin of {margin} is none", "Give a difference that does not matter, such as 0.01.", field="margin"))
    if suite.crossed:
        message = "where seeds are crossed, nothing tells after a part of the plan whether it is settled"
        problems.append(loaded.problem(message, "Write seeds: 5, or run without --until-decided.", "seeds"))
    elif suite.n_draws < 2:
        message = "one draw of the labels leaves nothing to stop early"
        problems.append(loaded.problem(message, "Write seeds: 5 (or --set seeds=5): at most so many draws.", "seeds"))
    if problems:
        raise InputError(problems)


def whole(suite: Source) -> Source:
    return str(Path(suite).resolve()) if isinstance(suite, str | Path) and Path(suite).is_file() else suite


def shared(places: Places) -> dict[str, Any]:
    """What a worker of a cluster loads the suite with: whole paths, since it starts in another folder."""
    templates, plugins, root = folders_of(places.get("templates")), places.get("plugins", ()), places.get("data_root")
    whole = [[str(Path(folder).resolve()) for folder in folders] for folders in (templates, plugins)]
    return {"templates": tuple(whole[0]), "plugins": tuple(whole[1]), "data_root": str(Path(root).resolve()) if root else None}


def check_cluster(places: Places, others: Mapping[str, Any]) -> None:
    """Raises InputError for what a run over a cluster cannot do."""
    on = places.get("on")
    if not on:
        return
    problems = [Problem("not over a cluster", "Do this on one machine.", field=name) for name, value in others.items() if value]
    if on != "ray" and not on.startswith("ray://"):
        problems.append(Problem(f"'{on}' is no cluster", "Give ray, or ray://HOST:PORT.", field="on"))
    shares = {"cpus": places.get("cpus", 1.0), "gpus": places.get("gpus", 0.0)}
    for name, share in shares.items():
        if not 0 <= share < math.inf:
            problems.append(Problem(f"a worker cannot have {share:g} {name.upper()[:-1]}s", "Give 0 or more.", field=name))
    if not any(shares.values()):  # such a run would wait for its workers without end
        fix = "Give each a share: --cpus 1, or with one GPU each --gpus 1."
        problems.append(Problem("workers without a CPU and without a GPU have no place on a cluster", fix, field="cpus"))
    if problems:
        raise InputError(problems)


def folders_of(given: str | Path | Sequence[str | Path] | None) -> tuple[str | Path, ...]:
    return () if given is None else (given,) if isinstance(given, str | Path) else tuple(given)


def data_reports(prepared: Prepared, folder: Path, *, in_time: bool, limited: bool = False) -> dict[str, list[str]]:
    """The data report of every task, written to data.json. in_time: the run has a time to keep, so no row is embedded for the report alone.
    limited: its cost has a limit, so nothing is paid for the report."""
    from ..data import report

    encoder = prepared.encoders.get(prepared.loaded.suite.encoder)
    reports, lines = {}, {}
    for name, data in prepared.tasks.items():
        # With the whole pool as a label budget every row is embedded anyway; else a report must not cost more than the run, and no money.
        is_free = encoder is None or "://" not in encoder.name
        is_cheap = (is_free and not in_time and len(data.task.train) <= REPORTED_ROWS) or (
            "all" in prepared.loaded.suite.budgets and (is_free or not limited)
        )
        reports[name] = report(data.task, encoder if is_cheap else None)
        lines[name] = reports[name].lines()
        if encoder is not None and not is_cheap:
            why = (
                f"for more than {REPORTED_ROWS:,} rows"
                if is_free and not in_time
                else "in limited time"
                if is_free
                else "with a paid encoder"
            )
            lines[name].append(f"  diversity  not computed {why}; icl validate on the file shows it")
    write_json(folder / REPORT, {name: {"lines": lines[name], **found.as_dict()} for name, found in reports.items()})
    return lines


def command_of(
    loaded: LoadedSuite,
    folder: Path,
    limit: int | None,
    seed: int | None,
    overrides: Mapping[str, Any] | None,
    places: Places,
    until: float | None = None,
    max_cost: float | None = None,
    cache: bool = True,
) -> str:
    """The command line that goes on with a run. until: the margin of one that ends when it is settled."""
    if loaded.doc.file is None:
        return f"icl.run(…, out={str(folder)!r})"
    words = ["icl", "run", loaded.source, "--out", str(folder)]
    words += ["--limit", str(limit)] if limit is not None else []
    words += ["--seed", str(seed)] if seed is not None else []
    for key, value in (overrides or {}).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    words += ["--until-decided", "--margin", f"{until:g}"] if until is not None else []
    words += ["--max-cost", f"{max_cost:g}"] if max_cost is not None else []
    words += [] if cache else ["--no-cache"]
    if on := places.get("on"):
        words += ["--on", on, "--cpus", f"{places.get('cpus', 1.0):g}", "--gpus", f"{places.get('gpus', 0.0):g}"]
    data_root = places.get("data_root")
    named = (
        ("--templates", folders_of(places.get("templates"))),
        ("--plugins", places.get("plugins", ())),
        ("--data-root", [data_root] if data_root else []),
    )
    words += [word for option, folders in named for each in folders for word in (option, str(each))]
    return shlex.join(words)
