"""Reading the JSON of answers. What is not exactly as it should be raises Broken; nothing is filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...endpoint.wire import Broken

_ABOVE_ZERO = 1e-3
"""Nats by which rounding may lift a log-probability above 0."""


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that a server gave back with log-probabilities."""

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    """In nats, of each token given those before it; None where there is none, such as for the first."""
    ids: tuple[int, ...] = ()
    """The tokens' numbers, where the server tells them."""


def choices(data: Any, n: int) -> list[Mapping[str, Any]]:
    """The n choices of an answer in the order of their indices, which is the order of the prompts; servers may send them in another."""
    found = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(choice, dict) for choice in found):
        raise Broken("the answer has no choices")
    if len(found) != n:
        raise Broken(f"the answer has {len(found)} choices, {n} were asked for")
    if n == 1:
        return found
    indices = [choice.get("index") for choice in found]
    if sorted(i if isinstance(i, int) else -1 for i in indices) != list(range(n)):
        raise Broken(f"the choices carry the indices {indices}, so it is not known which is which")
    return sorted(found, key=lambda choice: int(choice["index"]))


def text_of(choice: Mapping[str, Any]) -> str:
    """What was written. An empty text is an answer only if the server says that the text ended there."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    finish = choice.get("finish_reason")
    if finish == "content_filter":
        raise Broken("the server's content filter withheld the answer", again=False)
    if text is None and isinstance(message, dict) and finish in ("stop", "length"):
        text = ""
    if not isinstance(text, str):
        raise Broken("the answer has no text")
    if not text and finish == "length":
        raise Broken("nothing was written within max_new_tokens: the model may think first (switch that off with extra_body)", again=False)
    if not text and finish != "stop":
        raise Broken("the answer is empty")
    return text


def number(value: Any) -> float:
    """A log-probability. Anything but a finite number that is not above 0 raises Broken."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > _ABOVE_ZERO:
        raise Broken(f"{value!r} is no log-probability")
    return min(float(value), 0.0)


def echo_of(choice: Mapping[str, Any]) -> Echo:
    """The prompt's log-probabilities out of a choice, as `echo` with `logprobs` gives them, or vLLM's `prompt_logprobs`."""
    own = choice.get("prompt_logprobs")
    if isinstance(own, list):
        return _own_echo(own)
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        raise Broken("the answer has no log-probabilities")
    tokens, values = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values) or not tokens:
        raise Broken("the answer does not have one log-probability for each token")
    return Echo(tuple(str(t) for t in tokens), tuple(None if v is None else number(v) for v in values))


def _own_echo(entries: Sequence[Any]) -> Echo:
    """vLLM: per token `{id: {logprob, rank, decoded_token}}`, the prompt's own token first; None for the first token."""
    tokens: list[str] = []
    values: list[float | None] = []
    ids: list[int] = []
    for entry in entries:
        if entry is None and not tokens:
            tokens.append("")
            values.append(None)
            ids.append(-1)
            continue
        if not isinstance(entry, dict) or not entry:
            raise Broken("the answer does not have one log-probability for each token")
        name, found = next(iter(entry.items()))
        if not isinstance(found, dict) or not name.isdecimal():
            raise Broken("the answer's prompt_logprobs cannot be read")
        tokens.append(str(found.get("decoded_token") or ""))
        values.append(number(found.get("logprob")))
        ids.append(int(name))
    if not tokens:
        raise Broken("the answer has no log-probabilities")
    return Echo(tuple(tokens), tuple(values), tuple(ids))


def top_of(choice: Mapping[str, Any]) -> dict[str, float]:
    """The most likely first tokens and their log-probabilities, in the two shapes that servers use."""
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, dict) else None
    if isinstance(content, list) and content and isinstance(content[0], dict):
        entries = content[0].get("top_logprobs")
        if isinstance(entries, list) and entries and all(isinstance(e, dict) and isinstance(e.get("token"), str) for e in entries):
            return _checked([(e["token"], number(e.get("logprob"))) for e in entries])
    tops = found.get("top_logprobs") if isinstance(found, dict) else None
    if isinstance(tops, list) and tops and isinstance(tops[0], dict) and tops[0]:
        return _checked([(str(token), number(value)) for token, value in tops[0].items()])
    raise Broken("the answer has no log-probabilities of the first token")


def _checked(entries: Sequence[tuple[str, float]]) -> dict[str, float]:
    total = sum(math.exp(value) for _, value in entries)
    if total > 1 + _ABOVE_ZERO:
        raise Broken(f"the probabilities of the first token add up to {total:.3f}")
    result: dict[str, float] = {}
    for token, value in entries:  # two tokens of one spelling: the likelier one is meant
        result[token] = max(value, result.get(token, -math.inf))
    return result


def spelled(echo: Echo, text: str) -> tuple[int, int] | None:
    """(first, last + 1) of the tokens that spell exactly `text`: a server may put BOS in front and one new token behind.

    None if they do not, or if a token is no whole character, so that it cannot be told.
    """
    if echo.ids:  # vLLM's own form says nothing about the first token, and has no new token behind
        return (0, len(echo.tokens)) if text.endswith("".join(echo.tokens[1:])) else None
    for first in range(min(3, len(echo.tokens))):
        rest, at = text, first
        while rest and at < len(echo.tokens) and echo.tokens[at] and rest.startswith(echo.tokens[at]):
            rest = rest[len(echo.tokens[at]) :]
            at += 1
        if not rest and at > first:
            return first, at
    return None


def ends(echo: Echo, text: str) -> tuple[int, list[int]]:
    """(first token of the text, where each of its tokens ends in the text, in characters). Raises Broken if the tokens do not spell it."""
    place = spelled(echo, text)
    if place is None:
        raise Broken("the tokens that came back do not spell the text that was sent (give the model's tokenizer=)")
    first, last = place
    found, at = [], len(text)
    for token in reversed(echo.tokens[first:last]):
        found.append(at)
        at -= len(token)
    return first, found[::-1]
