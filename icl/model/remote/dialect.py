"""The bodies of requests, in the words of the OpenAI-compatible interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError, Problem
from ...values import Message

COMPLETIONS, CHAT = "completions", "chat/completions"
_OURS = frozenset({"model", "prompt", "messages", "n", "echo", "logprobs", "top_logprobs", "prompt_logprobs", "stream"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """How this server is spoken to.

    extra: `extra_body` of the user: fields added to every request; one with the value None is taken out of it.
    """

    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    chat_limit: str = "max_tokens"
    """Some providers want `max_completion_tokens` for chat."""

    def completion(
        self, prompt: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]], max_tokens: int, **more: Any
    ) -> dict[str, Any]:
        return self._merged({"model": self.model, "prompt": prompt, "max_tokens": max_tokens, **more})

    def chat(self, messages: Sequence[Message], max_tokens: int, **more: Any) -> dict[str, Any]:
        return self._merged({"model": self.model, "messages": [dict(m) for m in messages], self.chat_limit: max_tokens, **more})

    def _merged(self, body: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**body, **self.extra}.items() if value is not None}


def checked_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """`extra_body`, unless it takes over what the answers are read by. Raises InputError."""
    problems = [
        Problem(f"extra_body must not set '{name}'", "It decides how answers are read; leave it out.", field=f"extra_body.{name}")
        for name in extra or {}
        if name in _OURS
    ]
    if problems:
        raise InputError(problems)
    return dict(extra or {})
