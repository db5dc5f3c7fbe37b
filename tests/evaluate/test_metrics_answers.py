"""Metrics of answers in words against their reference implementations, written or called independently, on 1,200 made-up outputs."""

import json
import random
import re
import string
import unicodedata
from collections import Counter

import numpy as np
import pytest
import sacrebleu
import tiny
from rouge_score.rouge_scorer import RougeScorer

import icl
from icl import patterns
from icl.errors import InputError, MissingExtraError
from icl.evaluate import load_suite
from icl.evaluate.metrics import _answers, _squad
from icl.evaluate.stage_log import reasons
from icl.plugins import Context, build
from icl.values import Example, Prediction

N = 1200
WORDS = """the a an cat dog sat on mat Paris café naïve U.S. 1,000 3.14 it's don't — „Haus“ über running runs ran New York 北京
résumé re-enter (again) John's A. B. and, or; but! why? x=y the The AN""".split()  # noqa: SIM905


def sentence(rng):
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 14)))
    return unicodedata.normalize("NFD", text) if rng.random() < 0.2 else text


def changed(rng, text):
    words = text.split()
    for _ in range(rng.randint(0, 4)):
        at = rng.randint(0, max(0, len(words) - 1))
        words[at : at + rng.randint(0, 2)] = [rng.choice(WORDS)] * rng.randint(0, 2)
    return " ".join(words) + rng.choice(["", ".", " .", "\n"])


def made_up(n=N, seed=0, equal=None):
    """n items of one to four references (or `equal` many), with outputs that are changed references, or have nothing to do with them."""
    rng = random.Random(seed)
    examples, predictions = [], []
    for i in range(n):
        references = tuple(sentence(rng) or "x" for _ in range(equal or rng.randint(1, 4)))
        answer = changed(rng, rng.choice(references)) if rng.random() < 0.8 else sentence(rng)
        examples.append(Example(f"{i:032x}-0", {"text": f"t{i}"}, references[0], references=references))
        predictions.append(Prediction(examples[-1].uid, answer))
    return examples, predictions


def metric(name, **settings):
    return build("metric", {name: settings}, Context())


# ── the published scripts' rules, written anew ───────────────────────────────────────────────────────────────────────────


def squad_normalize(s):
    """evaluate-v1.1.py, line by line."""

    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def open_normalize(s):
    """The evaluation of open-domain question answering decomposes first."""
    return squad_normalize(unicodedata.normalize("NFD", s))


def reference_f1(normalize, prediction, truth):
    """evaluate-v2.0.py, compute_f1."""
    truth, prediction = normalize(truth).split(), normalize(prediction).split()
    num_same = sum((Counter(truth) & Counter(prediction)).values())
    if len(truth) == 0 or len(prediction) == 0:
        return int(truth == prediction)
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(prediction), 1.0 * num_same / len(truth)
    return (2 * precision * recall) / (precision + recall)


@pytest.mark.parametrize(("name", "normalize"), [("squad", squad_normalize), ("open", open_normalize)])
def test_exact_match_and_token_f1_are_the_scripts(name, normalize):
    examples, predictions = made_up()
    exact = metric("exact_match", normalisation=name)(predictions, examples)
    f1 = metric("token_f1", normalisation=name)(predictions, examples)
    pairs = list(zip(predictions, examples, strict=True))
    assert exact.tolist() == [float(any(normalize(p.answer) == normalize(r) for r in e.references)) for p, e in pairs]
    np.testing.assert_allclose(f1, [max(reference_f1(normalize, p.answer, r) for r in e.references) for p, e in pairs], atol=1e-12)
    assert 0.02 < exact.mean() < 0.9


def harness_exact_match(prediction, reference, regexes_to_ignore=(), ignore_case=False, ignore_punctuation=False, ignore_numbers=False):
    """lm_eval/api/metrics.py, exact_match_hf_evaluate, for one pair; there with the white space at the ends, which is cut here."""
    pair = []
    for x in (prediction, reference):
        for s in regexes_to_ignore:
            x = re.sub(s, "", x)
        x = x.lower() if ignore_case else x
        x = x.translate(str.maketrans("", "", string.punctuation)) if ignore_punctuation else x
        pair.append((x.translate(str.maketrans("", "", string.digits)) if ignore_numbers else x).strip())
    return float(pair[0] == pair[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_case": True},
        {"ignore_case": True, "ignore_punctuation": True},
        {"ignore_numbers": True, "regexes_to_ignore": [",", r"\$", r"(?s).*on ", r"\.$"]},
        {"ignore_case": True, "ignore_punctuation": True, "regexes_to_ignore": [r"\b(?:The |the |An |A |The |a |an )"]},
    ],
)
def test_string_match_is_the_harnesss(options):
    examples, predictions = made_up()
    ours = {"remove" if name == "regexes_to_ignore" else name: value for name, value in options.items()}
    found = metric("string_match", **ours)(predictions, examples)
    pairs = list(zip(predictions, examples, strict=True))
    assert found.tolist() == [max(harness_exact_match(p.answer, r, **options) for r in e.references) for p, e in pairs]
    assert 0.02 < found.mean() < 0.9
    with pytest.raises(InputError, match="regular expression"):
        metric("string_match", remove=["("])


def test_the_two_normalisations_differ_where_accents_are_written_differently():
    one, other = "café", unicodedata.normalize("NFD", "café")
    assert _squad.exact(one, other) == 0
    assert _squad.exact(one, other, _squad.normalise_open) == 1


# ── sacrebleu ────────────────────────────────────────────────────────────────────────────────────────────────────────────

SACRE = [
    ("bleu", {}, sacrebleu.BLEU(force=True)),
    (
        "bleu",
        {"tokenize": "zh", "lowercase": True, "smooth": "add-k"},
        sacrebleu.BLEU(tokenize="zh", lowercase=True, smooth_method="add-k", force=True),
    ),
    ("chrf", {}, sacrebleu.CHRF()),
    ("chrf", {"word_order": 2}, sacrebleu.CHRF(word_order=2)),
    ("ter", {}, sacrebleu.TER()),
]


@pytest.mark.parametrize(("name", "settings", "reference"), SACRE, ids=lambda v: v if isinstance(v, str) else "")
def test_corpus_scores_and_their_resamples_are_sacrebleus(name, settings, reference):
    examples, predictions = made_up()
    ours = metric(name, **settings)
    rng = np.random.default_rng(0)
    samples = np.stack([np.arange(N), rng.integers(0, N, N)])
    found = ours.aggregate(predictions, examples, samples)
    for row, value in zip(samples, found, strict=True):
        outputs = [predictions[i].answer for i in row]
        streams = [[refs[n] if n < len(refs) else None for refs in (examples[i].references for i in row)] for n in range(4)]
        assert value == pytest.approx(reference.corpus_score(outputs, streams).score, abs=1e-9)
    assert ours.signature(examples) == str(reference.get_signature())
    assert "nrefs:var" in ours.signature(examples)


def test_single_items_are_sacrebleus_sentence_scores():
    examples, predictions = made_up(200)
    single = sacrebleu.BLEU(effective_order=True, force=True)
    values = metric("bleu")(predictions, examples)
    expected = [single.sentence_score(p.answer, list(e.references)).score for p, e in zip(predictions, examples, strict=True)]
    np.testing.assert_allclose(values, expected, atol=1e-9)


def test_the_signature_names_the_number_of_references():
    examples, _ = made_up(20, equal=2)
    signature = metric("bleu").signature(examples)
    assert signature.startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_a_corpus_score_has_an_interval_and_counts_what_was_not_scored():
    examples, predictions = made_up(60)
    predictions[3] = Prediction(examples[3].uid, None, why="the model wrote nothing")
    figure = icl.score(examples, predictions, metrics=["bleu", "ter"])
    for one in figure.values():
        assert one.low < one.value < one.high
        assert (one.n_scored, one.n_failed) == (59, 1)
    kept = [i for i in range(60) if i != 3]
    streams = [[r[n] if n < len(r) else None for r in (examples[i].references for i in kept)] for n in range(4)]
    assert figure["bleu"].value == pytest.approx(
        sacrebleu.BLEU(force=True).corpus_score([predictions[i].answer for i in kept], streams).score
    )


# ── rouge-score ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "kind"), [("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL"), ("rouge_lsum", "rougeLsum")])
def test_rouge_is_rouge_scores(name, kind):
    examples, predictions = made_up()
    scorer = RougeScorer([kind], use_stemmer=True)
    expected = [scorer.score_multi(list(e.references), p.answer)[kind] for p, e in zip(predictions, examples, strict=True)]
    np.testing.assert_array_equal(metric(name)(predictions, examples), [s.fmeasure for s in expected])
    np.testing.assert_array_equal(metric(name, measure="recall")(predictions, examples), [s.recall for s in expected])


# ── numbers, JSON, words, repetition, length ─────────────────────────────────────────────────────────────────────────────


def values(name, cases, **settings):
    """cases: (answer, reference or a dict of fields)."""
    examples = [Example(f"{i:032x}-0", r if isinstance(r, dict) else {}, r if isinstance(r, str) else "") for i, (_, r) in enumerate(cases)]
    return metric(name, **settings)([Prediction(e.uid, a) for e, (a, _) in zip(examples, cases, strict=True)], examples).tolist()


def test_numeric_match():
    cases = [
        ("She pays $1,250.50.", "1250.5"),
        ("so 3 + 4 = 7", "7.00"),
        ("between 10-12", "12"),  # the hyphen is no sign
        ("minus \u22125", "-5"),
        ("COVID-19", "19"),
        ("7", "8"),
        ("seven", "7"),
        ("7", "seven"),
        (None, "7"),
        ("#### 18", "He has 20 and gives 2.\n#### 18"),
    ]
    assert values("numeric_match", cases)[:6] == [1, 1, 1, 1, 1, 0]
    assert np.isnan(values("numeric_match", cases)[6:9]).all()
    assert values("numeric_match", cases)[9] == 1
    assert values("numeric_match", [("0.3", "0.30000001"), ("101", "100"), ("103", "100")], tolerance=0.02, relative=True) == [1, 1, 0]


def test_numeric_match_of_written_numbers_is_equality_of_floats():
    rng = random.Random(1)
    cases = []
    for _ in range(N):
        a, b = rng.randint(-5000, 5000), rng.randint(-5000, 5000)
        cases.append((f"The answer is {a:,}.", f"{a if rng.random() < 0.5 else b}"))
    expected = [float(float(answer[14:-1].replace(",", "")) == float(reference)) for answer, reference in cases]
    assert values("numeric_match", cases) == expected


def test_valid_json():
    cases = [('{"a": 1}', "x"), ("[1, 2", "x"), ("NaN", "x"), ('```json\n{"a": 1}\n```', "x"), ('"text"', "x"), ("[" * 100_000, "x")]
    assert values("valid_json", cases) == [1, 0, 0, 0, 1, 0]
    assert values("valid_json", cases[:1] + cases[4:5], keys=["a"]) == [1, 0]
    assert values("valid_json", cases[:1], keys=["a", "b"]) == [0]


def test_word_coverage(monkeypatch):
    cases = [
        ("A skier skis down the mountain.", {"concepts": "ski, mountain, skier"}),
        ("New  York-style", {"concepts": "new york; style"}),
        ("nothing", {"concepts": "new york\nstyle"}),
        ("anything", {"concepts": ""}),
    ]
    found = values("word_coverage", cases, field="concepts")
    assert found[:3] == [pytest.approx(2 / 3), 1, 0]
    assert np.isnan(found[3])
    assert values("word_coverage", cases[:1], field="concepts", inflected=True) == [1]
    e2e = [("Blue Spice is in the city centre.", {"a": "name[Blue Spice], eatType[coffee shop], area[city centre]"})]
    assert values("word_coverage", e2e, field="a", pattern=r"\[([^\]]*)\]") == [pytest.approx(2 / 3)]
    assert values("word_coverage", [("Dear Ann, thanks", "x")], words=["dear", "kind regards"]) == [0.5]
    monkeypatch.setattr(patterns, "SECONDS", 0.05)  # an expression that never ends: that item is not scored, the next one is
    slow = [("tea", {"a": "a" * 5000 + "!"}), ("tea", {"a": "tea"})]
    assert values("word_coverage", slow, field="a", pattern="((?:a+|tea)+)$") == pytest.approx([float("nan"), 1], nan_ok=True)
    for wrong in ({}, {"pattern": "(a)"}, {"field": "a", "pattern": "a"}, {"field": "a", "pattern": "("}):
        with pytest.raises(InputError):
            metric("word_coverage", **wrong)


def test_repetition_and_distinct():
    texts = ["a b a b a b", "one two three", "", "x"]
    examples = [Example(f"{i:032x}-0", {}, "r") for i in range(4)]
    predictions = [Prediction(e.uid, t) for e, t in zip(examples, texts, strict=True)]
    assert metric("repetition", n=2)(predictions, examples).tolist() == [pytest.approx(1 - 2 / 5), 0, 0, 0]
    distinct = metric("distinct_n", n=1)
    assert distinct(predictions, examples)[0] == pytest.approx(2 / 6)
    assert distinct.aggregate(predictions, examples, np.array([[0, 1, 3], [0, 0, 0]])).tolist() == pytest.approx([6 / 10, 2 / 18])
    assert not metric("repetition").higher_is_better


def test_distinct_on_many_texts_is_a_set_over_a_count():
    examples, predictions = made_up()
    runs = [run for p in predictions for run in _answers.ngrams(_answers.words_of(p.answer), 2)]
    found = metric("distinct_n").aggregate(predictions, examples, np.arange(N)[None])
    assert found[0] == len(set(runs)) / len(runs)


def test_length():
    cases = [("It's two-fold, isn't it?", "x"), (" ab ", "x")]
    assert values("length", cases) == [5, 1]
    assert values("length", cases, unit="characters") == [24, 2]
    assert values("length_within", cases, least=2, most=5) == [1, 0]
    assert not metric("length").ranked
    examples = [Example(f"{n}-0", {}, "x") for n in range(4)]
    said = icl.score(examples, [Prediction(e.uid, "yes") for e in examples], metrics=["length", {"length_within": {"most": 2}}])
    assert (said["length"].low, said["length"].high) == (1, 1)  # one word each is a length, no share of 1
    assert said["length_within"].low < 1
    for wrong in ({}, {"least": 3, "most": 2}):
        with pytest.raises(InputError):
            metric("length_within", **wrong)


def test_encoder_similarity_is_the_best_cosine(monkeypatch):
    class Letters:
        name, fingerprint, dimensions = "letters", "0", 26

        def cut(self, texts):
            return list(texts)

        def encode(self, texts):
            rows = np.array([[t.count(c) for c in string.ascii_lowercase] for t in texts], dtype=np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    import icl.retrieve

    monkeypatch.setattr(icl.retrieve, "load_encoder", lambda name: Letters())
    examples = [Example("0-0", {}, "aab", references=("zzz", "aab")), Example("1-0", {}, "b")]
    found = metric("encoder_similarity")([Prediction("0-0", "aba"), Prediction("1-0", None)], examples)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert np.isnan(found[1])
    assert metric("encoder_similarity").signature(examples) == "letters 0"


# ── in a suite ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "package"), [("bleu", "sacrebleu"), ("rouge_l", "rouge_score")])
def test_a_missing_package_is_refused_before_any_work(monkeypatch, tmp_path, name, package):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *more: None if asked == package else real(asked, *more))
    (tmp_path / "t.jsonl").write_text('{"q": "1", "a": "x"}\n', encoding="utf-8")
    suite = {
        "tasks": [{"name": "t", "train": str(tmp_path / "t.jsonl"), "kind": "answer", "input": "q", "label": "a"}],
        "methods": ["nearest_answer"],
        "metrics": [name],
    }
    with pytest.raises(InputError, match=re.escape("pip install 'icl[answers]'")) as error:
        load_suite(suite)
    assert error.value.problems[0].field == "metrics.0"
    monkeypatch.setattr(_answers, "find_spec", lambda asked: None)
    with pytest.raises(MissingExtraError, match=package):
        metric(name)


def test_why_there_is_no_answer_is_counted_without_its_numbers():
    whys = ["the query alone takes 1,310 tokens", "the query alone takes 99 tokens", "there is no number in what the model wrote"]
    predictions = [Prediction("0-0", None, why=why) for why in whys] + [Prediction("0-0", "7"), Prediction("0-0", None, withheld="8")]
    assert reasons(predictions) == {"the query alone takes … tokens": 2, "there is no number in what the model wrote": 1}


def test_a_run_stores_the_signature_and_ranks_nobody_by_length(tmp_path):
    rows = [{"q": f"question {i}", "a": f"answer number {i % 3}"} for i in range(24)]
    for split, part in (("train", rows[:12]), ("test", [{**r, "q": r["q"] + " again"} for r in rows[12:]])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
    suite = {
        "tasks": [{"name": "t", "train": "train.jsonl", "test": "test.jsonl", "kind": "answer", "input": "q", "label": "a"}],
        "methods": ["nearest_answer"],
        "metrics": ["bleu", "chrf", "length"],
        "encoder": str(tiny.save_bert(tmp_path / "encoder", ["question", "answer", "number", "again"], sentence=True)),
    }
    (tmp_path / "s.yaml").write_text(json.dumps(suite), encoding="utf-8")
    run = icl.run(tmp_path / "s.yaml", out=tmp_path / "run")
    assert "tok:13a" in run.document["tasks"]["t"]["signatures"]["bleu"]
    assert {best["metric"] for best in run.document["best"]} == {"bleu", "chrf"}
    record = next(r for r in run.results if r["metric"] == "bleu" and r["seed"] is None)
    assert record["low"] <= record["value"] <= record["high"] <= 100
