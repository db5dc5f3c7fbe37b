"""icl.score: what it takes and what it says."""

import pytest

import icl
from icl.errors import InputError
from icl.evaluate.scoring import judge_runs
from icl.plugins import Context, NoSettings
from icl.seeds import numpy_rng_for
from icl.values import Example, Prediction, as_query

EXAMPLES = [Example(f"{i}-0", {"text": str(i)}, "ab"[i % 2]) for i in range(20)]
RIGHT = [Prediction(e.uid, e.target) for e in EXAMPLES]


def test_all_right_is_not_certain():
    figure = icl.score(EXAMPLES, RIGHT)["accuracy"]
    assert figure.value == 1.0
    assert figure.low == pytest.approx(0.8389, abs=1e-4)  # Wilson, 20 of 20
    assert figure.high == 1.0


def test_predictions_of_typed_queries_are_matched_by_place():
    typed = [as_query(e.fields["text"], ["text"]) for e in EXAMPLES]
    assert icl.score(EXAMPLES, [Prediction(q.uid, e.target) for q, e in zip(typed, EXAMPLES, strict=True)])["accuracy"].value == 1.0


@pytest.mark.parametrize(
    "query", [{"text": None}, {"text": ["a", "b"]}, {"text": [{"role": "user"}]}, {"text": {"a": 1}}, 7, None, ["text"]]
)
def test_a_query_that_is_no_text_is_refused(query):
    with pytest.raises(InputError) as error:
        as_query(query, ["text"])
    assert error.value.problems[0].fix
    turns = [{"role": "user", "text": "hello"}]
    assert [as_query({"text": fine}, ["text"]).fields["text"] for fine in (5, 1.5, turns)] == [5, 1.5, turns]


def test_settings_of_a_metric():
    probable = [Prediction(p.uid, p.answer, {str(p.answer): 0.9}) for p in RIGHT]
    assert icl.score(EXAMPLES, probable, [{"ece": {"bins": 1}}])["ece"].value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("examples", "predictions", "metrics", "words"),
    [
        (EXAMPLES, RIGHT[1:], ["accuracy"], "19 predictions for 20 examples"),
        (EXAMPLES, RIGHT[::-1], ["accuracy"], "of another example"),
        ([Example("0-0", {}, None)], [Prediction("0-0", "a")], ["accuracy"], "no target"),
        (EXAMPLES, RIGHT, ["acuracy"], "Did you mean 'accuracy'"),
    ],
)
def test_what_cannot_be_judged_is_said(examples, predictions, metrics, words):
    with pytest.raises(InputError, match=words):
        icl.score(examples, predictions, metrics)


def test_a_metric_of_ones_own(tmp_path):
    (tmp_path / "length.py").write_text(
        '"""Length of the answer."""\nimport numpy as np\nKIND = "metric"\n\n\ndef build(settings, context):\n'
        "    return lambda predictions, examples: np.array([float(len(p.answer)) for p in predictions])\n"
    )
    assert icl.score(EXAMPLES, RIGHT, ["length"], plugins=[tmp_path])["length"].value == 1.0


def test_a_mean_over_seeds_without_one_of_them_is_none():
    lost = [Prediction(e.uid, None, why="lost") for e in EXAMPLES]
    from icl.evaluate.metrics import accuracy

    metric = accuracy.build(NoSettings(), Context())
    figure = judge_runs(metric, [RIGHT, lost], EXAMPLES, numpy_rng_for(0, "x"))
    assert (figure.value, figure.n_scored, figure.n_failed) == (None, 20, 20)
    half = [p if i % 2 else Prediction(p.uid, None, why="lost") for i, p in enumerate(RIGHT)]
    figure = judge_runs(metric, [RIGHT, half], EXAMPLES, numpy_rng_for(0, "x"))
    assert (figure.value, figure.n_scored, figure.n_failed) == (1.0, 30, 10)
    assert figure.low is not None
    assert figure.low < 0.9
