"""Agreement with reference scores that a script independent of this project computed."""

import hashlib
import json
import random

import pytest

import icl

FIELDS = {"sst2": ("Review", "Sentiment"), "cr": ("Review", "Sentiment"), "trec": ("Question", "Type")}


@pytest.fixture(scope="module")
def lm():
    return icl.load_model("smollm2", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reference(shared):
    lines = (shared / "design" / "smollm2_reference.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {}
    for name in FIELDS:
        for split in ("train", "test"):
            text = (shared / "data" / name / f"{split}.jsonl").read_text(encoding="utf-8")
            rows[name, split] = [json.loads(line) for line in text.split("\n") if line]
    return [json.loads(line) for line in lines], rows


def prompt_of(line, rows):
    field, caption = FIELDS[line["set"]]
    words = {"0": "negative", "1": "positive"}

    def query(row):
        text = " ".join(str(row["text"]).split()[:120])
        return f"{field}: {text}\n{caption}:"

    def solved(row):
        label = words.get(str(row["label"]), str(row["label"])).replace("_", " ")
        return f"{query(row)} {label}\n\n"

    shots = "".join(solved(rows[line["set"], "train"][i]) for i in line["train_rows"])
    return shots + query(rows[line["set"], "test"][line["test_row"]])


def check(lm, lines, rows):
    prompts = [prompt_of(line, rows) for line in lines]
    assert [hashlib.sha256(p.encode()).hexdigest() for p in prompts] == [line["prompt_sha256"] for line in lines]
    assert [lm.codec.plain(p).n_tokens for p in prompts] == [line["n_tokens"] for line in lines]
    found = lm.loglikelihoods(prompts, [[f" {label}" for label in line["labels"]] for line in lines])
    worst = max(abs(a - b) for sums, line in zip(found, lines, strict=True) for a, b in zip(sums, line["sums"], strict=True))
    assert worst <= 2e-3
    for sums, line in zip(found, lines, strict=True):
        margin = sorted(line["sums"])[-1] - sorted(line["sums"])[-2]
        if margin > 1e-4:  # the reference is rounded to four digits
            assert sums.index(max(sums)) == line["sums"].index(max(line["sums"]))


@pytest.mark.smollm2
def test_a_sample_of_the_reference_scores(lm, reference):
    lines, rows = reference
    check(lm, random.Random(0).sample(lines, 60), rows)


@pytest.mark.smollm2
@pytest.mark.slow
def test_all_reference_scores(lm, reference):
    lines, rows = reference
    assert len(lines) == 1350
    check(lm, lines, rows)
