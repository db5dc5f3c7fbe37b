"""Prompts without the personal data in them, and answers with it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ...endpoint.personal import Hidden, Recogniser
from ...values import Prompt
from ..encoding import Context
from .values import Answer

__all__ = ["Hidden", "hidden_context", "put_back"]

A = TypeVar("A", Answer, "Answer | None")


def hidden_context(context: Context, more: Recogniser | None = None) -> tuple[Context, Hidden]:
    """The context with stand-ins for personal data, in text and messages alike. A prompt in which there is some loses its token ids, which
    stand for the text as it was; one without any is sent as it is. more: a recogniser that is asked about what the patterns leave."""
    hidden = Hidden(more=more)
    if not isinstance(context, Prompt):
        return hidden.hide(context), hidden
    messages = tuple({**message, "content": hidden.hide(message["content"], context.text)} for message in context.messages)
    counts = hidden.counts.copy()
    text = hidden.hide(context.text, context.text)
    if not hidden.counts:
        return context, hidden
    hidden.counts = counts or hidden.counts  # once, not for the messages and the text
    return replace(context, text=text, messages=messages, token_ids=(), tail=text, n_head=0), hidden


def put_back(answers: Sequence[A], backs: Sequence[Hidden]) -> list[A]:
    """The answers with what their stand-ins stand for. backs: one per answer, or none at all."""
    if not backs:
        return list(answers)
    pairs = zip(answers, backs, strict=True)
    return [a if a is None else replace(a, texts=tuple(hidden.put_back(text) for text in a.texts)) for a, hidden in pairs]
