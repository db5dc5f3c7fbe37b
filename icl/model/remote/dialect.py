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
    mark_cache: bool = False
    """Mark up to where a chat prompt is shared with others."""

    def completion(
        self, prompt: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]], max_tokens: int, **more: Any
    ) -> dict[str, Any]:
        return self._merged({"model": self.model, "prompt": prompt, "max_tokens": max_tokens, **more})

    def chat(self, messages: Sequence[Mapping[str, Any]], max_tokens: int, **more: Any) -> dict[str, Any]:
        return self._merged({"model": self.model, "messages": [dict(m) for m in messages], self.chat_limit: max_tokens, **more})

    def marked(self, messages: Sequence[Message], n_shared: int) -> Sequence[Mapping[str, Any]]:
        """The messages with the mark of providers that cache only what is marked, on the last of the first `n_shared`.

        The mark stands on a part of the message's content, as Anthropic's interface has it and gateways with OpenAI's interface (OpenRouter,
        LiteLLM) take it. Other providers cache beginnings by themselves, and some refuse a mark they do not know: only where the user
        says so.
        """
        if not self.mark_cache or not 0 < n_shared <= len(messages):
            return messages
        last = messages[n_shared - 1]
        part = {"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}
        return [*messages[: n_shared - 1], {**last, "content": [part]}, *messages[n_shared:]]

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
