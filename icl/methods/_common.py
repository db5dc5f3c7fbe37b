"""What the methods share: queries, label order, floors, and neighbours of a pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem, suggest
from ..protocols import Encoder, Retriever
from ..values import Example, Kind, Prediction, as_query

if TYPE_CHECKING:
    from ..retrieve import DemoIndex

FLOOR = 1e-3
"""Probability of a label that the labelled examples lack (less where there are more than 100 labels). Never 0: it may be right."""
VOTE_TOLERANCE = 1e-6
"""Votes closer than this are a tie: the rounding of similarities may depend on the batch."""


def queries_of(queries: Sequence[Any], inputs: Sequence[str]) -> list[Example]:
    """Each query as an Example. Raises InputError if a single query was passed instead of a list."""
    if isinstance(queries, str | Mapping | Example):
        raise InputError(Problem("predict takes a list of queries, got a single one", "Put it into a list: predict([query])."))
    return [as_query(q, inputs) for q in queries]


def inputs_of(pool: Sequence[Example], inputs: Sequence[str] | None) -> tuple[str, ...]:
    """The input fields: as given, else those of the first example."""
    return tuple(inputs) if inputs else tuple(pool[0].fields) if pool else ()


def kind_of(pool: Sequence[Example]) -> Kind:
    """What examples without a Task are: with choices, with references, or with a label."""
    if any(e.choices for e in pool):
        return "choose"
    return "answer" if any(e.references for e in pool) else "classify"


def label_order(pool: Iterable[Example], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """`labels`, then those of the pool that are not among them, as they come."""
    return tuple(dict.fromkeys([*labels, *(e.target for e in pool if e.target is not None)]))


def labelled(pool: Sequence[Example], method: str) -> list[Example]:
    """The examples that have a label. Raises InputError if there is none."""
    usable = [e for e in pool if e.target is not None]
    if not usable:
        raise InputError(Problem(f"'{method}' learns from labelled examples and was given none", "Give it at least one.", field="pool"))
    return usable


def check_targets(targets: Sequence[Sequence[float]] | None, n_rows: int, n_labels: int) -> None:
    """Raises InputError unless there is a probability of every label for each row."""
    if targets is None:
        return
    if len(targets) != n_rows:
        raise InputError(Problem(f"{len(targets)} targets for {n_rows} rows", "Give one for each row.", field="targets"))
    if odd := {len(row) for row in targets} - {n_labels}:
        message = f"a target has {min(odd)} probabilities where there are {n_labels} labels"
        raise InputError(Problem(message, "Give one probability for each label, in the order of labels.", field="targets"))


def check_weights(weights: str | Mapping[str, float], labels: Sequence[str]) -> None:
    """Raises InputError if a weight is given to what is no label."""
    if isinstance(weights, Mapping) and (unknown := [name for name in weights if name not in labels]):
        raise InputError([Problem(f"there is no label '{name}'", suggest(name, labels), field="class_weights") for name in unknown])


def floored(shares: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    """Probabilities over all labels, in their order: those without a share get `FLOOR`, the others what is left, in proportion.

    shares: label -> weight ≥ 0, not all 0.
    """
    floor = min(FLOOR, 0.1 / len(labels))
    total = sum(shares.values())
    lacking = sum(1 for label in labels if not shares.get(label))
    scale = (1 - lacking * floor) / total
    return {label: shares[label] * scale if shares.get(label) else floor for label in labels}


def best(shares: Mapping[str, float], labels: Sequence[str], tolerance: float = VOTE_TOLERANCE) -> tuple[str, bool]:
    """(the first label within `tolerance` of the largest share, whether there are several)."""
    top = max(shares.values())
    close = [label for label in labels if shares.get(label, 0.0) >= top - tolerance]
    return close[0], len(close) > 1


def voted(query: Example, shares: Mapping[str, float], labels: Sequence[str], demonstrations: tuple[str, ...] = ()) -> Prediction:
    """The Prediction of label weights."""
    answer, tie = best(shares, labels)
    return Prediction(query.uid, answer, floored(shares, labels), tuple(labels), demonstrations, tie=tie)


def index_of(pool: Sequence[Example], encoder: str | Encoder) -> DemoIndex:
    """An index over the pool, in memory."""
    from ..retrieve import DemoIndex

    return DemoIndex.build(pool, encoder=encoder)


def neighbours_of(index: DemoIndex) -> Retriever:
    """The nearest rows of an index, never the query itself or a copy of it."""
    from ..retrieve import build_retriever

    retriever: Retriever = build_retriever(index, index.examples, index=lambda: index, labels=(), seed=0)
    return retriever


def open_index(folder: Path) -> DemoIndex:
    """The index of a saved predictor, with the encoder it names; another one under that name is refused."""
    from ..retrieve import DemoIndex

    return DemoIndex.open(folder)


def encoder_state(encoder: Encoder) -> dict[str, Any]:
    """What a saved predictor says of its encoder."""
    return {"name": encoder.name, "fingerprint": encoder.fingerprint}


def encoder_again(state: Mapping[str, Any]) -> Encoder:
    """The encoder a saved predictor names. Raises InputError if what loads under that name is another one."""
    from ..retrieve import load_encoder, same_encoder

    encoder: Encoder = load_encoder(str(state["name"]))
    if not same_encoder(encoder.fingerprint, str(state["fingerprint"])):
        raise InputError(
            Problem(
                f"the encoder '{encoder.name}' is not the one this predictor was made with (fingerprint {encoder.fingerprint}, "
                f"not {state['fingerprint']})",
                "Put the same encoder files back under that name, or fit the method again.",
                field="encoder",
            )
        )
    return encoder
