"""Sentence vectors from a server: the `/embeddings` of an OpenAI-compatible address, behind the same cache as an encoder on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ..endpoint.address import key_for, parse
from ..endpoint.meter import Meter, Prices, Tokens, Usage, estimated_tokens
from ..endpoint.wire import Broken, GivenUp, Job, Patience, Wire
from ..errors import CostLimitError, IclError, InputError, Problem
from ..progress import progress
from ..values import digest
from .embedding_cache import EmbeddingCache, text_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TEXTS = 64
MAX_TOKENS = 16_384
"""Texts in a request, and their tokens together as estimated: well below what providers take."""
CHUNK = 4096
"""Texts whose vectors are stored at once: what a broken run pays twice at most."""
_ONE_IS_TO_BLAME = frozenset({400, 413, 422})
_SHOWN = 80


class EndpointEncoder:
    """An embeddings endpoint, `https://host/v1#model-name`.

    A vector is known by address, model and length of the vectors: weights behind an address cannot be seen, so whoever serves other
    weights under the same name has to be given another name. The key is read from the environment when a request is sent.
    """

    def __init__(
        self,
        name: str,
        *,
        cache: bool = True,
        api_key_env: str | None = None,
        patience: Patience | None = None,
        price: float | None = None,
    ) -> None:
        """price: money per million tokens. Raises InputError for an address that is none, or a key variable that is not set. Nothing is sent yet."""
        self.address = parse(name)
        if not self.address.model:
            raise InputError(Problem("the encoder's address names no model", "Write https://host/v1#model-name.", field="encoder"))
        self.name = str(self.address)
        self._options: dict[str, Any] = {"api_key_env": api_key_env, "patience": patience, "price": price}
        self._meter = Meter(None if price is None else Prices(price, 0.0, price))
        self._wire = Wire(self.address, key_for(self.address, api_key_env), self._meter, patience=patience or Patience())
        self._caching = cache
        self.wanted_tokens = 0
        """Tokens of all texts that vectors were wanted of, as estimated: what would have been read without the cache."""

    def __repr__(self) -> str:
        return f"EndpointEncoder({self.name!r})"

    def uncached(self) -> EndpointEncoder:
        """The same, asking for every vector anew."""
        return EndpointEncoder(self.name, cache=False, **self._options)

    @property
    def usage(self) -> Usage:
        return self._meter.usage()

    @property
    def max_cost(self) -> float | None:
        """The most that may be spent, counted from loading on; None: no limit. `encode` raises CostLimitError before a request that could
        go over it."""
        return self._meter.max_cost

    @max_cost.setter
    def max_cost(self, limit: float | None) -> None:
        self._meter.max_cost = limit

    def worst_cost(self, texts: Sequence[str]) -> float:
        """The most that vectors of these texts may cost, as estimated from their length; 0 without a price."""
        return self._meter.price(Tokens(sum(map(estimated_tokens, texts)), 0))

    @cached_property
    def dimensions(self) -> int:
        """Asks for one vector. Raises InputError if the endpoint gives none."""
        (found,) = self._sent([self._job(["dimensions"], None)])
        if isinstance(found, GivenUp):
            fix = "Check address and model (it has to serve /embeddings), and the key in the environment."
            raise InputError(Problem(f"the encoder {self.name} gives no vectors: {found.why}", fix, field="encoder"))
        return len(found[0])

    @cached_property
    def fingerprint(self) -> str:
        return digest(["embeddings", self.address.base, self.address.model, self.dimensions])

    @cached_property
    def _cache(self) -> EmbeddingCache | None:
        return EmbeddingCache(self.fingerprint) if self._caching else None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimensions) float32, rows of length 1. Raises IclError if the endpoint fails on some; the others are cached by then."""
        import numpy as np

        keys = [text_key(text) for text in texts]
        self.wanted_tokens += sum(map(estimated_tokens, texts))
        found: dict[bytes, NDArray[np.float32]] = self._cache.get(keys) if self._cache else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            found.update(self._ask_for(missing))
        if not keys:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        return np.stack([found[key] for key in keys])

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """How much the model reads is not known here: False for all. A server that refuses long texts says so."""
        return [False] * len(texts)

    def _ask_for(self, missing: Mapping[bytes, str]) -> dict[bytes, NDArray[np.float32]]:
        found: dict[bytes, NDArray[np.float32]] = {}
        items = list(missing.items())
        with progress(f"Encoding with {self.name}", len(items), "texts") as advance:
            for start in range(0, len(items), CHUNK):
                chunk = items[start : start + CHUNK]
                vectors, failures = self._chunk([text for _, text in chunk])
                new = {key: v for (key, _), v in zip(chunk, vectors, strict=True) if v is not None}
                if self._cache:
                    self._cache.put(new)
                found.update(new)
                if failures:
                    at, failure = next(iter(failures.items()))
                    text = " ".join(chunk[at][1].split())
                    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
                    raise IclError(
                        f"{self.name} gave no vector for {len(failures)} of {len(chunk)} texts, among them '{shown}': {failure.why}\n"
                        "  The others are kept; the same command goes on from there."
                    )
                advance(len(chunk))
        return found

    def _chunk(self, texts: Sequence[str]) -> tuple[list[NDArray[np.float32] | None], dict[int, GivenUp]]:
        """(a vector per text, None where there is none, position -> why there is none)."""
        vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
        failures: dict[int, GivenUp] = {}
        batches = list(_batches(texts))
        for _ in range(2):
            jobs = [self._job([texts[i] for i in batch], self.dimensions) for batch in batches]
            again: list[list[int]] = []
            for batch, answer in zip(batches, self._sent(jobs), strict=True):
                if not isinstance(answer, GivenUp):
                    for i, vector in zip(batch, answer, strict=True):
                        vectors[i] = vector
                elif answer.status in _ONE_IS_TO_BLAME and len(batch) > 1:
                    again += [[i] for i in batch]  # one text may be too long, and must not take the others with it
                else:
                    failures.update(dict.fromkeys(batch, answer))
            batches = again
        return vectors, failures

    def _sent(self, jobs: Sequence[Job]) -> Sequence[Any]:
        """The answers. Raises CostLimitError where not all could be asked for; what was answered is lost then, a request's worth at most of each
        connection."""
        sent = self._wire.send(jobs)
        if sent.limit is not None:
            raise CostLimitError(f"{self.name}: {sent.limit}")
        return sent.results

    def _job(self, texts: Sequence[str], dimensions: int | None) -> Job:
        body = {"model": self.address.model, "input": [_sendable(text) for text in texts], "encoding_format": "float"}
        worst = Tokens(sum(map(estimated_tokens, texts)), 0)
        return Job("embeddings", body, partial(_read, n=len(texts), dimensions=dimensions), worst)


def _sendable(text: str) -> str:
    """An empty text is refused by some servers, half a surrogate pair is no text for any."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") or " "


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Positions of the texts that go together."""
    batch: list[int] = []
    total = 0
    for i, text in enumerate(texts):
        n = estimated_tokens(text)
        if batch and (len(batch) == MAX_TEXTS or total + n > MAX_TOKENS):
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += n
    if batch:
        yield batch


def _read(data: Any, *, n: int, dimensions: int | None) -> list[NDArray[np.float32]]:
    """The unit vectors of an answer in the order of its texts, told by `index` alone. Raises Broken for anything else."""
    import numpy as np

    rows = data.get("data") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Broken("the answer holds no vectors")
    places = [row.get("index") for row in rows]
    if len(rows) != n or any(isinstance(i, bool) or not isinstance(i, int) for i in places) or sorted(places) != list(range(n)):
        raise Broken(f"the answer holds the vectors {places[:8]} for {n} texts")
    vectors: list[NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * n
    for place, row in zip(places, rows, strict=True):
        values = row.get("embedding")
        if not isinstance(values, list) or not values or not all(_is_finite(value) for value in values):
            raise Broken("a vector is no list of finite numbers")
        if len(values) != (dimensions or len(rows[0]["embedding"])):
            raise Broken(f"a vector has {len(values)} numbers instead of {dimensions or len(rows[0]['embedding'])}")
        vector = np.asarray(values, dtype=np.float64)
        length = float(np.linalg.norm(vector))
        if not length > 0:
            raise Broken("a vector has no length")
        vectors[place] = (vector / length).astype(np.float32)
    return vectors


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
