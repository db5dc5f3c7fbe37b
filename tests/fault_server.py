"""A server that fails in every way that servers do, with a chosen share of requests, and whose right answers can be checked by anyone.

Its "model" is a hash: a token's log-probability is made of the tokens before it, and a text repeats the start of its prompt's hash. So a
result that reached the wrong item, or was made up, cannot pass for the right one.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from email.utils import formatdate
from typing import Any

KINDS = (
    "429", "429 with seconds", "429 with date", "500", "502 html", "503 with seconds", "no answer", "reset", "reset in the body",
    "truncated json", "html", "fewer choices", "more choices", "reordered", "same index", "empty text", "no choices", "null", "empty body",
    "NaN", "no logprobs", "null logprob", "fewer tokens", "positive logprob", "slow drip",
)  # fmt: skip


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\s?\w+|\s|[^\w\s]", text)


def logprob(tokens: list[str]) -> float:
    """Of the last token given those before it."""
    number = int.from_bytes(hashlib.blake2b("\x00".join(tokens).encode(), digest_size=4).digest(), "big")
    return -0.01 - (number % 100_000) / 10_000


def written(prompt: str, salt: str = "") -> str:
    return " " + hashlib.blake2b(f"{salt}{prompt}".encode(), digest_size=8).hexdigest()


def score(context: str, continuation: str) -> float:
    """What the right log-likelihood is, if the border between the two is one between tokens."""
    start, tokens = len(tokens_of(context)), tokens_of(context + continuation)
    return sum(logprob(tokens[: i + 1]) for i in range(start, len(tokens)))


def respond(path: str, body: dict[str, Any] | None) -> Any:
    """The right answer."""
    if body is None:
        return {"data": [{"id": "hash"}]}
    chat = path.endswith("/chat/completions")
    prompts = [body["messages"][-1]["content"]] if chat else body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    made = []
    for prompt in prompts:
        for j in range(body.get("n", 1)):
            salt = f"{body['seed']}:{j}:" if body.get("temperature") and "seed" in body else ""
            text = written(prompt, salt)
            for stop in body.get("stop", ()):
                text = text.split(stop)[0]
            choice: dict[str, Any] = {"index": len(made), "finish_reason": "stop" if body["max_tokens"] else "length"}
            choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text if body["max_tokens"] else ""}
            if body.get("echo"):
                tokens = tokens_of(prompt)
                values = [None, *(logprob(tokens[: i + 1]) for i in range(1, len(tokens)))]
                choice["text"] = prompt
                choice["logprobs"] = {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": []}
            made.append(choice)
    usage = {"prompt_tokens": sum(len(tokens_of(p)) for p in prompts), "completion_tokens": 0 if body.get("echo") else 4 * len(made)}
    return {"choices": made, "usage": usage}


class Faults:
    """rate: share of requests that fail. quick: seconds that stand for one, for waits that a real server would make longer."""

    def __init__(self, rate: float, *, seed: int = 0, quick: float = 0.02, hang_s: float = 1.0, only: tuple[str, ...] = KINDS) -> None:
        self.rate = rate
        self.quick = quick
        self.hang_s = hang_s
        self.kinds = only
        self.seen: dict[str, int] = {}
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, handler: Any, raw: bytes, body: dict[str, Any]) -> bool:
        with self._lock:
            kind = self._random.choice(self.kinds) if self._random.random() < self.rate else None
            if kind is not None:
                self.seen[kind] = self.seen.get(kind, 0) + 1
        if kind is None or not body:
            return False
        return self._break(kind, handler, raw)

    def _break(self, kind: str, handler: Any, raw: bytes) -> bool:
        if kind == "429":
            handler.reply(429, b'{"error": {"message": "Rate limit reached"}}')
        elif kind in ("429 with seconds", "503 with seconds"):
            handler.reply(int(kind[:3]), b'{"error": "busy"}', Retry_After=str(self.quick))
        elif kind == "429 with date":
            handler.reply(429, b"{}", Retry_After=formatdate(time.time() - 1, usegmt=True))
        elif kind == "500":
            handler.reply(500, b'{"error": {"message": "internal error"}}')
        elif kind == "502 html":
            handler.reply(502, b"<html><body>Bad Gateway</body></html>")
        elif kind == "no answer":
            time.sleep(self.hang_s)
            handler.close_connection = True
        elif kind == "reset":
            handler.close_connection = True
        elif kind in ("reset in the body", "slow drip"):
            self._partly(kind, handler, raw)
        elif kind == "html":
            handler.reply(200, b"<!DOCTYPE html><title>Please log in</title>")
        else:
            handler.reply(200, self._mangled(kind, raw))
        return True

    def _partly(self, kind: str, handler: Any, raw: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.close_connection = True
        if kind == "reset in the body":
            handler.wfile.write(raw[: len(raw) // 2])
            return
        until = time.monotonic() + self.hang_s
        for byte in raw:
            if time.monotonic() > until:
                return
            handler.wfile.write(bytes([byte]))
            time.sleep(self.hang_s / 20)

    def _mangled(self, kind: str, raw: bytes) -> bytes:
        if kind == "truncated json":
            return raw[: len(raw) * 2 // 3]
        if kind == "empty body":
            return b""
        data = json.loads(raw)
        found = data["choices"]
        match kind:
            case "fewer choices":
                found.pop()
            case "more choices":
                found.append(dict(found[0]))
            case "reordered":  # right all the same: the indices tell
                found.reverse()
            case "same index":
                for choice in found:
                    choice["index"] = 0
                if len(found) == 1:
                    data["choices"] = []
            case "empty text":
                for choice in found:
                    choice |= {"text": "", "finish_reason": None, "logprobs": None}
                    choice.pop("message", None)
            case "no choices":
                data = {"id": "x", "object": "text_completion"}
            case "null":
                data = None
            case _:
                self._mangle_logprobs(kind, found)
        return json.dumps(data).encode()

    def _mangle_logprobs(self, kind: str, found: list[dict[str, Any]]) -> None:
        for choice in found:
            given = choice.get("logprobs")
            if kind == "no logprobs" or not given:
                choice.pop("logprobs", None)
                choice.pop("text", None)  # a text alone would be right where only a text was asked for
                choice.pop("message", None)
            elif kind == "NaN":
                given["token_logprobs"][-1] = float("nan")
            elif kind == "null logprob":
                given["token_logprobs"][-1] = None
            elif kind == "fewer tokens":
                given["tokens"].pop()
                given["token_logprobs"].pop()
            elif kind == "positive logprob":
                given["token_logprobs"][-1] = 3.0
