"""Episodes: prompts of a few demonstrations and a query, all of one task, in the words and forms of a few-shot prompt.

Min et al. 2022, https://arxiv.org/abs/2110.15943 (MetaICL). Departures: forms vary; the labels of a part of the episodes have random
words, so that what they mean can only be read from the demonstrations (Wei et al. 2023, https://arxiv.org/abs/2305.08298, symbol
tuning); and the answers of the demonstrations are learned too, each from the demonstrations before it, which makes as many lessons of one
prompt as it has answers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..prompt import BoundTemplate, Template
from ..seeds import rng_for
from ..values import Example, Kind
from .meta_settings import MetaSettings
from .multitask import shares
from .task_folder import Source

LABELS = (("Text", "Label"), ("Input", "Output"), ("Sentence", "Class"), ("Passage", "Category"))
WORDS = (("Question", "Answer"), ("Input", "Output"), ("Text", "Answer"))
"""Captions of input and answer, where the answer is a label, and where it is a choice or text. The template `default` is among them, and
what stands between demonstrations is as there."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A prompt with its answers, as tokens."""

    task: str
    ids: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]
    """First token and end of each answer that is learned."""
    random_words: bool
    n_shots: int


class Episodes:
    """Draws episodes, each from its number alone."""

    def __init__(self, tasks: Sequence[Source], tokenizer: Any, settings: MetaSettings, seed: int, part: str) -> None:
        self.tasks, self.tokenizer, self.settings, self.seed, self.part = tasks, tokenizer, settings, seed, part
        self._by_label = {task.name: _by_label(task.rows) for task in tasks}
        self.chances = shares([len(task.rows) for task in tasks], settings.temperature)
        self.words = single_words(tokenizer)
        begin = tokenizer("a")["input_ids"]
        self.before: list[int] = begin[:1] if tokenizer.bos_token_id is not None and begin[:1] == [tokenizer.bos_token_id] else []

    def draw(self, number: int) -> Episode:
        """The episode of that number. One whose query alone does not fit is drawn again."""
        for attempt in range(100):
            rng = rng_for(self.seed, self.part, number, attempt)
            task = rng.choices(self.tasks, self.chances)[0]
            if (found := self._of(task, rng)) is not None:
                return found
        raise ValueError("no episode fits into max_tokens")

    def _of(self, task: Source, rng: random.Random) -> Episode | None:
        s = self.settings
        rows = [self._cut(row) for row in self._rows(task, rng)]
        meaningless = task.kind == "classify" and len(task.labels) <= len(self.words) and rng.random() < s.random_words
        words = dict(zip(task.labels, rng.sample(self.words, len(task.labels)), strict=True)) if meaningless else None
        bound = bind(task, rng.choice(LABELS if task.kind == "classify" else WORDS), words)
        while True:
            ids, answers = self._tokens(bound, rows)
            if len(ids) <= s.max_tokens:
                break
            if len(rows) == 1:
                return None
            rows = rows[1:]
        kept = [span for i, span in enumerate(answers) if span[1] > span[0] and self._learned(rows, i, meaningless)]
        return Episode(task.name, tuple(ids), tuple(kept), meaningless, len(rows) - 1) if kept else None

    def _rows(self, task: Source, rng: random.Random) -> list[Example]:
        """Of labels, at most half as many as rows are wanted, so that most come more than once, and each as often as another."""
        n = min(self.settings.shots + 1, len(task.rows))
        if task.kind != "classify":
            return rng.sample(task.rows, n)
        present = sorted(self._by_label[task.name])
        chosen = rng.sample(present, min(len(present), max(2, n // 2)))
        left = {label: rng.sample(rows, len(rows)) for label in chosen for rows in [self._by_label[task.name][label]]}
        found: list[Example] = []
        while len(found) < n and (open_ := [label for label in chosen if left[label]]):
            found.append(left[rng.choice(open_)].pop())
        return found

    def _learned(self, rows: Sequence[Example], i: int, meaningless: bool) -> bool:
        """A random word can be known only where it was shown before."""
        if i < len(rows) - 1 and not self.settings.every_answer:
            return False
        return not meaningless or any(row.target == rows[i].target for row in rows[:i])

    def _cut(self, row: Example) -> Example:
        n = self.settings.characters
        fields = {
            name: value if not isinstance(value, str) or len(value) <= n else value[:n].rsplit(maxsplit=1)[0]
            for name, value in row.fields.items()
        }
        return replace(row, fields=fields)

    def _tokens(self, bound: BoundTemplate, rows: Sequence[Example]) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, the tokens of each row's answer)."""
        spans, text = [], ""
        for i, row in enumerate(rows):
            prompt = bound.plain(rows[:i], row)
            text = prompt + bound.demonstration(row)[len(bound.query(row)) :]
            spans.append((len(prompt), len(text)))
        found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False)
        offsets = found["offset_mapping"]
        answers = []
        for start, stop in spans:
            inside = [at for at, (first, last) in enumerate(offsets) if last > start and first < stop and last > first]
            answers.append((len(self.before) + inside[0], len(self.before) + inside[-1] + 1) if inside else (0, 0))
        return [*self.before, *found["input_ids"]], answers


def _by_label(rows: Sequence[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for row in rows:
        found.setdefault(str(row.target), []).append(row)
    return found


def bind(task: Source, form: tuple[str, str], words: dict[str, str] | None) -> BoundTemplate:
    """The form, bound to a task. words: label -> its word; None: the label's own."""
    kind = task.kind
    own = {label: (label,) for label in task.labels}
    shown = {label: (word,) for label, word in words.items()} if words is not None else own
    return BoundTemplate(_template(next(iter(task.rows[0].fields)), kind, *form), kind, task.labels, shown if kind == "classify" else {})


@lru_cache(maxsize=64)
def _template(field: str, kind: Kind, caption: str, answer: str) -> Template:
    choices = "{% for choice in choices %}{{ letters[loop.index0] }}. {{ choice }}\n{% endfor %}" if kind == "choose" else ""
    keys = ["---", f"kind: {kind}", f"input: [{field}]", *(["choices: letter"] if kind == "choose" else []), "---"]
    example = f"{{% block example %}}{caption}: {{{{ {field} }}}}\n{choices}{answer}:{{% endblock %}}"
    return Template.parse("\n".join([*keys, example, "{% block answer %} {{ answer }}{% endblock %}", ""]), "episode")


def single_words(tokenizer: Any) -> list[str]:
    """Lower-case words of three to eight letters that are one token behind a space."""
    found = []
    for token in sorted(tokenizer.get_vocab()):
        word = re.fullmatch(r"[Ġ▁]([a-z]{3,8})", token)
        if word is not None:
            found.append(word[1])
    return found
