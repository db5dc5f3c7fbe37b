"""A template: one file that says how an example, its answer and the instruction are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from keyword import iskeyword
from pathlib import Path
from typing import Literal

from ..errors import InputError, Problem, UnknownNameError, suggest
from ..files import NAME, inside, read_text
from ..values import Kind, digest
from .blocks import Block, compile_blocks
from .folder import DEFAULT, list_templates, template_folders
from .frontmatter import FrontMatter, split

MAX_SOURCE = 64 << 10
"""Characters of a template file."""
VARIABLES: Mapping[Kind, frozenset[str]] = {
    "classify": frozenset({"labels"}),
    "choose": frozenset({"choices", "letters"}),
    "answer": frozenset(),
}
"""What a template sees besides the input fields. `fields` holds the input fields too, for names that are no Jinja names."""
RESERVED = frozenset({"labels", "choices", "letters", "answer", "rationale", "fields", "loop", "self", "caller", "varargs", "kwargs"})

TAKEN = frozenset({"true", "false", "none", "show", "range", "dict", "namespace"})
"""Names that mean something else in the default template."""


@dataclass(frozen=True, eq=False)
class Template:
    """A parsed template. Make one with `load`, `parse` or `default`."""

    name: str
    description: str
    kind: Kind
    inputs: tuple[str, ...]
    """Input fields it needs: `input` of the front matter, else the names its blocks use."""
    words: Mapping[str, tuple[str, ...]] | None
    """Label -> words; None: every label stands for itself."""
    choices: Literal["letter", "text"] | None
    separator: str
    stop: tuple[str, ...]
    format: Literal["auto", "plain", "chat"]
    channel: bool
    """The answer comes first, and the example behind it is what is scored."""
    premise: str | None
    """The domain premise; None: what the template writes between the last input and the answer."""
    end: bool
    extract: str | None
    slots: tuple[str, ...]
    """Input fields whose values stand in answers as `{field}`."""
    digest: str
    """Changes with any character of the source."""
    source: str = field(repr=False)
    path: Path | None
    generic: bool = False
    """True for `default` before its task is known; `bind` fills in kind and inputs."""
    split_labels: bool = False
    """True for `default`: a label's word is the label with `_`, `-` and camelCase split."""
    declared: bool = True
    """True if the front matter lists the inputs."""
    blocks: Mapping[str, Block] = field(default_factory=dict, repr=False)
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Front-matter key -> line."""

    @property
    def has_rationale(self) -> bool:
        """True if demonstrations show how their answer was found."""
        return "rationale" in self.blocks

    @property
    def file(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path else f"template '{self.name}'"

    @classmethod
    def load(cls, name_or_path: str | Path, folders: Sequence[Path] = ()) -> Template:
        """The template of that name, or in that file (anything with a slash or that ends in `.jinja`).

        folders: searched before `./templates` and the packaged ones. The file is read at every call, so it is never stale.
        Raises UnknownNameError with the known names, InputError with every problem of the file.
        """
        text = str(name_or_path)
        if isinstance(name_or_path, Path) or text.endswith(".jinja") or any(c in text for c in "/\\\0:"):
            path = _file(text)
        else:
            found = _named(text, template_folders(extra=folders))
            if found is None:
                return replace(_default(("text",), "classify"), generic=True)
            path = found
        if path.stat().st_size > 4 * MAX_SOURCE:
            raise InputError(Problem(f"a template has at most {MAX_SOURCE:,} characters", "Keep data in data files.", str(path)))
        return cls.parse(read_text(path, what="template"), path.name.removesuffix(".jinja"), path)

    @classmethod
    def parse(cls, source: str, name: str, file: Path | str | None = None) -> Template:
        """A template from its text. Raises InputError with every problem, each with its line."""
        return _parsed(source, name, str(file) if file is not None else None)

    @classmethod
    def default(cls, inputs: Sequence[str], kind: Kind, *, channel: bool = False) -> Template:
        """The template used when none is given: `Text: …`, then `Label: …`, with the field names as captions; in a channel the other
        way round."""
        return _default(tuple(inputs), kind, channel)


def _named(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of the first template of that name; None for `default` where no file has it."""
    if NAME.fullmatch(name) and name.strip("."):
        for folder in folders:
            if folder.is_dir() and (path := inside(folder, f"{name}.jinja")).is_file():
                return folder / path.name if path.parent == folder.resolve() else path
    if name == "default":
        return None
    raise UnknownNameError("template", name, list_templates(folders))


def _file(text: str) -> Path:
    """The template file of that path. Raises InputError if it is none, or a link that leads out of its folder."""
    if "\0" in text or not text.endswith(".jinja"):
        fix = "Give the name of a template, or the path of a file that ends in '.jinja'."
        raise InputError(Problem(f"{text!r} is no template", fix))
    path = Path(text)
    inside(path.parent, path.name)
    if not path.is_file():
        folder = path.parent
        near = suggest(path.name, [p.name for p in folder.glob("*.jinja")][:20]) if folder.is_dir() else "The folder does not exist either."
        raise InputError(Problem("the template does not exist", near, text))
    return path


@lru_cache(maxsize=256)
def _parsed(source: str, name: str, file: str | None) -> Template:
    where = file or f"template '{name}'"
    if not NAME.fullmatch(name) or not name.strip("."):
        raise InputError(Problem(f"{name!r} is no name for a template", "Use letters, digits, '-', '_' and '.'.", file))
    if len(source) > MAX_SOURCE:
        raise InputError(Problem(f"a template has at most {MAX_SOURCE:,} characters, this has {len(source):,}", "Shorten it.", where))
    try:
        source.encode()
    except UnicodeEncodeError as error:
        line = source.count("\n", 0, error.start) + 1
        raise InputError(Problem("half a surrogate pair is no character", "Save the file as UTF-8.", where, line)) from None
    front, doc, body, first_line = split(source, where)
    blocks = compile_blocks(body, where, first_line)
    problems = [
        Problem("the answer block does not show the answer", "Write {{ answer }} in it.", where, blocks["answer"].line, "block answer")
    ]
    if "answer" in blocks["answer"].names:
        problems = []
    for key in ("instruction", "example"):
        if key in blocks:
            problems += [
                Problem(
                    f"the {key} block shows the {name}, which only a solved example has",
                    f"Move {{{{ {name} }}}} to the {name} block.",
                    where,
                    blocks[key].lines.get(name),
                    f"block {key}",
                )
                for name in ("answer", "rationale")
                if name in blocks[key].names and name not in (front.input or ())
            ]
    if front.channel and "rationale" in blocks:
        message = "in a channel there is no place for a rationale: the answer comes first"
        problems.append(Problem(message, "Remove the block.", where, blocks["rationale"].line, "block rationale"))
    if problems:
        raise InputError(problems)
    lines = {str(p[0]): n for p, n in doc.lines.items() if len(p) == 1}
    return _template(front, name, source, Path(file) if file else None, blocks, lines)


def _template(
    front: FrontMatter, name: str, source: str, path: Path | None, blocks: Mapping[str, Block], lines: Mapping[str, int]
) -> Template:
    if front.input is not None:
        inputs = tuple(dict.fromkeys(front.input))
    else:
        inputs = tuple(sorted(set().union(*(b.names - b.optional for b in blocks.values())) - RESERVED))
    stop = tuple(front.stop) if front.stop is not None else (front.separator,) if front.separator else ()
    return Template(
        name=name,
        description=front.description,
        kind=front.kind,
        inputs=inputs,
        words=front.words,
        choices=front.choices,
        separator=front.separator,
        stop=stop,
        format=front.format,
        channel=front.channel,
        premise=front.premise,
        end=front.end,
        extract=front.extract,
        slots=tuple(dict.fromkeys(front.slots)),
        digest=digest(source),
        source=source,
        path=path,
        declared=front.input is not None,
        blocks=blocks,
        lines=lines,
    )


CAPTIONS: Mapping[Kind, str] = {"classify": "Label", "choose": "Answer", "answer": "Answer"}
# A conversation is written turn by turn below its caption; everything else stands beside it.
SHOW = """{% macro show(value) %}{% if value is string or value is number %} {{ value }}{% else %}{% for turn in value %}
{{ turn.role }}: {{ turn.text }}{% endfor %}{% endif %}{% endmacro %}
"""


@lru_cache(maxsize=64)
def _default(inputs: tuple[str, ...], kind: Kind, channel: bool = False) -> Template:
    rows = [f"{_literal(caption(name))}:{{{{ show({_reference(name)}) }}}}\n" for name in inputs]
    if kind == "choose" and not channel:
        rows.append("{% for choice in choices %}{{ letters[loop.index0] }}. {{ choice }}\n{% endfor %}")
    keys = [
        f"description: {DEFAULT}",
        f"kind: {kind}",
        f"input: {_quoted(list(inputs))}",
        *([f"choices: {'text' if channel else 'letter'}"] if kind == "choose" else []),
        *(["channel: true"] if channel else []),
    ]
    example = f"{{% block example %}}{''.join(rows)}{CAPTIONS[kind]}:{{% endblock %}}"
    answer = "{% block answer %} {{ answer }}{% endblock %}"
    if channel:
        example = f"{{% block example %}}\n{''.join(rows)[:-1]}{{% endblock %}}"
        answer = f"{{% block answer %}}{CAPTIONS[kind]}: {{{{ answer }}}}{{% endblock %}}"
    source = "\n".join(["---", *keys, "---", SHOW + example, answer, ""])
    return replace(_parsed(source, "default", None), split_labels=True)


def caption(name: str) -> str:
    """A field name as a caption: `review_body` -> `Review body`."""
    text = name.replace("_", " ").strip() or name
    return text[:1].upper() + text[1:]


def _literal(text: str) -> str:
    """Text that Jinja writes as it is."""
    return "{{ " + _quoted(text) + " }}" if re.search(r"[{}#%]", text) else text


def _quoted(text: str | list[str]) -> str:
    return json.dumps(text, ensure_ascii=False)


def _reference(name: str) -> str:
    """How a template names a field. Columns of other people's files are not always words."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) and not iskeyword(name) and name not in RESERVED | TAKEN
    return name if plain else f"fields[{_quoted(name)}]"


def split_label(label: str) -> str:
    """A label as words: `card_arrival` -> `card arrival`, `sciTech` -> `sci Tech`; numbers and codes such as `-1` and `4-5` stay."""
    text = re.sub(r"(?<=[^\W_])[_-]+(?=[^\W\d_])|(?<=[^\W\d_])[_-]+(?=[^\W_])", " ", label)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
