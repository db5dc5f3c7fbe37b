"""Sentence encoders: texts to unit vectors, each text encoded once and never again."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..files import sha256_file
from ..progress import progress
from ..protocols import Encoder
from ..values import digest
from ..weights import CATALOGUE, fetch, quiet_transformers
from . import encode_pool
from .embedding_cache import EmbeddingCache, text_key
from .endpoint import EndpointEncoder
from .nearest import faiss

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BATCH = 64
MAX_BATCH_TOKENS = 16_384
"""Texts in a batch and their tokens together: more is no faster on a CPU and only takes memory."""
CHUNK = 4096
"""Texts whose vectors are stored in one transaction: what a killed run loses at most."""
_RUNTIME = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
_RULE = "as query, fp32, unit length, batches of one length, 1"
_OURS = re.compile(r"[0-9a-f]{32}\+[0-9a-f]{8}")
TRAINING = "training.json"
"""In the folder of an encoder that was trained here: how, and how well it ranks."""
_NOT_THE_MODEL = {"README.md", "weights.json", ".gitattributes", TRAINING}


def load_encoder(encoder: str | Path | Encoder, *, cache: bool = True, price: float | None = None) -> Encoder:
    """An encoder from a catalogue name (`minilm`), a sentence-transformers folder, a hub id, or an embeddings endpoint
    (`https://host/v1#model-name`); an Encoder object is given back.

    The model itself is loaded when a text has to be encoded that the cache on disk does not have; its files are hashed here.
    cache: keep vectors under `files.cache_folder()/embeddings`, by content. price: of an endpoint, money per million tokens. Raises InputError for what cannot be found,
    FetchError if catalogue weights cannot be had.
    """
    if not isinstance(encoder, str | Path):
        lacks = [name for name in ("name", "fingerprint", "dimensions", "encode", "cut") if not hasattr(encoder, name)]
        if lacks:
            raise InputError(
                Problem(
                    f"an object of type {type(encoder).__name__} is no encoder: it has no {', '.join(lacks)}",
                    "Pass a catalogue name, a hub id, a sentence-transformers folder, or an object like icl.protocols.Encoder.",
                )
            )
        return encoder
    name = str(encoder)
    if name.lower().startswith(("http://", "https://")):
        return EndpointEncoder(name, cache=cache, price=price)
    return SentenceEncoder(name, _folder_of(name), cache=cache)


def _folder_of(name: str) -> Path:
    if name in CATALOGUE and CATALOGUE[name].kind == "encoder":
        return fetch(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / known).is_file() for known in ("modules.json", "config.json")):
            raise InputError(
                Problem(
                    "the folder holds no sentence-transformers model (no modules.json, no config.json)",
                    "Give the folder that SentenceTransformer.save wrote.",
                    str(folder),
                )
            )
        return folder
    encoders = sorted(entry.name for entry in CATALOGUE.values() if entry.kind == "encoder")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(
            Problem(
                f"there is no encoder '{name}': it is no catalogue name and no folder",
                f"Known: {', '.join(encoders)}; or give a sentence-transformers folder, or a hub id such as owner/name.",
            )
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        # The same model in other frameworks' formats: not read, and often several times its size.
        others = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.tflite"]
        return Path(snapshot_download(name, ignore_patterns=others))
    except Exception as error:  # huggingface_hub raises a dozen unrelated classes, those of its HTTP client among them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            Problem(
                f"the encoder '{name}' is no folder here and could not be fetched from the model hub: {reason}",
                "Check the id and the network; or use encoder 'minilm', which comes through the package index.",
            )
        ) from None


def same_encoder(a: str, b: str) -> bool:
    """True if two fingerprints stand for the same model; for one of ours other library versions are no other model."""
    if _OURS.fullmatch(a) and _OURS.fullmatch(b):
        return a.partition("+")[0] == b.partition("+")[0]
    return a == b


def uncached(encoder: Encoder) -> Encoder:
    """The same encoder, computing every vector anew."""
    if isinstance(encoder, EndpointEncoder):
        return encoder.uncached()
    return SentenceEncoder(encoder.name, encoder.folder, cache=False) if isinstance(encoder, SentenceEncoder) else encoder


class SentenceEncoder:
    """A sentence-transformers model behind a cache of vectors on disk.

    Two departures from `SentenceTransformer.encode`. Every text is encoded as a *query*, rows of the pool too: demonstrations and
    queries are inputs of the same kind, so the similarity has to be symmetric, and a model with separate prompts (`query: `,
    `passage: `) would measure something else between two texts. And a batch holds texts of one token length only: nothing is
    padded, which is faster, and a text's vector hardly depends on what was encoded beside it: on one thread not at all, on two by
    1e-7 (`minilm`; the matrix product is then divided by its shape).
    """

    def __init__(self, name: str, folder: Path, *, cache: bool = True, model: _Model | None = None) -> None:
        """model: the folder's, where it is loaded already."""
        self.name = name
        self._given = model
        self.folder = folder
        self.fingerprint = _fingerprint(folder)
        self._cache = EmbeddingCache(self.fingerprint) if cache else None
        self._dimensions: int | None = None
        self.encoded: Counter[int] = Counter()
        """Tokens of a text, as the model read it -> texts that were encoded so far; those that a cache had are not among them."""

    def __repr__(self) -> str:
        return f"SentenceEncoder({self.name!r})"

    @property
    def dimensions(self) -> int:
        if self._dimensions is None:
            stored = self._cache.dimensions() if self._cache else None
            self._dimensions = stored or self._model().dimensions
        return self._dimensions

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimensions) float32, rows of length 1. An empty text has a vector like any other."""
        import numpy as np

        keys = [text_key(text) for text in texts]
        found: dict[bytes, NDArray[np.float32]] = self._cache.get(keys) if self._cache else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            found.update(self._encode_missing(missing))
        if not keys:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        return np.stack([found[key] for key in keys])

    def _encode_missing(self, missing: dict[bytes, str]) -> dict[bytes, NDArray[np.float32]]:
        model = self._model()
        self.encoded.update(min(n, model.limit or n) for n in model.lengths(list(missing.values())))
        found: dict[bytes, NDArray[np.float32]] = {}
        items = list(missing.items())
        with progress(f"Encoding with {self.name}", len(items), "texts") as advance:
            parts = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
            encoded = self._encoded(model, [[text for _, text in part] for part in parts], advance)
            for part, vectors in zip(parts, encoded, strict=True):
                chunk = dict(zip((key for key, _ in part), vectors, strict=True))
                if self._cache:
                    self._cache.put(chunk)
                found.update(chunk)
        return found

    def _encoded(self, model: _Model, chunks: Sequence[Sequence[str]], advance: Any) -> Iterator[NDArray[np.float32]]:
        """The vectors of each chunk; many texts on a CPU in as many processes as torch may use threads."""
        import torch

        n_processes = torch.get_num_threads()
        if sum(map(len, chunks)) >= encode_pool.PAYS_FROM and n_processes > 1 and model.on_cpu:
            return encode_pool.encode_chunks(self.folder, chunks, n_processes, advance)
        return (model.encode(texts, advance) for texts in chunks)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """True for each text that is longer than the model reads: its end does not reach the vector."""
        model = self._model()
        return [model.limit is not None and n > model.limit for n in model.lengths(texts)] if texts else []

    @property
    def module(self) -> Any:
        """The sentence-transformers model."""
        return self._model().module

    def _model(self) -> _Model:
        return self._given or _loaded(self.name, self.folder, self.fingerprint)


def _fingerprint(folder: Path) -> str:
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name not in _NOT_THE_MODEL)
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    stats = [(folder / name).stat() for name in names]
    return _hashed(folder, tuple((name.as_posix(), stat.st_size, stat.st_mtime_ns) for name, stat in zip(names, stats, strict=True)))


@lru_cache(maxsize=16)
def _hashed(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """`MODEL+RUNTIME`: the model's files and how they are used; the versions of the libraries that compute."""
    model = digest([_RULE, [[name, sha256_file(folder / name)] for name, _, _ in files]])
    return f"{model}+{digest([[name, _version(name)] for name in _RUNTIME], size=4)}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source checkout on the path
        return "unknown"


class _Model:
    """The loaded model. One text at a time is encoded by one thread: the tokenizer underneath keeps state."""

    def __init__(self, name: str, folder: Path) -> None:
        with quiet_transformers():
            import torch
            from sentence_transformers import SentenceTransformer

            try:
                self._model = SentenceTransformer(
                    str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"dtype": torch.float32}
                )
            except Exception as error:  # unreadable weights raise whatever the format's reader raises
                raise InputError(
                    Problem(
                        f"the encoder '{name}' cannot be loaded: {type(error).__name__}: {error}",
                        "The folder must hold a sentence-transformers model that runs without code of its own.",
                        str(folder),
                    )
                ) from error
        faiss()  # now, so that the first search need not wait for it
        self._model.eval()
        self._lock = threading.Lock()
        prompts = self._model.prompts or {}
        self._prompt: str = prompts.get("query") or ("" if "query" in prompts else prompts.get(self._model.default_prompt_name or "", ""))
        self.limit: int | None = self._model.max_seq_length

    @property
    def module(self) -> Any:
        """The sentence-transformers model itself, to train and save it."""
        return self._model

    def features(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the module takes for these texts, padded, on its device; as `encode` gives them to it."""
        made = self._model.preprocess([_clean(text) for text in texts], prompt=self._prompt or None, task="query")
        return {name: value.to(self._model.device) if hasattr(value, "to") else value for name, value in made.items()}

    @property
    def on_cpu(self) -> bool:
        return str(self._model.device.type) == "cpu"

    @property
    def dimensions(self) -> int:
        known = self._model.get_embedding_dimension()
        return int(known) if known else int(self.encode(["a"], lambda n=1: None).shape[1])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with the model's prompt, before anything is cut."""
        texts = [self._prompt + _clean(text) for text in texts]
        with self._lock:
            tokenizer: Any = self._model.tokenizer
            if hasattr(tokenizer, "encode_batch"):  # a bare `tokenizers.Tokenizer`, as static embeddings have
                return [len(e.ids) for e in tokenizer.encode_batch(texts)]
            return [len(ids) for ids in tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]]

    def encode(self, texts: Sequence[str], advance: Any) -> NDArray[np.float32]:
        """(n, d) float32 unit vectors. A text of no token at all, which no model reads, has the direction (1, …, 1)."""
        import numpy as np

        lengths = self.lengths(texts)
        result: NDArray[np.float32] | None = None
        if 0 in lengths:
            d = self.dimensions
            result = np.full((len(texts), d), d**-0.5, dtype=np.float32)
            advance(lengths.count(0))
        for batch in _batches(lengths, self.limit):
            with self._lock:
                vectors = self._model.encode_query(
                    [_clean(texts[i]) for i in batch], batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
                )
            if result is None:
                result = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
            result[batch] = vectors
            advance(len(batch))
        assert result is not None
        return result


def _batches(lengths: Sequence[int], limit: int | None) -> Iterator[list[int]]:
    """Positions of texts that the model sees with the same number of tokens, longest first (memory runs out early, if at all).

    Those without a token are in no batch.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for i, n in enumerate(lengths):
        if n:
            groups[min(n, limit or n)].append(i)
    for n in sorted(groups, reverse=True):
        size = max(1, min(MAX_BATCH, MAX_BATCH_TOKENS // n))
        for start in range(0, len(groups[n]), size):
            yield groups[n][start : start + size]


def _clean(text: str) -> str:
    """Half a surrogate pair, as broken JSON gives, is no text for a tokenizer: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def model_in(folder: Path) -> _Model:
    """The model of a folder, loaded anew: for a process that only encodes, or to train it."""
    return _Model(str(folder), folder)


@lru_cache(maxsize=2)
def _loaded(name: str, folder: Path, fingerprint: str) -> _Model:
    return _Model(name, folder)
