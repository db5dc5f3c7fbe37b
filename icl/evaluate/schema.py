"""The suite file as pydantic models: what may stand in it. `check.py` loads one and checks it against what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from ..errors import InputError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
_STRING = {"type": "string", "description": "A file, relative to the suite, or hf:NAME."}
Source = Annotated[Any, WithJsonSchema(_STRING)]
"""A path or `hf:…` in a file; in a suite given as a dict also whatever else `Task.load` takes (a list of dicts, a dataframe)."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prices(Strict):
    """Money per million tokens, in a currency of your own."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Of input that the provider has in its cache; default: input."
    )
    cache_write: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Of input that the provider stores in its cache; default: input. For break-even alone."
    )


class ModelEntry(Strict):
    """A language model, with the options of `icl.load_model`."""

    model: str = Field(description="A catalogue name, a folder, a .gguf file, a hub id, or https://host/v1#model-name.")
    name: Name | None = Field(None, description="What the results call it; by default the last part of `model`.")
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    memory: str = "4GiB"
    max_batch: int | None = Field(None, ge=1)
    revision: str | None = None
    adapter: str | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    attention: str | None = Field(
        None,
        pattern=r"^sink:\d+\+[1-9]\d*$",
        description="An approximation for long prompts: sink:4+2048 lets each token see the first 4 and the last 2,048 alone.",
    )
    format: Literal["auto", "plain", "chat"] = "auto"
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Endpoints: the environment variable that holds the key. Never the key itself.",
    )
    concurrency: int | None = Field(None, ge=1, le=1024, description="Endpoints: requests at once.")
    prices: Prices | None = Field(None, description="Endpoints: for --plan, --max-cost and the money counted.")
    extra_body: dict[str, Any] | None = Field(None, description="Endpoints: more keys of every request, such as a switch for thinking.")
    tokenizer: str | None = Field(None, description="Endpoints: a catalogue name, a folder or a hub id of the model's tokenizer.")
    window: int | None = Field(None, ge=1, description="Endpoints: most tokens the model reads, where the server does not say.")
    estimator: Literal["loglikelihood", "first_token", "generation"] | None = Field(
        None, description="Endpoints: how label tasks are answered; default: the best that the server can do."
    )
    mark_cache: bool = Field(
        False, description="Endpoints: mark up to where prompts are shared, for providers that cache only what is marked (cache_control)."
    )
    personal_data: str = Field(
        "send",
        pattern="^(send|replace|presidio|presidio:.+)$",
        description="Endpoints: whether e-mail addresses, account, card and telephone numbers are replaced before they are sent; presidio "
        "recognises more, presidio:PIPELINE also the names that a spaCy pipeline finds.",
    )
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False, description="Endpoints: seconds for one attempt at a request.")

    @property
    def remote(self) -> bool:
        """Whether the model is behind an address."""
        return "://" in self.model

    @property
    def key(self) -> str:
        """What results and folders call the model."""
        return self.name or (self.model.rpartition("#")[2] if self.remote else self.model).rstrip("/").rsplit("/", 1)[-1]

    def given(self, names: Sequence[str]) -> dict[str, Any]:
        """Those of these options that differ from their defaults."""
        return {n: value for n in names if (value := getattr(self, n)) != ModelEntry.model_fields[n].default}

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `icl.load_model` beside the model itself."""
        given = self.given(REMOTE_OPTIONS if self.remote else LOCAL_OPTIONS)
        return {n: value.model_dump(exclude_none=True) if isinstance(value, Prices) else value for n, value in given.items()}


LOCAL_OPTIONS = ("device", "dtype", "memory", "max_batch", "revision", "adapter", "quantization", "attention")
REMOTE_OPTIONS = (
    "api_key_env",
    "concurrency",
    "prices",
    "extra_body",
    "tokenizer",
    "window",
    "estimator",
    "mark_cache",
    "personal_data",
    "timeout",
)
NEUTRAL_OPTIONS = ("api_key_env", "concurrency", "prices", "mark_cache", "timeout")
"""Options that change no result: a run goes on although they have changed."""


class TaskEntry(Strict):
    """A task: the keys of `icl.Task.load`, a template, and the words of its labels."""

    name: Name
    train: Source
    test: Source = None
    dev: Source = None
    unlabelled: Source = None
    kind: Literal["classify", "choose", "answer"] | None = None
    input: str | list[str] | dict[str, str] = Field("text", description="The input columns, or {template field: column}.")
    label: str = "label"
    choices: str | None = Field(None, description="A column of lists: the task is a choice.")
    references: str | None = Field(None, description="A column of accepted answers: the task is answered in words.")
    rationale: str | None = None
    derive: dict[str, str] = Field(
        {}, description="New columns out of others, in order: {NAME: text with {{ expressions }}}, as in a template."
    )
    answer: str | dict[str, Any] | None = Field(
        None, description="Answers are records: a JSON schema, or the file of one, that what is written is held to."
    )
    id: str | None = None
    holdout: float = Field(0.3, gt=0, lt=1)
    seed: int = 0
    template: str = "default"
    labels: dict[str, str | list[str]] | list[str] | None = Field(
        None, description="The labels in their order, or {label: words}, which override the template's."
    )
    unseen: list[str] = Field([], description="Labels that nothing is learned from: their rows serve for judging only.")
    data_root: str | None = Field(None, description="A folder with local copies of hub data sets.")
    groups: list[str] = Field([], description="Columns by whose values figures are shown: each group's own, and the largest gap.")
    label_bias: bool = Field(
        False,
        description="Also ask each method, at its largest label budget, for inputs that say nothing: the labels that it prefers (with groups: always).",
    )
    limit: int | None = Field(None, ge=1, description="Judge on this many test items, chosen by a hash of their content.")

    @field_validator("labels", "unseen", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Labels are strings, byte for byte: a number that reads back as it is written may do without quotes."""
        if isinstance(value, dict):
            return {str(k): [_text(w) for w in v] if isinstance(v, list) else _text(v) for k, v in value.items()}
        return [_text(v) for v in value] if isinstance(value, list) else value

    @field_validator("derive")
    @classmethod
    def _expressions(cls, value: dict[str, str]) -> dict[str, str]:
        from ..prompt.columns import columns

        try:
            columns(value)
        except InputError as error:
            raise ValueError("; ".join(f"{problem.field}: {problem.message}" for problem in error.problems)) from None
        return value

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the input fields as templates know them."""
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)

    @property
    def words(self) -> dict[str, tuple[str, ...]] | None:
        """Label -> its words, where the suite gives them."""
        if not isinstance(self.labels, dict):
            return None
        return {label: (words,) if isinstance(words, str) else tuple(words) for label, words in self.labels.items()}

    def sources(self) -> dict[str, Any]:
        """Split -> where its rows come from, for the splits that are given."""
        return {split: source for split in ("train", "test", "dev", "unlabelled") if (source := getattr(self, split)) is not None}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Seeds(Strict):
    """How often each source of chance is drawn anew."""

    draw: int = Field(1, ge=1, le=1000, description="Which labelled examples are owned.")
    demonstrations: int = Field(1, ge=1, le=1000, description="Which of them a retriever with chance in it shows.")
    order: int = Field(1, ge=1, le=1000, description="In which order, where it has chance in it.")
    train: int = Field(1, ge=1, le=1000, description="Everything random in a training.")

    @property
    def sizes(self) -> dict[str, int]:
        """Factor -> how many values it takes, as `crossed.FACTORS`."""
        return {name: getattr(self, name) for name in ("draw", "demonstrations", "order", "train")}

    @property
    def crossed(self) -> bool:
        """Whether anything but the draw of the labels has several values."""
        return any(size > 1 for name, size in self.sizes.items() if name != "draw")

    @model_validator(mode="after")
    def _few_enough(self) -> Seeds:
        n = math.prod(self.sizes.values())
        if n > 1000:
            raise ValueError(f"these seeds make {n:,} runs of a method at each label budget; 1,000 are the most")
        return self


class Suite(Strict):
    """A comparison: every method on the same labelled examples of every task, judged on the same test items."""

    description: str = ""
    models: list[str | ModelEntry] = Field(default=["smollm2"], description="Language models; loaded only if a method uses one.")
    tasks: list[TaskEntry] = Field(min_length=1)
    methods: list[str | dict[str, Any]] = Field(
        min_length=1, description="A name, {name: settings}, or {name: OWN, method: settings, tasks: [NAME]}."
    )
    budgets: list[Annotated[int, Field(ge=1)] | Literal["all"]] = Field(
        default=["all"], min_length=1, description="Label budgets: how many labelled examples are owned. Draws are nested."
    )
    seeds: Annotated[int, Field(ge=1, le=1000)] | Seeds = 1
    metrics: list[str | dict[str, Any]] | None = Field(
        None, description="By default accuracy and macro_f1, for choices accuracy, for answers exact_match and token_f1."
    )
    thresholds: dict[str, dict[str, float]] = Field(
        default={}, description="method -> metric -> the least (for an error measure the greatest) seed mean at the largest budget."
    )
    encoder: str = Field("minilm", description="The sentence encoder of methods that embed texts, and of the data report.")
    encoder_price: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Endpoints: money per million tokens that the encoder reads, for --max-cost and the money counted.",
    )

    @field_validator("budgets")
    @classmethod
    def _each_once(cls, value: list[int | str]) -> list[int | str]:
        twice = sorted({str(b) for b in value if value.count(b) > 1})
        if twice:
            raise ValueError(f"the budget {', '.join(twice)} stands here twice")
        return sorted(value, key=lambda b: float("inf") if b == "all" else float(b))

    @property
    def seed_sizes(self) -> dict[str, int] | None:
        """Factor of chance -> how many values it takes; None where one seed varies them all together."""
        return None if isinstance(self.seeds, int) else self.seeds.sizes

    @property
    def n_draws(self) -> int:
        """How often the labels are drawn."""
        return self.seeds if isinstance(self.seeds, int) else self.seeds.draw

    @property
    def crossed(self) -> bool:
        """Whether sources of chance beside the draw of the labels are varied by themselves."""
        return not isinstance(self.seeds, int) and self.seeds.crossed

    @property
    def model_entries(self) -> tuple[ModelEntry, ...]:
        return tuple(ModelEntry.model_validate({"model": m}) if isinstance(m, str) else m for m in self.models)


DEFAULT_METRICS = {"classify": ("accuracy", "macro_f1"), "choose": ("accuracy",), "answer": ("exact_match", "token_f1")}
