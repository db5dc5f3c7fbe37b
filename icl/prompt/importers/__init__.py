"""Others' tasks and templates as ours: a suite and a template for each, and for what cannot be taken the reason. No code of theirs is run.

lm_eval.py         task files of EleutherAI's lm-evaluation-harness
promptsource.py    templates of BigScience's promptsource
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError, Problem
from ...files import MAX_YAML_NODES, write_text

__all__ = ["Imported", "Refused", "load", "own_name", "reasons", "write"]

WRONG_KIND = "a key of it has a value of another kind"
"""Why a task is refused whose file holds, say, a list where a number belongs."""


@dataclass(frozen=True)
class Imported:
    """A task that could be taken."""

    name: str
    suite: dict[str, Any]
    template: str
    """The text of the template that the suite names, `NAME.jinja`."""
    source: str
    notes: tuple[str, ...] = ()
    """What is not quite the same here."""


@dataclass(frozen=True)
class Refused:
    """A task that could not be taken."""

    name: str
    reason: str
    """The same words for every such task."""
    source: str = ""
    detail: str = field(default="", compare=False)


def reasons(refused: Sequence[Refused]) -> dict[str, int]:
    """Reason -> for how many tasks, the most frequent first."""
    return dict(Counter(each.reason for each in refused).most_common())


def load(text: str, loader: type[yaml.SafeLoader]) -> Any:
    """What a YAML file of others holds. Raises YAMLError; also for aliases that grow without end, and for a date or number that is none."""
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_YAML_NODES:
            raise yaml.YAMLError("it grows too large when its aliases are expanded")
        return reader.construct_document(node)
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(str(error)) from None
    finally:
        reader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are once all aliases are expanded. One that holds itself never ends."""
    at = id(node)
    if at not in known:
        known[at] = MAX_YAML_NODES + 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[at] = 1 + (sum(_size(part, known) for part in parts) if isinstance(node, yaml.CollectionNode) else 0)
    return known[at]


def own_name(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if another task has it (files of some systems differ by more than case). `taken` gets it."""
    found, n = name, 1
    while found.casefold() in taken:
        n += 1
        found = f"{name}-{n}"
    taken.add(found.casefold())
    return found


def write(imported: Sequence[Imported], to: Path) -> list[Path]:
    """The suites, `to/NAME.yaml`, and their templates, `to/templates/NAME.jinja`. Raises InputError if a file is there already."""
    taken = [path for each in imported for path in (to / f"{each.name}.yaml", to / "templates" / f"{each.name}.jinja") if path.exists()]
    if taken:
        raise InputError([Problem("this is there already", "Write into another folder, or remove it.", str(path)) for path in taken[:20]])
    paths = []
    (to / "templates").mkdir(parents=True, exist_ok=True)
    for each in imported:
        notes = "".join(f"# {note}\n" for note in each.notes)
        text = yaml.safe_dump(each.suite, sort_keys=False, allow_unicode=True, width=150)
        write_text(to / f"{each.name}.yaml", f"# from {each.source}\n{notes}{text}")
        write_text(to / "templates" / f"{each.name}.jinja", each.template)
        paths.append(to / f"{each.name}.yaml")
    return paths


def template_text(front: dict[str, Any], example: str, answer: str, instruction: str | None = None) -> str:
    """A template's file. Every block is given as Jinja."""
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=150)
    first = f"{{% block instruction %}}{instruction}{{% endblock %}}\n" if instruction else ""
    return f"---\n{head}---\n{first}{{% block example %}}{example}{{% endblock %}}\n{{% block answer %}}{answer}{{% endblock %}}\n"


def literal(text: str) -> str:
    """Text that Jinja writes as it is."""
    return "{% raw %}" + text + "{% endraw %}" if any(mark in text for mark in ("{{", "{%", "{#")) else text
