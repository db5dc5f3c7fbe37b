"""Items as requests: what is sent for one item, and what its answers make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...endpoint.meter import Tokens
from ...endpoint.wire import Job
from ...seeds import seed_for
from ...values import LabelScores, Message, Prompt, digest
from ..codec import TokenizerCodec
from ..encoding import Context, encoded_context, encoded_splits
from .codec import RemoteCodec
from .dialect import CHAT, COMPLETIONS, Dialect
from .probe import SAMPLES, Capabilities, echo_fields
from .scoring import first_token_scores, ids_reader, split_scores, text_reader, text_scores
from .shapes import choices, text_of, top_of
from .structured import fields_for, one_line
from .values import Answer, Failed

T = TypeVar("T")
_PER_REQUEST = 16
"""Prompts in one request: few enough that a failure costs little."""
_STOPS = 4
"""More stop strings are refused by some; all are applied again here."""
_TURN_TOKENS = 8
"""About what a server's chat template adds to a message."""
_SEEDS = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """One item. made: from the values of all its jobs. Without jobs the item is `made([])`."""

    jobs: tuple[Job, ...]
    made: Callable[[list[Any]], T]


@dataclass(frozen=True, slots=True)
class Worker:
    """What turns items into requests on one server."""

    dialect: Dialect
    found: Capabilities
    codec: RemoteCodec
    window: int

    @property
    def tokens(self) -> TokenizerCodec | None:
        """The model's own tokenizer, where it is known and the server takes token ids."""
        exact = self.codec.exact
        return exact if isinstance(exact, TokenizerCodec) and self.found.token_ids else None

    # ── scoring ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def echoed(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[Work[LabelScores | Failed]]:
        """Whole continuations, out of the log-probabilities of echoed prompts."""
        tokens = self.tokens
        if tokens is None:
            return [self._echoed_text(context, texts) for context, texts in zip(contexts, continuations, strict=True)]
        works: list[Work[LabelScores | Failed]] = []
        for context, texts in zip(contexts, continuations, strict=True):
            if isinstance(context, Prompt) and context.format == "chat" and not context.token_ids and not tokens.has_chat:
                works.append(_failed("the tokenizer has no chat template to score a chat prompt with"))
                continue
            (found,) = encoded_splits(tokens, [context], [texts])
            if found.n_tokens > self.window:
                works.append(_failed(self._too_long("the prompt with its longest continuation", found.n_tokens)))
                continue
            sequences = [(*found.prefix, *ids) for ids in found.continuations]
            decode = tokens.tokens.decode

            def made(values: list[Any], found: Any = found, texts: Sequence[str] = texts) -> LabelScores:
                return split_scores(found, texts, [value for chunk in values for value in chunk])

            jobs = [
                self._echo_job([list(ids) for ids in part], ids_reader(part, len(found.prefix), decode), sum(map(len, part)))
                for part in self._parts(sequences)
            ]
            works.append(Work(tuple(jobs), made))
        return works

    def _echoed_text(self, context: Context, continuations: Sequence[str]) -> Work[LabelScores | Failed]:
        if isinstance(context, Prompt) and context.format == "chat":
            return _failed("to score a chat prompt the model's tokenizer is needed: give tokenizer=")
        joints = [str(context) + text for text in continuations]
        if not all(joints):
            return _failed("an empty context with an empty continuation has no token")
        jobs = [self._echo_job(part, text_reader(part), sum(map(self.codec.count, part))) for part in self._parts(joints)]
        return Work(tuple(jobs), lambda values: text_scores(str(context), continuations, [pair for chunk in values for pair in chunk]))

    def _parts(self, prompts: Sequence[T]) -> list[Sequence[T]]:
        size = _PER_REQUEST if self.found.lists else 1
        return [prompts[at : at + size] for at in range(0, len(prompts), size)]

    def _echo_job(self, prompts: Sequence[Any], read: Callable[[Any], Any], n_input: int) -> Job:
        assert self.found.echo is not None
        body = self.dialect.completion(list(prompts), self.found.echo_tokens, temperature=0, **echo_fields(self.found.echo))
        return Job(COMPLETIONS, body, read, Tokens(n_input, self.found.echo_tokens * len(prompts)))

    def first_tokens(self, context: Context, continuations: Sequence[str]) -> Work[LabelScores | Failed]:
        """The first token of each continuation, out of the likeliest ones."""
        asked = self._asked(context, 1)
        if isinstance(asked, str):
            return _failed(asked)
        path, prompt, n_input, _ = asked
        k = self.found.top_k if path == COMPLETIONS else self.found.chat_top_k
        if not k:
            return _failed(f"the server's {path} names no likeliest first tokens")
        if path == COMPLETIONS:
            body = self.dialect.completion(prompt, 1, temperature=0, logprobs=k)
        else:
            body = self.dialect.chat(prompt, 1, temperature=0, logprobs=True, top_logprobs=k)
        job = Job(path, body, lambda data: top_of(choices(data, 1)[0]), Tokens(n_input, 1))
        return Work((job,), lambda values: first_token_scores(continuations, values[0]))

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def writing(
        self,
        context: Context,
        n: int,
        temperature: float,
        seed: int,
        max_new_tokens: int,
        stop: Sequence[str],
        schema: Mapping[str, Any] | None = None,
    ) -> Work[Answer]:
        """n texts. Each request has a seed of its own, made of the seed, the prompt and the number of its first text. schema: what the
        server holds them to; a stop string would cut a record that is spread over lines."""
        stop = stop if schema is None else ()
        asked = self._asked(context, max_new_tokens)
        if isinstance(asked, str):
            why = asked
            return Work((), lambda values: Answer((), why))
        path, prompt, n_input, identity = asked
        distinct = n if temperature else 1  # greedy texts are all the same
        per = self.per_request(distinct)
        jobs = []
        for at in range(0, distinct, per):
            wanted = min(per, distinct - at)
            more: dict[str, Any] = {"temperature": temperature, **(fields_for(schema) if schema is not None else {})}
            if wanted > 1:
                more["n"] = wanted
            if stop and self.found.stop:
                more["stop"] = list(stop[:_STOPS])
            if temperature:
                more["seed"] = seed_for(seed, "sample", identity, at) & _SEEDS
            make: Callable[..., dict[str, Any]] = self.dialect.completion if path == COMPLETIONS else self.dialect.chat
            body = make(prompt, max_new_tokens, **more)
            jobs.append(Job(path, body, _texts_reader(wanted), Tokens(n_input, max_new_tokens * wanted)))

        def made(values: list[Any]) -> Answer:
            texts = [_cut(text, stop) if schema is None else one_line(text) for chunk in values for text in chunk]
            return Answer(tuple(texts if distinct == n else texts * n))

        return Work(tuple(jobs), made)

    def path_of(self, context: Context) -> str | None:
        """The endpoint that a prompt is sent to; None: to none."""
        asked = self._asked(context, 1)
        return None if isinstance(asked, str) else asked[0]

    def per_request(self, n: int) -> int:
        """How many of n texts one request gives."""
        return min(n, SAMPLES) if self.found.n else 1

    def _asked(self, context: Context, n_new: int) -> tuple[str, Any, int, str] | str:
        """(endpoint, prompt or messages, tokens of it, what it is known by), or why it cannot be asked."""
        chat = isinstance(context, Prompt) and context.format == "chat"
        if self.found.chat and (chat or not self.found.completions):
            messages: Sequence[Message] = context.messages if isinstance(context, Prompt) else [{"role": "user", "content": context}]
            n_input = self.codec.chat(messages).n_tokens + _TURN_TOKENS * len(messages)
            n_shared = context.cache_break if isinstance(context, Prompt) else 0
            return CHAT, self.dialect.marked(messages, n_shared), n_input, digest([dict(m) for m in messages])
        tokens = self.tokens
        if tokens is not None and (not chat or tokens.has_chat):
            ids = list(encoded_context(tokens, context)[0])
            if ids:
                too_long = len(ids) + min(n_new, 1) > self.window
                return (
                    self._too_long("the prompt with one new token", len(ids) + 1) if too_long else (COMPLETIONS, ids, len(ids), digest(ids))
                )
        if chat:
            return "the server has no chat endpoint, and without the model's tokenizer= a chat prompt cannot be written out"
        return COMPLETIONS, str(context), self.codec.count(str(context)), digest(str(context))

    def _too_long(self, what: str, n: int) -> str:
        return f"{what} takes {n:,} tokens, {self.dialect.model} reads {self.window:,}"

    def prompt_tokens(self, context: Context) -> int:
        """Tokens of a prompt as it would be sent."""
        asked = self._asked(context, 1)
        return 0 if isinstance(asked, str) else asked[2]


def _failed(why: str) -> Work[LabelScores | Failed]:
    return Work((), lambda values: Failed(why))


def _texts_reader(n: int) -> Callable[[Any], list[str]]:
    return lambda data: [text_of(choice) for choice in choices(data, n)]


def _cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string: a server may act on some of them only, or on none."""
    at = min((place for mark in stop if mark and (place := text.find(mark)) >= 0), default=len(text))
    return text[:at]
