"""What selectors and orders learn from the model is saved with a predictor: nobody who loads it has to ask, or train, again."""

import gc
import json
import shutil
from pathlib import Path

import pytest
from small_tasks import classify_pool, example

import icl
from icl.errors import InputError
from icl.methods import _ask

LABELS = ("billing", "delivery", "login")
EPR = {"epr": {"queries": 8, "candidates": 4, "epochs": 2, "learning_rate": 1e-3}}
WORTH = {"prompts": 6, "rows": 2, "shots": 2}
PROBING = {"permutations": 3, "probes": 2}
OPTIONS = {
    "epr": {"retriever": EPR},
    "epr behind a filter": {"retriever": [{"length": {"at_most": 9}}, EPR, "mmr"]},
    "influence": {"retriever": {"influence": WORTH}},
    "leave_one_out": {"retriever": {"hybrid": {"of": ["bm25", {"leave_one_out": WORTH}]}}},
    "globale": {"retriever": "random", "order": {"globale": PROBING}},
    "locale": {"retriever": "bm25", "order": {"locale": PROBING}},
    "pdo": {"retriever": "random", "order": {"pdo": PROBING}},
}
QUERIES = ["My parcel is late", "I cannot pay with my card"]


def method(lm, encoder_folder, **options):
    return icl.FewShot(lm, shots=3, encoder=str(encoder_folder), seed=4, **options)


def refuse(*_):
    raise AssertionError("the model is asked again")


def facts(predictor):
    return [(p.answer, p.demonstrations, p.probabilities) for p in predictor.predict(QUERIES)]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_loaded_predictor_knows_what_was_learned(name, tiny_lm, encoder_folder, tmp_path, monkeypatch):
    fitted = method(tiny_lm, encoder_folder, **OPTIONS[name]).fit(classify_pool(), labels=LABELS)
    planned = fitted.plan(QUERIES).naive
    expected = facts(fitted)
    fitted.save(tmp_path / "saved")
    del fitted
    gc.collect()
    shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
    loaded = icl.load(tmp_path / "elsewhere", lm=tiny_lm)
    monkeypatch.setattr(loaded, "score_many", refuse)
    monkeypatch.setattr(_ask, "_train_encoder", refuse)
    assert facts(loaded) == expected
    assert loaded.plan(QUERIES).naive < planned, "what is known is not planned again"
    loaded.save(tmp_path / "second")
    again = icl.load(tmp_path / "second", lm=tiny_lm)
    monkeypatch.setattr(again, "score_many", refuse)
    assert facts(again) == expected


@pytest.mark.parametrize("name", ["epr", "influence"])
def test_saved_before_the_first_query(name, tiny_lm, encoder_folder, tmp_path, monkeypatch):
    fitted = method(tiny_lm, encoder_folder, **OPTIONS[name]).fit(classify_pool(), labels=LABELS)
    fitted.save(tmp_path / "saved")
    loaded = icl.load(tmp_path / "saved", lm=tiny_lm)
    monkeypatch.setattr(loaded, "score_many", refuse)
    assert facts(loaded) == facts(fitted)


def test_prompts_of_a_loaded_epr_need_no_language_model(tiny_lm, encoder_folder, tmp_path):
    fitted = method(tiny_lm, encoder_folder, retriever=EPR).fit(classify_pool(), labels=LABELS)
    texts = [prompt.text for prompt in fitted.prompts(QUERIES)]
    fitted.save(tmp_path / "saved")
    loaded = icl.load(tmp_path / "saved")
    assert [prompt.text for prompt in loaded.prompts(QUERIES)] == texts
    assert loaded.lm is None


def test_the_trained_encoder_is_part_of_the_predictor(tiny_lm, encoder_folder, tmp_path):
    fitted = method(tiny_lm, encoder_folder, retriever=EPR).fit(classify_pool(), labels=LABELS)
    fitted.save(tmp_path / "saved")
    (weights,) = (tmp_path / "saved" / "learned").rglob("*.safetensors")
    assert weights.read_bytes() != next(Path(encoder_folder).rglob("*.safetensors")).read_bytes()
    assert not (tmp_path / "saved" / "index").exists(), "the untrained encoder is not needed for it"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="was changed after it was saved"):
        icl.load(tmp_path / "saved", lm=tiny_lm)
    weights.unlink()
    with pytest.raises(InputError, match="is missing from the saved predictor"):
        icl.load(tmp_path / "saved", lm=tiny_lm)


def test_damaged_values_are_refused(tiny_lm, encoder_folder, tmp_path):
    from icl.methods._learned import read_learned

    fitted = method(tiny_lm, encoder_folder, **OPTIONS["influence"]).fit(classify_pool(), labels=LABELS)
    fitted.save(tmp_path / "saved")
    assert len(json.loads((tmp_path / "saved" / "learned.json").read_text())) == 1
    (tmp_path / "saved" / "learned.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_learned(tmp_path / "saved")
    plain = method(tiny_lm, encoder_folder, retriever="bm25").fit(classify_pool(), labels=LABELS)
    plain.predict(QUERIES)
    plain.save(tmp_path / "plain")
    assert not [path for path in (tmp_path / "plain").iterdir() if path.name.startswith("learned")]


def test_new_rows_are_learned_from_again(tiny_lm, encoder_folder):
    predictor = method(tiny_lm, encoder_folder, retriever=EPR).fit(classify_pool(), labels=LABELS)
    predictor.predict(QUERIES)
    (before,) = predictor.learned.folders
    predictor.add([example({"text": "The parcel came open"}, "delivery")])
    predictor.predict(QUERIES)
    (after,) = predictor.learned.folders
    assert before != after


def test_training_is_planned_and_counted(tiny_lm, encoder_folder):
    """Seven different texts are queries, each with four candidates as its only demonstration."""
    predictor = method(tiny_lm, encoder_folder, retriever=EPR).fit(classify_pool(), labels=LABELS)
    before = tiny_lm.totals.computed
    planned = predictor.plan(QUERIES)
    assert tiny_lm.totals.computed == before, "a plan asks nothing"
    assert not predictor.learned.folders
    plain = method(tiny_lm, encoder_folder, retriever="bm25").fit(classify_pool(), labels=LABELS).plan(QUERIES)
    assert planned.naive > 3 * plain.naive
    predictor.predict(QUERIES)
    assert tiny_lm.totals.computed - before == pytest.approx(planned.computed, rel=0.25)
    assert predictor.plan(QUERIES).naive < planned.naive, "once"


def test_the_task_row_that_is_predicted_is_not_its_own_demonstration(tiny_lm, encoder_folder):
    pool = classify_pool()
    predictor = method(tiny_lm, encoder_folder, retriever=EPR).fit(pool, labels=LABELS)
    for row, prediction in zip(pool, predictor.predict(pool), strict=True):
        shown = [each for each in pool if each.uid in prediction.demonstrations]
        assert len(shown) == 3
        assert all(icl.values.normalised_text(each.fields["text"]) != icl.values.normalised_text(row.fields["text"]) for each in shown)


def test_a_prompt_without_room_for_demonstrations_teaches_nothing(tiny_lm, encoder_folder):
    predictor = method(tiny_lm, encoder_folder, retriever=EPR, max_tokens=70).fit(classify_pool(), labels=LABELS)
    with pytest.raises(InputError, match="does not fit the token budget"):
        predictor.prompts(["short"])


def test_choices_have_a_retriever_too_and_free_text_has_not(tiny_lm, encoder_folder):
    from small_tasks import answer_pool, choose_pool

    predictor = method(tiny_lm, encoder_folder, retriever=EPR).fit(choose_pool())
    assert len(predictor.predict(choose_pool()[:1])[0].demonstrations) == 3
    assert len(predictor.learned.folders) == 1
    with pytest.raises(InputError, match="free text"):
        method(tiny_lm, encoder_folder, retriever=EPR).fit(answer_pool()).prompts(["Capital of Peru"])
