"""What the rooms ask of each other. Rooms of one rank do not import one another; they are handed objects of these shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeGuard, TypeVar, runtime_checkable

from .values import Example, Hit, Kind, LabelScores, Message, Prediction, Prompt, TokenCounts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Encoder(Protocol):
    """A sentence encoder: texts to unit vectors."""

    @property
    def name(self) -> str:
        """What `encoder=` was given: a catalogue name, a hub id or a folder."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a vector."""

    @property
    def dimensions(self) -> int: ...
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimensions) float32, rows of length 1. Cached by content: a text is encoded once."""

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """True for each text that is longer than the encoder reads."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as tokens."""

    ids: tuple[int, ...]
    """Empty for a codec that can only count."""
    n_tokens: int
    text: str
    tail: str
    """The text after the last control token."""
    n_head: int
    """Tokens before the tail."""


class PromptCodec(Protocol):
    """What packing asks of a tokenizer. Control tokens are never read out of the values of rows."""

    @property
    def has_chat(self) -> bool:
        """True if there is a chat template."""

    def plain(self, text: str) -> Encoded: ...
    def chat(self, messages: Sequence[Message]) -> Encoded:
        """With the generation prompt, ready for the assistant's answer. A system message is merged where the model has no such turn."""

    def extended(self, encoded: Encoded, continuation: str) -> int:
        """Tokens of the prompt and the continuation encoded together."""

    def count(self, text: str) -> int:
        """Tokens of a text alone, without BOS."""


Estimator: TypeAlias = Literal["loglikelihood", "first_token", "generation"]
"""How a model answers label tasks: by the log-likelihood of whole continuations, by that of their first tokens among the most likely
ones, or by writing, where it gives no log-probabilities (`score` then raises InputError)."""


P = TypeVar("P")


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model. All log-likelihoods are natural logarithms (nats)."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a score: weights, dtype, adapter, tokenizer."""

    @property
    def window(self) -> int:
        """Most tokens the model reads, prompt and continuation together."""

    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def codec(self) -> PromptCodec: ...
    @property
    def estimator(self) -> Estimator: ...
    @property
    def reference(self) -> Mapping[str, Any]:
        """Keyword arguments of `load_model` that give this model again."""

    def score(self, contexts: Sequence[str | Prompt], continuations: Sequence[Sequence[str]]) -> list[LabelScores]: ...
    def loglikelihoods(self, contexts: Sequence[str | Prompt], continuations: Sequence[Sequence[str]]) -> list[list[float]]: ...
    def plan(self, contexts: Sequence[str | Prompt], continuations: Sequence[Sequence[str]]) -> TokenCounts:
        """Tokens that `score` would compute, without computing them."""

    def generate(self, prompts: Sequence[str | Prompt], max_new_tokens: int = 64, stop: Sequence[str] = ("\n",)) -> list[str]: ...
    def sample(
        self,
        prompts: Sequence[str | Prompt],
        n: int = 8,
        temperature: float = 0.7,
        seed: int = 0,
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
    ) -> list[list[str]]: ...
    def count_tokens(self, text: str) -> int: ...


def offers(value: object, protocol: type[P]) -> TypeGuard[P]:
    """Whether it has all that a protocol names. Asked of the object itself: a model may be wrapped in one that passes on what it does not do,
    which `isinstance` no longer sees from Python 3.12 on."""
    return all(getattr(value, name, None) is not None for name in vars(protocol) if not name.startswith("_"))


Retriever: TypeAlias = Callable[[Sequence[Example], int], "list[list[Hit]]"]
"""(queries, k) -> for each query at most k hits, best first."""
Selector: TypeAlias = Callable[[Sequence[Example], int, "list[list[Hit]] | None"], "list[list[Hit]]"]
"""As a Retriever, with the candidates that the stage before it left (None: the whole pool)."""
Order: TypeAlias = Callable[[Example, "list[Hit]"], "list[Hit]"]
"""Hits best first -> hits in prompt order, furthest from the query first."""


class Predictor(Protocol):
    """A fitted method."""

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        """queries: Example, dict of fields, or str where there is one field. One Prediction each, in order."""

    def save(self, folder: Path | str) -> None:
        """Write a folder that `icl.load` takes."""


class Method(Protocol):
    """Something that learns from labelled examples."""

    @property
    def kinds(self) -> frozenset[Kind]: ...
    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> Predictor: ...


@dataclass(frozen=True, slots=True)
class MethodContext:
    """What a suite hands to a method's `build(settings, context)`. The same for every method, so that they are compared fairly."""

    kind: Kind
    inputs: tuple[str, ...]
    """Names of the input fields."""
    labels: tuple[str, ...] = ()
    seed: int = 0
    lm: LanguageModel | None = None
    encoder: str | Encoder = "minilm"
    template: Any = "default"
    """A name, a path, or an icl.Template: the task's."""
    words: Mapping[str, Sequence[str]] | None = None
    """Label -> words, where the task overrides the template's."""
    template_folders: tuple[Path, ...] = ()
    format: str = "auto"
    plugin_folders: tuple[Path, ...] = ()
    answer: Any = None
    """The JSON schema that an answer is held to: the task's records."""
    order_seed: int | None = None
    """Of the order of demonstrations, where it is not `seed`."""
    work: Path | None = None
    """A folder for the checkpoints of this one fit, which goes on from them after an interruption; not there yet, and gone afterwards."""
