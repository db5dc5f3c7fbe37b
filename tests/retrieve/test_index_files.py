"""A saved index: opened as it was, old or new after a kill, and nothing damaged is ever believed."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.retrieve import store
from icl.values import Example, digest

HERE = Path(__file__).resolve().parent


def saved(folder, n=40, dimensions=32):
    return DemoIndex.build(pool_of(n), encoder=HashEncoder(dimensions), path=folder)


def parts(folder):
    return {path.suffix: path for path in folder.iterdir() if path.name.startswith(("rows-", "vectors-"))}


def test_what_was_saved_is_opened(tmp_path):
    rows = [
        Example("a-0", {"text": "ünïcødé 日本語 \u2028 line\nend", "n": 3, "x": 0.25}, "yes", rationale="because"),
        Example("b-0", {"talk": [{"role": "user", "text": "hi"}, {"role": "agent", "text": "hello"}]}, None),
        Example("c-0", {"text": "which", "b": "first", "a": "second"}, "two", ("one", "two")),
        Example("d-0", {"text": "half \ud83d pair"}, "no", (), ("no", "nope")),
        Example("e-0", {"text": ""}, "012"),
    ]
    index = DemoIndex.build(rows, encoder=HashEncoder())
    index.save(tmp_path / "index")
    opened = DemoIndex.open(tmp_path / "index", encoder=HashEncoder())
    assert list(opened.examples) == rows
    assert [list(e.fields) for e in opened.examples] == [list(e.fields) for e in rows], "the order of fields decides what is embedded"
    assert (opened.vectors == index.vectors).all()
    assert opened.search(["hi", "which"], 5) == index.search(["hi", "which"], 5)
    assert opened.fingerprint == index.fingerprint
    opened.verify()
    assert json.loads((tmp_path / "index" / "manifest.json").read_text())["n"] == 5


def test_an_empty_index_is_saved_too(tmp_path):
    DemoIndex.build([], path=tmp_path / "i", encoder=HashEncoder())
    opened = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    opened.verify()
    assert opened.search(["x"], 3) == [[]]
    opened.add(pool_of(2))
    assert len(opened) == 2


def test_opening_reads_hardly_any_row(tmp_path):
    saved(tmp_path / "i", n=500)
    opened = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    whose = opened.vectors
    while isinstance(whose.base, np.ndarray):
        whose = whose.base
    assert isinstance(whose, np.memmap), "the vectors stay in the file"
    opened.search(["where is the card"], 3)
    assert sum(row is not None for row in opened.examples._kept) == 3
    assert opened.examples[-1] == pool_of(500)[-1]
    assert opened.examples[10:12] == pool_of(500)[10:12]


def test_an_opened_index_changes_and_is_saved_in_its_place(tmp_path):
    saved(tmp_path / "i")
    opened = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    reader = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    before = reader.search(["where is the card"], 4)
    opened.add([example("where is the card, the very card")])
    opened.remove([opened.examples[0].uid])
    opened.save(tmp_path / "i")
    again = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    again.verify()
    assert list(again.examples) == list(opened.examples)
    assert again._next_id == 41
    assert reader.search(["where is the card"], 4) == before, "a reader keeps the version it opened"
    assert len(parts(tmp_path / "i")) == 4, "the old version's files are gone"


def test_the_encoder_is_loaded_by_name_and_must_be_the_same(tmp_path, tiny_encoder):
    moved = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, moved)
    DemoIndex.build(pool_of(6), path=tmp_path / "i", encoder=str(moved))
    assert DemoIndex.open(tmp_path / "i").search(["my card"], 2)[0][0].score > 0
    config = moved / "tokenizer_config.json"
    config.write_text(config.read_text().replace(": 16", ": 12"))
    with pytest.raises(InputError, match=r"manifest\.json: the index was built with encoder .* is another one(.|\n)*icl index build"):
        DemoIndex.open(tmp_path / "i").search(["my card"], 2)
    with pytest.raises(InputError, match="is another one"):
        DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    assert DemoIndex.open(tmp_path / "i", encoder=str(tiny_encoder)).search(["my card"], 1)


def test_no_index_where_one_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no index: the folder does not exist(.|\n)*icl index build"):
        DemoIndex.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"it has no manifest\.json"):
        DemoIndex.open(tmp_path)


def test_an_index_of_a_later_version_says_so(tmp_path):
    saved(tmp_path / "i")
    path = tmp_path / "i" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    with pytest.raises(InputError, match=r"schema 2, this version reads 1(.|\n)*Update icl"):
        DemoIndex.open(tmp_path / "i")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be saved"):
        DemoIndex.build(pool_of(3), encoder=HashEncoder()).save(tmp_path / "file" / "index")


def test_each_kind_of_damage_names_the_file_and_the_fix(tmp_path):
    def flip(path, at):
        raw = bytearray(path.read_bytes())
        raw[at] ^= 1
        path.write_bytes(raw)

    damage = {
        "manifest.json": lambda f: flip(f / "manifest.json", 60),
        ".f32": lambda f: flip(parts(f)[".f32"], 1000),
        ".table": lambda f: flip(parts(f)[".table"], 9),
        ".sums": lambda f: flip(parts(f)[".sums"], 3),
        ".jsonl": lambda f: flip(parts(f)[".jsonl"], 90),
    }
    for name, spoil in damage.items():
        folder = tmp_path / name.strip(".")
        saved(folder)
        spoil(folder)
        with pytest.raises(InputError) as caught:
            DemoIndex.open(folder, encoder=HashEncoder())
        (problem,) = caught.value.problems
        assert problem.file.endswith(name)
        assert f"icl index build FILE --to {folder}" in problem.fix


def test_vectors_of_other_texts_are_found_by_encoding_again(tmp_path):
    """Files that agree with each other, but not with the encoder: only encoding again can tell."""
    index = saved(tmp_path / "i")
    rng = np.random.default_rng(0)
    wrong = index.vectors[rng.permutation(40)]
    store.write(tmp_path / "i", index.examples, index._state.ids, wrong, next_id=40, encoder=index._entry, versions={})
    opened = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    with pytest.raises(InputError, match="encoded again is not its vector"):
        opened.verify()


def mutate(folder, rng):
    """Change something in an index folder; returns False if it happens to be the same as before."""
    files = sorted(p for p in folder.iterdir() if p.name != ".lock")
    path = rng.choice(files)
    raw = path.read_bytes()
    kind = rng.choice(["flip", "zero", "cut", "grow", "missing", "swap", "folder", "link", "manifest"])
    if kind == "flip" and raw:
        at = rng.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :])
    elif kind == "zero":
        at = rng.randrange(len(raw))
        path.write_bytes(raw[:at] + b"\0" * len(raw[at : at + 512]) + raw[at + 512 :])
    elif kind == "cut":
        path.write_bytes(raw[: rng.randrange(len(raw))])
    elif kind == "grow":
        path.write_bytes(raw + rng.randbytes(rng.choice([1, 24, 4096])))
    elif kind == "missing":
        path.unlink()
    elif kind == "swap":
        other = rng.choice([p for p in files if p != path])
        path.write_bytes(other.read_bytes())
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "link":
        path.unlink()
        path.symlink_to("/etc/hosts")
    else:
        path, raw = folder / "manifest.json", (folder / "manifest.json").read_bytes()
        path.write_text(json.dumps(mutated_manifest(json.loads(raw), rng)))
    return not path.is_file() or path.is_symlink() or path.read_bytes() != raw


def mutated_manifest(value, rng):
    """A manifest with one wrong entry, its own digest made to fit half of the time."""
    name = rng.choice(["rows", "table", "vectors", "sums"])
    change = rng.choice(["n", "d", "huge", "next_id", "name", "path", "sha256", "bytes", "extra", "lost", "type", "encoder"])
    if change in ("n", "d"):
        value[change] += rng.choice([-1, 1])
    elif change == "huge":
        value[rng.choice(["n", "d"])] = 10 ** rng.choice([9, 18, 40])
    elif change == "next_id":
        value["next_id"] = 3
    elif change == "name":
        value["files"][name]["name"] = "vectors-0123456789abcdef.f32"
    elif change == "path":
        value["files"][name]["name"] = "../../../../etc/passwd"
    elif change == "sha256":
        value["files"][name]["sha256"] = "0" * 64
    elif change == "bytes":
        value["files"][name]["bytes"] -= 1
    elif change == "extra":
        value["more"] = 1
    elif change == "lost":
        del value[rng.choice(list(value))]
    elif change == "type":
        value[rng.choice(list(value))] = rng.choice([None, [], "x", -1, 1.5, {}])
    else:
        value["encoder"]["fingerprint"] = "another"
    if rng.random() < 0.5 and "digest" in value:
        value["digest"] = digest({k: v for k, v in value.items() if k != "digest"}, 32)
    return value


def attempt(call):
    """(result, None) or (None, InputError); anything else goes through."""
    try:
        return call(), None
    except InputError as error:
        return None, error


@pytest.mark.parametrize(("n", "dimensions", "n_mutants"), [(40, 32, 220), (3000, 512, 40)])
def test_mutated_folders_are_never_believed(tmp_path, n, dimensions, n_mutants):
    """Every mutant: an InputError that names a file in the folder, never another exception, and `verify` accepts none. Where the
    quick checks let one pass, no hit may carry a wrong text."""
    original = tmp_path / "original"
    rows = {e.uid: e for e in saved(original, n, dimensions).examples}
    rng = random.Random(n)
    n_quick = 0
    for i in range(n_mutants):
        folder = tmp_path / f"mutant-{i}"
        shutil.copytree(original, folder)
        assert mutate(folder, rng)
        opened, error = attempt(lambda folder=folder: DemoIndex.open(folder, encoder=HashEncoder(dimensions)))
        if opened is None:
            n_quick += 1
            assert str(folder) in str(error)
        else:
            hits, error = attempt(lambda opened=opened: opened.search(["where is the card"], 20)[0])
            assert all(rows[hit.uid] == hit.example for hit in hits or ())
            assert hits is not None or str(folder) in str(error)
            with pytest.raises(InputError, match=str(folder)):
                opened.verify()
        shutil.rmtree(folder)
    assert n_quick > n_mutants * 0.7, "the quick checks catch most"


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from retrieve_samples import HashEncoder, pool_of
from icl import DemoIndex
from icl.errors import InputError

folder = Path({folder!r})
old, new = (DemoIndex.build(pool_of(n), encoder=HashEncoder()) for n in (10, 25))
outcomes = []
for at in range(1, 60):
    old.save(folder)
    if os.fork() == 0:
        steps = 0
        def counted(function):
            def call(*args, **kwargs):
                global steps
                steps += 1
                if steps == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return call
        os.fsync, Path.replace, Path.unlink = counted(os.fsync), counted(Path.replace), counted(Path.unlink)
        new.save(folder)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    found = DemoIndex.open(folder, encoder=HashEncoder())
    found.verify()
    outcomes.append(len(found))
    assert list(found.examples) == (pool_of(10) if len(found) == 10 else pool_of(25))
    if not killed:
        break
print(outcomes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_whoever_is_killed_while_saving_leaves_the_old_index_or_the_new_one(tmp_path):
    """kill -9 before every single flush, rename and removal."""
    code = KILLED.format(here=str(HERE), folder=str(tmp_path / "i"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes == sorted(outcomes)
    assert outcomes[0] == 10
    assert outcomes[-2:] == [25, 25]
    assert len(outcomes) > 12
    assert len(parts(tmp_path / "i")) == 4
    assert not list((tmp_path / "i").glob("*.tmp"))
