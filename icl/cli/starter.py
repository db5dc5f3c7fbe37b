"""The suite and the template that `icl init` writes for somebody's own file."""

from __future__ import annotations

import json
import os
import re
from keyword import iskeyword
from pathlib import Path

from ..prompt.template import RESERVED
from .guess import Guess

MIN_TEST, MAX_TEST, SHARE_TEST = 50, 500, 0.3
"""How `Task.load` holds rows out for testing when there is no test file."""
MAX_LISTED_LABELS = 20
"""Up to so many labels the instruction names them all; more would fill the prompt."""
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./ -]*")
_NOT_STRINGS = {"true", "false", "null"}


def file_name(file: Path) -> str:
    """A name for suite, template and task, from the data file's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", file.stem).strip("._-")[:60] or "task"


def template_text(guess: Guess, file: Path) -> str:
    """A template that asks for the guessed column, in the words of its name."""
    fields = _fields(guess)
    head = [f"description: {quoted(f'{guess.label} of a row of {file.name}')}"]
    if guess.kind != "classify":
        head.append(f"kind: {guess.kind}")
    head.append(f"input: [{', '.join(fields)}]")
    if guess.kind == "choose":
        head.append("choices: letter")
    if guess.kind == "classify":
        head += ["labels:   # label -> the words that the model reads and is scored on; change them to what fits your language"]
        head += [f"  {quoted(label)}: {quoted(in_words(label))}" for label in guess.values]
    body = [f"{caption(field)}: {{{{ {field} }}}}" for field in fields]
    asked = "Answer" if guess.kind != "classify" else caption(guess.label)
    if guess.kind == "choose":
        body.append("{% for choice in choices %}{{ letters[loop.index0] }}. {{ choice }}")
        body.append("{% endfor %}Answer:")
    else:
        body.append(f"{asked}:")
    blocks = [f"{{% block instruction %}}{_instruction(guess)}{{% endblock %}}"]
    blocks += [f"{{% block example %}}{chr(10).join(body)}{{% endblock %}}", "{% block answer %} {{ answer }}{% endblock %}"]
    return "\n".join(["---", *head, "---", *blocks]) + "\n"


def suite_text(guess: Guess, file: Path, folder: Path, name: str) -> str:
    """A suite that runs as it is: cheap rivals beside prompts, with label budgets that suit the number of rows."""
    fields = _fields(guess)
    shown = fields[0] if fields == guess.inputs and len(fields) == 1 else None
    if shown is None:
        pairs = [f"{field}: {quoted(column)}" for field, column in zip(fields, guess.inputs, strict=True)]
        shown = f"[{', '.join(fields)}]" if fields == guess.inputs else f"{{{', '.join(pairs)}}}"
    keys = [
        f"name: {name}",
        f"train: {quoted(os.path.relpath(file, folder))}",
        f"input: {shown}",
        f"{'references' if guess.kind == 'answer' else 'label'}: {quoted(guess.label)}",
        *([f"choices: {quoted(guess.choices)}"] if guess.choices else []),
        f"template: {name}",
    ]
    lines = [
        f"description: {quoted(f'{guess.label} of a row of {file.name}')}",
        "models: [smollm2]",
        "tasks:",
        f"  - {keys[0]}",
        *(f"    {key}" for key in keys[1:]),
        "    # test: a file of its own; without one, rows are held out",
        "methods:",
        *(f"  - {line}" for line in _methods(guess)),
        f"budgets: [{', '.join(str(b) for b in budgets(guess))}]   # labelled examples owned, the same for every method",
        "seeds: 1",
    ]
    return "\n".join(lines) + "\n"


def budgets(guess: Guess) -> list[int | str]:
    """Powers of four from at least one example a label to what is left after holding out, then all."""
    n_train = guess.n_rows - min(max(round(SHARE_TEST * guess.n_rows), min(MIN_TEST, guess.n_rows // 2)), MAX_TEST)
    least = max(8, len(guess.values) if guess.kind == "classify" else 0)
    fitting = [b for b in (16, 64, 256, 1024) if least <= b <= n_train // 2]
    return [*fitting[:2], "all"]


def _methods(guess: Guess) -> list[str]:
    shots = 8 if guess.mean_words <= 150 else 4  # long texts: a prompt of eight would take minutes each on two cores
    rivals = {"classify": ["majority", "knn_vote", "embedding_head"], "choose": ["majority"], "answer": ["majority", "nearest_answer"]}
    prompts = [f"{{name: {retriever}-{shots}, few_shot: {{retriever: {retriever}, shots: {shots}}}}}" for retriever in ("random", "knn")]
    return [*rivals[guess.kind], "zero_shot", *prompts]


def _instruction(guess: Guess) -> str:
    if guess.kind == "choose":
        return "Answer each question with the letter of the right choice."
    asked = in_words(guess.label) if guess.label.isupper() else in_words(guess.label).lower()
    if guess.kind == "answer":
        return f"Give the {asked}."
    named = f", one of: {', '.join(in_words(label) for label in guess.values)}" if len(guess.values) <= MAX_LISTED_LABELS else ""
    return f"Give the {asked}{named}.".replace("{", "(").replace("}", ")")


def _fields(guess: Guess) -> tuple[str, ...]:
    """Columns as names that a template can use."""
    fields: list[str] = []
    for column in guess.inputs:
        field = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_") or "text"
        if not field.isidentifier() or iskeyword(field) or field in RESERVED:
            field = f"the_{field}"
        fields.append(field if field not in fields else f"{field}_{len(fields)}")
    return tuple(fields)


def in_words(label: str) -> str:
    """`card_notWorking` -> `card not working`: what a language model reads better than a key."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", label)
    words = re.sub(r"[\s_-]+", " ", spaced).strip()
    return (words.lower() if spaced != label else words) or label


def caption(name: str) -> str:
    words = in_words(name)
    return words[:1].upper() + words[1:]


def quoted(text: str) -> str:
    """A YAML scalar that reads back as exactly this string."""
    plain = _PLAIN.fullmatch(text) and text == text.strip() and text not in _NOT_STRINGS
    return text if plain else json.dumps(text, ensure_ascii=False)
