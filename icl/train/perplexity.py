"""How well a model foresees plain text: perplexity per token, per byte and per word, over documents.

Per token depends on the tokenizer; per byte and per word do not, so models of different tokenizers may be compared by them.

Causal models: every token of a document is scored once, given what stands before it, the first one given the end of another document.
A document longer than the window is read in windows that overlap by half, so that every token has at least half a window before it.

Masked models: the tokens of a piece are split into seven parts at random, and each part is scored while all of it is masked: every
token once, with a seventh masked as in training. Departure from the pseudo-perplexity of Salazar et al. 2020,
https://arxiv.org/abs/1910.14659, which masks one token at a time, for as many passes as there are tokens. It is no probability of the
text, so masked and causal values are not to be compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..progress import progress
from ..seeds import numpy_rng_for
from .documents import hash_of
from .packing import NO_LABEL, Packed, logits_at
from .reader import Reader

Unit: TypeAlias = Literal["token", "byte", "word"]
UNITS: tuple[Unit, ...] = ("token", "byte", "word")
PARTS = 7
"""A seventh of the tokens is masked at once."""
TOKENS_AT_ONCE = 4_096
N_RESAMPLES = 2_000


@dataclass(frozen=True)
class Scored:
    """Documents, scored by one model."""

    nats: NDArray[np.float64]
    """(n,) of each document: minus the log-likelihood of its scored tokens."""
    n: Mapping[Unit, NDArray[np.float64]]
    """(n,) tokens, bytes (UTF-8) and words (between white space) of each."""

    def perplexity(self) -> dict[Unit, float]:
        """exp of the mean number of nats per unit, over all documents together."""
        return {unit: math.exp(min(700.0, float(self.nats.sum() / max(1.0, self.n[unit].sum())))) for unit in UNITS}


def score_documents(model: Any, reader: Reader, texts: Sequence[str], packed: Packed, *, parts: int = PARTS) -> Scored:
    """parts: how many of the seven parts of a masked model's tokens are scored; fewer are quicker, and the tokens counted are theirs
    alone (bytes and words are those of the whole text, so only the perplexity per token has a meaning then)."""
    windows = [w for i, text in enumerate(texts) for w in (_causal if reader.causal else _masked)(reader, i, text, parts)]
    windows.sort(key=lambda w: -len(w.ids))
    nats, counts = np.zeros(len(texts)), np.zeros(len(texts))
    was_training = model.training
    model.eval()
    with torch.no_grad(), progress("Perplexity", len(windows), "windows") as advance:
        for batch in _batches(windows):
            made = packed.batch([[w.ids] for w in batch], [[w.labels] for w in batch])
            values, rows = _losses(model, packed, {name: t.to(model.device) for name, t in made.items()}, causal=reader.causal)
            owners = np.asarray([w.document for w in batch])[rows]
            np.add.at(nats, owners, values)
            np.add.at(counts, owners, 1)
            advance(len(batch))
    model.train(was_training)
    n: dict[Unit, NDArray[np.float64]] = {
        "token": counts,
        "byte": np.asarray([len(t.encode()) for t in texts], dtype=np.float64),
        "word": np.asarray([len(t.split()) for t in texts], dtype=np.float64),
    }
    return Scored(nats, n)


@dataclass(frozen=True, slots=True)
class _Window:
    document: int
    ids: Sequence[int]
    labels: Sequence[int]


def _causal(reader: Reader, document: int, text: str, parts: int) -> Iterator[_Window]:
    ids = reader.encode([text])[0][:-1]  # the end of a document is none of its text
    step = max(1, reader.length // 2)
    done = 1
    for start in range(0, len(ids), step):
        stop = min(len(ids), start + reader.length)
        if stop > done:
            yield _Window(document, ids[start:stop], [NO_LABEL] * (done - start) + list(ids[done:stop]))
            done = stop


def _masked(reader: Reader, document: int, text: str, parts: int) -> Iterator[_Window]:
    ids = reader.encode([text])[0]
    for start in range(0, len(ids), reader.room):
        inner = ids[start : start + reader.room]
        which = numpy_rng_for(0, "perplexity", hash_of(text), start).permutation(len(inner)) % PARTS
        for part in range(parts):
            chosen = which == part
            if chosen.any():
                shown = [reader.mask if hidden else i for i, hidden in zip(inner, chosen, strict=True)]
                labels = [i if hidden else NO_LABEL for i, hidden in zip(inner, chosen, strict=True)]
                before, after = [NO_LABEL] * len(reader.before), [NO_LABEL] * len(reader.after)
                yield _Window(document, [*reader.before, *shown, *reader.after], [*before, *labels, *after])


def _batches(windows: Sequence[_Window]) -> Iterator[Sequence[_Window]]:
    at = 0
    while at < len(windows):
        n = max(1, TOKENS_AT_ONCE // len(windows[at].ids))
        yield windows[at : at + n]
        at += n


def _losses(model: Any, packed: Packed, batch: Mapping[str, Tensor], *, causal: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(nats of each scored token, the row of each)."""
    values, places = token_losses(model, packed, batch, causal=causal)
    return values.double().cpu().numpy(), places.nonzero()[:, 0].cpu().numpy()


def token_losses(model: Any, packed: Packed, batch: Mapping[str, Tensor], *, causal: bool) -> tuple[Tensor, Tensor]:
    """(nats of each token that has a label (n,), the places (n_rows, length) that predict them)."""
    labels = batch["labels"]
    if causal:  # a place predicts what stands behind it
        labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=NO_LABEL)
    places = labels != NO_LABEL
    logits = logits_at(model, packed.inputs(model, batch, causal=causal), places)
    return torch.nn.functional.cross_entropy(logits, labels[places], reduction="none"), places


def unigram(ids: NDArray[np.uint32], vocabulary: int, reader: Reader, texts: Sequence[str]) -> float:
    """Perplexity per token of a model that knows the tokens' frequencies in the training text alone (one added to each)."""
    counts = np.bincount(ids, minlength=vocabulary).astype(np.float64) + 1
    log_shares = np.log(counts / counts.sum())
    seen = Counter(i for text in texts for i in reader.inner(text))
    return math.exp(-sum(n * log_shares[i] for i, n in seen.items()) / max(1, seen.total()))


def paired(before: Scored, after: Scored, seed: int = 0) -> dict[str, dict[str, float]]:
    """Unit -> `before`, `after`, and the `ratio` of the two with its 95 % interval `low` and `high`: percentile bootstrap over the
    documents, which both models have scored. One document has no interval."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(before.nats), (N_RESAMPLES, len(before.nats)))
    result: dict[str, dict[str, float]] = {}

    def difference(unit: Unit, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        rates = [side.nats[rows].sum(axis=-1) / side.n[unit][rows].sum(axis=-1) for side in (before, after)]
        found: NDArray[np.float64] = rates[1] - rates[0]
        return found

    every = np.arange(len(before.nats))[None]
    for unit in UNITS:
        value = float(difference(unit, every)[0])
        result[unit] = {"before": before.perplexity()[unit], "after": after.perplexity()[unit], "ratio": math.exp(value)}
        if len(before.nats) > 1:
            low, high = np.percentile(difference(unit, draws), (2.5, 97.5))
            result[unit] |= {"low": math.exp(low), "high": math.exp(high)}
    return result
