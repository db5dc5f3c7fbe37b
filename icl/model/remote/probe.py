"""What a server can really do: found out by what its answers do, not by what it accepts.

A server that takes `logprobs`, `n`, `stop` or `seed` and does not act on it is as good as one that refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...endpoint.meter import Tokens, estimated_tokens
from ...endpoint.wire import Broken, GivenUp, Job
from ...protocols import Estimator
from ...values import Message
from .dialect import CHAT, COMPLETIONS, Dialect
from .shapes import Echo, choices, echo_of, spelled, text_of, top_of

EchoStyle = Literal["echo", "prompt_logprobs"]
Ask = Callable[[Sequence[Job]], Sequence[Any]]
"""Jobs -> their values, GivenUp where one failed."""
Ids = Callable[[str], Sequence[int]]
"""A text as the token ids of the model."""

# The endings are the same and the beginnings are not, so that a log-probability which does not look at its context is found out.
_FIRST = "The cat sat on the mat and looked at the moon."
_OTHER = "Every tax form lies on the mat and looked at the moon."
_COMMON_END = 5
"""Tokens at the end that are surely the same in both."""
_OPEN = "Here are a few random words:"
_APART_NAT = 1e-3
_EQUAL_NAT = 0.05
"""16-bit servers differ by so much from one batch to the next."""
_LONG = 16
_SAME = 3
SAMPLES = 8
"""Texts in one request, at most: what the probe asks for. llama.cpp refuses more than it has slots."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the probe found."""

    completions: bool = False
    chat: bool = False
    chat_limit: str = "max_tokens"
    echo: EchoStyle | None = None
    """How log-probabilities of a prompt are had; None: not at all."""
    echo_tokens: int = 0
    """`max_tokens` with which they are had: some servers want to write at least one token."""
    echo_why: str = ""
    """Why there are none."""
    lists: bool = False
    """Several prompts in one request."""
    token_ids: bool = False
    """Prompts as token ids."""
    top_k: int = 0
    """How many of the likeliest first tokens a completion names."""
    chat_top_k: int = 0
    n: bool = False
    stop: bool = False
    seed: bool = False
    temperature: bool = False
    """Sampling gives different texts."""
    repeatable: bool = False
    """Temperature 0 gives the same text again."""
    usage: bool = False

    @property
    def estimator(self) -> Estimator:
        """The best there is."""
        if self.echo:
            return "loglikelihood"
        return "first_token" if (self.top_k if self.completions else self.chat_top_k) else "generation"

    def lines(self) -> list[str]:
        """For people."""
        ends = [name for name, there in (("completions", self.completions), ("chat", self.chat)) if there]
        echo = f"yes, by {self.echo} with max_tokens {self.echo_tokens}" if self.echo else f"no ({self.echo_why})"
        tops = [f"{name} {k}" for name, k in (("completions", self.top_k), ("chat", self.chat_top_k)) if k]
        acted = ("n", "stop", "seed", "temperature")
        return [
            f"endpoints: {', '.join(ends) or 'none that answers'}",
            f"log-probabilities of a prompt: {echo}",
            f"several prompts in a request: {_yes(self.lists)}; prompts as token ids: {_yes(self.token_ids)}",
            f"likeliest first tokens: {', '.join(tops) or 'no'}",
            f"acts on: {', '.join(name for name in acted if getattr(self, name)) or 'nothing'}; "
            f"ignores or refuses: {', '.join(name for name in acted if not getattr(self, name)) or 'nothing'}",
            f"temperature 0 repeatable: {_yes(self.repeatable)}; reports tokens: {_yes(self.usage)}",
        ]


def _yes(there: bool) -> str:
    return "yes" if there else "no"


@dataclass(frozen=True, slots=True)
class Probed:
    """The outcome: the capabilities, or why the server answers nothing at all; and a tokenizer that is not the model's."""

    found: Capabilities
    failures: tuple[GivenUp, ...] = ()
    wrong_tokenizer: bool = False


@dataclass(frozen=True, slots=True)
class _Probe:
    ask: Ask
    dialect: Dialect
    ids: Ids | None

    def completion(self, prompt: Any, max_tokens: int, read: Callable[[Any], Any], **more: Any) -> Job:
        body = self.dialect.completion(prompt, max_tokens, **more)
        worst = Tokens(estimated_tokens(str(prompt)), (max_tokens + 1) * more.get("n", 1))
        return Job(COMPLETIONS, body, read, worst, same=_SAME)

    def chat(self, text: str, max_tokens: int, read: Callable[[Any], Any], **more: Any) -> Job:
        messages: list[Message] = [{"role": "user", "content": text}]
        worst = Tokens(estimated_tokens(text) + 16, (max_tokens + 1) * more.get("n", 1))
        return Job(CHAT, self.dialect.chat(messages, max_tokens, **more), read, worst, same=_SAME)


def probe(ask: Ask, dialect: Dialect, ids: Ids | None) -> Probed:
    """Find out what a server can do, in about 25 short requests. ids: the tokenizer of the model, if it is known."""
    base = _Probe(ask, dialect, ids)
    plain, talk = ask([base.completion(_FIRST, _LONG, _written, temperature=0), base.chat(_FIRST, _LONG, _written, temperature=0)])
    if isinstance(talk, GivenUp) and talk.status in (400, 422):
        other = replace(dialect, chat_limit="max_completion_tokens")
        (again,) = ask([_Probe(ask, other, ids).chat(_FIRST, _LONG, _written)])
        if not isinstance(again, GivenUp):
            base, talk = _Probe(ask, other, ids), again
    found = Capabilities(not isinstance(plain, GivenUp), not isinstance(talk, GivenUp), base.dialect.chat_limit)
    if not found.completions and not found.chat:
        return Probed(found, tuple(each for each in (plain, talk) if isinstance(each, GivenUp)))
    found = _acts(base, found, plain if found.completions else talk)
    wrong = False
    if found.completions:
        found = _echo(base, found)
        if ids is not None:
            found, wrong = _token_ids(base, found, plain, ids)
        if found.echo:
            found = _lists(base, found)
    return Probed(_top(base, found), wrong_tokenizer=wrong)


@dataclass(frozen=True, slots=True)
class _Written:
    texts: tuple[str, ...]
    n_input: int | None
    """Tokens of the prompt as the server reports them."""


def _written(data: Any) -> _Written:
    return _read_texts(data, 1)


def _read_texts(data: Any, n: int) -> _Written:
    texts = tuple(_lenient(choice) for choice in choices(data, n))
    usage = data.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    reported = all(isinstance(count, int) for count in counts)
    return _Written(texts, counts[0] if reported else None)


def _lenient(choice: Any) -> str:
    """The probe asks for few tokens, so a model that thinks first has not begun to answer: that is no failure of the server."""
    try:
        return text_of(choice)
    except Broken as broken:
        if broken.again:
            raise
        return ""


def _acts(base: _Probe, found: Capabilities, greedy: _Written) -> Capabilities:
    """Whether n, stop, seed and temperature do what they say."""
    job: Callable[..., Job] = base.completion if found.completions else base.chat
    text = greedy.texts[0]
    middle = text[len(text) // 2 :].strip()[:2]
    hot = {"temperature": 1.5}
    jobs = [
        job(_FIRST, _LONG, _written, temperature=0),
        *(job(_OPEN, _LONG, _written, seed=seed, **hot) for seed in (11, 11, 12, 13)),
        job(_OPEN, _LONG, lambda data: _read_texts(data, SAMPLES), n=SAMPLES, **hot),
        job(_FIRST, _LONG, _written, temperature=0, stop=[middle or "."]),
    ]
    again, *seeded, several, stopped = base.ask(jobs)
    samples = [each.texts[0] for each in seeded if isinstance(each, _Written)]
    varied = len(set(samples)) > 1 or (isinstance(several, _Written) and len(set(several.texts)) > 1)
    return replace(
        found,
        repeatable=isinstance(again, _Written) and again.texts == greedy.texts,
        seed=len(samples) == 4 and samples[0] == samples[1] and len(set(samples)) > 1,
        temperature=varied,
        n=isinstance(several, _Written) and len(set(several.texts)) > 1,
        stop=isinstance(stopped, _Written) and bool(middle) and middle not in stopped.texts[0] and len(stopped.texts[0]) < len(text),
        usage=greedy.n_input is not None,
    )


def _reader(n: int) -> Callable[[Any], list[Echo]]:
    return lambda data: [echo_of(choice) for choice in choices(data, n)]


def echo_fields(style: EchoStyle) -> dict[str, Any]:
    """What asks for the log-probabilities of a prompt."""
    return {"echo": True, "logprobs": 1} if style == "echo" else {"prompt_logprobs": 0}


def _echo(base: _Probe, found: Capabilities) -> Capabilities:
    """The log-probabilities of a prompt: one for each token, of that prompt, given its context, and the same again."""
    why = ""
    ways: tuple[tuple[EchoStyle, int], ...] = (("echo", 0), ("echo", 1), ("prompt_logprobs", 1))
    for style, max_tokens in ways:
        fields = {"temperature": 0, **echo_fields(style)}
        jobs = [base.completion(text, max_tokens, _reader(1), **fields) for text in (_FIRST, _FIRST, _OTHER)]
        answers = base.ask(jobs)
        failed = next((each for each in answers if isinstance(each, GivenUp)), None)
        reason = failed.why if failed is not None else _untrue(*(each[0] for each in answers))
        if reason is None:
            return replace(found, echo=style, echo_tokens=max_tokens)
        why = why or reason
    return replace(found, echo_why=why)


def _untrue(first: Echo, again: Echo, other: Echo) -> str | None:
    """Why these cannot be the log-probabilities of the prompts; None: they can."""
    values = []
    for echo, text in ((first, _FIRST), (again, _FIRST), (other, _OTHER)):
        place = spelled(echo, text)
        if place is None:
            return "the tokens that come back are not the prompt"
        start, stop = place
        own = echo.logprobs[max(start, 1) : stop]
        if any(value is None for value in own):
            return "tokens of the prompt have no log-probability"
        values.append([value for value in own if value is not None])
    if len(values[0]) != len(values[1]) or max(abs(a - b) for a, b in zip(values[0], values[1], strict=True)) > _EQUAL_NAT:
        return "they differ when asked for again"
    if len({round(value, 6) for value in values[0]}) < 2 or max(values[0]) - min(values[0]) < _APART_NAT:
        return "they are the same for every token"
    ends = [each[-_COMMON_END:] for each in (values[0], values[2])]
    if max(abs(a - b) for a, b in zip(*ends, strict=True)) < _APART_NAT:
        return "they do not depend on what stands before"
    return None


def _token_ids(base: _Probe, found: Capabilities, plain: _Written, ids: Ids) -> tuple[Capabilities, bool]:
    """Whether a prompt of token ids is read as what they stand for; and whether they stand for something else on this server."""
    own = [list(ids(text)) for text in (_FIRST, _OPEN)]
    if found.echo:
        fields = {"temperature": 0, **echo_fields(found.echo)}
        (echoes,) = base.ask([base.completion([own[0]], found.echo_tokens, _reader(1), **fields)])
        if isinstance(echoes, GivenUp):
            return found, False
        place = spelled(echoes[0], _FIRST)
        right = place is not None and place[1] == len(own[0])
        return replace(found, token_ids=right), not right
    first, other = base.ask([base.completion(each, _LONG, _written, temperature=0) for each in own])
    if isinstance(first, GivenUp) or isinstance(other, GivenUp):
        return found, False
    counted = first.n_input == len(own[0]) and other.n_input == len(own[1])
    return replace(found, token_ids=counted and first.texts == plain.texts), False


def _lists(base: _Probe, found: Capabilities) -> Capabilities:
    """Two prompts in one request, in an order that the indices tell."""
    assert found.echo is not None
    prompts: list[Any] = [_OTHER, _FIRST]
    if found.token_ids and base.ids is not None:
        prompts = [list(base.ids(text)) for text in prompts]
    (both,) = base.ask([base.completion(prompts, found.echo_tokens, _reader(2), temperature=0, **echo_fields(found.echo))])
    right = not isinstance(both, GivenUp) and all(spelled(e, text) is not None for e, text in zip(both, (_OTHER, _FIRST), strict=True))
    return replace(found, lists=right)


def _top(base: _Probe, found: Capabilities) -> Capabilities:
    """How many of the likeliest first tokens come back in each endpoint."""
    if found.completions:
        found = replace(found, top_k=_largest(base, base.completion, lambda k: {"logprobs": k}))
    if found.chat:
        found = replace(found, chat_top_k=_largest(base, base.chat, lambda k: {"logprobs": True, "top_logprobs": k}))
    return found


def _largest(base: _Probe, job: Callable[..., Job], fields: Callable[[int], dict[str, Any]]) -> int:
    """How many tokens may be asked for, 20 or 5; 0 if none come back, or if they do not change with the prompt."""
    for k in (20, 5):
        tops = base.ask([job(text, 1, lambda data: top_of(choices(data, 1)[0]), temperature=0, **fields(k)) for text in (_FIRST, _OPEN)])
        if not any(isinstance(top, GivenUp) for top in tops):
            return k if min(map(len, tops)) > 1 and tops[0] != tops[1] else 0
    return 0
