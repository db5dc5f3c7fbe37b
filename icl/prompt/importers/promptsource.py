"""Templates of promptsource, https://github.com/bigscience-workshop/promptsource: one suite for each.

A template there makes a row's text and answer, `text ||| answer`, out of any columns; here both are columns that the suite derives by the same
expressions, in our own sandbox. Differences, noted in the suite: where a template draws one of several texts at random, the first is taken;
names of splits are not said there, so they are train and test; behind the text stands one space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...files import read_text
from ..columns import columns
from . import WRONG_KIND, Imported, Refused, load, own_name, template_text

_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
_DRAWN = re.compile(r"\|\s*(?:choice|random)\b")
_UNKNOWN = {"most_frequent": re.compile(r"\|\s*most_frequent\b"), "zip": re.compile(r"\bzip\s*\(")}
METRICS = {
    "Accuracy": "exact_match",
    "Squad": "token_f1",
    "BLEU": "bleu",
    "ROUGE": "rouge_l",
    "Trivia QA": "exact_match",
    "COQA F1": "token_f1",
}


class _Loader(yaml.SafeLoader):
    """Reads `!Template` and `!TemplateMetadata` as plain mappings."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: loader.construct_mapping(node, deep=True))


def read(paths: Sequence[Path]) -> tuple[list[Imported], list[Refused]]:
    """Every template in these files (`templates.yaml` of a data set)."""
    imported: list[Imported] = []
    refused: list[Refused] = []
    taken: set[str] = set()
    for path in paths:
        try:
            found = load(read_text(path), _Loader)
            templates = list(found["templates"].values())
            dataset = "/".join(str(part) for part in (found["dataset"], found.get("subset")) if part)
        except (InputError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as error:
            refused.append(Refused(path.parent.name, "the file cannot be read", str(path), (str(error).splitlines() or [""])[0]))
            continue
        for template in templates:
            if not isinstance(template, dict):
                refused.append(Refused(dataset, WRONG_KIND, str(path), "a template is no mapping"))
                continue
            name = own_name(_SAFE.sub("-", f"{dataset}-{template.get('name')}".replace("/", "-")).lstrip(".-")[:70], taken)
            try:
                made = _taken(template, dataset, name, path)
            except (TypeError, ValueError, AttributeError) as error:
                made = Refused(name, WRONG_KIND, str(path), str(error))
            (imported if isinstance(made, Imported) else refused).append(made)  # type: ignore[arg-type]
    return imported, refused


def _taken(template: Mapping[str, Any], dataset: str, name: str, path: Path) -> Imported | Refused:
    source = str(template.get("jinja") or "")
    names = template.get("answer_choices")
    if source.count("|||") != 1:
        return Refused(name, "it is not one text and one answer (|||)", str(path))
    for what, pattern in _UNKNOWN.items():
        if pattern.search(source):
            return Refused(name, f"it uses '{what}', which is not known here", str(path))
    notes = ["Behind the text stands one space; the splits are called train and test here, which may not be their names."]
    if _DRAWN.search(source):
        source = _DRAWN.sub("| first", source)
        notes.append("Where the template draws one of several at random, the first is taken.")
    derive = {"icl_whole": source}
    if names:
        derive = {"icl_names": str(names), "answer_choices": "{{ icl_names.split('|||') | map('trim') | list }}", **derive}
    derive |= {"icl_text": "{{ icl_whole.split('|||')[0].strip() }}", "icl_answer": "{{ icl_whole.split('|||')[1].strip() }}"}
    if names:
        derive["icl_label"] = "{{ answer_choices.index(icl_answer) }}"
    try:
        columns(derive)
    except InputError as error:
        reason = error.problems[0].message
        what = re.sub(r"'[^']*'", "…", reason)
        return Refused(name, f"an expression is not allowed in templates here: {what}", str(path), reason)
    answered = {"kind": "choose", "choices": "text"} if names else {"kind": "answer"}
    front = {"description": f"{template.get('name')} ({dataset}), from promptsource", **answered, "input": ["icl_text"]}
    return Imported(
        name,
        _suite(template, dataset, name, derive, bool(names)),
        template_text(front, "{{ icl_text }}", " {{ answer }}"),
        str(path),
        tuple(notes),
    )


def _suite(template: Mapping[str, Any], dataset: str, name: str, derive: Mapping[str, str], has_names: bool) -> dict[str, Any]:
    stated = (template.get("metadata") or {}).get("metrics") or []
    metrics = ["accuracy"] if has_names else list(dict.fromkeys(METRICS[m] for m in stated if m in METRICS)) or ["exact_match", "token_f1"]
    answer = (
        {"kind": "choose", "choices": "answer_choices", "label": "icl_label"} if has_names else {"kind": "answer", "label": "icl_answer"}
    )
    entry = {
        "name": name, "train": f"hf:{dataset}:train", "test": f"hf:{dataset}:test", "derive": dict(derive), "input": ["icl_text"], **answer,
        "template": name,
    }  # fmt: skip
    options = {"format": "plain"}
    methods = [{"name": "zero-shot", "zero_shot": options}, {"name": "knn-4", "few_shot": {"shots": 4, **options}}]
    return {
        "description": f"{template.get('name')} of promptsource, on {dataset}", "models": ["smollm2"], "tasks": [entry], "methods": methods,
        "budgets": ["all"], "metrics": metrics,
    }  # fmt: skip
