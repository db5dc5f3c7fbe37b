"""The same choices as lm-evaluation-harness on the same strings. Runs where that harness (0.4.13) is installed."""

import json

import pytest

import icl
from icl.weights import fetch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", params=["stories260k", pytest.param("smollm2", marks=pytest.mark.smollm2)])
def models(request, shared):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an optional peer: pip install lm-eval==0.4.13")
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(shared / "models" / "stories260k") if request.param == "stories260k" else str(fetch("smollm2"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    theirs = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=8, device="cpu")
    return icl.load_model(folder, device="cpu", dtype="float32"), theirs


def test_piqa_choices_are_those_of_the_harness(models, shared):
    from lm_eval.api.instance import Instance

    ours, theirs = models
    lines = (shared / "data" / "piqa" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    rows = [json.loads(line) for line in lines]
    # The small checkpoint spells most words and reads 512 tokens; the harness cannot score what is longer.
    rows = [row for row in rows if max(ours.count_tokens(row["question"] + choice) for choice in row["choices"]) < ours.window - 12]
    assert len(rows) == 500 or ours.window == 512
    assert len(rows) > 400
    contexts = [f"Question: {row['question']}\nAnswer:" for row in rows]
    choices = [row["choices"] for row in rows]
    continuations = [[f" {choice}" for choice in found] for found in choices]
    pairs = [(c, t) for c, texts in zip(contexts, continuations, strict=True) for t in texts]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    answers = iter(theirs.loglikelihood(requests))
    reference = [[next(answers)[0] for _ in texts] for texts in continuations]
    scores = ours.score(contexts, continuations)
    for found, sums, texts in zip(scores, reference, choices, strict=True):
        assert not found.straddle
        assert all(abs(a - b) <= 1e-4 + 1e-5 * max(n - 16, 0) for a, b, n in zip(found.sums, sums, found.n_tokens, strict=True))
        per_char = [s / len(t) for s, t in zip(sums, texts, strict=True)]
        mine = [s / n for s, n in zip(found.sums, found.n_chars, strict=True)]
        assert found.sums.index(max(found.sums)) == sums.index(max(sums))  # acc
        assert mine.index(max(mine)) == per_char.index(max(per_char))  # acc_norm


def test_label_words_score_as_in_the_harness(models, shared):
    from lm_eval.api.instance import Instance

    ours, theirs = models
    lines = (shared / "data" / "agnews" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    shot = "Article: the team won the cup after extra time.\nTopic: sports\n\n"
    contexts = [f"{shot}Article: {' '.join(json.loads(line)['text'].split()[:40])}\nTopic:" for line in lines]
    words = [" world", " sports", " business news", " science and technology"]
    requests = [Instance("loglikelihood", {}, (c, w), i) for i, (c, w) in enumerate((c, w) for c in contexts for w in words)]
    answers = [value for value, _ in theirs.loglikelihood(requests)]
    reference = [answers[i : i + 4] for i in range(0, len(answers), 4)]
    for sums, expected in zip(ours.loglikelihoods(contexts, [words] * len(contexts)), reference, strict=True):
        assert max(abs(a - b) for a, b in zip(sums, expected, strict=True)) <= 1e-4
        assert sums.index(max(sums)) == expected.index(max(expected))
