"""A causal language model of transformers, on this machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from ..errors import InputError, Problem
from ..protocols import Estimator
from ..values import LabelScores, TokenCounts, Totals, digest
from .boundary import Split
from .check import Examined, examine
from .codec import TokenizerCodec
from .conditions import conditions
from .constraint import Choices, Rule, grammar_maker, rules
from .decoding import Constraint, Ending
from .encoding import Context, encoded_contexts, encoded_splits, last_window, windows_behind
from .far import Abreast, cannot_see_far, sinks_of
from .firsts import first_of, first_tokens
from .limits import Limits
from .score_cache import ScoreCache, cached_group, text_key
from .scoring import Scoring, n_naive
from .tokenizer import from_transformers
from .tree import Item
from .writing import Chance, Task, Writing, Written


class TorchModel:
    """The LanguageModel protocol over a loaded transformers model and its tokenizer.

    model: in evaluation mode, on its device. tokenizer: that of transformers, or a codec. memory, max_batch: the memory budget of one
    batch. attention: None, or `sink:4+2048`, an approximation: each token sees the first 4 and the last 2,048. Values in fp32 do not
    depend on batch size, order, padding or sharing beyond 1e-4 nat.
    """

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
        attention: str | None = None,
    ) -> None:
        self.model = model.eval()
        self.codec = tokenizer if isinstance(tokenizer, TokenizerCodec) else TokenizerCodec(from_transformers(tokenizer))
        self.name = name
        self.reference: Mapping[str, Any] = dict(reference or {"name": name})
        self.limits = Limits.of(model, memory, max_batch)
        self._identity = identity
        self.examined: Examined = examine(model)
        self.sinks = sinks_of(attention)
        if self.sinks is not None and (why := cannot_see_far(model, self.examined.path)) is not None:
            raise InputError(Problem(f"attention='{attention}' cannot be had: {why}", "Leave it out.", field="attention"))
        self.totals = Totals()

    @cached_property
    def fingerprint(self) -> str:
        weights = self._identity() if self._identity is not None else _state_digest(self.model)
        seen = [] if self.sinks is None else [str(self.sinks)]
        return digest([weights, self.dtype, self.codec.tokens.fingerprint(), *seen])

    @cached_property
    def scoring(self) -> Scoring:
        """The half that scores."""
        return Scoring(self.model, self.examined.path, self.limits, self.totals, self.computed_by, self.cache, self.sinks)

    def computed_by(self) -> str:
        """Digest of whatever, besides the tokens of a batch, could change a digit of what it gives: for the cache's keys."""
        return digest([self.fingerprint, self.dtype, *conditions(self.device)])

    @cached_property
    def writing(self) -> Writing:
        """The half that writes text."""
        return Writing(self.model, self.codec, self.limits, self.window, self.examined.left_padding, self.totals)

    @cached_property
    def window(self) -> int:
        return _window(self.model)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        return str(self.model.device)

    @property
    def estimator(self) -> Estimator:
        """Whole continuations are scored."""
        return "loglikelihood"

    @property
    def approximation(self) -> str | None:
        """What scores are an approximation by; None: they are the model's own."""
        return None if self.sinks is None else f"attention {self.sinks}"

    @cached_property
    def why_not_parallel(self) -> str | None:
        """None if a query can see several windows at once (`combine: parallel`), otherwise why not."""
        if self.sinks is not None:
            return f"it was loaded with attention='{self.sinks}'"
        return cannot_see_far(self.model, self.examined.path)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text alone, without BOS."""
        return self.codec.count(text)

    def score(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[LabelScores]:
        """Log-likelihoods of each context's continuations, in nats, all of one context from the same token on.

        Raises InputError if the lists differ in length or a sequence is longer than the model's window.
        """
        splits = self._splits(contexts, continuations)
        totals = self.scoring.sums(*self._work(contexts, splits))
        return [_label_scores(i, found, texts, totals) for i, (found, texts) in enumerate(zip(splits, continuations, strict=True))]

    def loglikelihoods(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """The sums of `score` alone."""
        return [list(scores.sums) for scores in self.score(contexts, continuations)]

    def plan(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> TokenCounts:
        """Tokens that `score` would compute, without computing them."""
        items, abreast = self._work(contexts, self._splits(contexts, continuations))
        return TokenCounts(self.scoring.n_planned(items, abreast), n_naive(items) + sum(map(n_naive, abreast.values())))

    def _splits(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[Split]:
        return encoded_splits(self.codec, [last_window(context) for context in contexts], continuations)

    def _work(self, contexts: Sequence[Context], splits: Sequence[Split]) -> tuple[list[Item], dict[Abreast, list[Item]]]:
        """What is scored: items, and those that see several windows. Raises InputError for what the window or the memory cannot hold."""
        items: list[Item] = []
        abreast: dict[Abreast, list[Item]] = {}
        positions, kept = [], []
        for i, (context, found) in enumerate(zip(contexts, splits, strict=True)):
            windows, ahead, n_more = windows_behind(context), 0, found.n_tokens
            if windows is None:
                items.append(_item(i, found, found.prefix))
            else:
                if self.why_not_parallel is not None:
                    raise InputError(Problem(f"parallel windows cannot be had: {self.why_not_parallel}", field="windows"))
                ahead = len(windows.head) + len(windows.windows[-1])
                if len(found.prefix) <= ahead:
                    raise InputError(Problem(f"item {i}: a token crosses the border between windows and query", field="windows"))
                abreast.setdefault(windows, []).append(_item(i, found, (*windows.ids, *found.prefix[ahead:])))
                n_more -= ahead
            positions.append(n_more + (windows.n_positions if windows is not None else 0))
            kept.append(n_more + (len(windows.ids) if windows is not None else 0))
        self._fits(positions, "the prompt with its longest continuation")
        self._holds(max(kept, default=0))
        return items, abreast

    def _holds(self, most: int) -> None:
        """Raises InputError where keys and values of so many tokens are more than the memory budget."""
        if self.sinks is not None:
            most = min(most, self.sinks.n_kept + self.limits.batch_tokens)
        if most > self.limits.kept_tokens:
            need, memory = (f"{size / 2**30:.2f} GiB" for size in (2 * most * self.limits.cache_bytes, self.limits.memory))
            message = f"keys and values of {most:,} tokens take {need} while a prompt is read; the memory budget is {memory}"
            fix = "Give a larger memory=, a smaller max_tokens, windows of demonstrations, or attention='sink:4+2048'."
            raise InputError(Problem(message, fix, field="memory"))

    def _fits(self, lengths: Sequence[int], what: str) -> None:
        problems = [
            Problem(f"item {i}: {what} takes {n:,} tokens, {self.name} reads {self.window:,}", "Use fewer or shorter demonstrations.")
            for i, n in enumerate(lengths)
            if n > self.window
        ]
        if problems:
            raise InputError(problems)

    def generate(
        self,
        prompts: Sequence[Context],
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
        *,
        constraint: Rule | Sequence[Rule] | None = None,
    ) -> list[str]:
        """Greedy continuations, as `write` gives them, as texts alone."""
        found = self.write(prompts, max_new_tokens=max_new_tokens, stop=stop, constraint=constraint)
        return [texts[0].text for texts in found]

    def sample(
        self,
        prompts: Sequence[Context],
        n: int = 8,
        temperature: float = 0.7,
        seed: int = 0,
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
        *,
        constraint: Rule | Sequence[Rule] | None = None,
    ) -> list[list[str]]:
        """n sampled continuations of each prompt, as `write` gives them, as texts alone."""
        found = self.write(prompts, Chance(n, temperature, seed), max_new_tokens, stop, constraint=constraint)
        return [[written.text for written in texts] for texts in found]

    def weighed(
        self, prompts: Sequence[Context], n: int, temperature: float, seed: int, max_new_tokens: int, stop: Sequence[str]
    ) -> list[list[tuple[str, float]]]:
        """The texts of `sample`, each with the mean log-likelihood of its tokens in nats, at temperature 1: no text is read again for it."""
        found = self.write(prompts, Chance(n, temperature, seed), max_new_tokens, stop)
        return [[(written.text, written.mean or 0.0) for written in texts] for texts in found]

    def write(
        self,
        prompts: Sequence[Context],
        chance: Chance = Chance(),  # noqa: B008 (frozen)
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
        *,
        constraint: Rule | Sequence[Rule] | None = None,
    ) -> list[list[Written]]:
        """Continuations, cut before the first stop string, ended by the end of the text or of the turn, and what ended each.

        A text that reaches `max_new_tokens`, or the model's window, ends there. Thoughts stay in the text. A sample depends on the
        seed, the prompt and its number, not on its batch.

        constraint: what the texts may be, for all prompts or one per prompt: a list of texts (it is one of them, each token the
        model's choice among those that lead to one; all stand right behind the prompt, and are never cut), a compiled regular
        expression that the text matches as a whole, or a JSON schema (both with llguidance, extra `constrain`). A stop string does
        not cut such a text; its first token ends it where it is whole. Raises InputError.
        """
        if self.sinks is not None:
            message = f"attention='{self.sinks}' is for scores, and here text is written"
            raise InputError(Problem(message, "Load the model without it.", field="attention"))
        ending = Ending(tuple(s for s in stop if s), self.writing.end_ids, self.codec.tokens.decode, chance.temperature or 1.0)
        if constraint is None:
            ids = [self._or_start(head.ids) for head in encoded_contexts(self.codec, prompts)]
            task = Task(ids, [max_new_tokens] * len(ids))
        else:
            task = self._constrained(prompts, rules(constraint, len(prompts)), ending, max_new_tokens)
        self._fits([len(p) + 1 for p in task.ids], "the prompt with one new token")

        def texts() -> list[list[str]]:
            return [[found.packed() for found in group] for group in self.writing.write(task, chance, ending)]

        if self.cache is None or constraint is not None:
            packed = texts()
        else:
            # How many are written at once, and what ends a text, is in no other part of the key.
            by = (self.computed_by(), repr(self.limits), sorted(ending.end_ids), Written.PACKED)
            key = text_key(
                by,
                self.dtype,
                task.ids,
                n=chance.n,
                temperature=chance.temperature,
                seed=chance.seed,
                max_new_tokens=max_new_tokens,
                stop=ending.stop,
            )
            packed = cached_group(self.cache, key, texts, lambda: self.totals.unplanned)
        return [[Written.unpacked(text) for text in group] for group in packed]

    def plan_generation(self, prompts: Sequence[Context], max_new_tokens: int = 64, n: int = 1) -> TokenCounts:
        """Most tokens that writing n texts for each prompt computes, without computing them."""
        ids = [self._or_start(head.ids) for head in encoded_contexts(self.codec, prompts)]
        return self.writing.plan(ids, n, max_new_tokens)

    def _constrained(self, prompts: Sequence[Context], wanted: Sequence[Rule], ending: Ending, max_new_tokens: int) -> Task:
        """Prompts with choices end where all their encodings part, so that every choice is encoded together with its prompt."""
        # Behind a letter, since some tokenizers put a mark of their own at the start of a text.
        letter, *stops = self.codec.tokens.literal(["a", *("a" + stop for stop in ending.stop)])
        ends = ending.end_ids | {ids[len(letter)] for ids in stops if ids[: len(letter)] == letter and len(ids) > len(letter)}
        texts: list[Sequence[str]] = [() if isinstance(rule, re.Pattern | Mapping) else rule for rule in wanted]
        splits = self._splits(prompts, texts)
        self._fits([found.n_tokens for found in splits], "the prompt with its longest continuation")
        make = None
        ids, limits, makers = [], [], list[Callable[[], Constraint]]()
        for rule, found, choices in zip(wanted, splits, texts, strict=True):
            ids.append(found.prefix)
            if choices:
                limits.append(max(map(len, found.continuations)))
                makers.append(partial(Choices, choices, found.continuations, ends))
            else:
                make = make or grammar_maker(self.codec.tokens, self.model.get_output_embeddings().weight.shape[0], ends)
                limits.append(max_new_tokens)
                makers.append(partial(make, rule))
        return Task(ids, limits, makers)

    def _or_start(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """An empty prompt begins with BOS, else EOS."""
        tokens = self.codec.tokens
        return ids or (next((i for i in (tokens.bos, tokens.eos) if i is not None), 0),)


def _item(i: int, found: Split, prefix: tuple[int, ...]) -> Item:
    firsts = first_tokens(found.continuations)
    return Item(i, prefix, (*found.continuations, *firsts), n_extra=len(firsts))


def _label_scores(i: int, found: Split, texts: Sequence[str], totals: Mapping[tuple[int, int], float]) -> LabelScores:
    shown = [text.lstrip() for text in texts]
    asked = (*found.continuations, *first_tokens(found.continuations))
    firsts = {ids[0]: totals.get((i, number), 0.0) for number, ids in enumerate(asked) if len(ids) == 1}
    return LabelScores(
        candidates=tuple(texts),
        sums=tuple(totals.get((i, number), 0.0) for number in range(len(texts))),
        n_tokens=tuple(len(ids) for ids in found.continuations),
        n_bytes=tuple(len(text.encode("utf-8", "surrogatepass")) for text in shown),
        n_chars=tuple(len(text) for text in shown),
        start=len(found.prefix),
        straddle=found.straddle,
        conditioned=found.conditioned,
        first=tuple(firsts[ids[0]] for ids in found.continuations),
        first_of=first_of([ids[0] for ids in found.continuations]),
    )


def _window(model: Any) -> int:
    """Most tokens the model reads, from its configuration; models without a limit read a million."""
    from .forward import text_config

    config = text_config(model)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 1 << 20


def _state_digest(model: Any) -> str:
    """Digest over a model in memory: the name, type, shape and bytes of every tensor, and the configuration."""
    import torch

    total = hashlib.sha256(model.config.to_json_string(use_diff=False).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
