"""`icl train pretrain` on a small text."""

import json
import os

import pytest

import icl


@pytest.fixture
def text(tmp_path):
    lines = [f"{i}: the {('cat', 'dog')[i % 2]} sat on the {('mat', 'rug', 'bed')[i % 3]}. " * 3 for i in range(40)]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"body": line}) + "\n" for line in lines))
    return path


SMALL = ["--field", "body", "--length", "32", "--batch-size", "4", "--steps", "10", "--set", "validations=2", "--held-out", "3"]


def test_a_text_becomes_a_model(icl_cli, text, tmp_path):
    answer = icl_cli("train", "pretrain", "--text", text, "--config", "small", "--out", "mine", *SMALL)
    assert answer.code == 0, answer.err
    assert [line.split()[0] for line in answer.out.splitlines()] == ["step", "5", "10", "mine"]
    record = json.loads((tmp_path / "mine" / "pretraining.json").read_text())
    assert f"{record['perplexity']['word']['after']:.2f} after" in answer.err
    assert "perplexity on 3 documents held out" in answer.err
    assert icl.load_model("mine").count_tokens("the cat sat") > 0
    more = icl_cli("train", "pretrain", "--text", text, "--base", "mine", "--out", "more", *SMALL)
    assert more.code == 0, more.err
    continued = json.loads((tmp_path / "more" / "pretraining.json").read_text())
    assert continued["documents_apart"]
    assert continued["perplexity"]["word"]["before"] == pytest.approx(record["perplexity"]["word"]["after"], rel=1e-4)
    assert continued["perplexity"]["word"]["high"] < 1
    again = icl_cli("train", "pretrain", "--text", text, "--base", "mine", "--out", "other", "--eval", text, *SMALL)
    assert again.code == 2  # all documents are held out
    assert "no document of two tokens" in again.err


@pytest.mark.parametrize(("more", "says"), [
    (["--config", "small", "--base", "minilm"], "either a base"),
    (["--config", "smal"], "Did you mean 'small'?"),
    (["--config", "small", "--set", "lenght=3"], "there is no setting 'lenght'"),
    (["--config", "small", "--set", "masked=3"], "--set masked"),
    (["--config", "small", "--field", "text"], "no column 'text'"),
    (["--config", "small", "--objective", "other"], "other"),
], ids=lambda value: value if isinstance(value, str) else " ".join(value))  # fmt: skip
def test_what_cannot_be_done_is_2(icl_cli, text, more, says):
    answer = icl_cli("train", "pretrain", "--text", text, "--out", "new", *SMALL, *more)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files by a POSIX resource limit")
@pytest.mark.parametrize("n_bytes", [1_000_000, 5_000_000], ids=["weights", "the optimiser's state"])
def test_a_disk_that_fills_up_is_no_fault_of_icl(icl_cli, text, tmp_path, n_bytes):
    import resource

    command = ("train", "pretrain", "--text", text, "--config", "small", "--out", "mine", *SMALL, "--set", "checkpoint_every=0")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))  # writing further fails, as on a full disk
    try:
        answer = icl_cli(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.code == 1
    assert "unexpected" not in answer.err
    assert "Free some space" in answer.err
    assert icl_cli(*command).code == 0
    assert not (tmp_path / "mine" / "working").exists()
