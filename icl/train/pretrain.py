"""Pretraining on plain text: causal or masked, from scratch or continued, in packed rows, with perplexity before and after.

Masked as in BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): 15 % of the tokens are predicted; of these 80 % are shown as the
mask, 10 % as a random token, 10 % as they are; drawn anew each time a row is seen (Liu et al. 2019, https://arxiv.org/abs/1907.11692).
No next-sentence task. Continued pretraining on the texts of a task or its domain is that of Gururangan et al. 2020,
https://arxiv.org/abs/2004.10964.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, Problem
from ..files import sha256_file, write_text
from ..progress import note
from ..seeds import numpy_rng_for, rng_for
from ..values import digest
from .bases import fingerprint_of
from .documents import HeldOut, Tokens, given_out, hold_out, read_documents, tokenise
from .language import Base, load_base, restored, save_language_model
from .loop import Lesson, seeded, train
from .packing import NO_LABEL, Packed, cut, how_to_pack, pack
from .perplexity import Scored, paired, score_documents, token_losses, unigram
from .pretrain_settings import PretrainSettings
from .reader import Reader
from .scratch import new_model, size_of, train_tokenizer, vocabulary_of

Objective: TypeAlias = Literal["causal", "masked"]
RECORD, WORKING = "pretraining.json", "working"
_KEY, _HELD, _TOKENIZER, _BEFORE, _TRAINED, _CHECKPOINTS = (
    "key.txt",
    "held_out.json",
    "tokenizer",
    "before.json",
    "trained.json",
    "checkpoints",
)
LOGITS = 1 << 26
"""Most logits held at once where nobody says how many rows: 256 MiB in fp32. Parts of a step add up to its gradient, whatever their size."""
RATES = {("causal", True): 3e-3, ("masked", True): 2e-3, ("causal", False): 1e-4, ("masked", False): 1e-4}
"""Where nobody names a learning rate: (objective, from scratch) -> AdamW's highest."""


@dataclass(frozen=True)
class Corpus:
    """Which texts."""

    files: Sequence[Path]
    field: str = "text"
    evaluated: Sequence[Path] = ()
    """Files to measure on, instead of documents held out of the others."""
    held_out: int = 100
    """Most documents to measure on."""
    characters: int = 4_000
    """Of a held-out document that are measured on, at most; cut at a word's end."""


def pretrain(
    corpus: Corpus,
    out: Path,
    *,
    objective: Objective,
    base: str | None = None,
    config: str | None = None,
    settings: PretrainSettings | None = None,
    seed: int = 0,
    device: str | None = None,
    on_point: Callable[[Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train a language model, write it into the folder `out`, and return its record, which lies there as pretraining.json.

    base: what is continued, a catalogue name, a folder or a hub id; config: instead of it, a size (`scratch.SIZES`) or a configuration
    file, from scratch. Interrupted, the same call goes on from what is in `out`. on_point: told each point of the curve as it comes.

    Raises InputError before training: both or neither of base and config, no text, a base without what the objective needs, a folder
    that holds something else, no room on disk.
    """
    settings = settings or PretrainSettings.model_validate({})
    if (base is None) == (config is None):
        raise InputError(
            Problem("give either a base to continue or a configuration to begin with", "Say --base or --config.", field="base")
        )
    check_out(out)
    if base is not None and Path(base).is_dir() and Path(base).resolve() == out.resolve():
        raise InputError(Problem("the base would be overwritten", "Write into another folder.", str(out), field="--out"))
    job = _Job(corpus, out, objective, base, config, settings, seed, device)
    return job.run(on_point)


def check_out(out: Path) -> None:
    """Raises InputError unless the folder is free, or holds a pretrained model, which is replaced, or a pretraining that was cut short."""
    fine = not out.exists() or (out.is_dir() and ((out / RECORD).is_file() or (out / WORKING / _KEY).is_file() or not any(out.iterdir())))
    if not fine:
        raise InputError(Problem("this holds something that is not a pretrained model", "Name a new folder.", str(out), field="--out"))


@dataclass
class _Job:
    corpus: Corpus
    out: Path
    objective: Objective
    base: str | None
    config: str | None
    settings: PretrainSettings
    seed: int
    device: str | None

    def run(self, on_point: Callable[[Mapping[str, float]], None] | None) -> dict[str, Any]:
        size = size_of(self.config) if self.config is not None else None
        self._open_work(size)
        held = self._held_out()
        made = self._made(size, held)
        reader = Reader.of(made.tokenizer, self.settings.length, causal=self.causal)
        self._check_length(made.model)
        packed = how_to_pack(made.model, made.tokenizer, self.settings.length, causal=self.causal)
        tokens = tokenise(held.rest(self._documents()), reader.encode, self.work)
        rows = _Rows(reader, packed, tokens, self.settings, self.seed, len(made.tokenizer))
        measure: Callable[[], Scored] = lambda: score_documents(made.model, reader, held.texts, packed)  # noqa: E731
        before = self._kept(_BEFORE, measure)
        trained = self._train(made, rows, held, on_point)
        after = measure()
        record = {
            "objective": self.objective,
            "base": self.base,
            "config": self.config,
            "new_weights": list(made.new),
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "text": {str(file): sha256_file(file) for file in self.corpus.files},
            "n_documents": len(tokens.ends),
            "n_tokens": len(tokens.ids),
            "n_rows": len(rows.plan),
            "documents_apart": packed.apart,
            "held_out": {
                "by": [str(file) for file in self.corpus.evaluated] or "hash",
                "characters": self.corpus.characters,
                "n_documents": len(held.texts),
                "n_bytes": int(after.n["byte"].sum()),
                "n_words": int(after.n["word"].sum()),
                "hashes": sorted(held.hashes),
            },
            "perplexity": paired(before, after, self.seed),
            "unigram_per_token": unigram(tokens.ids, len(made.tokenizer), reader, held.texts),
            "training": trained,
        }
        write_text(self.out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(self.work, ignore_errors=True)
        return record

    @property
    def causal(self) -> bool:
        return self.objective == "causal"

    @property
    def work(self) -> Path:
        return self.out / WORKING

    def _documents(self) -> Any:
        return read_documents(self.corpus.files, self.corpus.field)

    # ── what is kept while it goes on ────────────────────────────────────────────────────────────────────────────────────

    def _open_work(self, size: Any) -> None:
        """The working folder of this very pretraining; what another one left there goes."""
        files = [sha256_file(_there(file)) for file in (*self.corpus.files, *self.corpus.evaluated)]
        corpus = [self.corpus.field, len(self.corpus.evaluated), self.corpus.held_out, self.corpus.characters]
        sizes = size if isinstance(size, dict) else repr(size)
        known = self.base is not None and Path(self.base).is_dir()
        base = [self.base, fingerprint_of(Path(str(self.base))) if known else None]
        key = digest([files, corpus, self.objective, base, sizes, self.settings.model_dump(mode="json"), self.seed])
        path = self.work / _KEY
        if not path.is_file() or path.read_text(encoding="utf-8") != key:
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True)
            write_text(path, key)

    def _kept(self, name: str, compute: Callable[[], Scored]) -> Scored:
        path = self.work / name
        if not path.is_file():
            found = compute()
            kept = {"nats": found.nats.tolist(), "n": {unit: n.tolist() for unit, n in found.n.items()}}
            write_text(path, json.dumps(kept))
        read = json.loads(path.read_text(encoding="utf-8"))
        return Scored(np.asarray(read["nats"]), {unit: np.asarray(n) for unit, n in read["n"].items()})

    def _held_out(self) -> HeldOut:
        path = self.work / _HELD
        if not path.is_file():
            if self.corpus.evaluated:
                others = read_documents(self.corpus.evaluated, self.corpus.field)
                found = given_out(self._documents(), others, self.corpus.held_out)
            else:
                found = hold_out(self._documents(), self.corpus.held_out)
            texts = [_beginning(text, self.corpus.characters) for text in found.texts]
            write_text(path, json.dumps({"texts": texts, "hashes": sorted(found.hashes), "n_train": found.n_train}))
        read = json.loads(path.read_text(encoding="utf-8"))
        return HeldOut(tuple(read["texts"]), frozenset(read["hashes"]), read["n_train"])

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _made(self, size: Any, held: HeldOut) -> Base:
        """The model as it begins."""
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if size is None:
            with seeded(self.seed, "pretrain"):
                return load_base(str(self.base), causal=self.causal, device=device)
        from transformers import AutoTokenizer

        folder = self.work / _TOKENIZER
        if not (folder / "tokenizer.json").is_file():
            note("training a tokenizer …")
            texts = held.rest(self._documents())
            made = train_tokenizer(texts, vocabulary_of(size), causal=self.causal, length=self.settings.length)
            made.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with seeded(self.seed, "pretrain"):
            model = new_model(size, tokenizer, causal=self.causal, length=self.settings.length)
        return Base(model.to(device), tokenizer, None, ())

    def _check_length(self, model: Any) -> None:
        room = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        if room and self.settings.length > room:
            raise InputError(
                Problem(f"the model has {room} positions, not {self.settings.length}", "Use a smaller length.", field="length")
            )

    def _train(self, made: Base, rows: _Rows, held: HeldOut, on_point: Callable[[Mapping[str, float]], None] | None) -> dict[str, Any]:
        """Train, and write the model; done already, read what was written."""
        path = self.work / _TRAINED
        if path.is_file():
            restored(made, self.out)
            return dict(json.loads(path.read_text(encoding="utf-8")))
        rate = self.settings.learning_rate or RATES[self.objective, self.base is None]
        at_once = self.settings.rows_at_once or max(1, LOGITS // (self.settings.length * len(made.tokenizer)))
        plan = self.settings.model_copy(update={"epochs": rows.rounds, "learning_rate": rate, "rows_at_once": at_once})
        measured = held.texts[: self.settings.validation_documents]

        def validate(model: Any) -> dict[str, float]:
            found = score_documents(model, rows.reader, measured, rows.packed, parts=1)
            return {"validation_loss": float(found.nats.sum() / max(1.0, found.n["token"].sum()))}

        lesson = Lesson(rows.batches, rows.collate, rows.loss, validate, ("step",), key=[digest(rows.plan), len(rows.tokens.ids)])
        description = f"Pretraining {self.base or self.config}"
        work = self.work / _CHECKPOINTS
        record = train(
            made.model, lesson, plan, seed=self.seed, work=work, device=str(made.model.device), description=description, on_epoch=on_point,
            checkpoint_every_s=self.settings.checkpoint_every, keep_work=True,  # the model might not be written
        ).as_dict()  # fmt: skip
        for old in self.out.iterdir():  # of a model that was here before
            if old.name != WORKING:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        save_language_model(made, self.out)
        write_text(path, json.dumps(record))
        shutil.rmtree(work, ignore_errors=True)
        return record


class _Rows:
    """The packed rows, in steps, and their loss."""

    def __init__(self, reader: Reader, packed: Packed, tokens: Tokens, settings: PretrainSettings, seed: int, vocabulary: int) -> None:
        self.reader, self.packed, self.tokens, self.settings = reader, packed, tokens, settings
        self.seed, self.vocabulary = seed, vocabulary
        self.pieces = cut(tokens.lengths(), reader.room)
        if not len(self.pieces):
            raise InputError(Problem("the text has no document of two tokens to train on", "Give more text.", field="text"))
        sizes = self.pieces[:, 2] - self.pieces[:, 1]
        self.plan = pack(sizes + (reader.length - reader.room), reader.length) if packed.apart else [[i] for i in range(len(sizes))]
        per_pass = -(-len(self.plan) // settings.batch_size)
        self.n_steps = settings.steps or per_pass * (settings.epochs or 1)
        self.rounds = min(self.n_steps, settings.validations)
        self.per_round = -(-self.n_steps // self.rounds)

    @cached_property
    def n_targets(self) -> float:
        """Mean number of tokens to be predicted in a row: what a sum of losses is divided by, so that parts of a step add up."""
        sizes = self.pieces[:, 2] - self.pieces[:, 1]
        n = (sizes - 1).sum() if self.reader.causal else sizes.sum() * self.settings.masked
        return float(n) / len(self.plan)

    def batches(self, round_: int) -> list[list[int]]:
        """Steps of a round. Rows are shuffled for each pass over all of them, and numbered on from pass to pass."""
        size, n = self.settings.batch_size, len(self.plan)
        start, stop = round_ * self.per_round * size, (round_ + 1) * self.per_round * size
        shown: list[int] = []
        for pass_ in range(start // n, (stop - 1) // n + 1):
            order = rng_for(self.seed, "order", pass_).sample(range(n), n)
            shown += [pass_ * n + row for row in order[max(0, start - pass_ * n) : stop - pass_ * n]]
        return [shown[at : at + size] for at in range(0, len(shown), size)]

    def collate(self, rows: Sequence[int], round_: int) -> dict[str, Tensor]:
        ids, labels = [], []
        for number in rows:
            pass_, row = divmod(number, len(self.plan))
            parts = [self._piece(piece, pass_) for piece in self.plan[row]]
            ids.append([part[0] for part in parts])
            labels.append([part[1] for part in parts])
        return self.packed.batch(ids, labels)

    def _piece(self, piece: int, pass_: int) -> tuple[list[int], list[int]]:
        """(token ids as they are shown, what is to be predicted)."""
        document, start, stop = (int(x) for x in self.pieces[piece])
        first = int(self.tokens.ends[document - 1]) if document else 0
        ids = self.tokens.ids[first + start : first + stop].astype(np.int64)
        if self.reader.causal:
            return ids.tolist(), [NO_LABEL, *ids[1:].tolist()]
        rng = numpy_rng_for(self.seed, "mask", pass_, piece)
        chosen, kind = rng.random(len(ids)) < self.settings.masked, rng.random(len(ids))
        if not chosen.any():
            chosen[rng.integers(len(ids))] = True
        drawn = rng.integers(0, self.vocabulary, len(ids))
        shown = np.where(chosen & (kind < 0.8), self.reader.mask, np.where(chosen & (kind < 0.9), drawn, ids))
        before, after = self.reader.before, self.reader.after
        labels = np.where(chosen, ids, NO_LABEL).tolist()
        return [*before, *shown.tolist(), *after], [*(NO_LABEL for _ in before), *labels, *(NO_LABEL for _ in after)]

    def loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Nats per token to be predicted."""
        values, _ = token_losses(model, self.packed, batch, causal=self.reader.causal)
        return values.sum() / (self.n_targets * len(batch["input_ids"]))


def _there(file: Path) -> Path:
    if not file.is_file():
        raise InputError(Problem("the file does not exist", "Check the path.", str(file), field="text"))
    return file


def _beginning(text: str, n: int) -> str:
    if len(text) <= n:
        return text
    kept = text[:n]
    return kept.rsplit(maxsplit=1)[0] if kept.split() else kept
