"""A server of the OpenAI-compatible interface whose model is a rule, so that what is right is known: chat, and embeddings of letters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai_server import Refused


def n_tokens(text: str) -> int:
    """What the server counts: four characters a token."""
    return -(-len(text) // 4)


def letters(text: str) -> list[float]:
    """Counts of the letters a to z, and 1 more, so that no vector is zero."""
    return [1.0, *(float(text.lower().count(chr(97 + i))) for i in range(26))]


@dataclass
class Rules:
    """answer: (messages, number of the sample) -> what the model writes."""

    answer: Callable[[Sequence[dict[str, str]], int], str]
    acts_on_n: bool = True
    fails: Callable[[Sequence[dict[str, str]]], int | None] = lambda messages: None
    """An HTTP status instead of an answer."""
    chats: list[list[dict[str, str]]] = field(default_factory=list)
    """Every conversation that was answered or refused."""
    embedded: list[list[str]] = field(default_factory=list)
    shuffled: bool = True
    """Embeddings come back in another order than asked for, told by their index."""
    spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer
    """What becomes of an answer with embeddings on its way."""
    lock: Any = field(default_factory=threading.Lock)

    def respond(self, path: str, body: dict[str, Any] | None) -> Any:
        if body is None:
            return {"object": "list", "data": [{"id": "rules", "object": "model"}, {"id": "letters", "object": "model"}]}
        if path == "/v1/chat/completions":
            return self._chat(body)
        if path == "/v1/embeddings":
            return self._embeddings(body)
        raise Refused(404, "Not Found")

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        with self.lock:
            self.chats.append(messages)
        status = self.fails(messages)
        if status is not None:
            raise Refused(status, "broken on purpose")
        texts = [self.answer(messages, j) for j in range(body.get("n", 1) if self.acts_on_n else 1)]
        made = [{"index": j, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for j, text in enumerate(texts)]
        usage = {"prompt_tokens": sum(n_tokens(m["content"]) for m in messages), "completion_tokens": sum(map(n_tokens, texts))}
        return {"object": "chat.completion", "model": "rules", "choices": made, "usage": usage}

    def _embeddings(self, body: dict[str, Any]) -> Any:
        texts = body["input"]
        with self.lock:
            self.embedded.append(texts)
        rows = [{"object": "embedding", "index": i, "embedding": letters(text)} for i, text in enumerate(texts)]
        usage = {"prompt_tokens": sum(map(n_tokens, texts)), "total_tokens": sum(map(n_tokens, texts))}
        return self.spoil({"object": "list", "model": "letters", "data": rows[::-1] if self.shuffled else rows, "usage": usage})
