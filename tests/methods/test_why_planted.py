"""The nearest demonstration of a query gets a wrong label: where its presence changes the answer, it is found among the most harmful."""

import json
import random
from dataclasses import replace

import pytest

import icl

QUERIES = {"trec": 40, "sst2": 40}
SHOTS = 8


def planted(task, template, lm, n):
    """Counts over the queries: those whose answer is another one with the wrong label than with the right one (changed), of these the ones
    that get the first answer back without the demonstration (its_doing); and of both how often it is among the 2 most harmful of the 8."""
    rng = random.Random(0)
    plain = icl.FewShot(lm, template=template, shots=SHOTS).fit(task.train, labels=task.labels)
    queries = task.test[:n]
    counts = {"queries": n, "changed": 0, "found": 0, "its_doing": 0, "its_doing_found": 0}
    for query, before in zip(queries, plain.predict(queries), strict=True):
        shown = [d.example for d in plain.prompt(query).demonstrations]
        wrong = rng.choice([label for label in task.labels if label != shown[-1].target])
        rows = [*shown[:-1], replace(shown[-1], target=wrong)]
        # The pool is the prompt's own demonstrations, which stand as before: similarities do not depend on labels.
        flipped = icl.FewShot(lm, template=template, shots=SHOTS).fit(rows, labels=task.labels)
        if flipped.predict([query])[0].answer == before.answer:
            continue
        why = flipped.why(query, answer=before.answer, words=False)
        assert [each.demonstration.example for each in why.demonstrations] == rows
        found = rows[-1] in [each.demonstration.example for each in why.most_harmful[:2]]
        its_doing = why.demonstrations[-1].left_out.answer == before.answer
        counts["changed"] += 1
        counts["found"] += found
        counts["its_doing"] += its_doing
        counts["its_doing_found"] += its_doing and found
    return counts


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.minilm
@pytest.mark.parametrize("name", sorted(QUERIES))
def test_the_flipped_demonstration_is_among_the_two_most_harmful(shared, name):
    """By chance it would be in a quarter of them. Where the answer changed and does not come back without the demonstration, nothing there
    is its doing: such answers hang on a hair, and its right label, which was there before, is absent with or without it."""
    folder = shared / "data" / name
    task = icl.Task.load(folder / "train.jsonl", test=folder / ("test.jsonl" if name == "trec" else "dev.jsonl"))
    task = replace(task, train=task.train[:256])
    lm = icl.load_model("smollm2", device="cpu", dtype="float32")
    counts = planted(task, "question_type" if name == "trec" else "sentiment", lm, QUERIES[name])
    print(json.dumps({"set": name, **counts}))
    assert counts["its_doing"] >= 5
    assert counts["its_doing_found"] >= 0.8 * counts["its_doing"]
