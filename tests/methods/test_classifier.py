"""The encoder classifier on tiny random BERTs: it learns, from few rows too, whole long texts, probabilities of a teacher; what it refuses."""

import json
import random
from collections import namedtuple

import pytest
import tiny
import torch
from small_tasks import example

import icl
from icl import plugins
from icl.errors import InputError
from icl.methods.classifier import Classifier, Settings
from icl.protocols import MethodContext

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = {"red": ["blood", "rose", "brick"], "green": ["grass", "leaf", "frog"], "blue": ["sky", "sea", "ink"]}
FILLER = ["the", "a", "is", "was", "there", "very", "old", "big", "near", "here"]
QUICK = {"epochs": 8, "batch_size": 8, "learning_rate": 5e-3}


def rows(n, seed=0, fill=4, labels=tuple(WORDS)):
    """The label is told by one word, the last of the text if fill is large."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        label = labels[i % len(labels)]
        text = " ".join([*(rng.choice(FILLER) for _ in range(fill)), rng.choice(WORDS[label])])
        made.append(example({"text": text}, label, occurrence=i))
    return made


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """{"own": a BERT, "sentence": the same as a sentence-transformers folder}"""
    root = tmp_path_factory.mktemp("bases")
    words = [*FILLER, *(word for each in WORDS.values() for word in each)]
    return {"own": str(tiny.save_bert(root / "own", words)), "sentence": str(tiny.save_bert(root / "sentence", words, sentence=True))}


def fit(base, pool, labels=tuple(WORDS), *, targets=None, evaluated=(), **settings):
    return Classifier(Settings(**{**QUICK, **settings}), base, ("text",), seed=1, evaluated=evaluated).fit(pool, labels, targets=targets)


def accuracy(predictor, queries):
    return sum(p.answer == e.target for p, e in zip(predictor.predict(queries), queries, strict=True)) / len(queries)


@pytest.mark.parametrize(("base", "settings"), [
    ("own", {}),
    ("sentence", {}),
    ("own", {"norm": "layer", "hidden": 16, "dropout": 0.2, "epochs": 16}),
    ("sentence", {"norm": "batch", "start": "random", "layer_decay": 0.9, "label_smoothing": 0.1, "focal": 1.0}),
    ("own", {"r_drop": 0.3, "mixout": 0.1, "epochs": 24}),
    ("own", {"freeze": 1, "augment": {"drop": 0.1, "swap": 0.1, "synonyms": 0.1}, "class_weights": "balanced", "epochs": 40}),
], ids=["own head", "pooled", "layer norm and a hidden layer", "batch norm", "R-Drop and mixout", "frozen and augmented"])  # fmt: skip
def test_it_learns_and_is_the_same_when_loaded(tmp_path, bases, base, settings):
    predictor = fit(bases[base], rows(49), **settings)  # the last batch has one row, which batch normalisation must bear
    queries = rows(30, seed=1)
    assert accuracy(predictor, queries) >= (
        0.6 if "augment" in settings else 0.9
    )  # of 4 words one changes, and it may be the one that tells
    predictor.save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved").predict([dict(q.fields) for q in queries])
    for one, other in zip(predictor.predict(queries), again, strict=True):
        assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-6)
    state = json.loads((tmp_path / "saved" / "predictor.json").read_text())
    assert state["training"]["curve"][-1]["loss"] < state["training"]["curve"][0]["loss"]
    assert not [p for p in (tmp_path / "saved").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_what_a_training_and_predictions_cost_is_counted(bases):
    predictor = fit(bases["sentence"], rows(48), freeze="all")
    record = predictor.training
    assert record["n_trained"] == 3 * 32 + 3 < record["n_parameters"]
    assert (record["epochs"], record["n_steps"], record["n_rows"]) == (8, 48, 48)
    assert record["n_tokens"] == 8 * 48 * 7
    assert record["training_accuracy"] == pytest.approx(accuracy(predictor, rows(48)))
    predictor.made.used = type(predictor.totals)()
    assert record["operations"] > 0
    assert predictor.totals.computed == 0
    predictor.predict(rows(5))
    assert predictor.totals.computed == 5 * 7
    assert predictor.totals.operations == pytest.approx(predictor.made.estimate.forward(35, 7))


def test_r_drop_computes_each_row_twice(bases):
    plain, twice = (fit(bases["own"], rows(16), epochs=1, r_drop=alpha).training for alpha in (0.0, 1.0))
    assert twice["n_tokens"] == 2 * plain["n_tokens"]
    assert twice["operations"] == pytest.approx(2 * plain["operations"])


def test_eight_rows_in_all_and_labels_that_they_lack(bases):
    predictor = fit(bases["sentence"], rows(8), (*WORDS, "grey"), epochs=None)
    assert predictor.training["epochs"] == 20
    queries = rows(8)
    assert accuracy(predictor, queries) == 1  # what they teach at least; of the nine words that tell they lack some
    shares = predictor.predict(queries)[0].probabilities
    assert list(shares) == [*WORDS, "grey"]
    assert 0 < shares["grey"] <= 1e-3
    assert sum(shares.values()) == pytest.approx(1)


def test_rows_given_for_it_judge_each_epoch_and_their_unknown_labels_do_not_count(bases):
    heard = []
    judges = [*rows(12, seed=2), example({"text": "the old thing"}, "grey")]
    method = Classifier(Settings(**QUICK), bases["own"], ("text",), 1, None, tuple(judges), heard.append)
    predictor = method.fit(rows(48), tuple(WORDS))
    curve = predictor.training["curve"]
    assert curve == heard
    assert predictor.labels == (*WORDS, "grey")
    best = max(curve, key=lambda point: (point["accuracy"], -point["validation_loss"]))
    assert predictor.training["best_epoch"] == best["epoch"]
    assert accuracy(predictor, judges[:12]) == pytest.approx(best["accuracy"])
    assert predictor.training["validation"] == {"n_rows": 12, "folds": 0}


def test_validation_within_the_pool(bases):
    held = fit(bases["own"], rows(40), validation=0.2, epochs=40, patience=2)
    assert held.training["validation"]["n_rows"] == 8
    assert held.training["n_rows"] == 32
    assert held.training["stopped_early"]
    folded = fit(bases["own"], rows(30), validation="folds", epochs=4)
    assert folded.training["validation"] == {"n_rows": 0, "folds": 5}
    assert folded.training["n_rows"] == 30
    assert folded.training["operations"] > fit(bases["own"], rows(30), epochs=4).training["operations"] * 2
    assert fit(bases["own"], rows(30), epochs=1).training["best_epoch"] is None


def test_probabilities_of_a_teacher_are_learned_instead_of_labels(bases):
    """The rows' own labels are never looked at: they are wrong here."""
    pool, teacher = rows(48), {"red": (0.7, 0.3, 0.0), "green": (0.1, 0.6, 0.3), "blue": (0.2, 0.0, 0.8)}
    wrong = [example(e.fields, "red" if i % 2 else None, occurrence=i) for i, e in enumerate(pool)]
    predictor = fit(bases["sentence"], wrong, targets=[teacher[e.target] for e in pool], epochs=20, start="random", validation=0.2)
    for query, prediction in zip(rows(9, seed=3), predictor.predict(rows(9, seed=3)), strict=True):
        assert list(prediction.probabilities.values()) == pytest.approx(list(teacher[query.target]), abs=0.12)
    with pytest.raises(InputError, match="2 probabilities"):
        fit(bases["sentence"], wrong, targets=[(0.5, 0.5)] * 48)


def test_a_loss_of_ones_own_is_what_is_trained(bases):
    """One that wants the first label whatever the row says."""
    settings = Settings(**QUICK, start="random")
    method = Classifier(settings, bases["own"], ("text",), loss=lambda logits, targets: -torch.log_softmax(logits, -1)[:, 0])
    assert {p.answer for p in method.fit(rows(30), tuple(WORDS)).predict(rows(6))} == {"red"}


@pytest.mark.parametrize(("long", "learns", "cut"), [("truncate", False, True), ("head_tail", True, True), ("slide", True, False)])
def test_of_a_long_text_is_read_what_it_says(bases, long, learns, cut):
    """The word that tells stands at the end, behind 30 others; the model reads 24 tokens."""
    predictor = fit(bases["sentence"], rows(128, fill=30), long=long, max_tokens=24, epochs=10)
    queries = rows(30, seed=1, fill=30)
    assert (accuracy(predictor, queries) >= 0.9) is learns
    (prediction,) = predictor.predict(queries[:1])
    assert prediction.n_cut == (31 - 22 if cut else 0)
    assert prediction.n_windows == (2 if long == "slide" else 0)
    about = predictor.training["long_inputs"]
    assert (about["how"], about["n_rows"], about["n_windows"]) == (long, 128, 128 * (2 if long == "slide" else 1))
    assert about["n_tokens_cut"] == 128 * prediction.n_cut


@pytest.mark.parametrize("base", ["own", "sentence"])
def test_what_was_trained_in_bf16_predicts_as_it_does_when_loaded(tmp_path, bases, base):
    predictor, queries = fit(bases[base], rows(24), precision="bf16"), rows(9, seed=1)
    predictor.save(tmp_path / "saved")
    assert [p.probabilities for p in predictor.predict(queries)] == [p.probabilities for p in icl.load(tmp_path / "saved").predict(queries)]


def test_weights_are_for_labels_that_there_are(bases):
    with pytest.raises(InputError, match="there is no label 'gren'") as caught:
        fit(bases["own"], rows(12), class_weights={"gren": 2.0, "blue": 2.0})
    assert "green" in str(caught.value)
    fit(bases["own"], rows(12, labels=("red", "blue")), class_weights={"green": 2.0}, epochs=1)  # a label that the rows lack is one


def test_it_says_so_where_rows_are_too_few_for_folds_or_patience(bases, capsys, monkeypatch):
    monkeypatch.delenv("ICL_QUIET", raising=False)
    fit(bases["own"], rows(9), validation="folds", epochs=1)
    assert "no folds: 9 rows are too few, so all 1 epochs are trained" in capsys.readouterr().err
    fit(bases["own"], rows(9), patience=1, epochs=1)
    assert "patience=1 stops nothing: no rows judge the epochs" in capsys.readouterr().err
    fit(bases["own"], rows(30), patience=1, epochs=1, validation=0.2)
    assert "patience" not in capsys.readouterr().err


def test_rare_labels_count_more_with_class_weights(bases):
    pool = [*rows(60, labels=("red",)), *rows(6, seed=5, labels=("green",))]
    none, balanced = (fit(bases["own"], pool, ("red", "green"), class_weights=w, freeze="all", epochs=4) for w in ("none", "balanced"))
    green = [sum(p.probabilities["green"] for p in predictor.predict(rows(20, labels=("green",)))) for predictor in (none, balanced)]
    assert green[1] > 2 * green[0]


def refused(bases, tmp_path, monkeypatch, case):
    """Fit what cannot be trained; a step of training would be an AssertionError."""
    pool, base, settings, work = rows(12), bases["own"], {}, None
    if case == "one label":
        pool = rows(12, labels=("red",))
    elif case == "no labels":
        pool = [example(e.fields, None) for e in pool]
    elif case == "a language model":
        base = str(tiny.save(tmp_path / "llama"))
    elif case == "of the catalogue":
        base = "smollm2"
    elif case == "an encoder-decoder":
        base = str(tiny.save(tmp_path / "t5", "t5"))
    elif case == "no weights":
        base = tiny.save_bert(tmp_path / "bare", FILLER)
        (base / "model.safetensors").unlink()
    elif case == "a pickle":
        base = tiny.save_bert(tmp_path / "bare", FILLER)
        (base / "model.safetensors").rename(base / "pytorch_model.bin")
    elif case == "no such folder":
        base = "./nowhere"
    elif case == "an address":
        base = "https://models.example/v1"
    elif case == "too many layers frozen":
        settings = {"freeze": 3}
    elif case == "too many tokens":
        settings = {"max_tokens": 65}
    elif case == "no room on disk":
        work = tmp_path / "work"
        monkeypatch.setattr("shutil.disk_usage", lambda place: namedtuple("U", "total used free")(1 << 30, 1 << 30, 1 << 20))
    Classifier(Settings(**settings), base, ("text",), work=work).fit(pool, tuple(WORDS))


@pytest.mark.parametrize(("case", "says"), [
    ("one label", "nothing to tell apart"),
    ("no labels", "was given none"),
    ("a language model", "a language model that writes"),
    ("of the catalogue", "'smollm2' is a language model"),
    ("an encoder-decoder", "an encoder-decoder"),
    ("no weights", r"lacks weights \(\*\.safetensors\)"),
    ("a pickle", r"lacks weights \(\*\.safetensors\)"),
    ("no such folder", "no such folder"),
    ("an address", "no weights to train"),
    ("too many layers frozen", "the model has 2 layers"),
    ("too many tokens", "reads 64 tokens at most, not 65"),
    ("no room on disk", "no room on disk"),
])  # fmt: skip
def test_what_cannot_be_trained_is_said_before_training(bases, tmp_path, monkeypatch, case, says):
    def step(*args):
        raise AssertionError("it trains")

    monkeypatch.setattr("icl.train.loop._Trainer.training_step", step)
    with pytest.raises(InputError, match=says):
        refused(bases, tmp_path, monkeypatch, case)


@pytest.mark.parametrize("option", [{"epochz": 3}, {"long": "squeeze"}, {"dropout": 1.0}, {"augment": {"drop": 2}}, {"freeze": -1}])
def test_options_it_does_not_know(option):
    context = MethodContext("classify", ("text",), tuple(WORDS))
    with pytest.raises(InputError, match=next(iter(option))):
        plugins.build("method", {"classifier": option}, context)
