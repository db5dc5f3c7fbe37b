"""The frozen values that the rooms hand to each other. They hold data only; nothing here computes a score."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

Turn: TypeAlias = Mapping[str, str]
"""One turn of a conversation: `{"role": …, "text": …}`."""
FieldValue: TypeAlias = "str | int | float | Sequence[Turn]"
Fields: TypeAlias = Mapping[str, "FieldValue"]
Kind: TypeAlias = Literal["classify", "choose", "answer"]
KINDS: tuple[Kind, ...] = ("classify", "choose", "answer")
Message: TypeAlias = dict[str, str]
"""One chat message: `{"role": "system" | "user" | "assistant", "content": …}`."""

RAW_QUERY = "query-"
"""Prefix of the uid of a query that is no row of a task: a dict or a string that a user typed."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row: what a method sees of it, and what it is judged by."""

    uid: str
    """blake2b of the canonical JSON of fields and choices, `-`, occurrence within the split."""
    fields: Fields
    """Template field -> value."""
    target: str | None
    """The label (classify), the text of the right choice (choose), the first reference (answer); None if not known."""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    """All accepted answers (answer); the first is `target`."""
    rationale: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the index found for a query."""

    uid: str
    score: float
    """Higher is closer. From the index: the inner product of unit vectors, so the cosine."""
    example: Example
    shared: bool = False
    """Other queries get this row too, in the same place: what stands before it may be kept in a cache of beginnings."""


class Step(NamedTuple):
    """What a stage of a retriever did for one query."""

    stage: str
    n_in: int
    """Rows it could choose among."""
    n_out: int
    dropped: Mapping[str, int]
    """Why rows were left out -> how many."""
    n_changed: int = 0
    """How many of the rows it left would not be there without it: they stood behind the first `n_out` of what it was given."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A solved example in a prompt."""

    example: Example
    shot: int
    """Place in the prompt; 0 is furthest from the query."""
    score: float | None = None
    """Score of the hit it came from."""
    shared: bool = False
    """As in its hit."""

    @property
    def uid(self) -> str:
        return self.example.uid


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads for one query, without the answer."""

    text: str
    """Exactly the characters that `token_ids` stand for (chat: as the chat template wrote them; without a tokenizer: plain)."""
    messages: tuple[Message, ...]
    """The same prompt as chat messages, the last one the query's user turn."""
    token_ids: tuple[int, ...] = ()
    """What is scored. Empty when no tokenizer was given."""
    demonstrations: tuple[Demonstration, ...] = ()
    """In prompt order."""
    n_tokens: int | None = None
    """Tokens of the prompt without any continuation; None when nothing counts tokens."""
    dropped: tuple[str, ...] = ()
    """uids of the demonstrations left out so that the prompt fits, least useful first."""
    tail: str = ""
    """The text after the last control token; a plain prompt is all tail."""
    n_head: int = 0
    """Tokens before the tail (BOS, and in chat everything up to the last control token): never encoded again."""
    format: Literal["plain", "chat"] = "plain"
    query: Example | None = None
    steps: tuple[Step, ...] = ()
    """What each stage of the retriever did."""
    cache_break: int = 0
    """How many of the first `messages` other queries' prompts begin with too: the instruction and the demonstrations that are shared.
    A provider's cache of beginnings may end there. 0: nothing is shared, or it is not known."""
    windows: Windows | None = None
    """Several prompts instead of one: the model reads theirs. `text` then shows them one after another, `n_tokens` is their sum, and there
    are no `token_ids` and `messages`."""
    n_cut: int = 0
    """About how many tokens of the query's input are in no prompt."""

    def __str__(self) -> str:
        return self.text


Combine: TypeAlias = Literal["product", "mixture", "max", "parallel"]
"""How the scores of several prompts become one: the mean of log-likelihoods, the mean or the largest of the probabilities among the
candidates, or not at all: the query sees all windows at once."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The prompts of one query: its demonstrations in several windows, or its input in several pieces."""

    prompts: tuple[Prompt, ...]
    combine: Combine
    n_head: int = 0
    """`parallel`: the tokens that all prompts begin with and that stand there once (BOS, the instruction)."""
    n_tail: int = 0
    """`parallel`: the tokens that all prompts end with, the query's."""


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Log-likelihoods of the candidate continuations of one prompt. Raw: nothing is normalised or calibrated."""

    candidates: tuple[str, ...]
    """The continuations, as strings."""
    sums: tuple[float, ...]
    """Per candidate the sum of its tokens' log-likelihoods in nats, ≤ 0."""
    n_tokens: tuple[int, ...]
    """Tokens summed over, counted from the common start of all candidates."""
    n_bytes: tuple[int, ...]
    """UTF-8 bytes of the continuation without its leading white space."""
    n_chars: tuple[int, ...]
    start: int = 0
    """First token position that is scored, the same for all candidates."""
    straddle: bool = False
    """True if a token crosses the border between context and continuation, so that scoring starts inside the context."""
    conditioned: Literal["context", "bos", "eos", "encoder", "answer"] = "context"
    """What an empty context was replaced by; `encoder`: the context stands in an encoder, the continuation in a decoder; `answer`: a channel
    prompt, where each candidate is a context of its own and the sum is that of the query's text behind it."""
    parts: tuple[tuple[float, ...], ...] = ()
    """Where the scores of several prompts were combined into `sums`: the sums of each."""
    first: tuple[float, ...] = ()
    """Per candidate the log-likelihood of its first token alone, in nats; empty where it is not known."""
    first_of: tuple[int, ...] = ()
    """Per candidate the position of the first one that begins with the same token: its own, or that of an earlier candidate."""
    premise: tuple[float, ...] = ()
    """Per candidate its sum after nothing at all, where the read-out `pmi` was asked for."""
    domain_premise: tuple[float, ...] = ()
    """The same after the domain premise, where `pmi_domain` was asked for."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Per answer the positions of its candidates; empty where every answer has one, in the same order."""


@dataclass(slots=True)
class Totals:
    """Tokens of all that a model has done since it was loaded. It only grows."""

    computed: int = 0
    """Positions of unique tokens that went through the model, those that it wrote included."""
    padded: int = 0
    """Positions computed beside them to fill up batches."""
    cached: int = 0
    """Positions of planned batches that were found in the cache of scores."""
    naive: int = 0
    """What one forward pass per continuation over its whole prompt would have computed."""
    generated: int = 0
    """Those of `computed` that the model wrote."""
    unplanned: int = 0
    """Times that work was done otherwise than planned: memory ran out, or another way to write was faster. The last digits may then be
    others, so what such a call gives is not kept in the cache."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of a planned piece of work, from a cold start."""

    computed: int
    """Token positions that the model computes (padding left out)."""
    naive: int
    """What one forward pass per continuation over its whole prompt would compute."""
    generated: int = 0
    """Those of `computed` that the model writes, at most; an endpoint has a price of its own for them."""

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(self.computed + other.computed, self.naive + other.naive, self.generated + other.generated)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A method's answer for one query."""

    uid: str
    answer: str | None
    """The label, the text of the choice, or the answer in words. None: could not be scored, or abstained; `why` says so."""
    probabilities: Mapping[str, float] | None = None
    candidates: tuple[str, ...] = ()
    demonstrations: tuple[str, ...] = ()
    """uids in prompt order."""
    why: str | None = None
    """Reason when `answer` is None."""
    scores: LabelScores | None = None
    """The raw scores behind it, where the method has some."""
    tie: bool = False
    """The two best candidates are closer than the tolerance of the computation; the earlier one was taken."""
    n_tokens: int | None = None
    n_dropped: int = 0
    n_windows: int = 0
    """How many prompts the answer was put together from; 0: from one, as usual."""
    n_cut: int = 0
    """About how many tokens of the input were left out, so that it fits."""
    text: str | None = None
    """What a generating model wrote, before the answer was read out of it; of several samples a JSON list."""
    lost: bool = False
    """An endpoint gave no answer, so asking again may give one; `why` says what went wrong."""
    steps: tuple[Step, ...] = ()
    """What each stage of the retriever did for this query."""
    withheld: str | None = None
    """The answer that was held back because it was not sure enough; `answer` is None, or what is answered instead."""

    @property
    def label(self) -> str | None:
        return self.answer

    @property
    def abstained(self) -> bool:
        """Whether the method held its answer back and gave none instead. That is no failure."""
        return self.answer is None and self.withheld is not None

    @property
    def confidence(self) -> float | None:
        """The probability of the answer; None where there is none, also for what is answered instead of a withheld answer."""
        if self.answer is None or self.withheld is not None or self.probabilities is None:
            return None
        return self.probabilities.get(self.answer)


@dataclass(frozen=True, slots=True)
class Spec:
    """A component as a user names it: `knn`, or `{knn: {n: 64}}`."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def digest(value: Any, size: int = 16) -> str:
    """Hex blake2b (`size` bytes) of the canonical JSON of `value`."""
    return hashlib.blake2b(canonical_json(value).encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def content_digest(fields: Fields, choices: Sequence[str] = ()) -> str:
    """The first part of a uid: the same for rows with the same fields and choices."""
    return digest([_plain(fields), list(choices)])


def _plain(fields: Fields) -> dict[str, Any]:
    return {k: [dict(turn) for turn in v] if not isinstance(v, str | int | float) else v for k, v in fields.items()}


def embedded_text(fields: Fields) -> str:
    """What is embedded of a row: its input field values joined by a line end, never the label."""
    return "\n".join(field_text(v) for v in fields.values())


def field_text(value: FieldValue) -> str:
    """A field as text; a conversation becomes one `role: text` line a turn."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    return "\n".join(f"{turn['role']}: {turn['text']}" for turn in value)


def normalised_text(text: str) -> str:
    """For comparing texts: NFKC, case folded, letters and digits only, single spaces."""
    return _NOT_ALNUM.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


_NOT_ALNUM = re.compile(r"[\W_]+")


def _is_field_value(value: Any) -> bool:
    if isinstance(value, str | int | float):
        return True
    return isinstance(value, Sequence) and all(isinstance(turn, Mapping) and {"role", "text"} <= set(turn) for turn in value)


def as_query(query: Example | Mapping[str, Any] | str, inputs: Sequence[str]) -> Example:
    """An Example for whatever a user passes as a query.

    inputs: names of the input fields. A str stands for the only one. A mapping may also carry `choices`. The uid starts
    with `RAW_QUERY`, so that the leak guard (which excludes a task row's own copy) leaves an exact match usable.
    Raises InputError if fields are missing or hold neither text, a number nor a conversation, or a str is given where there are several.
    """
    from .errors import InputError, Problem

    if isinstance(query, Example):
        return query
    if not isinstance(query, str | Mapping):
        raise InputError(Problem(f"a query is a text or a dict, got {query!r:.60}", "Pass a dict: {field: value, …}."))
    if isinstance(query, str):
        if len(inputs) != 1:
            raise InputError(
                Problem(
                    f"a query as plain text needs exactly one input field; this task has {list(inputs)}", "Pass a dict: {field: value, …}."
                )
            )
        query = {inputs[0]: query}
    missing = [name for name in inputs if name not in query]
    if missing:
        raise InputError(Problem(f"the query lacks the field(s) {missing}", f"Give all of {list(inputs)}; got {sorted(query)}."))
    choices = tuple(str(c) for c in query.get("choices", ()))
    fields = {name: query[name] for name in inputs}
    if odd := [name for name, value in fields.items() if not _is_field_value(value)]:
        fix = "Give a text, a number, or a conversation: a list of turns, each a dict with 'role' and 'text'."
        raise InputError([Problem(f"the query's field holds {fields[name]!r:.60}", fix, field=name) for name in odd])
    return Example(f"{RAW_QUERY}{content_digest(fields, choices)}", fields, None, choices)
