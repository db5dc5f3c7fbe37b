"""An encoder-decoder model of transformers (T5, BART and their kin), on this machine: the prompt is read by the encoder, continuations
by the decoder."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from ..errors import IclError, InputError, Problem
from ..protocols import Encoded, Estimator
from ..seeds import rng_for
from ..values import LabelScores, Message, TokenCounts, Totals, digest
from .boundary import Split
from .cache_keys import batch_key
from .codec import TokenizerCodec
from .conditions import conditions
from .decoder_check import SharingExamined, decoder_start, end_ids, examine_sharing, window
from .decoder_rows import DecoderRow, Ids, continuation_values, decoder_rows, first_values, open_prompts, plain_value, write
from .decoding import Ending, Writer
from .encoding import Context, encoded_contexts
from .firsts import first_of, first_tokens
from .limits import Limits, is_out_of_memory
from .score_cache import ScoreCache
from .tokenizer import from_transformers

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
_MANY_ROWS = 32


class EncoderCodec(TokenizerCodec):
    """A prompt as an encoder reads it: with all that the tokenizer itself puts around a text. Continuations take none of its room."""

    def plains(self, texts: Sequence[str]) -> list[Encoded]:
        prefix, suffix = self.tokens.prefix, self.tokens.suffix
        found = [(*prefix, *ids, *suffix) for ids in self.tokens.literal(texts)]
        return [Encoded(ids, len(ids), text, text, len(prefix)) for ids, text in zip(found, texts, strict=True)]

    def chat(self, messages: Sequence[Message]) -> Encoded:
        found = super().chat(messages)
        ids = (*found.ids, *self.tokens.suffix)
        return Encoded(ids, len(ids), found.text, found.tail, found.n_head)

    def extended(self, encoded: Encoded, continuation: str) -> int:
        return encoded.n_tokens


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt and all that is asked of it; equal prompts of a call are one job."""

    prompt: Ids
    continuations: tuple[Ids, ...]
    rows: tuple[DecoderRow, ...]


class Seq2SeqModel:
    """The LanguageModel protocol over a loaded encoder-decoder model of transformers and its tokenizer.

    The encoder reads the prompt, with the tokens that the tokenizer itself puts around a text (T5's end of sequence). The decoder
    starts with the model's start token, and with the token that the checkpoint forces there or the tokenizer puts in front of a text
    (BART's `<s>`, a language's code); none of these is scored. A continuation is encoded alone, without its leading white space: that
    stands for the border between prompt and answer, which lies between encoder and decoder here. The sum runs over the
    continuation's own tokens; the end of the sequence behind them is not scored. So does lm-evaluation-harness 0.4 (there the space
    stays, which for T5 gives the same tokens); T0 adds the end of the sequence. A continuation without
    tokens of its own is scored by the end of the sequence alone. OpenICL gives such models no decoder input at all.

    Greedy and sampled text uses the model's raw distribution; beams, forced ends or forbidden repetitions that a checkpoint's
    generation settings ask for are left out. model, memory, max_batch: as for TorchModel.
    """

    estimator: Estimator = "loglikelihood"
    cache: ScoreCache | None = None
    """Whole batches that were computed before, by any process."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        reference: Mapping[str, Any] | None = None,
        memory: str | int = "4GiB",
        max_batch: int | None = None,
        identity: Callable[[], str] | None = None,
    ) -> None:
        self.model = model.eval()
        self.codec = tokenizer if isinstance(tokenizer, EncoderCodec) else EncoderCodec(from_transformers(tokenizer))
        self.name = name
        self.reference: Mapping[str, Any] = dict(reference or {"name": name})
        self.limits = Limits.of(model, memory, max_batch)
        self._identity = identity
        self.first: Ids = decoder_start(model, self.codec.tokens.prefix)
        self.examined: SharingExamined = examine_sharing(model, self.first)
        self.totals = Totals()

    @cached_property
    def fingerprint(self) -> str:
        from .torch_lm import _state_digest

        weights = self._identity() if self._identity is not None else _state_digest(self.model)
        return digest([weights, self.dtype, self.codec.tokens.fingerprint(), self.first])

    @cached_property
    def window(self) -> int:
        """Most tokens the encoder reads; the decoder has a window of its own."""
        return window(self.model, "encoder")

    @cached_property
    def decoder_window(self) -> int:
        """Most tokens the decoder reads."""
        return window(self.model, "decoder")

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        return str(self.model.device)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text alone, without what the tokenizer puts around it."""
        return self.codec.count(text)

    def score(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[LabelScores]:
        """Log-likelihoods of each context's continuations, in nats; which tokens they are summed over, the class says.

        Raises InputError if the lists differ in length, or a prompt or a continuation is longer than its window.
        """
        prompts, asked = self._tokens(contexts, continuations)
        self.totals.naive += self._n_naive(prompts, asked)
        values = self._values(self._jobs(prompts, asked))
        return [
            _label_scores(
                texts,
                ids,
                {one: value for one in (*ids, *first_tokens(ids)) if (value := values.get((prompt, one))) is not None},
                len(self.first),
            )
            for prompt, texts, ids in zip(prompts, continuations, asked, strict=True)
        ]

    def loglikelihoods(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """The sums of `score` alone."""
        return [list(scores.sums) for scores in self.score(contexts, continuations)]

    def plan(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> TokenCounts:
        """Tokens that `score` would compute, without computing them: those of the encoder and of the decoder."""
        prompts, asked = self._tokens(contexts, continuations)
        return TokenCounts(self._n_computed(self._jobs(prompts, asked)), self._n_naive(prompts, asked))

    def splits(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]], *, whole: bool = True) -> list[Split]:
        """What the encoder reads of each context, and what of its continuations is scored. Raises InputError as `score`; with `whole=False`
        not for continuations that are longer than the decoder's window, which training cuts or leaves out."""
        prompts, asked = self._tokens(contexts, continuations, whole)
        return [Split(prompt, tuple(found), False, "context") for prompt, found in zip(prompts, asked, strict=True)]

    def _jobs(self, prompts: Sequence[Ids], asked: Sequence[Sequence[Ids]]) -> list[Job]:
        """Equal prompts together, each of their continuations once, with their first tokens where those cost no pass of their own."""
        together: dict[Ids, dict[Ids, None]] = {}
        for prompt, found in zip(prompts, asked, strict=True):
            firsts = () if self.examined.path == "single" else first_tokens(found)
            together.setdefault(prompt, {}).update(dict.fromkeys((*found, *firsts)))
        return [Job(prompt, tuple(found), tuple(decoder_rows(tuple(found)))) for prompt, found in together.items()]

    def _n_naive(self, prompts: Sequence[Ids], asked: Sequence[Sequence[Ids]]) -> int:
        return sum(len(p) + len(self.first) + len(ids) - 1 for p, found in zip(prompts, asked, strict=True) for ids in found if ids)

    def _n_computed(self, jobs: Sequence[Job]) -> int:
        first = len(self.first)
        if self.examined.path == "single":
            return sum(len(job.prompt) + first + len(ids) - 1 for job in jobs for ids in job.continuations if ids)
        return sum(len(job.prompt) + first + sum(len(row.tokens) for row in job.rows) for job in jobs)

    def _tokens(
        self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]], whole: bool = True
    ) -> tuple[list[Ids], list[list[Ids]]]:
        if len(contexts) != len(continuations):
            raise InputError(
                Problem(
                    f"{len(contexts)} contexts and {len(continuations)} lists of continuations",
                    "Give one list of continuations per context.",
                )
            )
        prompts = self._prompts(contexts)
        texts = list(dict.fromkeys(text for found in continuations for text in found))
        encoded = self.codec.tokens.literal([text.lstrip() for text in texts])
        end = self.codec.tokens.eos
        ids = {text: tuple(found) or (() if end is None else (end,)) for text, found in zip(texts, encoded, strict=True)}
        asked = [[ids[text] for text in found] for found in continuations]
        room = self.decoder_window - len(self.first)
        if whole:
            self._fits([max(map(len, found), default=0) - 1 for found in asked], room, "its longest continuation", "Use shorter texts.")
        return prompts, asked

    def _prompts(self, contexts: Sequence[Context]) -> list[Ids]:
        ids = [head.ids or self.first[:1] for head in encoded_contexts(self.codec, contexts)]
        self._fits([len(prompt) for prompt in ids], self.window, "the prompt", "Use fewer or shorter demonstrations.")
        return ids

    def _fits(self, lengths: Sequence[int], room: int, what: str, fix: str) -> None:
        problems = [
            Problem(f"item {i}: {what} takes {n:,} tokens, {self.name} reads {room:,}", fix) for i, n in enumerate(lengths) if n > room
        ]
        if problems:
            raise InputError(problems)

    def _values(self, jobs: Sequence[Job]) -> dict[tuple[Ids, Ids], float]:
        values: dict[tuple[Ids, Ids], float] = {}
        for batch in self._batches(jobs):
            values.update(self._kept(batch))
        return values

    def _kept(self, batch: Sequence[Job]) -> dict[tuple[Ids, Ids], float]:
        """A batch's values, out of the cache where they are in it."""
        n = self._n_computed(batch)
        if self.cache is None:
            self.totals.computed += n
            return self._halved(self._batch, batch)
        work = [part for job in batch for part in (job.prompt, list(job.continuations))]
        limits = (self.limits.reads, self.limits.memory, self.limits.max_rows)
        key = batch_key("encoder-decoder", self.fingerprint, conditions(self.device), self.examined.path, limits, self.first, work)
        asked = [(job.prompt, ids) for job in batch for ids in job.continuations]
        [stored] = self.cache.get([key])
        if stored is not None and len(stored) == len(asked):
            self.totals.cached += n
            return dict(zip(asked, stored, strict=True))
        self.totals.computed += n
        before = self.totals.unplanned
        found = self._halved(self._batch, batch)
        if self.totals.unplanned == before:
            self.cache.put([(key, [found[one] for one in asked])])
        return found

    def _batches(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Prompts of similar length that are read together."""
        limits, batch = self.limits, list[Job]()
        for job in sorted(jobs, key=lambda j: len(j.prompt), reverse=True):
            most = min(limits.batch_tokens // len(batch[0].prompt), self._copies(len(batch[0].prompt)), limits.reads) if batch else 1
            if batch and len(batch) >= min(most, limits.max_rows or most):
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    def _copies(self, width: int) -> int:
        """How many prompts' keys and values of the cross-attention fit into a quarter of the memory budget."""
        return max(1, self.limits.memory // 4 // max(self.limits.cache_bytes * width, 1))

    def _batch(self, jobs: Sequence[Job]) -> dict[tuple[Ids, Ids], float]:
        import torch

        asked = [job.continuations for job in jobs]
        with torch.inference_mode():
            if self.examined.path == "single":
                return {(j.prompt, ids): plain_value(self.model, j.prompt, self.first, ids) for j in jobs for ids in j.continuations}
            state = open_prompts(self.model, [job.prompt for job in jobs], self.first)
            found = first_values(state, asked)
            for chunk in self._chunks(jobs):
                for (p, i), value in self._halved(lambda part: continuation_values(self.model, state, part, asked), chunk).items():
                    found[p][i] += value
        return {(job.prompt, ids): found[p][i] for p, job in enumerate(jobs) for i, ids in enumerate(job.continuations)}

    def _chunks(self, jobs: Sequence[Job]) -> Iterator[list[tuple[int, DecoderRow]]]:
        """Rows of similar length that make one pass. A prompt with many of them gets passes of its own, which copy nothing."""
        few: list[tuple[int, DecoderRow]] = []
        for p, job in enumerate(jobs):
            rows = [(p, row) for row in job.rows]
            if len(rows) < _MANY_ROWS:
                few += rows
            else:
                yield from self._cut(rows, self.limits.reads)
        yield from self._cut(few, self._copies(max(len(job.prompt) for job in jobs)))

    def _cut(self, work: list[tuple[int, DecoderRow]], most: int) -> Iterator[list[tuple[int, DecoderRow]]]:
        work = sorted(work, key=lambda w: len(w[1].tokens), reverse=True)
        while work:
            n = max(1, min(most, self.limits.reads // len(work[0][1].tokens), self.limits.max_rows or most))
            yield work[:n]
            work = work[n:]

    def _halved(self, run: Callable[[Sequence[T]], dict[K, V]], things: Sequence[T]) -> dict[K, V]:
        """run(things); out of memory, the same things in halves."""
        try:
            return run(things)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(things) == 1:
                raise IclError(
                    f"a single prompt does not fit into the memory of {self.device}\n"
                    "  Use a smaller model, dtype bfloat16, a quantised model, or shorter prompts."
                ) from None
        # Outside the handler: the failed pass and its tensors are gone before the halves are tried.
        self.totals.unplanned += 1
        middle = len(things) // 2
        return self._halved(run, things[:middle]) | self._halved(run, things[middle:])

    def generate(self, prompts: Sequence[Context], max_new_tokens: int = 64, stop: Sequence[str] = ("\n",)) -> list[str]:
        """Greedy answers, cut before the first stop string, ended by the end of the text or at `max_new_tokens`."""
        return [texts[0] for texts in self._write(prompts, 1, 0.0, 0, max_new_tokens, stop)]

    def sample(
        self,
        prompts: Sequence[Context],
        n: int = 8,
        temperature: float = 0.7,
        seed: int = 0,
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
    ) -> list[list[str]]:
        """n sampled answers to each prompt. A sample depends on the seed, the prompt and its number, not on its batch. Temperature 0
        is greedy."""
        if temperature < 0 or n < 1:
            raise InputError(Problem(f"temperature {temperature}, n {n}", "Give a temperature of at least 0 and n of at least 1."))
        return self._write(prompts, n, temperature, seed, max_new_tokens, stop)

    def _write(
        self, prompts: Sequence[Context], n: int, temperature: float, seed: int, max_new_tokens: int, stop: Sequence[str]
    ) -> list[list[str]]:
        ids = self._prompts(prompts)
        most = min(max_new_tokens, self.decoder_window - len(self.first))
        ending = Ending(tuple(s for s in stop if s), end_ids(self.model, self.codec), self.codec.tokens.decode, temperature or 1.0)
        unique = list(dict.fromkeys(ids)) if most > 0 else []

        def written(group: Sequence[Ids]) -> dict[Ids, list[str]]:
            # Made anew for every try, so that a batch that is halved draws the same numbers again.
            writers = [[Writer(self.first, _uniform(seed, prompt, j, temperature), most) for j in range(n)] for prompt in group]
            write(self.model, group, self.first, writers, ending, cached=self.examined.path == "rows")
            return {prompt: [writer.text for writer in found] for prompt, found in zip(group, writers, strict=True)}

        texts: dict[Ids, list[str]] = {}
        order = sorted(unique, key=len, reverse=True)
        while order:
            rows = self.limits.writing_rows(len(order[0]) + most, 0) if self.examined.left_padding else 1
            size = max(1, rows // n)
            texts.update(self._halved(written, order[:size]))
            order = order[size:]
        return [list(texts.get(prompt, [""] * n)) for prompt in ids]


def _uniform(seed: int, prompt: Ids, number: int, temperature: float) -> random.Random | None:
    return rng_for(seed, "sample", digest(list(prompt)), number) if temperature else None


def _label_scores(texts: Sequence[str], ids: Sequence[Ids], values: Mapping[Ids, float], start: int) -> LabelScores:
    shown = [text.lstrip() for text in texts]
    firsts = tuple(values[one[:1]] for one in ids if one[:1] in values)
    return LabelScores(
        candidates=tuple(texts),
        sums=tuple(values[one] for one in ids),
        n_tokens=tuple(map(len, ids)),
        n_bytes=tuple(len(text.encode("utf-8", "surrogatepass")) for text in shown),
        n_chars=tuple(map(len, shown)),
        start=start,
        conditioned="encoder",
        first=firsts if len(firsts) == len(ids) else (),
        first_of=first_of([one[:1] for one in ids]) if len(firsts) == len(ids) else (),
    )
