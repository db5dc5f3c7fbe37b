"""`icl prompt` and `icl validate` with a template whose answer comes first."""

import json

SUITE = """\
models: []
tasks: [{name: food, train: reviews.csv, template: sentiment_channel}]
methods: [{few_shot: {readout: sum}}]
budgets: [8]
"""


def test_prompt_shows_the_longest_of_the_prompts_and_what_is_scored(icl_cli, reviews):
    args = ("prompt", "--template", "sentiment_channel", "--pool", reviews, "--shots", 1, "--retriever", "random", "Fine.")
    shown = icl_cli(*args)
    assert shown.code == 0, shown.err
    assert shown.out.startswith("Sentiment: ")
    assert shown.out.rstrip("\n").endswith("\n\nSentiment: negative")
    assert "scored behind it" in shown.err
    assert repr("\nReview: Fine.") in shown.err
    record = json.loads(icl_cli(*args, "--json").out)
    (demonstration,) = record["demonstrations"]
    assert record["text"].startswith(f"Sentiment: {demonstration['target']}\nReview: {demonstration['fields']['text']}\n\n")
    assert [m["role"] for m in record["messages"]] == ["user", "assistant", "user"]


def test_validate_names_the_readout_that_does_not_fit(icl_cli, reviews, tmp_path):
    (tmp_path / "food.yaml").write_text(SUITE)
    answer = icl_cli("validate", "food.yaml")
    assert answer.code == 2
    assert "a template with 'channel: true' has no other read-out" in answer.out + answer.err
    assert "methods.0.few_shot.readout" in answer.out + answer.err
