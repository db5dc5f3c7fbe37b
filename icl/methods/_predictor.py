"""A fitted few-shot or zero-shot prompt: retrieve, order, pack, score or generate, read out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..files import write_text
from ..prompt import Unfit, bind, pack
from ..prompt.bind import letters
from ..prompt.pack import resolve_format
from ..protocols import LanguageModel, Order, Retriever
from ..readout import read_answer, read_label, tie_tolerance
from ..values import Example, Hit, Kind, LabelScores, Prediction, Prompt, Spec, TokenCounts
from ._calibrate import Frozen, calibrator
from ._common import encoder_state, index_of, label_order, labelled, queries_of
from ._folder import INDEX, ROWS, TEMPLATE_FILE, save_predictor, write_rows
from ._labels import Candidates, candidates_of, label_prediction, log_scores, unscored
from ._model import ModelHandle
from ._rationale import after_rationale, check_rationales, rationale_of, uses_rationales, with_rationale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..prompt import BoundTemplate
    from ..retrieve import DemoIndex
    from .few_shot import FewShot

SHOWN_PROBLEMS = 20


class FewShotPredictor:
    """Made by `FewShot.fit`. It holds the pool and, once a query needed it, the index over the pool."""

    def __init__(
        self,
        method: FewShot,
        bound: BoundTemplate,
        pool: Sequence[Example],
        model: ModelHandle | None = None,
        index: DemoIndex | None = None,
        frozen: Frozen | None = None,
    ) -> None:
        self.method = method
        self.bound = bound
        self.name = method.name
        self._pool: Sequence[Example] = pool
        self._model = model or ModelHandle.of(method.lm, method.tokenizer)
        self._index = index
        self._retriever: Retriever | None = None
        self._order: Order | None = None
        self._frozen = frozen
        self._calibrator = calibrator(method, bound.kind)
        self._shows_rationales = method.shots > 0 and uses_rationales(bound, self.pool)
        check_rationales(method, bound, self._shows_rationales)
        self._last: tuple[tuple[str, ...], list[Prompt | Unfit]] | None = None

    @property
    def kind(self) -> Kind:
        return self.bound.kind

    @property
    def labels(self) -> tuple[str, ...]:
        return self.bound.labels

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.method.inputs

    @property
    def pool(self) -> Sequence[Example]:
        """The labelled examples. Those of an index are read one by one, when asked for: opening a large one must stay instant."""
        index = self._index if self._index is not None else self._live_index
        return index.examples if index is not None else self._pool

    @property
    def index(self) -> DemoIndex:
        """The index over the pool, built when first asked for."""
        if self._index is None:
            self._index = self._live_index if self._live_index is not None else index_of(self._pool, self.method.encoder)
        return self._index

    @property
    def _live_index(self) -> DemoIndex | None:
        """The index that the user passed as the retriever."""
        from ..retrieve import DemoIndex

        return self.method.retriever if isinstance(self.method.retriever, DemoIndex) else None

    # ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def prompt(self, query: Any) -> Prompt:
        """The prompt for one query: an Example, a dict of fields, or a str where there is one field."""
        return self.prompts([query])[0]

    def prompts(self, queries: Sequence[Any]) -> list[Prompt]:
        """One prompt per query. Raises InputError naming every query that does not fit the token budget even without demonstrations."""
        examples = queries_of(queries, self.inputs)
        made = self._prepare(examples)
        problems = [
            Problem(p.why, "Raise max_tokens, or leave this query out.", field=f"queries.{i}")
            for i, p in enumerate(made)
            if isinstance(p, Unfit)
        ]
        if problems:
            more = [Problem(f"and {len(problems) - SHOWN_PROBLEMS} more")] if len(problems) > SHOWN_PROBLEMS else []
            raise InputError([*problems[:SHOWN_PROBLEMS], *more])
        return [p for p in made if isinstance(p, Prompt)]

    def _prepare(self, queries: Sequence[Example]) -> list[Prompt | Unfit]:
        """Retrieval for all queries at once, then order and packing. The last result is kept: `plan` and `predict` ask for the same."""
        if self._live_index is not None:
            return self._pack(queries)
        key = tuple(q.uid for q in queries)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._pack(queries))
        return self._last[1]

    def _pack(self, queries: Sequence[Example]) -> list[Prompt | Unfit]:
        shots = min(self.method.shots, len(self.pool))
        found = self._retrieve(queries, shots) if shots else [[] for _ in queries]
        order = self._ordering()
        return [self._pack_one(q, order(q, hits), [h.uid for h in hits]) for q, hits in zip(queries, found, strict=True)]

    def _pack_one(self, query: Example, ordered: Sequence[Hit], useful: Sequence[str]) -> Prompt | Unfit:
        return pack(
            self.bound,
            query,
            ordered,
            useful,
            codec=self._model.codec(),
            format=self.method.format,
            max_tokens=self._budget(),
            reserve=self.method.max_new_tokens if self.kind == "answer" or self._shows_rationales else 0,
        )

    def _budget(self) -> int | None:
        """The smaller of the token budget and the model's window; None: nothing limits a prompt."""
        limits = [n for n in (self.method.max_tokens, self._model.window) if n is not None]
        return min(limits) if limits else None

    def _retrieve(self, queries: Sequence[Example], k: int) -> Any:
        if self._retriever is None:
            from ..retrieve import build_retriever

            codec = self._model.codec()
            self._retriever = build_retriever(
                self.method.retriever,
                self.pool,
                index=lambda: self.index,
                labels=self.labels,
                seed=self.method.seed,
                folders=self.method.plugins,
                count_tokens=codec.count if codec is not None else None,
            )
        return self._retriever(queries, k)

    def _ordering(self) -> Order:
        if self._order is None:
            from ..retrieve import build_order

            self._order = build_order(self.method.order, labels=self.labels, seed=self.method.seed, folders=self.method.plugins)
        return self._order

    # ── predictions ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        """One Prediction per query, in order. A query that does not fit the window is unscored, with the reason."""
        lm = self._model.load()
        examples = queries_of(queries, self.inputs)
        result: dict[int, Prediction] = {}
        todo: list[tuple[int, Prompt]] = []
        for i, made in enumerate(self._prepare(examples)):
            if isinstance(made, Unfit):
                result[i] = unscored(examples[i], made.why)
            elif self.kind == "choose" and not examples[i].choices:
                result[i] = unscored(examples[i], "the query has no choices")
            else:
                todo.append((i, made))
        answered = self._generate if self.kind == "answer" else self._score
        result.update(answered(lm, [(i, examples[i], prompt) for i, prompt in todo]))
        return [result[i] for i in range(len(examples))]

    def _score(self, lm: LanguageModel, work: Sequence[tuple[int, Example, Prompt]]) -> dict[int, Prediction]:
        raw = self._raw(lm, [(query, prompt) for _, query, prompt in work])
        values = [log_scores(scores, candidates, self.method.readout) for candidates, scores in raw]
        if self._calibrator is not None and values:
            values = self._calibrated(values)
        result = {}
        for (i, query, prompt), (candidates, scores), value in zip(work, raw, values, strict=True):
            tolerance = tie_tolerance(scores, self.method.readout, lm.dtype)
            result[i] = label_prediction(query, prompt, scores, candidates, value, tolerance)
        return result

    def _raw(self, lm: LanguageModel, work: Sequence[tuple[Example, Prompt]]) -> list[tuple[Candidates, LabelScores]]:
        prompts = [prompt for _, prompt in work]
        rationales: list[str] = [""] * len(work)
        if work and self._shows_rationales:
            stop = self._stop(chat=prompts[0].format == "chat")
            written = lm.generate(prompts, max_new_tokens=self.method.max_new_tokens, stop=stop)
            rationales = [rationale_of(self.bound, query, text) for (query, _), text in zip(work, written, strict=True)]
        candidates = [self._candidates(query, prompt, rationale) for (query, prompt), rationale in zip(work, rationales, strict=True)]
        scores = lm.score(prompts, [c.continuations for c in candidates]) if work else []
        return list(zip(candidates, scores, strict=True))

    def _candidates(self, query: Example, prompt: Prompt, rationale: str = "") -> Candidates:
        if rationale:
            return candidates_of(with_rationale(rationale, self.bound.continuations(query), prompt.format == "chat"))
        return candidates_of(self.bound.continuations(query, prompt.format))

    def _generate(self, lm: LanguageModel, work: Sequence[tuple[int, Example, Prompt]]) -> dict[int, Prediction]:
        prompts = [prompt for _, _, prompt in work]
        stop = self._stop(chat=bool(prompts) and prompts[0].format == "chat")
        texts = lm.generate(prompts, max_new_tokens=self.method.max_new_tokens, stop=stop) if work else []
        result = {}
        for (i, query, prompt), text in zip(work, texts, strict=True):
            own = after_rationale(self.bound, query, text) if self._shows_rationales else text
            answer, why = read_answer(own, stop=stop, extract=self.bound.template.extract)
            done = unscored(query, why or "no answer", prompt, text)
            result[i] = done if answer is None else replace(done, answer=answer, why=None)
        return result

    def _stop(self, chat: bool) -> tuple[str, ...]:
        """Where an answer ends. A chat model ends its turn itself, so there the separator of plain prompts is no stop string."""
        template = self.bound.template
        return () if chat and template.stop == (template.separator,) else template.stop

    def read(self, query: Any, text: str) -> Prediction:
        """What a model elsewhere answered to this query's prompt, as a Prediction. Matched to the label words, or extracted."""
        (example,) = queries_of([query], self.inputs)
        template = self.bound.template
        if self.kind == "answer":
            chat = resolve_format(self.bound, self.method.format, self._model.codec()) == "chat"
            answer, why = read_answer(text, stop=self._stop(chat), extract=template.extract)
            return Prediction(example.uid, answer, why=why, text=text)
        words = self._words(example)
        written, why = read_answer(text, extract=template.extract)
        label = read_label(written, words) if written is not None else None
        why = None if label is not None else why or f"none of {', '.join(words)} can be read out of the answer"
        return Prediction(example.uid, label, candidates=tuple(words), why=why, text=text)

    def _words(self, query: Example) -> dict[str, tuple[str, ...]]:
        """Label or choice -> what a model may write for it."""
        if self.kind == "classify":
            return {label: (*words, label) for label, words in self.bound.words.items()}
        names = letters(len(query.choices)) if self.bound.template.choices == "letter" else query.choices
        words: dict[str, tuple[str, ...]] = {}
        for choice, name in zip(query.choices, names, strict=True):
            words[choice] = (*words.get(choice, (choice,)), name)
        return words

    def plan(self, queries: Sequence[Any]) -> TokenCounts:
        """Tokens that `predict` computes from a cold start; for generated answers at most."""
        lm = self._model.load()
        examples = queries_of(queries, self.inputs)
        work = [(q, p) for q, p in zip(examples, self._prepare(examples), strict=True) if not isinstance(p, Unfit)]
        if self.kind == "answer" or self._shows_rationales:
            total = sum((p.n_tokens or 0) + self.method.max_new_tokens for _, p in work)
            return TokenCounts(total, total)
        work = [(q, p) for q, p in work if self.kind != "choose" or q.choices]
        return lm.plan([p for _, p in work], [self._candidates(q, p).continuations for q, p in work]) if work else TokenCounts(0, 0)

    # ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _calibrated(self, values: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        import numpy as np

        assert self._calibrator is not None
        if self._frozen is None:
            self._frozen = self._calibrator.fit(self)
        return list(self._calibrator.apply(self, self._frozen, np.stack(list(values))))

    def log_scores(self, queries: Sequence[Example]) -> NDArray[np.float64]:
        """(n, n_labels) uncalibrated log-scores, for calibrations: a task row's own copy is not among its demonstrations."""
        import numpy as np

        work = [(q, p) for q, p in zip(queries, self._pack(queries), strict=True) if not isinstance(p, Unfit)]
        raw = self._raw(self._model.load(), work)
        return np.stack([log_scores(scores, candidates, self.method.readout) for candidates, scores in raw])

    def score_with(self, query: Any, demonstrations: Sequence[Example]) -> LabelScores:
        """The raw scores of a query with these demonstrations in this order, for components that ask the model."""
        (example,) = queries_of([query], self.inputs)
        made = self._pack_one(example, [Hit(e.uid, 0.0, e) for e in demonstrations], [e.uid for e in demonstrations])
        if isinstance(made, Unfit):
            raise InputError(Problem(made.why, "Use fewer or shorter texts.", field="query"))
        return self._raw(self._model.load(), [(example, made)])[0][1]

    # ── growing and keeping ──────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, examples: Sequence[Example]) -> None:
        """Take new labelled examples, and any new labels, from the next query on. A fitted calibration is fitted again."""
        usable = labelled(examples, self.name)
        if self._index is not None or self._live_index is not None:
            self.index.add(usable)
        else:
            self._pool = [*self._pool, *usable]
        if self.kind == "classify":
            labels = label_order(usable, self.labels)
            self.bound = bind(self.bound.template, kind=self.kind, inputs=self.inputs, labels=labels, words=self.method.words)
        self._shows_rationales = self.method.shots > 0 and uses_rationales(self.bound, self.pool)
        self._retriever = self._order = self._last = self._frozen = None

    def save(self, folder: Path | str) -> None:
        """Write a folder that `icl.load` takes. Raises InputError if the retriever, order or tokenizer is a function."""
        if self._calibrator is not None and self._frozen is None:
            self._frozen = self._calibrator.fit(self)
        save_predictor(folder, self._state(), self._write)

    def _write(self, folder: Path) -> None:
        write_text(folder / TEMPLATE_FILE, self.bound.template.source)
        if self._index is not None or self._live_index is not None:
            self.index.save(folder / INDEX)
        else:
            write_rows(folder / ROWS, self._pool if self.method.shots else ())

    def _state(self) -> dict[str, Any]:
        m = self.method
        problems = [
            Problem("a Python function cannot be saved", "Make it a plug-in file and give its name.", field=field)
            for field in ("retriever", "order", "tokenizer")
            if callable(getattr(m, field)) and self._live_index is not getattr(m, field)
        ]
        if problems:
            raise InputError(problems)
        names = ("order", "shots", "readout", "calibration", "format", "max_tokens", "seed", "max_new_tokens", "tokenizer")
        settings = {name: _plain(getattr(m, name)) for name in names}
        settings["retriever"] = {"index": None} if self._live_index is not None else _plain(m.retriever)
        used = self._index if self._index is not None else self._live_index
        return {
            "method": "few_shot" if m.shots else "zero_shot",
            "name": self.name,
            "kind": self.kind,
            "inputs": self.inputs,
            "labels": self.labels,
            "settings": settings,
            "template": {"name": self.bound.template.name, "split_labels": self.bound.template.split_labels},
            "words": {label: list(words) for label, words in m.words.items()} if m.words else None,
            "model": self._model.state(),
            "encoder": encoder_state(used.encoder) if used is not None else {"name": _encoder_name(m.encoder)},
            "calibration_state": self._frozen,
        }


def _plain(value: Any) -> Any:
    """A component as JSON data."""
    if isinstance(value, Spec):
        return {value.name: dict(value.settings)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return dict(value) if isinstance(value, Mapping) else value


def _encoder_name(encoder: Any) -> str:
    return encoder if isinstance(encoder, str) else str(encoder.name)
