"""Files in and out: strict YAML with line numbers, safe names and paths, writes that are whole or absent, checksums."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import InputError, Problem, suggest

MAX_YAML_BYTES = 8 << 20
MAX_YAML_DEPTH = 40
MAX_YAML_NODES = 200_000
"""Nodes after aliases are expanded: an alias bomb ends here instead of in memory."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")
Path_ = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Yaml:
    """A parsed YAML document: plain Python values, and the line each came from."""

    value: Any
    lines: Mapping[Path_, int]
    """Path of keys and positions -> line, counted from 1."""
    file: str | None = None

    def line(self, path: Path_) -> int | None:
        """Line of the nearest enclosing node that has one."""
        for n in range(len(path), -1, -1):
            if path[:n] in self.lines:
                return self.lines[path[:n]]
        return None


def read_text(path: Path | str, *, what: str = "file") -> str:
    """The file's text. Raises InputError naming the file, and the line and byte where UTF-8 breaks."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(Problem(f"the {what} does not exist", neighbours(path), str(path))) from None
    except OSError as error:
        raise InputError(Problem(f"the {what} cannot be read: {error.strerror}", "Give the path of a readable file.", str(path))) from None
    return decode(raw, path)


def decode(raw: bytes, path: Path | str) -> str:
    """UTF-8 text of `raw`, a leading byte-order mark removed. Raises InputError naming line and byte."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise InputError(
            Problem(f"byte 0x{byte:02x} is not UTF-8", "Save the file as UTF-8 (for example: iconv -f latin1 -t utf-8).", str(path), line)
        ) from None


def neighbours(path: Path) -> str:
    """What to do about a file that is not there: which one of its kind in its folder may be meant."""
    folder = path.parent
    if not folder.is_dir():
        return f"The folder '{folder}' does not exist either."
    near = sorted(p.name for p in folder.iterdir() if p.suffix == path.suffix)[:20]
    return suggest(path.name, near) if near else f"Check the path: there is no {path.suffix or 'such'} file in its folder."


def load_yaml(text: str, file: str | None = None, *, first_line: int = 1) -> Yaml:
    """Parse one strict YAML document.

    Departures from YAML 1.1: only `true`, `false`, `null` and plain decimal numbers are not strings, so `no`, `012`, `12:30` and
    `2024-01-01` stay what they look like; a duplicate key is an error; tags are refused; depth and alias expansion are limited.
    first_line: the file's line number of the text's first line. Raises InputError with file and line.
    """
    offset = first_line - 1
    if len(text) > MAX_YAML_BYTES:
        raise InputError(
            Problem(
                f"the YAML is {len(text):,} characters long; at most {MAX_YAML_BYTES:,} are read",
                "Keep data in data files, not in YAML.",
                file,
            )
        )
    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 + offset if mark else None
        raise InputError(
            Problem(f"not valid YAML: {error.problem or error.context}", "Check indentation, quotes and colons there.", file, line)
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise InputError(
            Problem(f"not valid YAML: {message}", "Check the file for stray control characters and deep nesting.", file)
        ) from None
    lines: dict[Path_, int] = {}
    budget = [MAX_YAML_NODES]

    def fail(node: yaml.Node, message: str, fix: str) -> InputError:
        return InputError(Problem(message, fix, file, node.start_mark.line + 1 + offset))

    def build(node: yaml.Node, path: Path_) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise fail(node, "the YAML grows too large when its aliases are expanded", "Write the values out, or use fewer aliases.")
        if len(path) > MAX_YAML_DEPTH:
            raise fail(node, f"nested more than {MAX_YAML_DEPTH} deep", "Flatten the structure.")
        lines[path] = node.start_mark.line + 1 + offset
        if isinstance(node, yaml.ScalarNode):
            if node.tag not in _PLAIN_TAGS:
                raise fail(node, f"the tag '{node.tag}' is not allowed", "Remove the tag; nothing is executed from YAML.")
            return node.value if node.style else _scalar(node.value)
        if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise fail(node, f"the tag '{node.tag}' is not allowed", "Remove the tag; nothing is executed from YAML.")
        if isinstance(node, yaml.SequenceNode):
            return [build(child, (*path, i)) for i, child in enumerate(node.value)]
        result: dict[Any, Any] = {}
        for key_node, child in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise fail(key_node, "a key must be a plain word", "Put braces and Jinja expressions in quotes.")
            key = key_node.value
            if key in result:
                raise fail(key_node, f"the key '{key}' stands here twice", "Remove one of the two.")
            result[key] = build(child, (*path, key))
            lines[(*path, key)] = key_node.start_mark.line + 1 + offset
        return result

    return Yaml(build(node, ()) if node is not None else None, lines, file)


_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and any(c in text for c in ".eE") and text not in (".", "-.", "+."):
        return float(text)
    return text


def read_yaml(path: Path | str, *, what: str = "file") -> Yaml:
    """`load_yaml` of a file."""
    return load_yaml(read_text(path, what=what), str(path))


def validate_model(model: type[M], doc: Yaml, *, value: Any = None, path: Path_ = ()) -> M:
    """Check `value` (default: the whole document) against a pydantic model.

    path: where `value` stands in the document, for line numbers. Raises InputError with every problem, each with file, line,
    field, and for an unknown key the nearest known one.
    """
    value = doc.value if value is None else value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError(_problem(model, doc, path, item) for item in error.errors()) from None


def _problem(model: type[BaseModel], doc: Yaml, path: Path_, item: Any) -> Problem:
    loc: Path_ = path + tuple(part for part in item["loc"])
    field = ".".join(str(part) for part in loc)
    line = doc.line(loc)
    if item["type"] == "extra_forbidden":
        return Problem(f"unknown key '{loc[-1]}'", suggest(str(loc[-1]), _known_fields(model, item["loc"][:-1])), doc.file, line, field)
    if item["type"] == "missing":
        return Problem("is missing", f"Add '{loc[-1]}:'.", doc.file, line, field)
    return Problem(item["msg"][0].lower() + item["msg"][1:], f"Got {_short(item.get('input'))}.", doc.file, line, field)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _known_fields(model: type[BaseModel], loc: Path_) -> list[str]:
    current: type[BaseModel] | None = model
    for part in loc:
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue
        current = _model_in(current.model_fields[part].annotation)
    if current is None:
        return []
    return [info.alias or name for name, info in current.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in getattr(annotation, "__args__", ()) if (found := _model_in(arg))), None)


def safe_name(text: str) -> str:
    """A file name for any text: itself if it is one already, else a slug with a digest, so that two never meet."""
    if NAME.fullmatch(text) and text.strip(".") and not text.startswith("-"):
        return text
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:60] or "x"
    return f"{slug}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


def inside(root: Path, name: str | Path) -> Path:
    """`root / name`, resolved. Raises InputError if it, or what a link leads to, lies outside `root`."""
    if "\0" in str(name):
        raise InputError(Problem("a path cannot contain a NUL character", "Use a plain file name.", repr(str(name))))
    base = root.resolve()
    path = (base / name).resolve()
    if path != base and base not in path.parents:
        raise InputError(Problem(f"leads outside the folder '{root}'", "Use a path inside it, without links or '..'.", str(name)))
    return path


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well it is fsynced and renamed over `path`, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; what we write is as shareable as any other file
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def replace_folder(staging: Path, folder: Path) -> None:
    """Put a finished folder, made with `tempfile.mkdtemp` beside it, in the place of another one, which may be there and goes."""
    umask = os.umask(0)
    os.umask(umask)
    staging.chmod(0o777 & ~umask)
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        folder.rename(old / "old")
        staging.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(folder)
    fsync(folder.parent)


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path | str) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged(name: str) -> Path:
    """The folder `templates` or `eval_suites` that icl ships: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).resolve().parent
    inside_wheel = here / "_packaged" / name
    return inside_wheel if inside_wheel.is_dir() else here.parent / name


def cache_folder() -> Path:
    """Where weights and embeddings are kept: `ICL_HOME`, else the platform's cache folder + `icl`."""
    if home := os.environ.get("ICL_HOME"):
        return Path(home).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "icl"
    if os.uname().sysname == "Darwin":
        return Path.home() / "Library" / "Caches" / "icl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "icl"
