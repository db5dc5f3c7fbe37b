"""Log-likelihoods from a server: of whole continuations out of echoed prompts, or of first tokens out of the likeliest ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

from ...endpoint.wire import Broken
from ...values import LabelScores
from ..boundary import Split
from ..firsts import first_of
from .shapes import Echo, choices, echo_of, ends
from .values import Failed


def label_scores(
    texts: Sequence[str],
    values: Sequence[Sequence[float]],
    beginnings: Sequence[Hashable],
    *,
    start: int,
    straddle: bool = False,
    conditioned: Literal["context", "bos", "eos"] = "context",
) -> LabelScores:
    """The contract's value: bytes and characters are those of the continuations without leading white space.

    values: per continuation the log-probabilities of its tokens. beginnings: its first token.
    """
    shown = [text.lstrip() for text in texts]
    return LabelScores(
        candidates=tuple(texts),
        sums=tuple(map(sum, values)),
        n_tokens=tuple(map(len, values)),
        n_bytes=tuple(len(text.encode("utf-8", "surrogatepass")) for text in shown),
        n_chars=tuple(len(text) for text in shown),
        start=start,
        straddle=straddle,
        conditioned=conditioned,
        first=tuple(each[0] for each in values),
        first_of=first_of(beginnings),
    )


def ids_reader(
    sequences: Sequence[tuple[int, ...]], start: int, decode: Callable[[Sequence[int]], str] | None
) -> Callable[[Any], list[list[float]]]:
    """Reads the log-probabilities of each sequence's tokens from `start` on out of an answer to these token ids.

    decode: where this server's tokens are known to spell texts, what comes back is compared with what was sent.
    """

    def read(data: Any) -> list[list[float]]:
        return [_own(echo_of(choice), ids, start, decode) for choice, ids in zip(choices(data, len(sequences)), sequences, strict=True)]

    return read


def _own(echo: Echo, ids: tuple[int, ...], start: int, decode: Callable[[Sequence[int]], str] | None) -> list[float]:
    if len(echo.tokens) < len(ids):
        raise Broken(f"{len(echo.tokens)} tokens came back, {len(ids)} were sent")
    if echo.ids and echo.ids[1 : len(ids)] != ids[1:]:
        raise Broken("the tokens that came back are not those that were sent")
    if decode is not None and not echo.ids and "\ufffd" not in (own := "".join(echo.tokens[start : len(ids)])):
        sent = decode(ids[start:])
        if "\ufffd" not in sent and own.strip() != sent.strip():
            raise Broken("the tokens that came back are not those that were sent")
    return _whole(echo.logprobs[start : len(ids)])


def _whole(values: Sequence[float | None]) -> list[float]:
    if not values or any(value is None for value in values):
        raise Broken("a token of the continuation has no log-probability")
    return [value for value in values if value is not None]


def split_scores(found: Split, texts: Sequence[str], values: Sequence[Sequence[float]]) -> LabelScores:
    beginnings = [ids[0] for ids in found.continuations]
    return label_scores(texts, values, beginnings, start=len(found.prefix), straddle=found.straddle, conditioned=found.conditioned)


def text_reader(texts: Sequence[str]) -> Callable[[Any], list[tuple[Echo, str]]]:
    """Reads the echoes of these texts, each checked to spell its own and to have a log-probability for all but its first token."""

    def read(data: Any) -> list[tuple[Echo, str]]:
        pairs = [(echo_of(choice), text) for choice, text in zip(choices(data, len(texts)), texts, strict=True)]
        for echo, text in pairs:
            first, stops = ends(echo, text)
            _whole(echo.logprobs[max(first, 1) : first + len(stops)] or [0.0])
        return pairs

    return read


def text_scores(context: str, continuations: Sequence[str], echoes: Sequence[tuple[Echo, str]]) -> LabelScores | Failed:
    """Scores from echoed texts, without a tokenizer: from the last border of tokens within the context that all continuations share."""
    spelling = [ends(echo, text) for echo, text in echoes]
    shared = []
    for place in zip(*(_border(echo, first, stops) for (echo, _), (first, stops) in zip(echoes, spelling, strict=True)), strict=False):
        if len(set(place)) > 1 or place[0][1] > len(context):
            break
        shared.append(place[0])
    n = len(shared)
    n = min(n, *(len(stops) - 1 for _, stops in spelling))  # no continuation without a token
    first = spelling[0][0]
    if n + first == 0:
        return Failed("an empty context has no token to start from on this server (give the model's tokenizer=)")
    at = shared[n - 1][1] if n else 0
    values = [_whole(echo.logprobs[own + n : own + len(stops)]) for (echo, _), (own, stops) in zip(echoes, spelling, strict=True)]
    beginnings = [echo.tokens[own + n] for (echo, _), (own, _) in zip(echoes, spelling, strict=True)]
    return label_scores(
        continuations, values, beginnings, start=first + n, straddle=at < len(context), conditioned="context" if context else "bos"
    )


def _border(echo: Echo, first: int, stops: Sequence[int]) -> list[tuple[str, int]]:
    return [(echo.tokens[first + i], stop) for i, stop in enumerate(stops)]


def first_token_scores(continuations: Sequence[str], top: Mapping[str, float]) -> LabelScores | Failed:
    """The log-probability of each continuation's first token.

    That token is the longest of the likeliest ones with which the continuation begins. A continuation without one, or two with the
    same, cannot be told apart: then the item is Failed, since a missing probability is not zero.
    """
    picked: list[str] = []
    for text in continuations:
        fitting = [token for token in top if token.strip() and text.startswith(token)]
        if not fitting:
            return Failed(f"the first token of {text!r} is not among the {len(top)} likeliest ones")
        picked.append(max(fitting, key=len))
    for i, token in enumerate(picked):
        clash = next((other for j, other in enumerate(continuations) if j != i and other.startswith(token)), None)
        if clash is not None:
            return Failed(f"{continuations[i]!r} and {clash!r} begin with the same token {token!r}")
    return label_scores(continuations, [[top[token]] for token in picked], picked, start=0)
