"""Where templates lie. A file dropped into one of the folders is there at the next look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import NAME, inside, packaged, read_text
from .frontmatter import split

DEFAULT = "Used when no template is given; captions are the field names"
"""Description of the `default` template."""


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """A template as `icl ls` shows it."""

    name: str
    path: Path | None
    """None for `default`, which is written for each task."""
    description: str
    kind: str
    """`any` for `default`; `?` if the file cannot be read."""
    hides: bool = False
    """True if a packaged template of the same name is hidden by it."""


def template_folders(extra: Iterable[Path | str] = (), beside: Path | str | None = None) -> tuple[Path, ...]:
    """Folders in the order they are searched.

    extra: `--templates` / `templates=`. beside: a suite file or its folder; that folder and its `templates/` are searched next.
    Then `./templates`, then the packaged ones.
    """
    found = [Path(folder) for folder in extra]
    if beside is not None:
        folder = Path(beside)
        folder = folder.parent if folder.is_file() else folder
        found += [folder, folder / "templates"]
    found += [Path("templates"), packaged("templates")]
    return tuple(dict.fromkeys(found))


def list_templates(folders: Sequence[Path]) -> dict[str, TemplateInfo]:
    """All templates by name, first folder first. Links that lead out of their folder are left out; broken files are listed as such."""
    ours = packaged("templates").resolve()
    found: dict[str, TemplateInfo] = {}
    shipped: set[str] = set()
    for folder in folders:
        for path in sorted(folder.glob("*.jinja")) if folder.is_dir() else ():
            name = path.name.removesuffix(".jinja")
            if folder.resolve() == ours:
                shipped.add(name)
            if name not in found and NAME.fullmatch(name) and name.strip(".") and _within(folder, path):
                found[name] = TemplateInfo(name, path, *_head(path))
    found.setdefault("default", TemplateInfo("default", None, DEFAULT, "any"))
    shipped.add("default")
    return {
        name: TemplateInfo(name, info.path, info.description, info.kind, _hides(info, name in shipped, ours))
        for name, info in sorted(found.items())
    }


def _hides(info: TemplateInfo, is_shipped: bool, ours: Path) -> bool:
    return is_shipped and info.path is not None and info.path.resolve().parent != ours


def _within(folder: Path, path: Path) -> bool:
    try:
        return inside(folder, path.name).is_file()
    except InputError:
        return False


def _head(path: Path) -> tuple[str, str]:
    """(description, kind), without compiling the blocks."""
    try:
        front = split(read_text(path), str(path))[0]
    except InputError as error:
        return f"(cannot be read: {error.problems[0].message})", "?"
    return front.description, front.kind
