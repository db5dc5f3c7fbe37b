"""What every method must keep, whatever it does inside. A method dropped into `icl/methods` is tested here without any edit."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from small_tasks import LABELS, POOLS, QUERIES, context_for, environment, example

from icl import plugins
from icl.train.settings import TrainingSettings
from icl.values import normalised_text

METHODS = [name for name in plugins.available("method") if name != "saved"]  # `saved` wraps the others; test_ship.py has it
CASES = [(name, kind) for name in METHODS for kind in sorted(plugins.find("method", name).load().KINDS)]
FIELD = {"classify": "text", "choose": "question", "answer": "question"}


@pytest.fixture(scope="module")
def make(encoder_folder, request):
    """(method, kind) -> a method as a suite builds it."""

    def make(name, kind):
        module = plugins.find("method", name).load()
        context = context_for(kind, str(encoder_folder), request.getfixturevalue("tiny_lm") if module.NEEDS_MODEL else None)
        # A random model never ends its answer by itself.
        short = {"max_new_tokens": 6} if "max_new_tokens" in module.Settings.model_fields else {}
        if issubclass(module.Settings, TrainingSettings):
            short["epochs"] = 2
        if name == "distil":
            short["student"] = {"classifier": {"epochs": 2}}
        return plugins.build("method", {name: short}, context)

    return make


def fit(method, kind, pool=None):
    pool = POOLS[kind]() if pool is None else pool
    return method.fit(pool, labels=LABELS if kind == "classify" else ())


def same(one, other):
    assert [p.answer for p in one] == [p.answer for p in other]
    assert [p.uid for p in one] == [p.uid for p in other]
    assert [p.demonstrations for p in one] == [p.demonstrations for p in other]
    for a, b in zip(one, other, strict=True):
        assert (a.probabilities is None) == (b.probabilities is None)
        for label, p in (a.probabilities or {}).items():
            assert b.probabilities[label] == pytest.approx(p, abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_declares_what_it_needs_and_its_settings_are_strict(name):
    module = plugins.find("method", name).load()
    assert module.KINDS
    assert {"classify", "choose", "answer"} >= module.KINDS
    assert isinstance(module.NEEDS_LABELS, bool)
    assert isinstance(module.NEEDS_MODEL, bool)
    with pytest.raises(plugins.InputError, match="no option 'shotz'"):
        plugins.settings_of(plugins.find("method", name), {"shotz": 1})


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_answers_every_query_in_order(make, name, kind):
    method = make(name, kind)
    assert kind in method.kinds
    predictor = fit(method, kind)
    assert predictor.name == name
    predictions = predictor.predict(QUERIES[kind])
    assert [p.uid for p in predictions] == [q.uid for q in QUERIES[kind]]
    for query, prediction in zip(QUERIES[kind], predictions, strict=True):
        assert (prediction.answer is None) == (prediction.why is not None)
        if kind == "classify":
            assert prediction.answer in LABELS
            assert tuple(prediction.probabilities) == LABELS
        if kind == "choose":
            assert prediction.answer in query.choices
            assert set(prediction.probabilities) == set(query.choices)
        if prediction.probabilities is not None:
            assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
            assert min(prediction.probabilities.values()) > 0  # a label that the pool lacks may still be right
            assert prediction.probabilities[prediction.answer] == pytest.approx(max(prediction.probabilities.values()), abs=1e-3)
    assert predictor.predict([]) == []


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_plain_queries_are_dicts_or_strings(make, name, kind):
    predictor = fit(make(name, kind), kind)
    query = QUERIES[kind][0]
    as_dict = predictor.predict([dict(query.fields) | ({"choices": query.choices} if query.choices else {})])
    assert as_dict[0].answer == predictor.predict([query])[0].answer
    if kind != "choose":
        assert predictor.predict([query.fields[FIELD[kind]]])[0].answer == as_dict[0].answer
    with pytest.raises(plugins.InputError, match="list"):
        predictor.predict("one text")
    with pytest.raises(plugins.InputError, match="lacks the field"):
        predictor.predict([{"nothing": "x"}])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_deterministic_and_independent_of_the_batch(make, name, kind):
    predictor = fit(make(name, kind), kind)
    together = predictor.predict(QUERIES[kind])
    same(together, [predictor.predict([q])[0] for q in QUERIES[kind]])
    same(together, predictor.predict(QUERIES[kind][::-1])[::-1])
    same(together, fit(make(name, kind), kind).predict(QUERIES[kind]))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_no_item_sees_its_own_answer(make, name, kind):
    """Judged on its own pool, a row is answered without itself and without copies of itself."""
    pool = POOLS[kind]()
    text_of = {e.uid: normalised_text(str(e.fields[FIELD[kind]])) for e in pool}
    for row, prediction in zip(pool, fit(make(name, kind), kind).predict(pool), strict=True):
        assert text_of[row.uid] not in {text_of[uid] for uid in prediction.demonstrations}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_targets_of_queries_are_never_read(make, name, kind):
    predictor = fit(make(name, kind), kind)
    canary = [replace(q, target="CANARY", references=("CANARY",) if kind == "answer" else ()) for q in QUERIES[kind]]
    same(predictor.predict(QUERIES[kind]), predictor.predict(canary))


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("n", [1, 2])
def test_a_pool_of_one_or_two(make, name, kind, n):
    """It works, or it says before any training that one label gives nothing to learn."""
    try:
        predictor = fit(make(name, kind), kind, POOLS[kind]()[:n])
    except plugins.InputError as error:
        assert name == "distil" or issubclass(plugins.find("method", name).load().Settings, TrainingSettings)
        assert "nothing to tell apart" in str(error)  # noqa: PT017
        return
    assert all(p.answer for p in predictor.predict(QUERIES[kind]))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_same_example_several_times(make, name, kind):
    first, *rest = POOLS[kind]()
    twice = [first, example(first.fields, first.target, first.choices, first.references, occurrence=1), *rest]
    assert all(p.answer for p in fit(make(name, kind), kind, twice).predict(QUERIES[kind]))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_without_examples_it_says_so_or_works(make, name, kind):
    method = make(name, kind)
    if plugins.find("method", name).load().NEEDS_LABELS and name != "few_shot":
        with pytest.raises(plugins.InputError, match="was given none"):
            fit(method, kind, [])
    else:
        assert all(p.answer for p in fit(method, kind, []).predict(QUERIES[kind]))


@pytest.fixture(scope="module")
def reloaded(make, tmp_path_factory, cache):
    """Every method saved, loaded in one fresh process, and what it predicts there. Without network, without this process."""
    root = tmp_path_factory.mktemp("saved")
    before, folders = {}, {}
    for name, kind in CASES:
        predictor = fit(make(name, kind), kind)
        before[name, kind] = predictor.predict(QUERIES[kind])
        folders[f"{name} {kind}"] = str(root / f"{name}-{kind}")
        predictor.save(folders[f"{name} {kind}"])
    queries = {kind: [dict(q.fields) | ({"choices": list(q.choices)} if q.choices else {}) for q in qs] for kind, qs in QUERIES.items()}
    code = (
        "import sys, json, icl\n"
        "folders, queries = json.load(sys.stdin)\n"
        "out = {}\n"
        "for key, folder in folders.items():\n"
        "    ps = icl.load(folder).predict(queries[key.split()[1]])\n"
        "    out[key] = [[p.answer, dict(p.probabilities) if p.probabilities else None, list(p.demonstrations)] for p in ps]\n"
        "print(json.dumps(out))\n"
    )
    sent = json.dumps([folders, queries])
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, text=True, env=environment(cache), cwd=root, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return before, json.loads(done.stdout.splitlines()[-1]), root


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_saved_and_loaded_in_a_fresh_process(reloaded, name, kind):
    before, after, root = reloaded
    for old, (answer, shares, demonstrations) in zip(before[name, kind], after[f"{name} {kind}"], strict=True):
        assert answer == old.answer
        assert tuple(demonstrations) == old.demonstrations
        if old.probabilities is not None:
            assert shares == pytest.approx(dict(old.probabilities), abs=1e-9)
    folder = root / f"{name}-{kind}"
    assert "icl.load" in (folder / "README.md").read_text()
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pickle", ".bin", ".pt", ".joblib")]
