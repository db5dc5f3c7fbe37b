"""A language model behind an OpenAI-compatible address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from ...endpoint.address import Address, key_for
from ...endpoint.meter import Meter, Prices
from ...endpoint.personal import Recogniser
from ...endpoint.presidio import is_presidio, recogniser_of
from ...endpoint.wire import GivenUp, Job, Wire
from ...errors import CostLimitError, IclError, InputError, Problem
from ...progress import note, progress
from ...protocols import Estimator
from ...values import LabelScores, TokenCounts, digest
from ..codec import CountingCodec, TokenizerCodec
from ..encoding import Context
from .codec import RemoteCodec
from .dialect import Dialect, checked_extra
from .hiding import Hidden, hidden_context, put_back
from .listing import Listed, listed
from .options import RemoteOptions
from .probe import Capabilities, probe
from .structured import FIELD, is_refusal, why_not
from .values import Answer, Failed, Usage
from .work import Work, Worker

_SHOWN = 5
T = TypeVar("T")
"""What becomes of one item."""


class RemoteModel:
    """The LanguageModel protocol over an OpenAI-compatible server.

    Made by `load_model("https://host/v1#model-name", …)`, which asks the server for its models: an address without one, or a model
    that it does not serve, raises InputError. What the server can do is probed when it first matters (about 25 short requests).

    `scores` and `answers` never raise for single items: an item that failed says why and can be asked again. Both raise CostLimitError
    before a request that could cost more than `max_cost` leaves. `score`, `generate` and `sample` raise IclError if any item failed.
    """

    def __init__(
        self, address: Address, options: RemoteOptions | None = None, tokens: TokenizerCodec | CountingCodec | None = None
    ) -> None:
        options = options or RemoteOptions()
        self.address = address
        self.options = options
        self._meter = Meter(Prices.of(options.prices), options.max_cost)
        self._wire = Wire(address, key_for(address, options.api_key_env), self._meter, options.concurrency, options.patience)
        self._extra = checked_extra(options.extra_body)
        self.codec = RemoteCodec(tokens, lambda: self.capabilities.chat, lambda: not self.capabilities.completions)
        self.listed: Listed = listed(self._probing, address)

    # ── what it is ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        """The address with the model: two servers may call different weights by one name."""
        return str(self.address)

    @cached_property
    def fingerprint(self) -> str:
        """Of the address, the model's name, the estimator, the tokenizer and `extra_body`: weights behind an address cannot be seen."""
        exact = self.codec.exact
        tokens = exact.tokens.fingerprint() if isinstance(exact, TokenizerCodec) else None
        more = [] if self.options.personal_data == "send" else [self.options.personal_data]
        return digest(["remote", self.address.base, self.listed.model, self.estimator, tokens, self._extra, *more])

    @property
    def window(self) -> int:
        return self.options.window or self.listed.window

    @property
    def dtype(self) -> str:
        return "remote"

    @property
    def device(self) -> str:
        return self.address.host

    @property
    def reference(self) -> Mapping[str, Any]:
        """Arguments of `load_model` that give this model again; never a key."""
        return {"name": self.name, **self.options.given()}

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the server can really do. Raises InputError if it answers nothing, or if the tokenizer given is not the model's."""
        exact = self.codec.exact
        ids: Callable[[str], Sequence[int]] | None = (lambda text: exact.plain(text).ids) if isinstance(exact, TokenizerCodec) else None
        probed = probe(self._ask, Dialect(self.listed.model, self._extra), ids)
        if probed.failures:
            whys = "; ".join(dict.fromkeys(failure.why for failure in probed.failures))
            raise InputError(
                Problem(f"{self.name} answers neither completions nor chat: {whys}", "Check address and model.", field="model")
            )
        if probed.wrong_tokenizer:
            raise InputError(
                Problem(
                    f"the tokenizer given is not that of {self.name}: its token ids stand for another text there",
                    "Name the model's own tokenizer, or leave tokenizer= out.",
                    field="tokenizer",
                )
            )
        return probed.found

    @cached_property
    def estimator(self) -> Estimator:
        """How label tasks are answered here. Raises InputError if the estimator that the user asked for cannot be had."""
        wanted, found = self.options.estimator, self.capabilities
        if wanted is None or wanted == "generation":
            return wanted or found.estimator
        if wanted == "loglikelihood" and not found.echo:
            raise InputError(
                Problem(f"{self.name} gives no log-probabilities of a prompt: {found.echo_why}", _OTHERWISE, field="estimator")
            )
        if wanted == "first_token" and not (found.top_k or found.chat_top_k):
            raise InputError(Problem(f"{self.name} names no likeliest first tokens", _OTHERWISE, field="estimator"))
        return wanted

    def count_tokens(self, text: str) -> int:
        """Tokens of a text alone; without the model's tokenizer estimated from its length (`counts_are_estimates`)."""
        return self.codec.count(text)

    def described(self) -> list[str]:
        """Lines for people: what the server can really do, and what finding it out has used."""
        found = self.capabilities
        tokens = "estimated from the length of texts" if self.counts_are_estimates else "counted with the tokenizer given"
        held = [f"{path}: {why or 'yes'}" for path, why in self.holds.items()]
        used = self.usage
        return [
            *found.lines(),
            f"holds to a JSON schema: {'; '.join(held)}",
            f"token counts: {tokens}; fingerprint: {self.fingerprint}",
            f"this took {used.requests} requests, {used.input_tokens:,} input and {used.output_tokens:,} output tokens",
        ]

    @property
    def counts_are_estimates(self) -> bool:
        return self.codec.exact is None

    # ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def usage(self) -> Usage:
        """Counted since the model was loaded, the probe included."""
        return self._meter.usage()

    @property
    def max_cost(self) -> float | None:
        """The most that may be spent, counted from loading on; None: no limit. Setting it raises InputError without prices."""
        return self._meter.max_cost

    @max_cost.setter
    def max_cost(self, limit: float | None) -> None:
        if limit is not None and self._meter.prices is None:
            raise InputError(
                Problem("a cost limit needs prices", "Give prices={'input': …, 'output': …} per million tokens.", field="prices")
            )
        self._meter.max_cost = limit

    def cost_of(self, counts: TokenCounts, n_output: int = 0) -> float | None:
        """Money for a plan: its tokens as input, and `n_output` new ones. None without prices."""
        prices = self._meter.prices
        return None if prices is None else prices.cost(counts.computed, n_output)

    # ── scoring ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def scores(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[LabelScores | Failed]:
        """One LabelScores or Failed per context, by this model's estimator, in nats.

        Under `first_token` an item whose labels cannot be told apart by their first tokens among the likeliest ones is Failed.
        Raises InputError if the model gives no log-probabilities (`estimator` is `generation`) or the lists differ in length.
        """
        if len(contexts) != len(continuations):
            raise InputError(
                Problem(
                    f"{len(contexts)} contexts and {len(continuations)} lists of continuations",
                    "Give one list of continuations per context.",
                )
            )
        if self.estimator == "generation":
            raise InputError(
                Problem(
                    f"{self.name} gives no log-probabilities, so it cannot score labels",
                    "Let it write the label: generate().",
                    field="model",
                )
            )
        contexts, _ = self._hidden(contexts)
        if self.estimator == "loglikelihood":
            works = self._worker.echoed(contexts, continuations)
        else:
            works = [self._worker.first_tokens(context, texts) for context, texts in zip(contexts, continuations, strict=True)]
        return self._do(works, lambda given_up: Failed(given_up.why, given_up.again))

    def score(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[LabelScores]:
        """As `scores`. Raises IclError that names the failed items if there are any."""
        found = self.scores(contexts, continuations)
        _raise_for([each.why if isinstance(each, Failed) else None for each in found])
        return [each for each in found if isinstance(each, LabelScores)]

    def loglikelihoods(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """The sums of `score` alone."""
        return [list(scores.sums) for scores in self.score(contexts, continuations)]

    def plan(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> TokenCounts:
        """Input tokens that answering these costs: with log-likelihoods every continuation with its context, else each context once."""
        contexts, _ = self._hidden(contexts, count=False)
        if self.estimator == "loglikelihood":
            total = sum(job.worst.input for work in self._worker.echoed(contexts, continuations) for job in work.jobs)
        else:
            total = sum(self._worker.prompt_tokens(context) for context in contexts)
        return TokenCounts(total, total)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def answers(
        self,
        prompts: Sequence[Context],
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
        schema: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        """n texts per prompt, cut before the first stop string, or the reason why there are none. Chat prompts go to the chat endpoint.

        schema: of records. Where the server really holds to one (`holds`) it is asked to, and each record comes on one line; else, and
        where it refuses this schema, the texts are asked for without it, which is said once and counted (`usage.unheld`).
        """
        if temperature < 0 or n < 1 or max_new_tokens < 1:
            raise InputError(
                Problem(
                    f"temperature {temperature}, n {n}, max_new_tokens {max_new_tokens}",
                    "Give a temperature of at least 0, and at least 1 of the others.",
                )
            )
        stop = tuple(mark for mark in stop if mark)
        prompts, backs = self._hidden(prompts)
        held = [schema is not None and self._holds(prompt) for prompt in prompts]

        def ask(which: Sequence[int], rule: Mapping[str, Any] | None) -> list[Answer | None]:
            """For those items; None for what the cost limit leaves undone, which `limits` then tells."""
            works = [self._worker.writing(prompts[i], n, temperature, seed, max_new_tokens, stop, rule if held[i] else None) for i in which]
            try:
                done: list[Answer] = self._do(works, lambda given_up: Answer((), given_up.why, given_up.again, is_refusal(given_up)))
                return [*done]
            except CostLimitError as error:
                limits.append(str(error))
                return list(error.results) or [None] * len(which)

        limits: list[str] = []
        found = ask(range(len(prompts)), schema)
        refused = {i: answer for i, answer in enumerate(found) if answer is not None and answer.refused and held[i]}
        if refused:
            for i, answer in zip(refused, ask(list(refused), None), strict=True):
                found[i] = answer
            if others := [i for i in refused if not (found[i] or refused[i]).refused]:  # else it was not for the schema
                self._say_unheld(f"it refuses this schema: {refused[others[0]].why}", len(others))
        found = put_back(found, backs)
        if limits:
            raise CostLimitError(limits[0], found)
        return [answer for answer in found if answer is not None]

    def generate(self, prompts: Sequence[Context], max_new_tokens: int = 64, stop: Sequence[str] = ("\n",)) -> list[str]:
        """The likeliest text (temperature 0) for each prompt. Raises IclError that names the failed items if there are any."""
        found = self.answers(prompts, 1, 0.0, 0, max_new_tokens, stop)
        _raise_for([answer.why for answer in found])
        return [answer.texts[0] for answer in found]

    def sample(
        self,
        prompts: Sequence[Context],
        n: int = 8,
        temperature: float = 0.7,
        seed: int = 0,
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
    ) -> list[list[str]]:
        """n sampled texts for each prompt; repeatable where the server acts on seeds. Raises IclError as `generate`."""
        found = self.answers(prompts, n, temperature, seed, max_new_tokens, stop)
        _raise_for([answer.why for answer in found])
        return [list(answer.texts) for answer in found]

    @cached_property
    def holds(self) -> Mapping[str, str | None]:
        """Endpoint -> why it does not hold its answers to a JSON schema; None: it does. Found out with a request each."""
        dialect = Dialect(self.listed.model, self._extra, self.capabilities.chat_limit)
        return why_not(self._ask, dialect, self.capabilities)

    def _holds(self, prompt: Context) -> bool:
        """Whether a prompt's answer is held to a schema; where the user's own `extra_body` says how, it is left alone."""
        path = None if FIELD in self._extra else self._worker.path_of(prompt)
        if path is None:
            return False
        if (why := self.holds[path]) is not None:
            self._say_unheld(why, 1)
        return why is None

    def _say_unheld(self, why: str, n: int) -> None:
        if not self._meter.unheld:
            note(f"{self.name} is not held to the schema of the records: {why}. What it writes is read all the same.")
        self._meter.unheld += n

    def requests_for(self, n: int) -> int:
        """How often a prompt is sent for n sampled texts: once where the server acts on `n`, up to a bound."""
        return -(-n // self._worker.per_request(n))

    def _hidden(self, contexts: Sequence[Context], count: bool = True) -> tuple[Sequence[Context], Sequence[Hidden]]:
        """The contexts as they may leave the machine, and what was replaced in each."""
        if self.options.personal_data == "send":
            return contexts, ()
        made = [hidden_context(context, self._recogniser) for context in contexts]
        self._meter.replaced += count * sum(sum(hidden.counts.values()) for _, hidden in made)
        return [context for context, _ in made], [hidden for _, hidden in made]

    @cached_property
    def _recogniser(self) -> Recogniser | None:
        """What is asked about the texts beside the patterns."""
        return recogniser_of(self.options.personal_data) if is_presidio(self.options.personal_data) else None

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _worker(self) -> Worker:
        found = self.capabilities
        dialect = Dialect(self.listed.model, self._extra, found.chat_limit, self.options.mark_cache)
        return Worker(dialect, found, self.codec, self.window)

    @cached_property
    def _probing(self) -> Wire:
        """The same connection, quick to conclude: a limited server must not take a minute to be known as one."""
        patience = replace(self.options.patience, first_wait_s=0.1, in_a_row=1000)
        return Wire(self.address, self._wire.key, self._meter, self.options.concurrency, patience)

    def _ask(self, jobs: Sequence[Job]) -> Sequence[Any]:
        before = self._meter.failed
        sent = self._probing.send(jobs)
        self._meter.failed = before  # what a server refuses while it is probed is an answer, not a failure
        if sent.limit is not None:
            raise CostLimitError(f"{self.name}: while finding out what the server can do: {sent.limit}")
        return sent.results

    def _do(self, works: Sequence[Work[T]], failed: Callable[[GivenUp], T]) -> list[T]:
        """The items' results in order. Raises CostLimitError with those that were finished."""
        jobs = [job for work in works for job in work.jobs]
        with progress(self.listed.model, len(jobs), "requests") as advance:
            sent = self._wire.send(jobs, advance)
        results: list[T | None] = []
        at = 0
        for work in works:
            values = list(sent.results[at : at + len(work.jobs)])
            at += len(work.jobs)
            given_up = next((value for value in values if isinstance(value, GivenUp)), None)
            if given_up is not None:
                results.append(failed(given_up))
            else:
                results.append(None if any(value is None for value in values) else work.made(values))
        if sent.limit is not None:
            raise CostLimitError(f"{self.name}: {sent.limit}", results)
        return [result for result in results if result is not None]


_OTHERWISE = "Leave estimator out, and the best that the server has is used."


def _raise_for(whys: Sequence[str | None]) -> None:
    failed = [f"item {i}: {why}" for i, why in enumerate(whys) if why is not None]
    if failed:
        more = [f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
        raise IclError("\n  ".join([f"{len(failed)} of {len(whys)} items failed", *failed[:_SHOWN], *more]))
