"""The default model, trained with its prompt on the packaged support messages."""

from pathlib import Path

import pytest

import icl
from icl import load_model, plugins
from icl.data import draw
from icl.protocols import MethodContext

DATA = Path(__file__).resolve().parents[2] / "eval_suites" / "data"


@pytest.mark.slow
@pytest.mark.smollm2
def test_64_labels_of_eight_queues_beat_the_prompt_alone(tmp_path):
    task = icl.Task.load(DATA / "support_train.jsonl", test=DATA / "support_test.jsonl", id="id", input="text", label="queue")
    items = task.test[:64]
    lm = load_model("smollm2", device="cpu")
    context = MethodContext("classify", task.inputs, task.labels, lm=lm, template="support_intent")
    zero = plugins.build("method", "zero_shot", context).fit([], task.labels)
    tuned = plugins.build("method", {"finetune": {"kind": "lora", "epochs": 5}}, context).fit(
        draw(task.train, 64, labels=task.labels, seed=0), task.labels
    )
    before, after = (sum(p.answer == e.target for p, e in zip(each.predict(items), items, strict=True)) for each in (zero, tuned))
    assert after >= before + 10
    tuned.save(tmp_path / "saved")
    assert sum(path.stat().st_size for path in (tmp_path / "saved").rglob("*") if path.is_file()) < 25e6
    again = icl.load(tmp_path / "saved", lm=lm).predict(items[:4])
    assert [p.probabilities for p in again] == [p.probabilities for p in tuned.predict(items[:4])]
