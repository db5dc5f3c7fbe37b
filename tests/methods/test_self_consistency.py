"""Several samples and their vote, rationales that the model writes for the pool, on the tiny model and on one whose texts are laid down."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from small_tasks import LABELS, POOLS, QUERIES, example

import icl
from icl.errors import InputError
from icl.methods._written import Weighs
from icl.model.writing import Written
from icl.protocols import offers

SUMS = """---
input: [question]
kind: answer
stop: ["\\nQ:"]
extract: last_number
---
{% block instruction %}Think, then answer.{% endblock %}
{% block example %}Q: {{ question }}
A:{% endblock %}
{% block rationale %} First: {{ rationale }}{% endblock %}
{% block answer %}
The answer is {{ answer }}.{% endblock %}
"""


@pytest.fixture
def few_shot(tiny_lm, encoder_folder):
    def make(lm=tiny_lm, **options):
        return icl.FewShot(lm, **{"encoder": str(encoder_folder), "shots": 3, "max_new_tokens": 6, "format": "plain", **options})

    return make


class Laid:
    """A model whose texts are laid down: prompt's last question -> greedy text, sampled texts with their mean log-likelihoods."""

    def __init__(self, lm, texts):
        self._lm, self._texts, self.asked = lm, texts, []

    def __getattr__(self, name):
        return getattr(self._lm, name)

    def _of(self, prompt):
        self.asked.append(prompt)
        return self._texts[prompt.query.fields["question"]]

    def generate(self, prompts, max_new_tokens=64, stop=()):
        return [self._of(p)[0] for p in prompts]

    def sample(self, prompts, n=8, temperature=0.7, seed=0, max_new_tokens=64, stop=()):
        return [[text for text, _ in self._of(p)[1][:n]] for p in prompts]

    def weighed(self, prompts, n, temperature, seed, max_new_tokens, stop):
        return [list(self._of(p)[1][:n]) for p in prompts]


def sums(*rows):
    return [replace(example({"question": q}, a, (), (a,)), rationale=why) for q, a, why in rows]


def template():
    return icl.Template.parse(SUMS, "sums")


def test_the_vote_is_the_answer_and_its_share_the_confidence(few_shot, tiny_lm):
    drawn = [(" 18", -0.1), (" so 20", -0.1), (" it is $18.00", -0.1), (" no idea", -0.1)]
    lm = Laid(tiny_lm, {"3 + 15": (None, drawn)})
    predictor = few_shot(lm, template=template(), shots=0, samples=4).fit([], inputs=("question",), kind="answer")
    (found,) = predictor.predict(["3 + 15"])
    assert found.answer == "18"
    assert found.probabilities == {"18": pytest.approx(2 / 3), "20": pytest.approx(1 / 3)}
    assert found.confidence == pytest.approx(2 / 3)


def test_a_weighted_vote_goes_by_how_likely_the_texts_were(few_shot, tiny_lm):
    drawn = [(" 18", math.log(0.9)), (" 20", math.log(0.3)), (" 20", math.log(0.4))]
    lm = Laid(tiny_lm, {"3 + 15": (None, drawn)})
    options = {"template": template(), "shots": 0, "samples": 3}
    plain, weighted = (
        few_shot(lm, **options, vote=vote).fit([], inputs=("question",), kind="answer").predict(["3 + 15"])[0]
        for vote in ("plain", "weighted")
    )
    assert plain.answer == "20"
    assert weighted.answer == "18"
    assert weighted.probabilities == {"18": pytest.approx(0.9 / 1.6), "20": pytest.approx(0.7 / 1.6)}


def test_no_answer_in_any_sample_is_unscored_with_the_reason(few_shot, tiny_lm):
    lm = Laid(tiny_lm, {"3 + 15": (None, [("?", 0.0), ("", 0.0)])})
    (found,) = few_shot(lm, template=template(), shots=0, samples=2).fit([], inputs=("question",), kind="answer").predict(["3 + 15"])
    assert (found.answer, found.probabilities) == (None, None)
    assert "no number" in found.why


@pytest.mark.parametrize("vote", ["plain", "weighted"])
def test_eight_samples_read_the_prompt_once(few_shot, tiny_lm, vote):
    """The tokens of the prompts that are computed for eight samples are at most 1.3 times those for one."""
    pool, queries = POOLS["answer"](), QUERIES["answer"]
    read = {}
    for n in (1, 8):
        predictor = few_shot(shots=4, max_new_tokens=5, samples=n, vote=vote if n > 1 else "plain").fit(pool)
        before = replace(tiny_lm.totals)
        predictor.predict(queries)
        read[n] = (tiny_lm.totals.computed - before.computed) - (tiny_lm.totals.generated - before.generated)
    assert 0 < read[8] <= 1.3 * read[1]


def test_the_same_samples_with_and_without_weights_and_their_likelihoods(tiny_lm):
    """The mean log-likelihood of a sampled text is that of its tokens at temperature 1, whatever temperature it was drawn at."""
    assert offers(tiny_lm, Weighs)
    prompts = ["one two", "three"]
    found = tiny_lm.weighed(prompts, 3, 0.7, 5, 4, ())
    assert [[text for text, _ in each] for each in found] == tiny_lm.sample(prompts, 3, 0.7, 5, 4, ())
    for prompt, texts in zip(prompts, found, strict=True):
        sums = tiny_lm.loglikelihoods([prompt], [[text for text, _ in texts]])[0]
        for (text, mean), total in zip(texts, sums, strict=True):
            if len(text.encode()) == 4:  # four tokens of a byte each: not ended early, and decoded as they were written
                assert mean == pytest.approx(total / 4, abs=1e-3)
    again = Written.unpacked(Written(" a b ", "stop", 3, -1.25).packed())
    assert (again, again.mean) == (Written(" a b ", "stop", 3), -1.25)
    assert Written.unpacked(Written("a", "end", 1).packed()).mean is None


def test_labels_are_voted_too_and_abstaining_goes_by_the_share(few_shot, tiny_lm):
    lm = Laid(tiny_lm, {q: (None, [(" Paris", 0.0), (" Rome", 0.0), (" paris.", 0.0)]) for q in ("a", "b")})
    source = SUMS.replace("extract: last_number\n", "")
    predictor = few_shot(lm, template=icl.Template.parse(source, "t"), shots=0, samples=3, abstain=0.9).fit(
        [], inputs=("question",), kind="answer"
    )
    (found,) = predictor.predict(["a"])
    assert (found.answer, found.withheld) == (None, "Paris")
    shares = few_shot(samples=4).fit(POOLS["classify"](), labels=LABELS).predict(QUERIES["classify"][:1])[0].probabilities
    assert shares is None or tuple(shares) == LABELS


def test_wrong_settings_are_refused(few_shot, tiny_lm):
    for wrong in ({"vote": "weighed"}, {"vote": "weighted"}, {"bootstrap": 0}, {"bootstrap": {"rowz": 3}}):
        with pytest.raises(InputError):
            few_shot(**wrong)
    with pytest.raises(InputError, match="samples: 8"):
        few_shot(abstain=0.5).fit(POOLS["answer"]())

    class Plain(Laid):
        weighed = None

    lm = Plain(tiny_lm, {})
    with pytest.raises(InputError, match="how likely"):
        few_shot(lm, vote="weighted", samples=3).fit(POOLS["answer"]())


# ── rationales from the model itself ─────────────────────────────────────────────────────────────────────────────────────


def test_rationales_are_kept_where_their_answer_is_right(few_shot, tiny_lm):
    pool = sums(("1 + 1", "2", None), ("2 + 2", "4", None), ("3 + 3", "6", None), ("4 + 4", "8", None), ("5 + 5", "10", "five twice"))
    lm = Laid(
        tiny_lm,
        {
            "1 + 1": (" First: one and one\nThe answer is 2.", []),
            "2 + 2": (
                " First: two and two\nThe answer is 5.",
                [(" First: again\nThe answer is 4.", 0.0), (" First: x\nThe answer is 4.", 0.0)],
            ),
            "3 + 3": (" First: wrong\nThe answer is 7.", [("\nThe answer is 6.", 0.0), (" nothing", 0.0)]),
            "4 + 4": (" eight", [(" First: nine\nThe answer is 9.", 0.0)] * 2),
        },
    )
    predictor = few_shot(lm, template=template(), bootstrap={"rows": 10, "tries": 2}).fit(pool)
    planned = predictor.plan(["6 + 6"])
    assert lm.asked == []  # neither fitting nor planning asks anything
    assert planned.generated > predictor.plan(["6 + 6"]).generated == 5  # and it is counted once; the sixth token is read by nobody
    predictor.prompt("6 + 6")
    assert {e.fields["question"]: e.rationale for e in predictor.pool} == {"1 + 1": "one and one", "2 + 2": "again", "5 + 5": "five twice"}
    asked = Counter(p.query.fields["question"] for p in lm.asked)
    assert asked == {"1 + 1": 1, "2 + 2": 2, "3 + 3": 2, "4 + 4": 2}  # only what failed is asked again
    assert all("five twice" in p.text for p in lm.asked)  # what is given is shown
    prompt = predictor.prompt("6 + 6").text
    assert "Q: 2 + 2\nA: First: again\nThe answer is 4." in prompt


def test_rows_are_drawn_with_the_seed_and_saved_with_their_rationales(few_shot, tiny_lm, tmp_path):
    pool = sums(*((f"{i} + 0", f"{i}", None) for i in range(6)))
    lm = Laid(tiny_lm, {f"{i} + 0": (f" First: r{i}\nThe answer is {i}.", []) for i in range(6)})
    fitted = [few_shot(lm, template=template(), bootstrap=3, seed=seed).fit(pool) for seed in (0, 0, 1)]
    for predictor in fitted:
        predictor.prompt("7 + 7")
    kept = [predictor.pool for predictor in fitted]
    assert [e.uid for e in kept[0]] == [e.uid for e in kept[1]]
    assert len(kept[0]) == 3
    assert {e.uid for e in kept[2]} != {e.uid for e in kept[0]}
    predictor = few_shot(lm, template=template(), bootstrap=3, retriever="random").fit(pool)
    predictor.save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved", lm=lm)
    assert again.prompt("7 + 7").text == predictor.prompt("7 + 7").text
    assert "First: r" in again.prompt("7 + 7").text


def test_a_row_is_never_its_own_demonstration_while_its_rationale_is_written(few_shot, tiny_lm):
    pool = sums(("1 + 1", "2", "one and one"), ("1 + 1 ", "2", None), ("2 + 2", "4", "twos"))
    lm = Laid(tiny_lm, {"1 + 1 ": (" First: x\nThe answer is 2.", [])})
    few_shot(lm, template=template(), bootstrap=3).fit(pool).prompt("3 + 3")
    assert "twos" in lm.asked[0].text
    assert "one and one" not in lm.asked[0].text  # a copy of the row


def test_what_cannot_be_bootstrapped_says_why(few_shot, tiny_lm):
    pool = sums(("1 + 1", "2", None))
    predictor = few_shot(Laid(tiny_lm, {"1 + 1": (" 3", [])}), template=template(), bootstrap=3).fit(pool)
    with pytest.raises(InputError, match="led to the right answer"):
        predictor.prompt("2 + 2")
    (got,) = predictor.predict(["2 + 2"])
    assert got.answer is None
    assert "led to the right answer" in got.why
    with pytest.raises(InputError, match="no place for a rationale"):
        few_shot(bootstrap=3).fit(pool)
    with pytest.raises(InputError, match="language model"):
        few_shot(None, template=template(), bootstrap=3).fit(pool)


def test_a_run_goes_on_where_no_rationale_is_right(model_folder, encoder_folder, tmp_path):
    (tmp_path / "sums.jinja").write_text(SUMS)
    rows = [{"question": f"{i} + {i}", "answer": "no number is this"} for i in range(8)]
    options = {"shots": 2, "max_new_tokens": 4, "format": "plain", "template": str(tmp_path / "sums.jinja")}
    suite = {
        "models": [{"model": str(model_folder), "name": "tiny"}],
        "encoder": str(encoder_folder),
        "tasks": [{"name": "sums", "train": rows[:4], "test": rows[4:], "kind": "answer", "input": "question", "label": "answer", "template": str(tmp_path / "sums.jinja")}],
        "methods": [{"name": "made", "few_shot": {**options, "bootstrap": 2}}, {"name": "plain", "few_shot": options}],
        "metrics": ["exact_match"],
    }  # fmt: skip
    run = icl.run(suite, out=tmp_path / "run")
    assert {r["method"] for r in run.results} == {"made", "plain"}
    assert not list((tmp_path / "run" / "predictors").glob("made*"))
    assert list((tmp_path / "run" / "predictors").glob("plain*"))
