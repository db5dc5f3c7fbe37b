"""Task files of the lm-evaluation-harness (multiple choice, and written answers), https://github.com/EleutherAI/lm-evaluation-harness.

The harness makes a row's text, choices and answer by Jinja; here they are columns that the suite derives by the same expressions, in our own
sandbox. Differences: the harness draws demonstrations with its own generator, and we with ours; scores are the same for the same prompt.
Of written answers the white space at both ends is cut, and one that its filters do not find is not scored, where the harness takes it as wrong.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ... import patterns
from ...errors import InputError
from ...files import read_text
from ..columns import columns
from . import WRONG_KIND, Imported, Refused, literal, load, own_name, template_text

_COLUMN = re.compile(r"\s*([A-Za-z_]\w*)\s*")
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
MOST = 10
"""Files that include one another, at most."""


class _Loader(yaml.SafeLoader):
    """Reads `!function` as a mark; nothing is imported."""


class _Function:
    """What stands for a Python function."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: _Function())


class _NotTaken(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def read(paths: Sequence[Path]) -> tuple[list[Imported], list[Refused]]:
    """Every task in these files. A file that only others include, and one that only groups tasks, is neither taken nor refused."""
    imported: list[Imported] = []
    refused: list[Refused] = []
    taken: set[str] = set()
    for path in paths:
        name = path.stem
        try:
            task = _load(path)
            if not isinstance(task.get("task"), str):
                continue
            name = task["task"]
            made = _taken(task, own_name(_SAFE.sub("-", name).lstrip(".-")[:80] or "task", names := set(taken)), path)
            imported.append(made)
            taken = names
        except _NotTaken as error:
            refused.append(Refused(name, str(error), str(path), error.detail))
        except (InputError, yaml.YAMLError, RecursionError) as error:
            refused.append(Refused(name, "the file cannot be read", str(path), (str(error).splitlines() or [""])[0]))
        except (TypeError, ValueError, AttributeError) as error:
            refused.append(Refused(name, WRONG_KIND, str(path), (str(error).splitlines() or [""])[0]))
    return imported, refused


def _load(path: Path, depth: int = 0) -> dict[str, Any]:
    """The keys of a file, with those of the files it includes, which it overrides."""
    if depth > MOST:
        raise _NotTaken("its files include one another without end")
    found = load(read_text(path), _Loader)
    if not isinstance(found, dict):
        return {}
    included = found.pop("include", None) or []
    base: dict[str, Any] = {}
    for each in [included] if isinstance(included, str) else included:
        other = path.parent / each
        if not other.is_file():
            raise _NotTaken("a file that it includes is missing", str(each))
        base |= _load(other, depth + 1)
    return base | found


def _taken(task: Mapping[str, Any], name: str, path: Path) -> Imported:
    output = task.get("output_type")
    if output not in ("multiple_choice", "generate_until"):
        raise _NotTaken(f"its output is {output or 'not stated'}, and only multiple_choice and generate_until are taken")
    if calls := [key for key, value in task.items() if _has_function(value)]:
        raise _NotTaken("it calls Python (!function)", ", ".join(calls))
    for key in ("doc_to_image", "doc_to_audio", "use_prompt", "custom_dataset"):
        if task.get(key):
            raise _NotTaken(f"'{key}' is not known here")
    n_shots = int(task.get("num_fewshot") or 0)
    separator, delimiter = str(task.get("fewshot_delimiter", "\n\n")), str(task.get("target_delimiter", " "))
    description = str(task.get("description") or "")
    notes: list[str] = []
    written = _written(task, notes) if output == "generate_until" else None
    derive = {**_choices(task), **_label(task)} if written is None else _reference(task)
    example, fields = _text(task, derive) if written is None else _question(task, derive)
    instruction = None
    if description:
        if description.endswith(separator) and "{{" not in description:
            instruction = literal(description.removesuffix(separator))
        elif n_shots == 0 and "{{" not in description:
            example = literal(description) + example
        else:
            raise _NotTaken("its description does not end where the demonstrations begin")
    keys = {"kind": "choose", "choices": "text"} if written is None else {"kind": "answer", **written.front}
    front = {"description": f"The task {task['task']} of lm-evaluation-harness", **keys, "input": fields}
    text = template_text({**front, "separator": separator}, example, literal(delimiter) + "{{ answer }}", instruction)
    try:
        columns(derive)
    except InputError as error:
        raise _NotTaken("an expression is not allowed in templates here", str(error)) from None
    return Imported(name, _suite(task, name, fields, derive, n_shots, notes, written), text, str(path), tuple(notes))


def _has_function(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_function, value.values()))
    return isinstance(value, _Function) or (isinstance(value, list) and any(map(_has_function, value)))


def _choices(task: Mapping[str, Any]) -> dict[str, str]:
    found = task.get("doc_to_choice")
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, str) and "{{" not in found and "{%" not in found:
        if column := _COLUMN.fullmatch(found):
            return {"icl_choices": "{{ " + column[1] + " | list }}"}
        try:
            found = ast.literal_eval(found.strip())
        except (ValueError, SyntaxError):
            raise _NotTaken("its choices are neither a column nor a list", str(found)) from None
    if isinstance(found, list):
        texts = [str(each) for each in found]
        if not texts or any(not each.strip() for each in texts):
            raise _NotTaken("a choice of it is empty")
        return {"icl_choices": "{{ [" + ", ".join(_quoted(each) for each in texts) + "] }}"}
    if not isinstance(found, str):
        raise _NotTaken("it has no choices")
    text = found.strip()
    if not (text.startswith("{{") and text.endswith("}}") and text.count("{{") == 1 and "{%" not in text):
        raise _NotTaken("its choices are text that Python reads", text)
    return {"icl_choices": text}


def _label(task: Mapping[str, Any]) -> dict[str, str]:
    """The place of the right choice. The harness takes a number as a place, and so a text of digits that an expression gives; other text
    is looked for among the choices."""
    found = task.get("doc_to_target")
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise _NotTaken("its answer is neither a column, a number nor an expression")
    if isinstance(found, int):
        return {"icl_label": "{{ " + str(found) + " }}"}
    column = _COLUMN.fullmatch(found)
    if column:
        return {"icl_label": "{{ " + _place(column[1], digits=False) + " }}"}
    text = found.strip()
    if text.isdigit():
        return {"icl_label": "{{ " + text + " }}"}
    if "{{" not in text and "{%" not in text:
        return {"icl_gold": found, "icl_label": "{{ icl_choices.index(icl_gold) }}"}
    return {"icl_gold": found, "icl_label": "{{ " + _place("icl_gold", digits=True) + " }}"}


def _place(value: str, *, digits: bool) -> str:
    as_digits = f" or ({value} is string and {value}.isdigit())" if digits else ""
    return f"{value} | int if {value} is number or {value} is boolean{as_digits} else icl_choices.index({value})"


@dataclass(frozen=True)
class _Written:
    """How a task whose answers are written reads and judges them."""

    front: dict[str, Any]
    """Keys of the template."""
    metrics: list[Any]
    max_new_tokens: int


def _written(task: Mapping[str, Any], notes: list[str]) -> _Written:
    if task.get("doc_to_choice") is not None:
        raise _NotTaken("its answers are written and have choices too")
    how = dict(task.get("generation_kwargs") or {})
    stop = how.get("until") or [str(task.get("fewshot_delimiter", "\n\n"))]
    front: dict[str, Any] = {"stop": [str(each) for each in ([stop] if isinstance(stop, str) else stop) if each]}
    if extract := _extract(task.get("filter_list") or [], notes):
        front["extract"] = extract
    if how.get("do_sample") or int(task.get("repeats") or 1) > 1:
        notes.append("The harness draws the text, perhaps several times; here it is the likeliest one.")
    return _Written(front, _metrics(task.get("metric_list") or [{"metric": "exact_match"}], notes), int(how.get("max_gen_toks") or 256))


def _extract(pipelines: Sequence[Mapping[str, Any]], notes: list[str]) -> str | None:
    """The first chain of filters that `extract` can say; None where it leaves the text as it is."""
    if not pipelines:
        return None
    for pipeline in pipelines:
        steps = [step for step in pipeline.get("filter") or [] if step.get("function") not in ("remove_whitespace", "take_first")]
        if not steps or (len(steps) == 1 and steps[0].get("function") == "regex" and not steps[0].get("group_select")):
            expression = _one_group(str(steps[0].get("regex_pattern", r"#### (\-?[0-9\.\,]+)"))) if steps else None
            if not steps or expression:
                if len(pipelines) > 1:
                    notes.append(f"Of the harness's chains of filters this is '{pipeline.get('name')}'.")
                return expression
    raise _NotTaken("its filters are none that 'extract' can say (the first match of an expression)")


def _one_group(expression: str) -> str | None:
    """The expression with one group, as `extract` reads it, where `^` and `$` stand for every line; None if it has several."""
    flags = re.match(r"(?:\(\?[aiLmsux]+\))?", expression)
    assert flags is not None
    start, rest = flags[0], expression[flags.end() :]
    rest = f"(?-m:{rest})" if re.search(r"[\^$]", rest) and "m" not in start else rest
    whole = start + rest if patterns.problem(start + rest, groups=1) is None else f"{start}({rest})"
    return whole if patterns.problem(whole, groups=1) is None else None


def _metrics(stated: Sequence[Mapping[str, Any]], notes: list[str]) -> list[Any]:
    found: list[Any] = []
    for each in stated:
        name = str(each.get("metric"))
        if name == "exact_match":
            options = {key: True for key in ("ignore_case", "ignore_punctuation", "ignore_numbers") if each.get(key)}
            removed = [str(expression) for expression in each.get("regexes_to_ignore") or []]
            found.append(
                {"string_match": {**options, **({"remove": removed} if removed else {})}} if options or removed else "string_match"
            )
        elif name in ("bleu", "chrf", "ter"):
            found.append(name)
        else:
            notes.append(f"Its metric {name} is not known here.")
    if not found:
        raise _NotTaken("none of its metrics is known here")
    return found


def _reference(task: Mapping[str, Any]) -> dict[str, str]:
    """The right answer: a text, or a list of them. The harness compares a number as text."""
    found = task.get("doc_to_target")
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise _NotTaken("its answer is neither a column, a number nor an expression")
    if not str(found).strip():
        raise _NotTaken("its answer is empty, so there is nothing to judge by")
    column = _COLUMN.fullmatch(found) if isinstance(found, str) else None
    gold = "{{ " + column[1] + " }}" if column else str(found)
    many = "icl_gold is sequence and icl_gold is not string and icl_gold is not mapping"
    return {"icl_gold": gold, "icl_answer": "{{ icl_gold if " + many + " else icl_gold | string }}"}


def _text(task: Mapping[str, Any], derive: dict[str, str]) -> tuple[str, list[str]]:
    """(the example block, the input fields). The text is derived as a column too, unless it is nothing but text and plain columns."""
    found = task.get("doc_to_text")
    if isinstance(found, bool) or not isinstance(found, str):
        raise _NotTaken("the choices stand before the question, which is what is scored")
    if not found.strip():
        # Nothing stands before the choices. What rows are told apart by must still be something.
        derive["icl_row"] = "{{ icl_choices | join(' / ') }}"
        return literal(found), ["icl_row"]
    if re.fullmatch(r"\s*\{\{\s*\d+\s*\}\}\s*|\d+", found):
        raise _NotTaken("the choices stand before the question, which is what is scored")
    return _derived(found, derive)


def _question(task: Mapping[str, Any], derive: dict[str, str]) -> tuple[str, list[str]]:
    """As `_text`, for answers that are written: a number is a text like any other, and without a text nothing asks for the answer."""
    found = task.get("doc_to_text")
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise _NotTaken("its text is neither a column, a number nor an expression")
    if not str(found).strip():
        raise _NotTaken("its text is empty, so nothing asks for the answer")
    return _derived(str(found), derive)


def _derived(text: str, derive: dict[str, str]) -> tuple[str, list[str]]:
    derive["icl_text"] = "{{ " + column[1] + " }}" if (column := _COLUMN.fullmatch(text)) else text
    return "{{ icl_text }}", ["icl_text"]


def _suite(
    task: Mapping[str, Any],
    name: str,
    fields: list[str],
    derive: Mapping[str, str],
    n_shots: int,
    notes: list[str],
    written: _Written | None,
) -> dict[str, Any]:
    kwargs = {
        key: value for key, value in (task.get("dataset_kwargs") or {}).items() if key not in ("trust_remote_code", "token", "revision")
    }
    if kwargs:
        raise _NotTaken("its rows come by options of a loader (dataset_kwargs)", ", ".join(kwargs))
    if not task.get("dataset_path"):
        raise _NotTaken("it names no data set")
    test = task.get("test_split") or task.get("validation_split")
    if not test:
        raise _NotTaken("it names no split to judge on")
    train = (
        task.get("fewshot_split") or task.get("training_split") or (task.get("validation_split") if task.get("test_split") else None)
    ) or test
    splits = {split: re.sub(r"\W.*", "", str(split)) for split in (test, train)}
    if any(split != whole for split, whole in splits.items()):
        notes.append("A part of a split is meant there; here it is the whole split.")
    if train == test:
        notes.append(
            "There are no rows to learn from: those of the test split are taken out of themselves, so prompts have no demonstrations."
        )
    config = task.get("dataset_name")
    source = "/".join(["hf:" + str(task["dataset_path"]), *([str(config)] if config else [])])
    metrics = {str(each.get("metric")) for each in task.get("metric_list") or [] if isinstance(each, dict)}
    readouts = ["sum", "per_char"] if "acc_norm" in metrics else ["sum"]
    options: dict[str, Any] = {"readout": readouts if len(readouts) > 1 else "sum", "format": "plain"}
    answered = {"kind": "choose", "choices": "icl_choices", "label": "icl_label"}
    if written is not None:
        options = {"max_new_tokens": written.max_new_tokens, "format": "plain"}
        answered = {"kind": "answer", "label": "icl_answer"}
    methods: list[dict[str, Any]] = [{"name": "zero-shot", "zero_shot": options}]
    if n_shots and train != test:
        sampler = (task.get("fewshot_config") or {}).get("sampler") if isinstance(task.get("fewshot_config"), dict) else None
        if sampler == "first_n":
            notes.append("The harness shows the first rows of the split; here they are drawn.")
        methods = [{"name": f"random-{n_shots}", "few_shot": {"retriever": "random", "shots": n_shots, **options}}]
    entry = {
        "name": name, "train": f"{source}:{splits[train]}", "test": f"{source}:{splits[test]}", "derive": dict(derive), "input": fields, **answered,
        "template": name,
    }  # fmt: skip
    return {
        "description": f"{task['task']}, as lm-evaluation-harness asks it", "models": ["smollm2"], "tasks": [entry], "methods": methods,
        "metrics": ["accuracy"] if written is None else written.metrics,
    }  # fmt: skip


def _quoted(text: str) -> str:
    """A Jinja string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + "'"
