"""A few-shot prompt: demonstrations chosen for each query, put before it, and answered by a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem, suggest
from ..protocols import Encoder, LanguageModel, MethodContext, offers
from ..readout import READOUTS
from ..values import KINDS as ALL_KINDS
from ..values import Example, Kind
from ._abstain import DESCRIPTION, Option, rule_of
from ._bootstrap import DESCRIPTION as RATIONALES
from ._bootstrap import BootstrapSettings, bootstrap_of
from ._common import inputs_of, kind_of, label_order
from ._folder import INDEX, ROWS, TEMPLATE_FILE, read_rows
from ._long_input import LongInputSettings, long_input_of
from ._schema import schema_of
from ._windows import WindowSettings, windows_of

if TYPE_CHECKING:
    from ..prompt import Template
    from ._model import Tokenizer
    from ._predictor import FewShotPredictor

KINDS: frozenset[Kind] = frozenset(ALL_KINDS)
NEEDS_LABELS = True
NEEDS_MODEL = True
CHANCE = frozenset({"demonstrations", "order"})
FORMATS = ("auto", "plain", "chat")
LOOKED_AT = 100
"""Examples that are looked at to tell of which kind they are."""


READOUT = "How a label's score is read; of a list the first, and the others are compared on the same scores."
VOTE = "How samples are counted: plain (one each), or weighted (by how likely each text was)."
VOTES = ("plain", "weighted")
GREEDY = (
    "Whether a single answer in words is the likeliest text; false: it is drawn at the temperature, with a seed of its own for each item."
)


def readout_problems(readouts: Sequence[str]) -> list[Problem]:
    """What is wrong with a method's read-outs."""
    problems = [
        Problem(f"there is no readout named {readout!r}", suggest(str(readout), READOUTS), field="readout")
        for readout in readouts
        if readout not in READOUTS
    ]
    if not readouts or len(set(readouts)) < len(readouts):
        problems.append(
            Problem("an empty list, or one that names a read-out twice", "Name each once, the method's own first.", field="readout")
        )
    if "channel" in readouts and len(readouts) > 1:
        fix = "Make it a method of its own."
        problems.append(Problem("a channel scores the query's text, so that its scores allow no other read-out", fix, field="readout"))
    return problems


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    retriever: str | dict[str, Any] | list[str | dict[str, Any]] = Field("knn", description="A selector, or a list of stages.")
    order: str | dict[str, Any] = Field("similar_last", description="How the demonstrations are ordered in the prompt.")
    shots: int = Field(8, ge=0, description="Demonstrations per prompt, as far as they fit.")
    readout: str | list[str] = Field("sum", description=READOUT)
    calibration: str | dict[str, Any] | None = Field(None, description="Corrects the model's bias towards some labels.")
    template: str | None = Field(None, description="A template instead of the task's.")
    format: Literal["auto", "plain", "chat"] | None = Field(None, description="Plain text or chat turns, instead of the suite's.")
    max_tokens: int | None = Field(None, ge=1, description="Token budget of the prompt; default: the model's window.")
    max_new_tokens: int = Field(64, ge=1, description="Longest text to write: an answer in words, or one that a label is read out of.")
    samples: int = Field(
        1, ge=1, description="Texts to write per prompt; with several, labels are read out of them and their shares are the probabilities."
    )
    greedy: bool = Field(True, description=GREEDY)
    temperature: float = Field(0.7, gt=0, description="Of the texts that are drawn.")
    vote: Literal["plain", "weighted"] = Field("plain", description=VOTE)
    windows: WindowSettings | Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None,
        description="Demonstrations in several windows: a number, auto (as many as show all of them), or settings; default: one prompt.",
    )
    long_input: LongInputSettings | Literal["refuse", "slide", "head_tail", "truncate"] = Field(
        "refuse", description="What is done with an input that no prompt can hold; by default the item is unscored, with the reason."
    )
    encoder: str | None = Field(None, description="A sentence encoder; default: the suite's.")
    abstain: Option = Field(None, description=DESCRIPTION)
    bootstrap: BootstrapSettings | Annotated[int, Field(ge=1)] | None = Field(None, description=RATIONALES)


@dataclass(frozen=True)
class FewShot:
    """A few-shot prompt as a method. `lm=None` writes prompts only and loads no language model.

    template: a name, a path or an `icl.Template`. retriever: a name, a mapping, a list of stages, a callable
    `(queries, k) -> list[list[Hit]]`, or a DemoIndex, which is kept live: what is added to it is seen by the next query.
    tokenizer: a hub id, a folder or a callable that counts, for the token budget where there is no `lm`.
    max_tokens: token budget of a whole prompt with its longest answer; default: the model's window.
    abstain: withhold answers that are not probable enough: a threshold, or {"accuracy": 0.9} or {"coverage": 0.8} to fit one on the
    pool; with "label", what is answered instead.
    """

    lm: LanguageModel | None = None
    template: str | Path | Template = "default"
    retriever: Any = "knn"
    order: Any = "similar_last"
    shots: int = 8
    readout: str | Sequence[str] = "sum"
    """The method's own, or a list: its own, then others that are to be compared on the same scores."""
    calibration: str | Mapping[str, Any] | None = None
    format: str = "auto"
    max_tokens: int | None = None
    encoder: str | Encoder = "minilm"
    templates: str | Path | Sequence[str | Path] | None = None
    """Folder(s) searched for the template first."""
    tokenizer: Tokenizer | None = None
    seed: int = 0
    order_seed: int | None = None
    """Of the order of the demonstrations; default: `seed`."""
    max_new_tokens: int = 64
    samples: int = 1
    """More than 1: so many texts are written per prompt and vote; the shares of the votes are the probabilities of labels."""
    greedy: bool = True
    """Whether a single answer in words is the likeliest text; else it is drawn, with a seed of its own for each item."""
    temperature: float = 0.7
    """Of the texts that are drawn."""
    vote: str = "plain"
    """`weighted`: a sample counts by how likely its text was."""
    windows: int | str | Mapping[str, Any] | None = None
    """Demonstrations in several windows: a number, `auto` (as many as show all of them), or `{n: 4, combine: product}` (`mixture`,
    `parallel`). Default: one prompt, from which demonstrations are dropped that do not fit."""
    long_input: str | Mapping[str, Any] = "refuse"
    """An input that no prompt can hold: `refuse` (unscored, with the reason), `slide`, `head_tail`, `truncate`, or `{how: slide, pool: max,
    overlap: 0.25, field: text}`."""
    words: Mapping[str, Sequence[str]] | None = None
    """Label -> its words, instead of the template's."""
    kind: Kind | None = None
    """Default: the template's, or what the examples look like."""
    inputs: tuple[str, ...] = ()
    """Names of the input fields; default: those of the examples."""
    plugins: tuple[Path, ...] = ()
    name: str = "few_shot"
    abstain: Any = None
    answer: Any = None
    """Answers are records: a JSON schema (a dict, a file, a pydantic class) that what is written is held to, where the model can be."""
    bootstrap: int | Mapping[str, Any] | None = None
    """Rationales from the model itself for so many labelled examples, or `{rows: 64, tries: 4}`; kept where the answer is right."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        try:
            rule_of(self.abstain)
        except InputError as error:
            problems += error.problems
        lm: object = self.lm
        if lm is not None and not offers(lm, LanguageModel):
            problems.append(Problem(f"lm is a language model or None, got {lm!r}", "Load it: icl.load_model('smollm2').", field="lm"))
        for field, least in (("shots", 0), ("max_new_tokens", 1), ("max_tokens", 1), ("samples", 1)):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, int) or value < least):
                problems.append(Problem(f"got {value!r}", f"Give a whole number, at least {least}.", field=field))
        if not self.temperature > 0:
            problems.append(
                Problem(
                    f"got {self.temperature!r}",
                    "Give a number above 0; a single text is the likeliest unless greedy is false.",
                    field="temperature",
                )
            )
        if self.format not in FORMATS:
            problems.append(Problem(f"there is no format named {self.format!r}", suggest(str(self.format), FORMATS), field="format"))
        if self.vote not in VOTES:
            problems.append(Problem(f"there is no vote named {self.vote!r}", suggest(str(self.vote), VOTES), field="vote"))
        elif self.vote == "weighted" and self.samples == 1:
            problems.append(Problem("a single text has nobody to vote with", "Set samples: 8, or vote: plain.", field="vote"))
        problems += readout_problems(self.readouts)
        for check, value in (
            (windows_of, self.windows),
            (long_input_of, self.long_input),
            (bootstrap_of, self.bootstrap),
            (schema_of, self.answer),
        ):
            try:
                check(value)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)

    @property
    def readouts(self) -> tuple[str, ...]:
        """The method's own read-out, then those that come along."""
        return (self.readout,) if isinstance(self.readout, str) else tuple(self.readout)

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(
        self,
        pool: Sequence[Example] = (),
        labels: Sequence[str] = (),
        unlabelled: Sequence[Example] = (),
        *,
        inputs: Sequence[str] | None = None,
        kind: Kind | None = None,
    ) -> FewShotPredictor:
        """Bind the template to the task and get ready to retrieve. Nothing is embedded or scored before the first query.

        Where the retriever is a DemoIndex, its rows are the pool.
        Raises InputError with all that does not fit together: template and kind, fields, labels without words.
        """
        from ..prompt import bind
        from ._predictor import FewShotPredictor

        template = self._template()
        # The rows of an index are on disk and may be many: without labels they are all read, with labels none.
        on_disk = hasattr(self.retriever, "examples")
        pool = self.retriever.examples if on_disk else [e for e in pool if e.target is not None]
        kind = kind or self.kind or (kind_of(pool[:LOOKED_AT]) if template.generic else template.kind)
        inputs = tuple(inputs or self.inputs or inputs_of(pool, None) or template.inputs)
        order = () if kind != "classify" else tuple(labels) if on_disk and labels else label_order(pool, labels)
        bound = bind(template, kind=kind, inputs=inputs, labels=order, words=self.words, channel="channel" in self.readouts)
        if self.answer is not None and kind != "answer":
            raise InputError(Problem(f"a record is an answer in words, and this task is of kind '{kind}'", "Leave it out.", field="answer"))
        if not self.greedy and self.samples == 1 and kind != "answer":
            message = f"only answers in words are drawn, and this task is of kind '{kind}'"
            raise InputError(Problem(message, "Leave it out, or set samples: 8.", field="greedy"))
        method = replace(self, inputs=inputs, answer=schema_of(self.answer))
        if self.bootstrap is not None and not on_disk:
            from ._bootstrapping import BootstrappingPredictor

            return BootstrappingPredictor(method, bound, pool, {"labels": labels, "inputs": inputs, "kind": kind})
        return FewShotPredictor(method, bound, pool)

    def _template(self) -> Template:
        from ..prompt import Template, template_folders

        if isinstance(self.template, Template):
            return self.template
        given = () if self.templates is None else (self.templates,) if isinstance(self.templates, str | Path) else self.templates
        return Template.load(self.template, template_folders(tuple(Path(folder) for folder in given)))


def build(settings: Settings, context: MethodContext) -> FewShot:
    return method_of(settings.model_dump(), context, "few_shot")


def method_of(options: Mapping[str, Any], context: MethodContext, name: str) -> FewShot:
    """A FewShot of what a suite gives; an option that is None or absent is the suite's or the default."""
    known = {f.name for f in fields(FewShot)}
    given = {k: v for k, v in options.items() if v is not None and k in known}
    from_context = {
        "lm": context.lm,
        "template": context.template,
        "format": context.format,
        "encoder": context.encoder,
        "templates": context.template_folders or None,
        "words": context.words,
        "seed": context.seed,
        "order_seed": context.order_seed,
        "kind": context.kind,
        "inputs": context.inputs,
        "answer": context.answer,
        "plugins": context.plugin_folders,
        "name": name,
    }
    return FewShot(**{**from_context, **given})


def load(folder: Path, state: Mapping[str, Any], *, lm: LanguageModel | None = None, device: str | None = None) -> FewShotPredictor:
    """The predictor again; its language model is loaded when it first predicts, unless `lm` is given."""
    from ..files import read_text
    from ..prompt import Template, bind
    from ..retrieve import DemoIndex
    from ._learned import read_learned
    from ._model import ModelHandle
    from ._predictor import FewShotPredictor

    template = Template.parse(read_text(folder / TEMPLATE_FILE), state["template"]["name"], folder / TEMPLATE_FILE)
    template = replace(template, split_labels=state["template"]["split_labels"])
    index = DemoIndex.open(folder / INDEX) if (folder / INDEX).is_dir() else None
    pool = index.examples if index is not None else read_rows(folder / ROWS)
    s = dict(state["settings"])
    kept_live = s["retriever"] == {"index": None}
    method = FewShot(
        lm=lm,
        template=template,
        encoder=state["encoder"]["name"],
        words=state["words"],
        kind=state["kind"],
        inputs=tuple(state["inputs"]),
        name=state["name"],
        abstain=state.get("abstain"),
        **{**s, "retriever": index if kept_live else s["retriever"]},
    )
    bound = bind(template, kind=state["kind"], inputs=method.inputs, labels=tuple(state["labels"]), words=method.words)
    model = state["model"] or {}
    handle = ModelHandle.of(lm) if lm is not None else ModelHandle(**model, tokenizer=method.tokenizer, device=device)
    return FewShotPredictor(
        method, bound, pool, handle, index, state.get("calibration_state"), read_learned(folder), state.get("abstain_threshold")
    )
