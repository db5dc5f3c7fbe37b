"""A fitted few-shot or zero-shot prompt: retrieve, order, pack, score or generate, read out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import CostLimitError, IclError, InputError, Problem
from ..plugins import Learned
from ..prompt import Unfit, bind, pack
from ..prompt.pack import resolve_format
from ..prompt.slots import filled
from ..protocols import LanguageModel
from ..readout import read_answer, tie_tolerance
from ..values import Example, Hit, Kind, LabelScores, Prediction, Prompt, TokenCounts
from ._ask import Rehearsal, asking, order_of, retriever_of, score_many
from ._calibrate import Frozen, Scored, abstaining_of, calibration_of, scored
from ._common import index_of, label_order, labelled, queries_of
from ._labels import Candidates, candidates_of, label_prediction, log_scores, refuse_unfit, unscored
from ._layout import Layout
from ._model import ModelHandle
from ._plan import plan
from ._rationale import after_rationale, check_rationales, uses_rationales, with_rationale
from ._readouts import Premises, check_readouts, raw_scores, stored_readouts
from ._shown import shown
from ._state import save
from ._why import Why, why
from ._written import (
    Lost,
    Writing,
    check_estimator,
    demands,
    estimator_of,
    lost,
    prediction_of,
    read_as_label,
    words_of,
    write_and_weigh,
    writing_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..prompt import BoundTemplate
    from ..retrieve import DemoIndex
    from ..retrieve.retriever import CheckedOrder
    from ..retrieve.stages import Stages
    from .few_shot import FewShot

Work: TypeAlias = tuple[int, Example, Prompt]
"""(place among the queries, the query, its prompt)"""


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
        learned: Learned | None = None,
        threshold: float | None = None,
    ) -> None:
        self.method = method
        self.bound = bound
        self.name = method.name
        self._pool: Sequence[Example] = pool
        self._model = model or ModelHandle.of(method.lm, method.tokenizer)
        self._index = index
        self.learned = learned or Learned()
        self._retriever: Stages | None = None
        self._order: CheckedOrder | None = None
        self._rehearsal: Rehearsal | None = None
        self.calibration = calibration_of(method, bound.kind, frozen)
        self.abstaining = abstaining_of(self, threshold)
        self.pool_scores: Scored | None = None
        if method.lm is not None and demands(method):
            # Else only when the model is used: to ask an endpoint what it can do takes a moment.
            check_estimator(method, method.lm)
            resolve_format(bound, method.format, method.lm.codec)
        self._shows_rationales = method.shots > 0 and uses_rationales(bound, self.pool)
        check_rationales(method, bound, self._shows_rationales)
        self._layout = Layout.of(method)
        check_readouts(method, bound, self._layout, self.pool)
        self.premises = Premises()
        self._check_layout(None if self._layout.is_plain else method.lm)
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
        index = self.used_index
        return index.examples if index is not None else self._pool

    @property
    def index(self) -> DemoIndex:
        """The index over the pool, built when first asked for."""
        if self._index is None:
            self._index = self._live_index if self._live_index is not None else index_of(self._pool, self.method.encoder)
        return self._index

    @property
    def used_index(self) -> DemoIndex | None:
        """The index over the pool, if there is one already."""
        return self._index if self._index is not None else self._live_index

    @property
    def _live_index(self) -> DemoIndex | None:
        """The index that the user passed as the retriever."""
        from ..retrieve import DemoIndex

        return self.method.retriever if isinstance(self.method.retriever, DemoIndex) else None

    # ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    _repr_html_ = shown

    def prompt(self, query: Any) -> Prompt:
        """The prompt for one query: an Example, a dict of fields, or a str where there is one field."""
        return self.prompts([query])[0]

    def prompts(self, queries: Sequence[Any]) -> list[Prompt]:
        """One prompt per query. Raises InputError naming every query that does not fit the token budget even without demonstrations."""
        examples = queries_of(queries, self.inputs)
        made = self._prepare(examples)
        refuse_unfit(made)
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
        return self._pack_with(queries, self._retrieving(), self._ordering())

    def _pack_with(self, queries: Sequence[Example], retriever: Stages, order: CheckedOrder) -> list[Prompt | Unfit]:
        traced = retriever.trace(queries, min(self.method.shots, len(self.pool)))
        found = [each.hits for each in traced]
        ordered = order.many(queries, found)
        made = [self._pack_one(q, shown, [h.uid for h in hits]) for q, shown, hits in zip(queries, ordered, found, strict=True)]
        return [replace(p, steps=each.steps) if isinstance(p, Prompt) else p for p, each in zip(made, traced, strict=True)]

    def _pack_one(self, query: Example, ordered: Sequence[Hit], useful: Sequence[str]) -> Prompt | Unfit:
        return self._layout.pack(self._pack_within, query, (ordered, useful), self.bound, (self._model.codec(), self._budget()))

    def _pack_within(self, query: Example, ordered: Sequence[Hit], useful: Sequence[str], share: float = 1.0) -> Prompt | Unfit:
        budget = self._budget()
        return pack(
            self.bound,
            query,
            ordered,
            useful,
            codec=self._model.codec(),
            format=self.method.format,
            max_tokens=None if budget is None else int(budget * share),
            reserve=self.method.max_new_tokens if self._writes(self._model.lm) or self._shows_rationales else 0,
        )

    def _budget(self) -> int | None:
        """The smaller of the token budget and the model's window; None: nothing limits a prompt."""
        limits = [n for n in (self.method.max_tokens, self._model.window) if n is not None]
        return min(limits) if limits else None

    def _retrieving(self) -> Stages:
        if self._retriever is None:
            self._retriever = retriever_of(self, asking(self))
        return self._retriever

    def _ordering(self) -> CheckedOrder:
        if self._order is None:
            self._order = order_of(self, asking(self))
        return self._order

    # ── predictions ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        """One Prediction per query, in order. A query that does not fit the window is unscored, with the reason.

        Raises CostLimitError where a model's `max_cost` is reached; its `results` are the predictions that were done, None for the others.
        """
        examples = queries_of(queries, self.inputs)
        if self.abstaining is None or not examples:
            return self.answers(examples, self._prepare(examples))
        self.abstaining.threshold()  # what it is fitted on is scored first, so that nothing is lost with it
        return self.abstaining.guard(lambda: self.answers(examples, self._prepare(examples)))

    def answers(self, examples: Sequence[Example], prepared: Sequence[Prompt | Unfit]) -> list[Prediction]:
        """As `predict`, with the prompts at hand, and nothing is withheld."""
        lm = self._lm()
        result: dict[int, Prediction] = {}
        work: list[Work] = []
        for i, made in enumerate(prepared):
            if isinstance(made, Unfit):
                result[i] = unscored(examples[i], made.why)
            elif self.kind == "choose" and not examples[i].choices:
                result[i] = unscored(examples[i], "the query has no choices")
            else:
                work.append((i, examples[i], made))
        found = self._write(lm, work) if self._writes(lm) else self._score(lm, work)
        for (i, query, prompt), each in zip(work, found, strict=True):
            result[i] = lost(query, prompt, each) if isinstance(each, Lost) else each
        limits = [each.why for each in found if isinstance(each, Lost) and each.limit]
        if limits:
            undone = {i for (i, _, _), each in zip(work, found, strict=True) if isinstance(each, Lost) and each.limit}
            raise CostLimitError(limits[0], [None if i in undone else result[i] for i in range(len(examples))])
        return [result[i] for i in range(len(examples))]

    @property
    def estimator(self) -> str:
        """How an answer is found: `generation` for answers in words and for samples, else what the model offers for labels, with what it
        approximates its scores by."""
        found = ["generation" if self._writes(self._lm()) else estimator_of(self._lm()), getattr(self._lm(), "approximation", None)]
        return ", ".join(filter(None, found))

    @property
    def readouts(self) -> tuple[str, ...]:
        """The read-outs that the raw scores of its predictions allow, its own first; none where answers are read out of text."""
        return stored_readouts(self, self._lm())

    @property
    def lm(self) -> LanguageModel | None:
        """The model, if it is loaded."""
        return self._model.lm

    def _lm(self) -> LanguageModel:
        """The model. Raises InputError if there is none, or if it cannot do what the method asks for."""
        lm = self._model.load()
        check_estimator(self.method, lm)
        self._check_layout(lm)
        return lm

    def _check_layout(self, lm: LanguageModel | None) -> None:
        self._layout.check(writes=self._writes(lm), rationales=self._shows_rationales, inputs=self.inputs, lm=lm)

    def _writes(self, lm: LanguageModel | None) -> bool:
        """Whether answers are read out of what the model writes. lm: None where it is not loaded; it is then taken to give scores."""
        return self.kind == "answer" or self.method.samples > 1 or (lm is not None and estimator_of(lm) == "generation")

    def _score(self, lm: LanguageModel, work: Sequence[Work]) -> list[Prediction | Lost]:
        """By the log-likelihoods of the labels' continuations."""
        if work and self.calibration is not None:
            self.calibration.state(self)
        raw = self._raw(lm, [(query, prompt) for _, query, prompt in work])
        values = iter(self._values([r for r in raw if not isinstance(r, Lost)]))
        result: list[Prediction | Lost] = []
        for (_, query, prompt), found in zip(work, raw, strict=True):
            if isinstance(found, Lost):
                result.append(found)
                continue
            candidates, scores = found
            readout = self.method.readouts[0]
            tolerance = tie_tolerance(scores, readout, lm.dtype)
            result.append(label_prediction(query, prompt, scores, candidates, next(values), tolerance, readout))
        return result

    def _values(self, raw: Sequence[tuple[Candidates, LabelScores]]) -> list[NDArray[np.float64]]:
        values = [log_scores(scores, candidates, self.method.readouts[0]) for candidates, scores in raw]
        return self.calibration.apply(self, values) if self.calibration is not None and values else values

    def _raw(self, lm: LanguageModel, work: Sequence[tuple[Example, Prompt]]) -> list[tuple[Candidates, LabelScores] | Lost]:
        """Per item what was scored and its scores."""
        return raw_scores(self, lm, work)

    def _candidates(self, query: Example, prompt: Prompt, rationale: str = "") -> Candidates:
        if rationale:
            return candidates_of(with_rationale(rationale, self.bound.continuations(query), prompt.format == "chat"))
        return candidates_of(self.bound.continuations(query, prompt.format))

    def _write(self, lm: LanguageModel, work: Sequence[Work]) -> list[Prediction | Lost]:
        """By what the model writes: an answer in words, or text that a label is read out of."""
        if not work:
            return []
        how = self._writing(work[0][2])
        written = write_and_weigh(lm, [prompt for _, _, prompt in work], how)
        return [
            each
            if isinstance(each, Lost)
            else prediction_of(self.bound, query, prompt, *each, [self._read_text(query, text, how.stop) for text in each[0]])
            for (_, query, prompt), each in zip(work, written, strict=True)
        ]

    def _writing(self, prompt: Prompt, **changes: Any) -> Writing:
        return writing_of(self.method, self._stop(chat=prompt.format == "chat"), **changes)

    def _stop(self, chat: bool) -> tuple[str, ...]:
        """Where an answer ends. A chat model ends its turn itself, so there the separator of plain prompts is no stop string."""
        template = self.bound.template
        return () if chat and template.stop == (template.separator,) else template.stop

    def _read_text(self, query: Example, text: str, stop: tuple[str, ...]) -> tuple[str | None, str | None]:
        """(the label or the answer in words that a text gives, None), or (None, why there is none)."""
        extract = self.bound.template.extract
        own = after_rationale(self.bound, query, text) if self._may_reason else text
        if self.kind == "answer":
            answer, why = read_answer(own, stop=stop, extract=extract)
            slots = self.bound.template.slots
            return filled(answer, query.fields, slots) if slots and answer is not None else (answer, why)
        return read_as_label(own, words_of(self.bound, query), stop=stop, extract=extract)

    @property
    def _may_reason(self) -> bool:
        """Whether the model may write a rationale before its answer. Without demonstrations an answer in words may have one too: the model
        was asked for one, or trained to write it."""
        return self._shows_rationales or (self.kind == "answer" and self.bound.template.has_rationale)

    def read(self, query: Any, text: str) -> Prediction:
        """What a model elsewhere answered to this query's prompt, as a Prediction. Matched to the label words, or extracted."""
        (example,) = queries_of([query], self.inputs)
        template = self.bound.template
        if self.kind == "answer":
            chat = resolve_format(self.bound, self.method.format, self._model.codec()) == "chat"
            answer, why = self._read_text(example, text, self._stop(chat))
            return Prediction(example.uid, answer, why=why, text=text)
        words = words_of(self.bound, example)
        label, why = read_as_label(text, words, extract=template.extract)
        return Prediction(example.uid, label, candidates=tuple(words), why=why, text=text)

    def plan(self, queries: Sequence[Any]) -> TokenCounts:
        """Tokens that `predict` computes from a cold start; for generated answers at most.

        What a calibration, or a threshold for abstaining, is fitted on is counted once, in the first plan of a predictor, as it is scored
        once; so is what selectors and orders ask the model once for a pool. Nothing is asked here.
        """
        return plan(self, queries_of(queries, self.inputs))

    def why(self, query: Any, **options: Any) -> Why:
        """What the answer to a query rests on: the effect of each demonstration and of each of the query's words. See `_why.why`."""
        return why(self, query, **options)

    # ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def log_scores(self, queries: Sequence[Example]) -> NDArray[np.float64]:
        """(n, n_labels) uncalibrated log-scores of what can be scored: a task row's own copy is not among its demonstrations."""
        return scored(self, queries)[1]

    def score_with(self, query: Any, demonstrations: Sequence[Example]) -> LabelScores:
        """The raw scores of a query with these demonstrations in this order, for components that ask the model."""
        (example,) = queries_of([query], self.inputs)
        made = self._pack_one(example, [Hit(e.uid, 0.0, e) for e in demonstrations], [e.uid for e in demonstrations])
        if isinstance(made, Unfit):
            raise InputError(Problem(made.why, "Use fewer or shorter texts.", field="query"))
        (raw,) = self._raw(self._lm(), [(example, made)])
        if isinstance(raw, Lost):
            raise IclError(raw.why)
        return raw[1]

    def score_many(self, pairs: Sequence[tuple[Example, Sequence[Example]]]) -> list[NDArray[np.float64] | None]:
        """See `_ask.score_many`: for selectors and orders that ask the model."""
        return score_many(self, pairs)

    # ── growing and keeping ──────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, examples: Sequence[Example]) -> None:
        """Take new labelled examples, and any new labels, from the next query on. A fitted calibration or threshold is fitted again, and
        what a selector or order learned from the model is learned again."""
        usable = labelled(examples, self.name)
        if self.used_index is not None:
            self.index.add(usable)
        else:
            self._pool = [*self._pool, *usable]
        if self.kind == "classify":
            labels = label_order(usable, self.labels)
            self.bound = bind(self.bound.template, kind=self.kind, inputs=self.inputs, labels=labels, words=self.method.words)
        self._shows_rationales = self.method.shots > 0 and uses_rationales(self.bound, self.pool)
        self._retriever = self._order = self._last = self._rehearsal = None
        self.learned = Learned()
        self.calibration, self.pool_scores = calibration_of(self.method, self.kind), None
        self.abstaining = abstaining_of(self)

    def save(self, folder: Path | str) -> None:
        """Write a folder that `icl.load` takes. Raises InputError if the retriever, order or tokenizer is a function, or the calibration
        is transductive: it has nothing to freeze."""
        save(self, folder)
