"""Pretraining on small texts: what is held out, that it learns, and that an interruption changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

import icl
from icl.errors import InputError
from icl.train.documents import given_out, hash_of, hold_out, read_documents, tokenise
from icl.train.pretrain import Corpus, pretrain
from icl.train.pretrain_settings import PretrainSettings
from icl.train.scratch import train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = {"the": ["cat", "dog", "bird"], "cat": ["sat", "ran"], "dog": ["ran", "slept"], "bird": ["sang"]}
SIZE = {
    "model_type": "llama", "vocab_size": 280, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": True, "bos_token_id": None,
}  # fmt: skip


def documents(n, seed=0):
    rng = random.Random(seed)
    made = []
    for i in range(n):
        sentences = []
        for _ in range(rng.randrange(2, 9)):
            animal = rng.choice(WORDS["the"])
            sentences.append(f"the {animal} {rng.choice(WORDS[animal])} .")
        made.append(f"{i}: " + " ".join(sentences))
    return made


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents(120)))
    (tmp_path / "size.json").write_text(json.dumps(SIZE))
    (tmp_path / "bert.json").write_text(json.dumps({**SIZE, "model_type": "bert"}))
    return Corpus((path,))


def settings(**more):
    return PretrainSettings(**{"length": 32, "batch_size": 8, "steps": 60, "validations": 3, "learning_rate": 1e-2, **more})


def test_documents_of_rows_and_of_plain_files(tmp_path):
    (tmp_path / "a.csv").write_text("title,body\nx,One.\ny,\nz,Two.\n")
    (tmp_path / "b.txt").write_text("First. " * 1200 + "\n\n" + "Second.\n\nThird.\n")
    found = list(read_documents([tmp_path / "a.csv", tmp_path / "b.txt"], "body"))
    assert found[:2] == ["One.", "Two."]
    assert [text[:6] for text in found[2:]] == ["First.", "Second"]
    with pytest.raises(InputError, match="no column 'text', only 'title', 'body'"):
        list(read_documents([tmp_path / "a.csv"], "text"))


def test_held_out_documents_do_not_depend_on_the_order_and_are_nowhere_in_the_rest():
    texts = documents(200)
    held = hold_out([*texts, texts[3].upper()], 100)
    assert (len(held.texts), held.n_train) == (20, 201)
    assert set(hold_out(reversed(texts), 100).texts) == set(held.texts)
    assert len(hold_out(texts, 7).texts) == 7
    assert set(hold_out(texts, 7).texts) < set(held.texts)
    rest = list(held.rest([*texts, held.texts[0].upper() + "!"]))
    assert len(rest) == 180
    assert not {hash_of(text) for text in rest} & held.hashes
    given = given_out(texts, texts[:5], 3)
    assert (given.texts, len(list(given.rest(texts)))) == (tuple(texts[:3]), 195)
    with pytest.raises(InputError, match="there are 1 documents"):
        hold_out(["one", "ONE!"], 10)


def test_texts_are_tokenised_once(tmp_path):
    made = train_tokenizer(documents(5), 280, causal=True, length=32)
    texts = documents(130)
    tokens = tokenise(texts, lambda some: made(list(some))["input_ids"], tmp_path)
    assert [made.decode(ids) for ids in [tokens.ids[: tokens.ends[0]], tokens.ids[tokens.ends[-2] :]]] == [texts[0], texts[-1]]
    again = tokenise(iter(()), lambda some: 1 / 0, tmp_path)
    assert again.ids.tolist() == tokens.ids.tolist()
    assert again.lengths().sum() == len(tokens.ids)


def test_a_tokenizer_loses_nothing():
    made = train_tokenizer(documents(5), 280, causal=False, length=32)
    for text in ("żółć 漢字 🙂\n\ttabs", "<mask> </s>"):
        assert made.decode(made(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) == text
    assert made("a")["input_ids"][0] == made.cls_token_id


def test_from_scratch_it_gets_below_the_frequencies_of_tokens(corpus, tmp_path):
    points = []
    record = pretrain(corpus, tmp_path / "out", objective="causal", config="size.json", settings=settings(), on_point=points.append)
    found = record["perplexity"]["token"]
    assert found["after"] < record["unigram_per_token"] / 2 < found["before"]
    assert found["high"] < 0.5
    assert [point["step"] for point in points] == [20, 40, 60]
    assert record["documents_apart"]
    assert record["n_documents"] == 108
    assert json.loads((tmp_path / "out" / "pretraining.json").read_text()) == record
    assert not (tmp_path / "out" / "working").exists()
    lm = icl.load_model(tmp_path / "out")
    right, wrong = lm.loglikelihoods(["the bird"], [[" sang", " slept"]])[0]
    assert right > wrong


def test_masked_from_scratch_then_continued_and_a_classifier_on_it(corpus, tmp_path):
    first = pretrain(corpus, tmp_path / "one", objective="masked", config="bert.json", settings=settings(steps=90))
    assert first["perplexity"]["token"]["after"] < first["unigram_per_token"]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": text.replace("the", "a")}) + "\n" for text in documents(60, seed=1)))
    second = pretrain(Corpus((more,)), tmp_path / "two", objective="masked", base="one", settings=settings())
    assert second["perplexity"]["byte"]["high"] < 1
    assert second["new_weights"] == []
    from icl.methods.classifier import Classifier, Settings

    task = icl.Task.load([{"text": f"the {w} ran {i}", "label": w} for i in range(8) for w in ("cat", "dog")], holdout=0)
    predictor = Classifier(Settings(epochs=1, max_tokens=32), str(tmp_path / "two")).fit(task.train)
    assert {p.label for p in predictor.predict(["the cat ran"])} <= {"cat", "dog"}


def test_a_sentence_encoder_stays_one(corpus, tmp_path):
    tiny.save_bert(tmp_path / "st", ["the", "cat", "dog", "ran"], sentence=True)
    (tmp_path / "st" / "config.json").read_text()
    record = pretrain(corpus, tmp_path / "out", objective="masked", base="st", settings=settings(steps=4))
    assert any("predictions" in name for name in record["new_weights"])
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert encoder.encode(["the cat"]).shape == (1, 32)


PROGRAM = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
torch.set_num_threads(1)
from test_pretrain import settings
from icl.train.pretrain import Corpus, pretrain
pretrain(Corpus((Path("text.jsonl"),)), Path("killed"), objective="causal", config="size.json", settings=settings(checkpoint_every=0))
"""


def test_interrupted_it_goes_on_from_what_is_there(corpus, tmp_path):
    from safetensors.torch import load_file

    how = {"objective": "masked", "config": "bert.json", "settings": settings(steps=24, checkpoint_every=0)}

    def cut_short(point):
        if point["step"] == 16:
            raise RuntimeError("power cut")

    pretrain(corpus, tmp_path / "one", **how)
    with pytest.raises(RuntimeError, match="power cut"):
        pretrain(corpus, tmp_path / "two", on_point=cut_short, **how)
    assert next((tmp_path / "two" / "working" / "checkpoints").glob("checkpoint-*/done"))
    said = []
    pretrain(corpus, tmp_path / "two", on_point=said.append, **how)
    assert [point["step"] for point in said] in ([16, 24], [24])
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files by a POSIX resource limit")
def test_a_model_that_the_disk_had_no_room_for_is_not_trained_again(corpus, tmp_path, monkeypatch):
    import resource

    how = {"objective": "masked", "config": "bert.json", "settings": settings(steps=24, checkpoint_every=0)}
    module = sys.modules[pretrain.__module__]
    save, before = module.save_language_model, resource.getrlimit(resource.RLIMIT_FSIZE)

    def without_room(*given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
        try:
            save(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_language_model", without_room)
        with pytest.raises(Exception, match="File too large"):
            pretrain(corpus, tmp_path / "out", **how)
    said = []
    record = pretrain(corpus, tmp_path / "out", on_point=said.append, **how)
    assert not said
    assert record["training"]["n_steps"] == 24
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir() if path.name.startswith("model")) == [".safetensors"]
    assert not (tmp_path / "out" / "working").exists()


@pytest.mark.slow
def test_kill_9_and_resume_end_in_the_same_weights(corpus, tmp_path):
    """A process is killed in the middle of a training, whose checkpoints are written after every step."""
    from safetensors.torch import load_file

    expected = pretrain(corpus, tmp_path / "out", objective="causal", config="size.json", settings=settings(checkpoint_every=0))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tiny.__file__).parent)}
    child = subprocess.Popen([sys.executable, "-c", PROGRAM.format(here=str(Path(__file__).parent))], cwd=tmp_path, env=env)
    work = tmp_path / "killed" / "working"
    deadline = time.monotonic() + 120
    while not any(int(path.name.split("-")[1]) >= 25 for path in work.glob("checkpoints/checkpoint-*")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (work / "tokens.u32").is_file()
    files = (tmp_path / "text.jsonl",)
    found = pretrain(Corpus(files), tmp_path / "killed", objective="causal", config="size.json", settings=settings(checkpoint_every=0))
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("out", "killed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for record in (expected, found):
        record["training"].pop("seconds"), record["training"].pop("peak_memory_mb")
    assert found == expected


@pytest.mark.parametrize(("change", "says"), [
    ({"base": "smollm2", "objective": "masked"}, "has no mask"),
    ({"base": "minilm"}, "an encoder, which does not write"),
    ({"config": "tiny"}, "no configuration 'tiny'"),
    ({"base": "x", "config": "small"}, "either a base to continue or"),
    ({}, "either a base to continue or"),
    ({"config": "small", "files": ("nothing.txt",)}, "nothing.txt"),
    ({"config": "size.json", "settings": settings(length=9999), "out": "o"}, "has 64 positions"),
    ({"config": "small", "out": "text.jsonl"}, "not a pretrained model"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_what_cannot_be_pretrained_is_said_before(corpus, tmp_path, change, says):
    how = {"objective": "causal", "out": "new", "files": corpus.files, **change}
    with pytest.raises(InputError, match=says):
        pretrain(Corpus(tuple(map(Path, how.pop("files")))), Path(how.pop("out")), **how)
