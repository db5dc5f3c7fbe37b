"""A retriever trained from the language model's own scores (EPR): an encoder that ranks first what the model does best with.

Rubin et al. 2022, https://arxiv.org/abs/2112.08633. Rows of the pool are queries; other rows, found by their words, are candidates, and
the model scores the right answer after each candidate alone. The best quarter are positives, the worst quarter hard negatives, and
so are the rows of other queries in the batch. Departures: one encoder serves queries and candidates and sees input fields only,
since that is how demonstrations are searched here (the paper trains two, and its candidates carry their answers); the pool is what
somebody owns, so candidates are few and a query's positives the best quarter of them, not the best 5 of 50.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..errors import InputError, Problem
from ..files import replace_folder, write_text
from ..plugins import ScoreMany
from ..protocols import Encoder
from ..retrieve import DemoIndex, SentenceEncoder, build_retriever, load_encoder
from ..retrieve.encoders import TRAINING, model_in
from ..retrieve.selectors.epr import FEWEST
from ..retrieve.selectors.epr import Settings as Training
from ..seeds import rng_for, seed_for
from ..values import Example, embedded_text, normalised_text
from ..weights import quiet_transformers
from .encoder import train_encoder

README = "README.md"
HELD_OUT = 0.2
"""Share of the queries that training does not see: what ranking is measured on."""
MARKED = 0.25
"""Share of a query's candidates that are positives, and that are hard negatives."""
TOLERANCE = 1e-4
"""Nats. Scores closer than this are equal: rounding depends on the batch."""
PAIRS = 4096
"""Prompts that the model is given at once."""
SCALE = 20.0
"""Cosines are multiplied by this before the softmax: a temperature of 0.05."""
ROWS_AT_ONCE = 16
"""Texts whose activations are held at once, whatever the batch."""
OPEN = 64
"""Batches that are filled at the same time."""


class NothingScoredError(InputError):
    """The model gave no score for any candidate."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A row as a query, and its candidates as the model ranks them."""

    query: str
    candidates: tuple[str, ...]
    """Best first, equal ones as they were found. Texts as they are embedded."""
    scores: tuple[float, ...]
    """Nats, parallel to the candidates; the first is above the last."""


class Triplet(NamedTuple):
    query: str
    positive: str
    negative: str


def train_retriever(
    pool: Sequence[Example],
    score_many: ScoreMany,
    out: Path | str,
    *,
    labels: Sequence[str] = (),
    settings: Training | None = None,
    base: str | Encoder = "minilm",
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an encoder on what the model makes of the pool, and write it to the folder `out`: use it as `knn: {encoder: FOLDER}`.

    score_many: as `plugins.ScoreMany`; that of a method is `icl.FewShot(lm, template=…).fit(pool).score_many`. labels: the order of its
    scores; for rows with choices none. settings: those of the selector `epr`. about: what else the folder's record is to say.

    Returns the record, which also lies in the folder: settings, numbers, and the mean reciprocal rank of the candidate that the model
    does best with, on queries held out, before and after training. The same seed gives the same encoder on the same machine with as
    many threads (on a CPU; on a GPU sums may be taken in another order). The folder is written whole or not at all.

    Raises InputError for a pool that nothing can be learned from, a base that has no weights here, or an `out` that holds something
    else; NothingScoredError if the model scores nothing.
    """
    settings = settings or Training.model_validate({})
    folder = Path(out)
    _check_folder(folder)
    rows = _check_rows(pool, labels)
    encoder = load_encoder(settings.base or base)
    if not isinstance(encoder, SentenceEncoder):
        raise InputError(
            Problem(
                f"the encoder '{encoder.name}' has no weights here, so it cannot be trained",
                "Start from a catalogue name (minilm), a hub id or a sentence-transformers folder.",
                field="base",
            )
        )
    queries = _queries(rows, settings.queries, seed)
    candidates = _candidates(queries, rows, encoder, settings, seed)
    judged = judge(queries, candidates, score_many, labels, settings.measure)
    n_held_out = max(1, round(HELD_OUT * len(judged)))
    held_out, trained = judged[:n_held_out], judged[n_held_out:]
    if not trained:
        raise InputError(
            Problem(
                f"the model's scores tell the candidates of {len(judged)} rows apart, and training takes 2 at least",
                "Give more rows, or more room: a demonstration that does not fit the token budget is dropped, and makes no difference.",
                field="pool",
            )
        )
    model = model_in(encoder.folder)
    before = mean_reciprocal_rank(model, held_out)
    losses = _fit(model, trained, settings, seed)
    record = {
        "method": "epr",
        "icl": __version__,
        "base": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        **(about or {}),
        "settings": settings.model_dump(exclude={"n", "base"}),
        "seed": seed,
        "n_rows": len(rows),
        "n_prompts": sum(map(len, candidates)),
        "n_trained": len(trained),
        "n_held_out": len(held_out),
        "loss": losses,
        "mean_reciprocal_rank": {"before": before, "after": mean_reciprocal_rank(model, held_out), "by_chance": _by_chance(held_out)},
    }
    _write(model, folder, record)
    return record


# ── what is trained on ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_rows(pool: Sequence[Example], labels: Sequence[str]) -> list[Example]:
    """The rows that have a right answer among those that are scored."""
    rows = [row for row in pool if row.target is not None and row.target in (row.choices or labels)]
    problem = None
    if not labels and not any(row.choices for row in pool):
        problem = "these rows have neither labels nor choices, and a retriever is not trained on free text"
    elif len({_text(row) for row in rows}) < FEWEST:
        problem = f"of {len(pool)} rows there are {len({_text(row) for row in rows})} with a known label and different texts: too few"
    elif not any(row.choices for row in rows) and len({row.target for row in rows}) < 2:
        problem = f"all rows have the label '{rows[0].target}', so none of them is the better demonstration"
    if problem:
        raise InputError(Problem(problem, f"A retriever is trained on {FEWEST} rows at least, of 2 labels.", field="pool"))
    return rows


def _text(row: Example) -> str:
    text = embedded_text(row.fields)
    return normalised_text(text) or text


def _queries(rows: Sequence[Example], n: int, seed: int) -> list[Example]:
    """At most n rows of different texts, drawn with the seed, whatever the order of the pool."""
    drawn: dict[str, Example] = {}
    for row in sorted(rows, key=lambda row: seed_for(seed, "epr", row.uid)):
        drawn.setdefault(_text(row), row)
        if len(drawn) == n:
            break
    return list(drawn.values())


def _candidates(
    queries: Sequence[Example], rows: Sequence[Example], encoder: SentenceEncoder, settings: Training, seed: int
) -> list[list[Example]]:
    """Never the query's own row or a copy of it, and no text twice."""
    find = build_retriever(settings.candidates_by, rows, index=lambda: DemoIndex.build(rows, encoder=encoder), labels=(), seed=seed)
    return [list({_text(hit.example): hit.example for hit in reversed(hits)}.values())[::-1] for hits in find(queries, settings.candidates)]


def judge(
    queries: Sequence[Example], candidates: Sequence[Sequence[Example]], score_many: ScoreMany, labels: Sequence[str], measure: str
) -> list[Judged]:
    """Those queries whose candidates the model tells apart, each candidate scored as the only demonstration.

    A candidate that cannot be scored is left out. Raises NothingScoredError if none can be.
    """
    result: list[Judged] = []
    n_scored, step = 0, max(1, PAIRS // max(map(len, candidates), default=1))
    for start in range(0, len(queries), step):
        part = list(zip(queries[start : start + step], candidates[start : start + step], strict=True))
        scores = iter(score_many([(query, [row]) for query, rows in part for row in rows]))
        for query, rows in part:
            right = (query.choices or tuple(labels)).index(str(query.target))
            values = [_value(next(scores), right, measure) for _ in rows]
            scored = [(value, embedded_text(row.fields)) for value, row in zip(values, rows, strict=True) if value is not None]
            n_scored += len(scored)
            scored.sort(key=lambda pair: -round(pair[0] / TOLERANCE))
            if len(scored) > 1 and scored[0][0] > scored[-1][0] + TOLERANCE:
                texts, nats = tuple(text for _, text in scored), tuple(value for value, _ in scored)
                result.append(Judged(embedded_text(query.fields), texts, nats))
    if not n_scored:
        raise NothingScoredError(
            Problem("the language model scored none of the candidates", "See why it cannot score: icl doctor MODEL.", field="pool")
        )
    return result


def _value(scores: Any, right: int, measure: str) -> float | None:
    """Nats of the right answer; None where it has no score."""
    import numpy as np

    if scores is None or not np.isfinite(scores[right]):
        return None
    return float(scores[right] - (np.logaddexp.reduce(scores) if measure == "log_probability" else 0.0))


# ── training and measuring ───────────────────────────────────────────────────────────────────────────────────────────────────


def mean_reciprocal_rank(model: Any, judged: Sequence[Judged]) -> float:
    """Of the candidate that the language model does best with (of equally good ones the first) among the query's candidates by cosine;
    equal cosines count against it.

    model: one of `icl.retrieve.encoders.model_in`.
    """
    texts = list(dict.fromkeys(text for each in judged for text in (each.query, *each.candidates)))
    place = {text: i for i, text in enumerate(texts)}
    vectors = model.encode(texts, lambda n=1: None)
    total = 0.0
    for each in judged:
        cosines = vectors[[place[text] for text in each.candidates]] @ vectors[place[each.query]]
        n = _n_best(each)
        total += 1 / (1 + int((cosines[n:] >= cosines[:n].max()).sum()))
    return total / len(judged)


def _by_chance(judged: Sequence[Judged]) -> float:
    """The mean reciprocal rank of candidates in any order."""
    total = 0.0
    for each in judged:
        n, best = len(each.candidates), _n_best(each)
        total += sum(math.comb(n - rank, best - 1) / rank for rank in range(1, n + 1)) / math.comb(n, best)
    return total / len(judged)


def _n_best(judged: Judged) -> int:
    return sum(score >= judged.scores[0] - TOLERANCE for score in judged.scores)


def _fit(model: Any, judged: Sequence[Judged], settings: Training, seed: int) -> list[float]:
    """Train the model in place; the mean loss of each epoch."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    ranking = CachedMultipleNegativesRankingLoss(model.module, scale=SCALE, mini_batch_size=ROWS_AT_ONCE)
    epochs = [_batches(list(_triplets(judged, seed, epoch)), settings.batch) for epoch in range(settings.epochs)]
    losses = train_encoder(
        model.module,
        [batch for batches in epochs for batch in batches],
        lambda batch: ranking([model.features(column) for column in zip(*batch, strict=True)], None),
        learning_rate=settings.learning_rate,
        seed=seed_for(seed, "epr"),
        what="Training the retriever",
    )
    ends = itertools.accumulate(map(len, epochs))
    return [round(sum(losses[end - len(batches) : end]) / len(batches), 6) for batches, end in zip(epochs, ends, strict=True)]


def _triplets(judged: Sequence[Judged], seed: int, epoch: int) -> Iterator[Triplet]:
    """One of each query, mixed: a positive and a hard negative, drawn anew in each epoch."""
    generator = rng_for(seed, "epr", epoch)
    for each in generator.sample(judged, len(judged)):
        n = max(1, round(MARKED * len(each.candidates)))
        best = range(n)
        worst = range(len(each.candidates) - n, len(each.candidates))
        pairs = [(i, j) for i in best for j in worst if each.scores[i] > each.scores[j] + TOLERANCE]
        i, j = generator.choice(pairs)
        yield Triplet(each.query, each.candidates[i], each.candidates[j])


def _batches(triplets: Sequence[Triplet], size: int) -> list[list[Triplet]]:
    """Filled one after the other, so that no text is a positive or a query and, for another query of the batch, a negative too."""
    batches: list[list[Triplet]] = []
    filling: list[list[Triplet]] = []
    for triplet in triplets:
        batch = next((each for each in filling if len(each) < size and all(_go_together(triplet, other) for other in each)), None)
        if batch is None:
            batch = []
            batches.append(batch)
            filling = [*(each for each in filling if len(each) < size), batch][-OPEN:]
        batch.append(triplet)
    return batches


def _go_together(a: Triplet, b: Triplet) -> bool:
    return not ({a.query, a.positive} & {*b} or {b.query, b.positive} & {*a})


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_folder(folder: Path) -> None:
    """Nothing may be there but an encoder that was trained here."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / TRAINING).is_file()):
        raise InputError(Problem("this holds something that is not a trained encoder", "Name a new folder.", str(folder), field="out"))


def _write(model: Any, folder: Path, record: Mapping[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        with quiet_transformers():
            model.module.save(str(staging), create_model_card=False)
        write_text(staging / TRAINING, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        write_text(staging / README, _card(record))
        replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _card(record: Mapping[str, Any]) -> str:
    rank = record["mean_reciprocal_rank"]
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, demonstration-retrieval]",
        "---",
        "# A retriever of demonstrations",
        "",
        f"Trained by icl {record['icl']} from `{record['base']['name']}` on a language model's scores of {record['n_trained']} rows, as in EPR",
        "(Rubin et al. 2022, https://arxiv.org/abs/2112.08633): near is what helps the model most as a demonstration.",
        "",
        "```yaml",
        "retriever: {knn: {encoder: FOLDER}}",
        "```",
        "",
        f"The candidate that the model does best with, on {record['n_held_out']} rows held out: mean reciprocal rank "
        f"{rank['before']:.3f} before training, {rank['after']:.3f} after, {rank['by_chance']:.3f} by chance.",
        f"All else is in `{TRAINING}`.",
        "",
    ]
    return "\n".join(lines)
