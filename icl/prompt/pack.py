"""Fits a prompt into the token budget by leaving out whole demonstrations, the least useful first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError, Problem
from ..protocols import Encoded, PromptCodec
from ..values import Demonstration, Example, Hit, Prompt
from .bind import BoundTemplate

Format = Literal["plain", "chat"]
NEAR = 8
"""Tokens by which joining a continuation to a prompt may change the count of the two; beyond it nothing has to be verified."""
SLACK = 16
"""Tokens by which a prompt's estimated length may be wrong; within it one more demonstration is tried."""

TURNS = 10
"""About how many tokens a chat template puts around a demonstration's two turns."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """No prompt for this query."""

    why: str


@dataclass(frozen=True, slots=True)
class _Job:
    """One query's packing."""

    bound: BoundTemplate
    query: Example
    codec: PromptCodec
    format: Format
    continuations: tuple[str, ...]
    limit: int | None
    """Tokens for the prompt and its longest continuation."""
    ending: str | None = None
    """What the prompt of a channel ends with."""

    def encode(self, demonstrations: Sequence[Example]) -> Encoded:
        if self.format == "chat":
            return self.codec.chat(self.bound.messages(demonstrations, self.query, self.ending))
        return self.codec.plain(self.bound.plain(demonstrations, self.query, self.ending))

    def total(self, encoded: Encoded, *, exact: bool = False) -> int:
        """Tokens of the prompt with its longest continuation: exact wherever it could matter for the limit."""
        if not self.continuations or self.limit is None:
            return encoded.n_tokens
        counted = {c: self.count(c) for c in self.continuations}
        longest = max(counted.values())
        estimate = encoded.n_tokens + longest
        if not exact and (estimate + NEAR <= self.limit or encoded.n_tokens > self.limit + NEAR):
            return estimate
        near = [c for c, n in counted.items() if n >= longest - NEAR // 2]
        return max(self.codec.extended(encoded, c) for c in near)

    def count(self, text: str) -> int:
        """Tokens of a text by itself, counted once for all queries."""
        known = self.bound.counts(self.codec)
        if text not in known:
            known[text] = self.codec.count(text)
        return known[text]

    def size(self, hit: Hit) -> int:
        """About how many tokens a demonstration adds."""
        if self.format == "plain":
            return self.count(self.bound.demonstration(hit.example) + self.bound.template.separator)
        return self.count(self.bound.demonstration(hit.example)) + TURNS


def pack(
    bound: BoundTemplate,
    query: Example,
    ordered: Sequence[Hit],
    useful: Sequence[str],
    *,
    codec: PromptCodec | None = None,
    format: str = "auto",
    max_tokens: int | None = None,
    reserve: int = 0,
) -> Prompt | Unfit:
    """The prompt of one query.

    ordered: demonstrations in prompt order. useful: their uids, most useful first; dropped from the back. codec: None packs everything
    and counts nothing. max_tokens: for the prompt, its longest continuation and `reserve` tokens of generated text; None: no limit.
    The same demonstrations stand before every label; of a channel's prompts, one a label, this is the longest. Raises InputError for `format="chat"` without a chat template.
    """
    chosen = resolve_format(bound, format, codec)
    hits = list(ordered)
    dropped: list[str] = []
    encoded: Encoded | None = None
    continuations = tuple(c for _, each in bound.continuations(query, chosen) for c in each) if max_tokens is not None else ()
    ending = None
    if bound.template.channel:
        ending = _longest(bound, query, codec)
        continuations = (bound.scored(query, chosen),)
    if codec is not None:
        limit = None if max_tokens is None else max_tokens - reserve
        job = _Job(bound, query, codec, chosen, continuations, limit, ending)
        kept, encoded, n = _fit(job, hits, useful)
        if encoded is None:
            kept_free = f", of which {reserve} are kept for the answer" if reserve else ""
            return Unfit(f"the query alone takes {n} tokens, the budget is {max_tokens}{kept_free}")
        names = {hit.uid for hit in kept}
        dropped = [uid for uid in reversed(_ranked(hits, useful)) if uid not in names]
        hits = kept
    demonstrations = tuple(Demonstration(hit.example, shot, hit.score, hit.shared) for shot, hit in enumerate(hits))
    examples = [hit.example for hit in hits]
    messages = bound.messages(examples, query, ending)
    cache_break = _cache_break(bound, query, len(messages), hits, ordered)
    if encoded is None:
        text = bound.plain(examples, query, ending)
        return Prompt(text, messages, demonstrations=demonstrations, tail=text, format=chosen, query=query, cache_break=cache_break)
    return Prompt(
        text=encoded.text,
        messages=messages,
        token_ids=encoded.ids,
        demonstrations=demonstrations,
        n_tokens=encoded.n_tokens,
        dropped=tuple(dropped),
        tail=encoded.tail,
        n_head=encoded.n_head,
        format=chosen,
        query=query,
        cache_break=cache_break,
    )


def _longest(bound: BoundTemplate, query: Example, codec: PromptCodec | None) -> str:
    """What the longest prompt of a channel ends with, by tokens where they can be counted, the first of several."""
    known = bound.counts(codec)

    def size(text: str) -> int:
        if text not in known:
            known[text] = len(text) if codec is None else codec.count(text)
        return known[text]

    return max((text for _, texts in bound.continuations(query) for text in texts), key=size, default="")


def _cache_break(bound: BoundTemplate, query: Example, n_messages: int, hits: Sequence[Hit], ordered: Sequence[Hit]) -> int:
    """How many messages other prompts begin with too: an instruction that is the same for all queries, then shared demonstrations."""
    if bound.instruction_varies(query):
        return 0
    n_instruction = n_messages - 1 - 2 * len(hits)
    n_shared = next((i for i, hit in enumerate(hits) if not hit.shared), len(hits))
    if sum(hit.shared for hit in ordered) > sum(hit.shared for hit in hits):  # one was dropped, and the others have moved up
        n_shared = 0
    return n_instruction + 2 * n_shared


def resolve_format(bound: BoundTemplate, format: str, codec: PromptCodec | None) -> Format:
    """`auto` is the template's own format, else plain for labels and choices, chat for answers where there is a chat template. An
    endpoint that only speaks chat gets chat. Raises InputError for a format that cannot be had."""
    has_chat = codec is not None and codec.has_chat
    only_chat = bool(getattr(codec, "only_chat", False))
    if format == "auto":
        format = "chat" if only_chat else bound.template.format
    if format == "auto":
        format = "chat" if bound.kind == "answer" and has_chat else "plain"
    if format not in ("plain", "chat"):
        raise InputError(Problem(f"there is no format '{format}'", "Use auto, plain or chat.", field="format"))
    if format == "chat" and codec is not None and not has_chat:
        raise InputError(Problem("the model has no chat template, so there is no format chat for it", "Use format: plain.", field="format"))
    if format == "plain" and only_chat:
        raise InputError(
            Problem("the endpoint takes chat messages only, so there is no format plain for it", "Use format: chat.", field="format")
        )
    return "chat" if format == "chat" else "plain"


def _ranked(hits: Sequence[Hit], useful: Sequence[str]) -> list[str]:
    """uids, most useful first; what `useful` does not name comes last."""
    there = {hit.uid for hit in hits}
    named = {uid: None for uid in useful if uid in there}
    return [*named, *(hit.uid for hit in hits if hit.uid not in named)]


def _fit(job: _Job, hits: list[Hit], useful: Sequence[str]) -> tuple[list[Hit], Encoded | None, int]:
    """(demonstrations kept, the encoded prompt, its tokens with the longest continuation): as many of the most useful as fit.

    Where to start is estimated from the demonstrations' own token counts; whatever counts is encoded whole.
    """
    ranked = _ranked(hits, useful)
    by_uid = {hit.uid: hit for hit in hits}

    def tried(m: int) -> tuple[list[Hit], Encoded, int]:
        names = set(ranked[:m])
        kept = [hit for hit in hits if hit.uid in names]
        encoded = job.encode([hit.example for hit in kept])
        return kept, encoded, job.total(encoded)

    limit = job.limit
    if limit is None:
        return tried(len(ranked))
    sizes = _Sizes(job, [by_uid[uid] for uid in ranked])
    m, too_many = _start(job, sizes, limit), len(ranked) + 1
    best: tuple[int, tuple[list[Hit], Encoded, int]] | None = None
    # Estimates may be wrong by a little at every demonstration, so with many of them the next try goes as far as the estimates say.
    while True:
        made = tried(m)
        if made[2] <= limit:
            best = m, made
            m = sizes.more(m, limit - made[2], too_many)
        elif not m:
            return [], None, job.total(made[1], exact=True)
        else:
            too_many, m = m, max(sizes.fewer(m, made[2] - limit), best[0] + 1 if best is not None else 0)
        if best is not None and (m == best[0] or m >= too_many):
            return best[1]


class _Sizes:
    """About how many tokens demonstrations take, the most useful first; each is counted when it is first asked for."""

    def __init__(self, job: _Job, ranked: Sequence[Hit]) -> None:
        self._job, self.ranked = job, ranked

    def __getitem__(self, m: int) -> int:
        return self._job.size(self.ranked[m])

    def more(self, m: int, room: int, too_many: int) -> int:
        """How many to try where m leave so much room: as many more as probably fit, one more if it is doubtful, none if that is too many."""
        start = m
        while m + 1 < too_many and m < len(self.ranked) and self[m] <= room + (SLACK if m == start else 0):
            room -= self[m]
            m += 1
        return m

    def fewer(self, m: int, excess: int) -> int:
        """How many to try where m are too long by so much: at least one less."""
        freed = 0
        while m and (not freed or freed < excess - SLACK):
            m -= 1
            freed += self[m]
        return m


def _start(job: _Job, sizes: _Sizes, limit: int) -> int:
    """How many demonstrations to try first."""
    ranked = sizes.ranked
    fixed = len(job.bound.instruction(job.query)) + len(job.bound.query(job.query))
    if fixed + sum(len(job.bound.demonstration(hit.example)) for hit in ranked) <= limit:
        return len(ranked)  # tokens are hardly ever shorter than characters
    left = limit - fixed // 5
    for m in range(len(ranked)):
        left -= sizes[m]
        if left < 0:
            return m
    return len(ranked)
