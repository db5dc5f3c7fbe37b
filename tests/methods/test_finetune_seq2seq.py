"""An encoder-decoder model trained by the same method: the encoder reads the prompt, the loss is on the answer alone."""

import random

import pytest
import tiny
import torch
from small_tasks import example

import icl
from icl import load_model, plugins
from icl.errors import InputError
from icl.methods._lessons import computing_of, taught_rows
from icl.protocols import MethodContext
from icl.train.peft_kinds import Form, make_trainable

pytestmark = pytest.mark.usefixtures("one_thread")
ANSWERS = {"red": "oil shares", "green": "the cup", "blue": "a film"}
QUICK = {"kind": "full", "epochs": 12, "learning_rate": 5e-3, "batch_size": 8, "max_new_tokens": 8}


def rows(n, seed=0):
    """The answer is told by one word."""
    rng = random.Random(seed)
    names = [list(ANSWERS)[i % 3] for i in range(n)]
    return [
        example({"text": f"{rng.choice(['words', 'numbers', 'plot'])} {name}"}, ANSWERS[name], occurrence=i) for i, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return {name: str(tiny.save(tmp_path_factory.mktemp(name), name)) for name in ("t5", "bart")}


@pytest.fixture(scope="module")
def lms(folder):
    return {name: load_model(place, device="cpu") for name, place in folder.items()}


def fit(lm, pool, task="answer", labels=(), **settings):
    context = MethodContext(task, ("text",), seed=1, lm=lm)
    return plugins.build("method", {"finetune": {**QUICK, **settings}}, context).fit(pool, labels)


def right(predictor, queries):
    return sum(p.answer == e.target for p, e in zip(predictor.predict(queries), queries, strict=True)) / len(queries)


@pytest.mark.parametrize(("name", "kind", "epochs"), [("t5", "full", 16), ("t5", "lora", 16), ("bart", "full", 16)])
def test_it_learns_to_answer_in_words_and_its_base_stays_as_it_is(lms, name, kind, epochs):
    lm, queries = lms[name], rows(12, seed=1)
    weights = {key: t.clone() for key, t in lm.model.state_dict().items()}
    predictor = fit(lm, rows(48), kind=kind, epochs=epochs, learning_rate=5e-3 if name == "bart" else 1e-2)
    curve = predictor.training["curve"]
    assert curve[-1]["loss"] < curve[0]["loss"] / 2
    if (name, kind) == ("t5", "full"):  # adapters beside random weights come less far, and a BART takes longer
        assert right(predictor, queries) >= 0.9
    assert all(torch.equal(t, weights[key]) for key, t in lm.model.state_dict().items())
    assert predictor.estimator == "generation"
    assert predictor.training["n_trained"] < predictor.training["n_parameters"] or kind == "full"


def test_it_learns_labels_by_their_scores(lms):
    labels = ("red", "green")
    pool = [example({"text": f"{'cup' if label == 'red' else 'oil'} {i}"}, label) for i, label in enumerate(labels * 12)]
    predictor = fit(lms["t5"], pool, "classify", labels, learning_rate=1e-2)
    assert right(predictor, pool) >= 0.9
    assert predictor.predict(pool[:1])[0].probabilities.keys() == set(labels)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_loss_is_that_of_transformers_own_labels(lms, name):
    """Whatever the batch: the answer's tokens and the end of the text, the prompt's not."""
    lm, some = lms[name], rows(5)
    predictor = fit(lm, some, epochs=1, learning_rate=1e-30)
    taught = taught_rows(predictor.prompted, some, [e.target for e in some], lm)
    how = computing_of(lm, make_trainable(lm.model, Form("full")), taught[0])
    with torch.no_grad():
        values, owner = how.values(lm.model, [how.rows(each) for each in taught])
        for i, (query, prompt) in enumerate(zip(some, predictor.prompts(some), strict=True)):
            assert values[owner == i].mean().item() == pytest.approx(plain(lm, prompt.text, query.target), abs=1e-4)


def plain(lm, prompt, answer):
    """Minus the loss of transformers' own forward pass; the tokens that the decoder starts with have none."""
    tokenizer = tiny.seq2seq_tokenizer("bart" if "Bart" in type(lm.model).__name__ else "t5")
    target = tokenizer(answer, return_tensors="pt").input_ids
    logits = lm.model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False), labels=target).logits[0]
    skipped = len(lm.first) - 1
    chosen = torch.log_softmax(logits, -1)[torch.arange(target.shape[1]), target[0]][skipped:]
    return chosen.mean().item()


def test_what_is_longer_than_the_decoder_reads_is_cut_or_left_out_and_counted(lms):
    """As for a causal model: an answer in words is cut, a row with such a choice left out; the training goes on."""
    lm, long = lms["bart"], "the cup " * 200
    predictor = fit(lm, [*rows(6), example({"text": "words of it"}, long)], epochs=1)
    assert [predictor.training[key] for key in ("n_rows", "n_unfit", "n_cut")] == [7, 0, 1]
    (taught,) = taught_rows(predictor.prompted, [example({"text": "words of it"}, long)], [long], lm)
    assert len(lm.first) + len(taught.split.continuations[0]) - 1 == lm.decoder_window
    with pytest.raises(InputError, match="its longest continuation takes"):
        lm.splits(["words"], [[long]])
    choices = ("oil shares", "the cup")
    pool = [example({"text": f"cup {i}"}, choices[1], choices) for i in range(4)]
    chosen = fit(lm, [*pool, example({"text": "cup"}, choices[1], (long, choices[1]))], "choose", epochs=1)
    assert [chosen.training[key] for key in ("n_rows", "n_unfit", "n_cut")] == [4, 1, 0]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_saved_loaded_and_shipped_it_answers_the_same(lms, tmp_path, kind):
    predictor = fit(lms["t5"], rows(24), kind=kind, epochs=2)
    queries = rows(6, seed=1)
    found = [p.text for p in predictor.predict(queries)]
    predictor.save(tmp_path / "saved")
    assert [p.text for p in icl.load(tmp_path / "saved").predict(queries)] == found
    saved = plugins.build("method", {"saved": {"path": str(tmp_path / "saved")}}, MethodContext("answer", ("text",), lm=lms["t5"])).fit()
    assert [p.text for p in saved.predict(queries)] == found
    assert icl.load(tmp_path / "saved").training["kind"] == kind


@pytest.mark.parametrize("kind", ["ia3", "bitfit", "prompt", "prefix", "freeze"])
def test_other_kinds_are_refused_before_training(lms, monkeypatch, kind):
    monkeypatch.setattr("icl.train.loop._Trainer.training_step", lambda *args: pytest.fail("it trains"))
    with pytest.raises(InputError, match=f"kind '{kind}' is not for an encoder-decoder model\n  Use lora or full"):
        fit(lms["t5"], rows(12), kind=kind)
