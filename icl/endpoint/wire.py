"""Sending requests: a bounded number at once, tried again with growing waits, each within a total time, stopped when a server is down.

Every request has its own task, so an answer cannot reach another item. A request that fails is handed back as a failure with its
reason; it never becomes a value.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

from ..progress import Advance
from .address import Address, Key
from .meter import Meter, Tokens

_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)} - {501, 505})
_SERVER = frozenset({401, 402, 403, 404, 429})
"""Statuses which say that the next request will fail too, besides those that are tried again; others are about the item."""
_SHOWN = 300
_LARGEST = 64 << 20
"""Bytes of an answer. The log-probabilities of a long prompt take a few MiB."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try."""

    attempts: int = 6
    attempt_s: float = 120.0
    """For one attempt, from connecting to the last byte."""
    total_s: float = 900.0
    """For one request, its waits and attempts together."""
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    in_a_row: int = 10
    """Requests given up one after the other before no more are sent."""


class Broken(Exception):
    """An answer that cannot be used. again: another attempt may give a better one."""

    def __init__(self, why: str, *, again: bool = True) -> None:
        super().__init__(why)
        self.why = why
        self.again = again


@dataclass(frozen=True, slots=True)
class Job:
    """One request. read: turns the JSON of the answer into a value, or raises Broken. worst: the most tokens it can cost."""

    path: str
    body: Mapping[str, Any] | None
    """None: GET."""
    read: Callable[[Any], Any]
    worst: Tokens
    same: int | None = None
    """So many failures for the same reason one after the other are the server's way, not an accident: no more attempts. For probing."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A request that failed for good."""

    why: str
    status: int | None = None
    """The last HTTP status, if there was one."""
    again: bool = True
    """The server failed, not the item: asking again later may help."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a list of jobs, in their order; None: not sent, since the cost limit was reached."""

    results: tuple[Any, ...]
    limit: str | None = None


class _Attempt(Exception):
    """One attempt failed."""

    def __init__(self, why: str, *, again: bool, status: int | None = None, wait_s: float | None = None, lost: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.again = again
        self.status = status
        self.wait_s = wait_s
        self.lost = lost
        """It was sent and may have been billed."""


@dataclass
class Wire:
    """The connection to one address. The count of failures in a row outlives a call, so that a dead server is found dead at once."""

    address: Address
    key: Key
    meter: Meter
    concurrency: int = 8
    patience: Patience = field(default_factory=Patience)
    in_a_row: int = 0

    def send(self, jobs: Sequence[Job], advance: Advance | None = None) -> Sent:
        """Do all jobs. Works with and without an event loop around; an interrupt cancels what is under way."""
        from anyio.from_thread import start_blocking_portal

        if not jobs:
            return Sent(())
        with start_blocking_portal() as portal:
            sending = _Sending(self, jobs, advance)
            portal.call(sending.run)
        return Sent(tuple(sending.results), sending.limit)


class _Sending:
    """One call of `Wire.send`."""

    def __init__(self, wire: Wire, jobs: Sequence[Job], advance: Advance | None) -> None:
        self.wire = wire
        self.jobs = jobs
        self.advance = advance
        self.results: list[Any] = [None] * len(jobs)
        self.limit: str | None = None
        self.stopped: str | None = None
        self.quiet_until = 0.0
        # A server that was down at the end of the last call gets one request to show that it is back.
        wire.in_a_row = min(wire.in_a_row, wire.patience.in_a_row - 1)

    async def run(self) -> None:
        self.stop = asyncio.Event()
        self.settled = asyncio.Condition()
        httpx = http_library()
        limits = httpx.Limits(max_connections=self.wire.concurrency, max_keepalive_connections=self.wire.concurrency)
        timeout = httpx.Timeout(self.wire.patience.attempt_s, connect=min(20.0, self.wire.patience.attempt_s))
        # Proxies of the environment are for the world outside: a server on this machine is asked directly.
        async with httpx.AsyncClient(
            limits=limits, timeout=timeout, follow_redirects=False, trust_env=not self.wire.address.local, verify=_certificates()
        ) as client:
            queue = iter(range(len(self.jobs)))
            workers = [self._work(client, queue) for _ in range(min(self.wire.concurrency, len(self.jobs)))]
            await asyncio.gather(*workers)

    async def _work(self, client: Any, queue: Iterator[int]) -> None:
        for i in queue:
            if self.limit is not None:
                return
            job = self.jobs[i]
            result: Any = GivenUp(self._why_stopped())
            if self.stopped is None:
                if not await self.wire.meter.reserve(job.worst, self.settled):
                    self._over_limit()
                    return
                result = await self._job(client, job)
            self.results[i] = result
            if isinstance(result, GivenUp):
                self.wire.meter.failed += 1
            if self.advance is not None:
                self.advance(1)

    def _over_limit(self) -> None:
        meter = self.wire.meter
        self.limit = (
            f"{meter.cost:.4f} of the limit of {meter.max_cost} are spent, and the next request could cost more than the rest; "
            "finished results are kept"
        )

    async def _job(self, client: Any, job: Job) -> Any:
        """The value of one request whose worst case is reserved, or GivenUp."""
        meter, patience = self.wire.meter, self.wire.patience
        deadline = time.monotonic() + patience.total_s
        failure: _Attempt | None = None
        attempts = same = 0
        try:
            for attempt in range(patience.attempts):
                await self._sleep(self.quiet_until - time.monotonic())
                left = deadline - time.monotonic()
                if self.stopped is not None or left <= 0:
                    break
                attempts += 1
                meter.requests += 1
                meter.retries += attempt > 0
                try:
                    value = await self._attempt(client, job, min(patience.attempt_s, left))
                except _Attempt as error:
                    same = same + 1 if failure is not None and error.why == failure.why else 1
                    failure = error
                else:
                    self.wire.in_a_row = 0
                    return value
                if failure.lost:
                    meter.count_lost(job.worst)
                wait = self._wait(failure, attempt)
                if same == job.same or not failure.again or attempt + 1 == patience.attempts or time.monotonic() + wait > deadline:
                    break
                if failure.lost and meter.max_cost is not None and meter.cost + meter.reserved > meter.max_cost:
                    break
                await self._sleep(wait)
        finally:
            await meter.settle(job.worst, self.settled)
        if failure is None:
            return GivenUp(
                self._why_stopped() if self.stopped is not None else f"the server asks to wait longer than {patience.total_s:.0f} s"
            )
        return self._given_up(failure, attempts)

    def _wait(self, failure: _Attempt, attempt: int) -> float:
        patience = self.wire.patience
        if failure.wait_s is not None:  # what one request is told to wait, all wait: the limit is on the key, not on the request
            self.quiet_until = max(self.quiet_until, time.monotonic() + min(failure.wait_s, patience.longest_wait_s))
            return failure.wait_s
        return float(min(patience.longest_wait_s, patience.first_wait_s * 2.0**attempt) * random.uniform(0.5, 1.0))

    async def _sleep(self, seconds: float) -> None:
        """Wait, or less if the sending is stopped meanwhile."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), seconds)

    def _given_up(self, failure: _Attempt, attempts: int) -> GivenUp:
        times = f" ({attempts} attempts)" if attempts > 1 else ""
        again = failure.again or failure.status in _SERVER
        if self.stopped is None and again:
            self.wire.in_a_row += 1
            if self.wire.in_a_row >= self.wire.patience.in_a_row:
                self.stopped = failure.why
                self.stop.set()
        return GivenUp(f"{failure.why}{times}", failure.status, again)

    def _why_stopped(self) -> str:
        return f"not sent: stopped after {self.wire.patience.in_a_row} failures in a row, the last: {self.stopped}"

    async def _attempt(self, client: Any, job: Job, seconds: float) -> Any:
        """One attempt: the value, or _Attempt with what to do next."""
        httpx = http_library()
        try:
            async with asyncio.timeout(seconds):
                status, headers, raw = await self._exchange(client, job)
        except TimeoutError:
            raise _Attempt(f"no whole answer within {seconds:.0f} s", again=True, lost=True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise _Attempt(self._clean(f"no connection to {self.wire.address.host}: {_reason(error)}"), again=True) from None
        except httpx.HTTPError as error:
            raise _Attempt(self._clean(f"the connection broke: {_reason(error)}"), again=True, lost=True) from None
        if status != 200:
            raise self._refused(status, headers, raw)
        try:
            data = json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise _Attempt(self._clean(f"the answer is no JSON: {_shown(raw)}"), again=True, lost=True) from None
        try:
            tokens = counted(data, job.worst)
            value = job.read(data)
        except Broken as broken:
            raise _Attempt(self._clean(broken.why), again=broken.again, lost=True) from None
        if job.body is not None:
            self.wire.meter.count(tokens)
        return value

    async def _exchange(self, client: Any, job: Job) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Accept": "application/json", **self.wire.key.headers()}
        method, content = "GET", None
        if job.body is not None:
            # ASCII with escapes: a lone surrogate in a row's text would have no UTF-8.
            method, content = "POST", json.dumps(job.body, allow_nan=False).encode("ascii")
            headers["Content-Type"] = "application/json"
        async with client.stream(method, f"{self.wire.address.base}/{job.path}", content=content, headers=headers) as response:
            raw = bytearray()
            async for chunk in response.aiter_bytes():
                raw += chunk
                if len(raw) > _LARGEST:
                    raise _Attempt(f"the answer is larger than {_LARGEST >> 20} MiB", again=False, lost=True)
            return response.status_code, response.headers, bytes(raw)

    def _refused(self, status: int, headers: Mapping[str, str], raw: bytes) -> _Attempt:
        if 300 <= status < 400:
            where = headers.get("location", "nowhere")
            return _Attempt(self._clean(f"the server redirects to {where}: use that address, if it is meant"), again=False, status=404)
        if status < 300:
            return _Attempt(f"HTTP {status} instead of 200", again=True, status=status, lost=True)
        return _Attempt(
            self._clean(f"HTTP {status}: {_shown(raw)}"),
            again=status in _AGAIN,
            status=status,
            wait_s=retry_after(headers.get("retry-after")),
        )

    def _clean(self, text: str) -> str:
        return self.wire.key.redacted(text)


def http_library() -> Any:
    """httpx2, or httpx where an older huggingface_hub brought that: the same client by its two names."""
    try:
        import httpx2
    except ImportError:
        import importlib

        return importlib.import_module("httpx")
    return httpx2


@cache
def _certificates() -> Any:
    """Read once: it takes 20 ms, and every call has a client of its own."""
    return http_library().create_ssl_context()


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date. None: nothing that can be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None


def counted(data: Any, worst: Tokens) -> Tokens:
    """The tokens that an answer reports, else the input of the plan and the most it may have written, marked as estimated."""
    usage = data.get("usage") if isinstance(data, dict) else None
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details")
        found = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
        cached = details.get("cached_tokens") if isinstance(details, dict) else 0
        n_input, n_output, n_cached = (n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else None for n in (*found, cached))
        if n_input is not None and n_output is not None:
            return Tokens(n_input, n_output, min(n_cached or 0, n_input))
    return Tokens(worst.input, worst.output, estimated=True)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _shown(raw: bytes) -> str:
    """What a person needs of an answer that is no answer: its message, or the start of its text on one line."""
    text = raw.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        data = json.loads(text)
        found = data.get("error", data.get("detail", data.get("message"))) if isinstance(data, dict) else None
        if isinstance(found, dict):
            found = found.get("message")
        if isinstance(found, str):
            text = found
    line = " ".join(text.split())
    return (line[:_SHOWN] + " …" if len(line) > _SHOWN else line) or "an empty answer"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}{f', {error}' if str(error) else ''}"
