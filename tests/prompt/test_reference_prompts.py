"""The published reference prompts, byte for byte: captions, one word a label, blank lines between demonstrations."""

import hashlib
import json

import pytest

from icl.prompt import Template, bind
from icl.values import Example

CAPTIONS = {"sst2": ("Review", "Sentiment"), "cr": ("Review", "Sentiment"), "trec": ("Question", "Type")}
SOURCE = """---
description: caption form
input: [text]
---
{{% block example %}}{field}: {{{{ text }}}}
{caption}:{{% endblock %}}
{{% block answer %}} {{{{ answer }}}}{{% endblock %}}
"""


@pytest.mark.parametrize("name", CAPTIONS)
def test_prompts_are_the_reference_bytes(name, shared):
    rows = {
        split: [json.loads(line) for line in (shared / "data" / name / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "test")
    }
    items = [json.loads(line) for line in (shared / "design" / "smollm2_reference.jsonl").read_text("utf-8").splitlines()]
    items = [item for item in items if item["set"] == name]
    assert items
    field, caption = CAPTIONS[name]
    labels = sorted({row["label"] for split in rows.values() for row in split})
    words = {label: label.replace("_", " ") for label in labels}
    template = Template.parse(SOURCE.format(field=field, caption=caption), name)
    bound = bind(template, kind="classify", inputs=["text"], labels=labels, words=words)

    def example(split, i):
        row = rows[split][i]
        return Example(f"{split}-{i}", {"text": " ".join(row["text"].split()[:120])}, row["label"])

    for item in items:
        text = bound.plain([example("train", i) for i in item["train_rows"]], example("test", item["test_row"]))
        assert hashlib.sha256(text.encode()).hexdigest() == item["prompt_sha256"], item
    shown = [c for _, each in bound.continuations(example("test", 0)) for c in each]
    assert shown == [f" {words[label]}" for label in labels]
