"""A local server that speaks the OpenAI-compatible interface, over a model given as a function from token ids to log-probabilities.

`OpenAI` is the interface; `serve` puts it behind a port. It can be told to lie: to take `logprobs`, `echo`, `n`, `stop` or `seed` and not
act on them, as some real servers do. Nothing of the client under test is used to answer.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class OpenAI:
    """logprobs: (ids) -> one list of log-probabilities over the vocabulary for each position: that of the next token."""

    logprobs: Callable[[Sequence[int]], Sequence[Sequence[float]]]
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    chat: Callable[[list[dict[str, str]]], list[int]] | None = None
    end_ids: frozenset[int] = frozenset()
    model: str = "tiny"
    window: int = 512
    ignores: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    own_prompt_logprobs: bool = False
    lists: bool = True
    token_ids: bool = True
    completions: bool = True
    top_k: int = 20
    held: Callable[[list[int], dict[str, Any], int], tuple[str, str]] | None = None
    """(prompt, JSON schema, most tokens) -> the record and why it ended: structured output, where the server has it."""
    schemas: Callable[[dict[str, Any]], bool] = lambda schema: True
    """Which schemas it does not refuse."""
    marks: bool = False
    """Whether it is a provider that caches what is marked with `cache_control`, and nothing else; others refuse the mark."""
    _marked: set[tuple[int, ...]] = field(default_factory=set)

    def respond(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": self.model, "object": "model", "max_model_len": self.window}]}
        if body is None:
            raise Refused(405, "POST it")
        if body.get("model") != self.model:
            raise Refused(404, f"The model `{body.get('model')}` does not exist.")
        for name in self.refuses & set(body):
            raise Refused(400, f"unknown field {name}")
        body = {name: value for name, value in body.items() if name not in self.ignores}
        if path == "/v1/completions" and self.completions:
            return self._completions(body)
        if path == "/v1/chat/completions" and self.chat is not None:
            return self._chat(body)
        raise Refused(404, "Not Found")

    def _prompts(self, given: Any) -> list[list[int]]:
        if isinstance(given, str):
            return [self.encode(given)]
        if given and isinstance(given[0], int):
            given = [given]
        if len(given) > 1 and not self.lists:
            raise Refused(400, "one prompt only")
        if any(not isinstance(p, str) for p in given) and not self.token_ids:
            raise Refused(400, "text only")
        return [self.encode(p) if isinstance(p, str) else list(p) for p in given]

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        prompts = self._prompts(body["prompt"])
        made, n_new = [], 0
        for ids in prompts:
            for j in range(body.get("n", 1)):
                new, text, finish, places = self._write(ids, body, j)
                n_new += len(new)
                choice: dict[str, Any] = {"index": len(made), "text": text, "finish_reason": finish, "logprobs": None}
                if "logprobs" in body:
                    choice["logprobs"] = self._legacy(ids if body.get("echo") else [], new, places, body["logprobs"])
                if body.get("echo"):
                    choice["text"] = self.decode(ids) + text
                if self.own_prompt_logprobs and "prompt_logprobs" in body:
                    choice["prompt_logprobs"] = self._own(ids)
                made.append(choice)
        return {"object": "text_completion", "model": self.model, "choices": made, "usage": _usage(sum(map(len, prompts)), n_new)}

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self.chat is not None
        messages, cached = self._plain(body["messages"])
        ids = self.chat(messages)
        made, n_new = [], 0
        for j in range(body.get("n", 1)):
            new, text, finish, places = self._write(ids, body, j)
            n_new += len(new)
            choice: dict[str, Any] = {
                "index": j,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "logprobs": None,
            }
            if body.get("logprobs"):
                k = min(body.get("top_logprobs", 0), self.top_k)
                content = [
                    {
                        "token": self.decode([i]),
                        "logprob": row[i],
                        "top_logprobs": [{"token": self.decode([o]), "logprob": row[o]} for o in _best(row, k)],
                    }
                    for i, row in zip(new, places, strict=True)
                ]
                choice["logprobs"] = {"content": content}
            made.append(choice)
        usage = _usage(len(ids), n_new)
        if self.marks:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return {"object": "chat.completion", "model": self.model, "choices": made, "usage": usage}

    def _plain(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, str]], int]:
        """(the messages with their parts joined, tokens of a marked beginning that was seen before)."""
        assert self.chat is not None
        plain: list[dict[str, str]] = []
        cached = 0
        for n, message in enumerate(messages):
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            plain.append({"role": message["role"], "content": "".join(part["text"] for part in parts)})
            if any("cache_control" in part for part in parts):
                if not self.marks:
                    raise Refused(400, f"messages.{n}.content.0.cache_control: Extra inputs are not permitted")
                beginning = tuple(self.chat(plain))
                cached = len(beginning) if beginning in self._marked else 0
                self._marked.add(beginning)
        return plain, cached

    def _write(self, ids: list[int], body: dict[str, Any], j: int) -> tuple[list[int], str, str, list[Sequence[float]]]:
        import math

        asked = body.get("response_format", {}).get("json_schema")
        if asked is not None and self.held is not None:
            if not self.schemas(asked["schema"]):
                raise Refused(400, "Invalid schema for response_format")
            text, finish = self.held(ids, asked["schema"], body["max_tokens"])
            return self.encode(text), text, finish, []
        if len(ids) + body["max_tokens"] > self.window:
            raise Refused(400, f"This model's maximum context length is {self.window} tokens.")
        temperature = body.get("temperature", 1.0)
        chance = random.Random(f"{body['seed']}:{j}") if "seed" in body else random.Random()
        new: list[int] = []
        places: list[Sequence[float]] = []
        stops = body.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops
        while len(new) < body["max_tokens"]:
            row = self.logprobs([*ids, *new])[-1]
            if temperature:
                weights = [math.exp(value / temperature) for value in row]
                token = chance.choices(range(len(row)), weights)[0]
            else:
                token = max(range(len(row)), key=row.__getitem__)
            if token in self.end_ids:
                return new, self.decode(new), "stop", places
            new.append(token)
            places.append(row)
            text = self.decode(new)
            cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
            if cuts:
                return new, text[: min(cuts)], "stop", places
        return new, self.decode(new), "length", places

    def _legacy(self, prompt: list[int], new: list[int], places: list[Sequence[float]], k: int) -> dict[str, Any]:
        rows: list[Sequence[float] | None] = [*([None, *self.logprobs(prompt)[:-1]] if prompt else []), *places]
        ids = [*prompt, *new]
        tokens = [self.decode([i]) for i in ids]
        offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        return {
            "tokens": tokens,
            "token_logprobs": [None if row is None else row[i] for i, row in zip(ids, rows, strict=True)],
            "top_logprobs": [None if row is None else {self.decode([o]): row[o] for o in _best(row, min(k, self.top_k))} for row in rows],
            "text_offset": offsets,
        }

    def _own(self, ids: list[int]) -> list[Any]:
        rows = self.logprobs(ids)[:-1]
        return [
            None,
            *({str(i): {"logprob": row[i], "rank": 1, "decoded_token": self.decode([i])}} for i, row in zip(ids[1:], rows, strict=True)),
        ]


def _best(row: Sequence[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda i: -row[i])[:k]


def _usage(n_input: int, n_output: int) -> dict[str, Any]:
    return {
        "prompt_tokens": n_input,
        "completion_tokens": n_output,
        "total_tokens": n_input + n_output,
        "prompt_tokens_details": {"cached_tokens": n_input // 2},
    }


_LOCK = threading.Lock()
_KNOWN: dict[int, dict[tuple[int, ...], list[list[float]]]] = {}
"""What tests ask for again and again: every one of them probes its server."""


def over(lm: Any, *, structured: bool = False, **options: Any) -> OpenAI:
    """The interface over a model of transformers, by plain forward passes, one text at a time. structured: with structured output."""
    import torch

    tokens = lm.codec.tokens
    own = tokens._own
    known = _KNOWN.setdefault(id(lm.model), {})

    def logprobs(ids: Sequence[int]) -> list[list[float]]:
        if tuple(ids) not in known:
            with torch.inference_mode(), _LOCK:
                known[tuple(ids)] = lm.model(input_ids=torch.tensor([list(ids)])).logits[0].float().log_softmax(-1).tolist()
        return known[tuple(ids)]

    def held(ids: list[int], schema: dict[str, Any], most: int) -> tuple[str, str]:
        """What the likeliest text that llguidance allows is, as servers make it; spread over lines, as some do."""
        from llguidance import LLMatcher, LLTokenizer

        vocabulary = lm.model.config.vocab_size
        rule = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        matcher = LLMatcher(LLTokenizer(own.to_str(), n_vocab=vocabulary), rule)
        new: list[int] = []
        while len(new) < most and not matcher.is_stopped():
            bits = matcher.compute_bitmask()
            row = logprobs([*ids, *new])[-1]
            token = max((i for i in range(vocabulary) if bits[i // 8] >> i % 8 & 1), key=row.__getitem__)
            if not matcher.consume_token(token) or token in lm.codec.tokens.control_ids:
                break
            new.append(token)
        text = str(own.decode(new))
        return (json.dumps(json.loads(text), indent=1), "stop") if matcher.is_accepting() else (text, "length")

    return OpenAI(
        logprobs,
        lambda text: [*tokens.prefix, *tokens.parsed(text)],
        lambda ids: str(own.decode(list(ids), skip_special_tokens=False)),
        chat=(lambda messages: list(lm.codec.chat(messages).ids)) if lm.codec.has_chat else None,
        end_ids=lm._end_ids if hasattr(lm, "_end_ids") else frozenset(),
        held=held if structured else None,
        **options,
    )


@dataclass
class Served:
    """A running server and what it saw."""

    url: str
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)


@contextmanager
def serve(
    respond: Callable[[str, dict[str, Any] | None], Any], disturb: Callable[[Any, bytes, dict[str, Any]], bool] | None = None
) -> Iterator[Served]:
    """Answers from `respond` on a local port. disturb: (handler, the right answer, the request) -> True if it answered in its own way."""
    served = Served("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any] | None) -> None:
            with served.lock:
                served.bodies.append((self.path, body or {}))
                served.headers.append(dict(self.headers))
                served.in_flight += 1
                served.most = max(served.most, served.in_flight)
            try:
                try:
                    status, data = 200, respond(self.path, body)
                except Refused as error:
                    status, data = error.status, {"error": {"message": str(error)}}
                raw = json.dumps(data).encode()
                if status == 200 and disturb is not None and disturb(self, raw, body or {}):
                    return
                self.reply(status, raw)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up
            finally:
                with served.lock:
                    served.in_flight -= 1

        def reply(self, status: int, raw: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(raw)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # connections broken on purpose

    server = Server(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
