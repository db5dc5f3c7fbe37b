"""`icl ls`: what is there, by name. Every name listed can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import plugins as components
from ..errors import UnknownNameError
from .options import AsJson, Plugins, Templates
from .output import columns, say, say_json

PACKAGED, OWN, HIDES = "packaged", "own", "own, hides a packaged one"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing."""

    name: str
    origin: str
    description: str
    path: str | None = None


def ls(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="templates, suites, methods, selectors, orders, calibrations, metrics or models; all of them if left out.",
        ),
    ] = None,
    templates: Templates = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List what is there, and where it comes from.

    Every name listed can be used.
    """
    kinds = LISTINGS if kind is None else {kind: LISTINGS[kind]} if kind in LISTINGS else None
    if kinds is None:
        raise UnknownNameError("kind of thing to list", str(kind), LISTINGS)
    found = {name: listing(templates or (), plugins or ()) for name, listing in kinds.items()}
    if as_json:
        say_json(
            {name: [_record(entry) for entry in entries] for name, entries in found.items()}
            if kind is None
            else [_record(e) for e in found[kind]]
        )
        return
    for name, entries in found.items():
        if kind is None:
            say(f"{name}:")
        for line in columns([(e.name, e.origin, e.description) for e in entries], "  " if kind is None else ""):
            say(line)


def _record(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "origin": entry.origin, "description": entry.description, "path": entry.path}


def _templates(templates: Sequence[Path], _: Sequence[Path]) -> list[Entry]:
    from ..files import packaged
    from ..prompt import list_templates, template_folders

    ours = packaged("templates").resolve()
    entries = []
    for name, info in list_templates(template_folders(templates)).items():
        own = info.path is not None and info.path.resolve().parent != ours
        origin = f"{HIDES if info.hides else OWN} ({info.path.parent})" if own and info.path else PACKAGED
        entries.append(Entry(name, origin, info.description, str(info.path) if info.path else None))
    return entries


def _suites(_: Sequence[Path], __: Sequence[Path]) -> list[Entry]:
    """The packaged suites by name; of the current folder and its `eval_suites/`, the files by path."""
    from ..evaluate import list_suites

    ours = list_suites()
    known = {path.resolve() for path in ours.values()}
    own = [path for pattern in ("*.yaml", "eval_suites/**/*.yaml") for path in sorted(Path().glob(pattern)) if path.resolve() not in known]
    found = [(str(path), OWN, path, _suite_head(path)) for path in own] + [
        (name, PACKAGED, path, _suite_head(path)) for name, path in ours.items()
    ]
    return [Entry(name, origin, head, str(path)) for name, origin, path, head in found if head is not None]


def _suite_head(path: Path) -> str | None:
    """The description of a suite; None for a YAML file that is something else."""
    from ..errors import InputError
    from ..files import read_yaml

    try:
        value = read_yaml(path, what="suite").value
    except InputError as error:
        return f"(cannot be read: {error.problems[0].message})"
    if not isinstance(value, dict) or not {"tasks", "methods"} & value.keys():
        return None
    return str(value.get("description", ""))


def _models(_: Sequence[Path], __: Sequence[Path]) -> list[Entry]:
    from ..weights import CATALOGUE, is_cached

    return [
        Entry(w.name, PACKAGED, f"{w.description}; {'cached' if is_cached(w.name) else 'fetched on first use'}") for w in CATALOGUE.values()
    ]


def _components(kind: str) -> Callable[[Sequence[Path], Sequence[Path]], list[Entry]]:
    def listing(_: Sequence[Path], folders: Sequence[Path]) -> list[Entry]:
        package = Path(components.__file__).parent.joinpath(*components.PACKAGES[kind].split(".")[1:])
        entries = []
        for name, plugin in sorted(components.available(kind, folders).items()):
            hides = (package / f"{name}.py").is_file()
            origin = PACKAGED if plugin.origin == "icl" else f"{HIDES if hides else OWN} ({plugin.origin})"
            entries.append(Entry(name, origin, plugin.description, str(plugin.path) if plugin.path else None))
        return entries

    return listing


LISTINGS: dict[str, Callable[[Sequence[Path], Sequence[Path]], list[Entry]]] = {
    "templates": _templates,
    "suites": _suites,
    **{f"{kind}s": _components(kind) for kind in ("method", "selector", "order", "calibration", "metric")},
    "models": _models,
}
"""Listing -> (template folders, plug-in folders) -> its entries."""
