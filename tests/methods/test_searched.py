"""A search for settings of trained methods on tiny models: never below what was given, the same after kill -9, refused without optuna."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from test_classifier import FILLER, WORDS, rows

from icl import FewShot, Template, load_model, plugins
from icl.errors import InputError, MissingExtraError
from icl.methods import _fit
from icl.methods.classifier import Classifier, Settings
from icl.methods.finetune import Finetune
from icl.methods.finetune import Settings as FinetuneSettings
from icl.protocols import MethodContext
from icl.train.record import Diverged
from icl.values import digest

LABELS = tuple(WORDS)
GIVEN = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "start": "random"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny.save_bert(tmp_path_factory.mktemp("base") / "bert", [*FILLER, *(word for each in WORDS.values() for word in each)]))


def fit(base, pool, work=None, **settings):
    return Classifier(Settings(**{**GIVEN, **settings}), base, ("text",), seed=1, work=work).fit(pool, LABELS)


def test_on_folds_the_settings_that_did_best_are_trained_on_all_rows(bert):
    predictor = fit(bert, rows(20), search=2)
    training, found = predictor.training, predictor.training["search"]
    first, second = found["trials"]
    assert first["settings"] == {"learning_rate": 2e-3, "epochs": 2, "dropout": None, "weight_decay": 0.01, "layer_decay": 1.0}
    assert found["best"]["score"] == max(first["score"], second["score"]) >= found["given"]["score"] == first["score"]
    assert found["n_steps"] == 5 * 2 * (2 + second["settings"]["epochs"])  # 16 rows of each fold are two steps
    assert training["n_steps"] == 3 * training["epochs"] == 3 * found["best"]["settings"]["epochs"]
    assert training["operations"] > found["operations"] > 0
    assert training["seconds"] > found["seconds"] > 0


def test_on_rows_held_out_the_training_has_the_score_that_was_found(bert):
    given = fit(bert, rows(40), validation=0.25)
    predictor = fit(bert, rows(40), validation=0.25, search=3)
    found = predictor.training["search"]
    scores = [max(point["accuracy"] for point in each.training["curve"]) for each in (given, predictor)]
    assert scores == pytest.approx([found["given"]["score"], found["best"]["score"]], abs=1e-6)
    assert scores[1] >= scores[0]
    assert predictor.training["validation"] == {"n_rows": 10, "folds": 0}


def test_too_few_rows_to_judge_by_are_trained_on_as_given(bert):
    predictor = fit(bert, rows(9), search=3)
    assert "search" not in predictor.training
    assert predictor.training["epochs"] == 2


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_a_causal_model_is_searched_too(tmp_path, kind):
    lm = load_model(str(tiny.save(tmp_path / "llama")), device="cpu")
    settings = FinetuneSettings(kind=kind, epochs=1, rank=4, virtual_tokens=2, search=2, validation=0.25)
    predictor = Finetune(settings, FewShot(lm), seed=1).fit(rows(16), LABELS)
    found = predictor.training["search"]
    assert found["given"]["settings"]["learning_rate"] == {"lora": 5e-4, "prompt": 1e-2}[kind]
    assert ("rank" in found["given"]["settings"], "virtual_tokens" in found["given"]["settings"]) == (kind == "lora", kind == "prompt")
    kept = predictor.training["curve"][predictor.training["best_epoch"] - 1]
    assert kept["accuracy"] == pytest.approx(found["best"]["score"], abs=1e-6)
    assert found["best"]["score"] >= found["given"]["score"]
    assert predictor.training["epochs"] == found["best"]["settings"]["epochs"]
    assert len(predictor.predict(rows(3))) == 3


def test_a_training_that_diverges_says_what_it_took(bert):
    with pytest.raises(Diverged, match="lower its learning_rate") as caught:
        fit(bert, rows(20), learning_rate=1e30, clip=1e30)
    assert (caught.value.spent.n_steps > 0, caught.value.spent.n_tokens > 0, caught.value.spent.operations > 0) == (True, True, True)


def keys_of(monkeypatch, methods):
    """What each of them would keep its trials under."""
    keys = []

    def searching(*args, key, **more):
        keys.append(digest(key))
        raise KeyboardInterrupt

    monkeypatch.setattr(_fit, "search", searching)
    for method in methods:
        with pytest.raises(KeyboardInterrupt):
            method.fit(rows(20), LABELS)
    return keys


def test_trials_of_other_prompts_or_temperatures_are_not_taken_up(bert, tmp_path, monkeypatch):
    lm = load_model(str(tiny.save(tmp_path / "llama")), device="cpu")
    settings = FinetuneSettings(epochs=1, search=2)
    written = "---\nkind: classify\ninput: [text]\n---\n{% block example %}Say: {{ text }}{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n"
    prompts = [FewShot(lm, template=Template.parse(text, "mine")) for text in (written, written.replace("Say", "Text"))]
    words = {label: [label.upper()] for label in LABELS}
    tuned = [Finetune(settings, prompt, seed=1) for prompt in (*prompts, replace(prompts[0], words=words))]
    encoder = Classifier(Settings(**GIVEN, search=2), bert, ("text",), seed=1)
    found = keys_of(monkeypatch, [*tuned, replace(tuned[0], target_temperature=2.0), encoder, replace(encoder, target_temperature=2.0)])
    assert len(set(found)) == 6
    assert keys_of(monkeypatch, [tuned[0], encoder]) == [found[0], found[4]]


@pytest.mark.slow
def test_it_is_the_same_after_kill_9(bert, tmp_path):
    script = Path(__file__).with_name("search_killed.py")
    paths = os.pathsep.join(str(Path(__file__).parents[n]) for n in (0, 1))
    answer = subprocess.run(
        [sys.executable, str(script), bert, str(tmp_path / "work")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    whole, resumed, left = json.loads(answer.stdout.splitlines()[-1])
    assert resumed == whole
    assert not left


@pytest.mark.parametrize("method", ["classifier", "finetune"])
def test_without_optuna_it_is_refused_before_any_work(monkeypatch, method):
    monkeypatch.setattr("icl.train.search.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'icl\[search\]'"):
        plugins.build("method", {method: {"search": 3}}, MethodContext("classify", ("text",), LABELS))
    with pytest.raises(MissingExtraError, match="optuna"):
        fit("./nowhere", rows(12), search=3)


def test_a_search_has_one_trial_at_least():
    with pytest.raises(InputError, match="search"):
        plugins.build("method", {"classifier": {"search": 0}}, MethodContext("classify", ("text",), LABELS))
