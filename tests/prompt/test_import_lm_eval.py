"""Task files of lm-evaluation-harness: what is taken asks and answers as the harness does, what is not says why."""

import ast
import json

import jinja2
import numpy as np
import pytest
import tiny
import yaml

import icl
from icl.cli import main
from icl.errors import InputError
from icl.evaluate import load_suite
from icl.evaluate.prepare import prepare
from icl.plugins import Context, build
from icl.prompt.importers import lm_eval, reasons, write

# Made-up tasks, written as the harness's own are; the first of each pair of rows is the row to learn from.
TASKS = {
    "pair": (
        {"doc_to_text": "Question: {{goal}}\nAnswer:", "doc_to_target": "label", "doc_to_choice": "{{[sol1, sol2]}}"},
        [{"goal": f"open a jar {i}", "sol1": "turn it", "sol2": "sing", "label": i % 2} for i in range(6)],
    ),
    "nested": (
        {
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{choices.label.index(answerKey)}}",
            "doc_to_choice": "{{choices.text}}",
        },
        [
            {"question": f"which is red {i}", "choices": {"text": ["grass", "blood", "snow"], "label": ["A", "B", "C"]}, "answerKey": "ABC"[i % 3]}
            for i in range(6)
        ],
    ),
    "letters": (
        {
            "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nAnswer:",
            "doc_to_target": "answer",
            "doc_to_choice": ["A", "B"],
            "description": "The following are questions (with answers).\n\n",
        },
        [{"question": f" what is {i} ", "choices": ["one", "two"], "answer": i % 2} for i in range(6)],
    ),
    "text target": (
        {"doc_to_text": "{{premise}} Question: {{hypothesis}} True or False?\nAnswer:", "doc_to_target": "{{['True', 'False'][label]}}", "doc_to_choice": ["True", "False"]},
        [{"premise": f"It rains {i}.", "hypothesis": "It is wet.", "label": i % 2} for i in range(6)],
    ),
    "digits": (
        {"doc_to_text": "{{q}}", "doc_to_target": "{{answer-1}}", "doc_to_choice": "{{options}}", "target_delimiter": ""},
        [{"q": f"say {i}", "answer": 1 + i % 3, "options": ["x", "yy", "zzz"]} for i in range(6)],
    ),
    "nothing before": (
        {"doc_to_text": "", "doc_to_target": 0, "doc_to_choice": "{{[good, bad]}}"},
        [{"good": f"the cats sleep {i}", "bad": f"the cats sleeps {i}"} for i in range(6)],
    ),
    "a column": (
        {"doc_to_text": "prompt", "doc_to_target": "target", "doc_to_choice": "classes", "fewshot_delimiter": "\n"},
        [{"prompt": f"p {i}:", "target": ["no", "yes"][i % 2], "classes": ["no", "yes"]} for i in range(6)],
    ),
    "true and false": (
        {"doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:", "doc_to_target": "label", "doc_to_choice": ["no", "yes"]},
        [{"passage": f"Tea {i} is hot.", "question": "is tea hot", "label": bool(i % 2)} for i in range(6)],
    ),
    "conditions": (
        {
            "doc_to_text": "{% if title %}[{{title}}] {% endif %}{{ sentences | join(' ') }}",
            "doc_to_target": "{{ 0 if verdict == 'SI' else 1 }}",
            "doc_to_choice": "{{ [ending_a, ending_b] }}",
        },
        [{"title": ["", "T"][i % 2], "sentences": [f"one {i}.", "two."], "verdict": ["SI", "NO"][i % 2], "ending_a": "fin", "ending_b": "end"} for i in range(6)],
    ),
    "shots": (
        {"doc_to_text": "Q: {{q}}\nA:", "doc_to_target": "{{a}}", "doc_to_choice": {"0": "red", "1": "blue"}, "num_fewshot": 2, "description": "Colours.\n\n"},
        [{"q": f"colour {i}", "a": ["red", "blue"][i % 2]} for i in range(6)],
    ),
}  # fmt: skip


def harness(task, row):
    """(context, continuations, place of the right one): lm_eval/api/task.py, `doc_to_text`, `doc_to_choice`, `doc_to_target` and
    `construct_requests`, for tasks of its output type multiple_choice."""
    env = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

    def apply(template):
        return env.from_string(template).render(**row)

    choices = task["doc_to_choice"]
    if isinstance(choices, str):
        choices = row[choices] if choices in row else ast.literal_eval(apply(choices))
    choices = list(choices.values()) if isinstance(choices, dict) else choices
    target = task["doc_to_target"]
    if isinstance(target, str):
        if target in row:
            target = row[target]
        else:
            target = apply(target)
            target = ast.literal_eval(target) if target.isdigit() else target
    text = row[task["doc_to_text"]] if task["doc_to_text"] in row else apply(task["doc_to_text"])
    return (
        text,
        [task.get("target_delimiter", " ") + choice for choice in choices],
        choices.index(target) if isinstance(target, str) else int(target),
    )


def imported(tmp_path, name, **more):
    """The suite of a task on made-up rows, written, read again and loaded."""
    task, rows = TASKS[name]
    key = name.replace(" ", "_")
    config = {
        "task": key,
        "dataset_path": f"someone/{key}",
        "output_type": "multiple_choice",
        "test_split": "test",
        "training_split": "train",
        **task,
        **more,
    }
    (tmp_path / "tasks").mkdir(exist_ok=True)
    (tmp_path / "tasks" / f"{key}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    found, refused = lm_eval.read([tmp_path / "tasks" / f"{key}.yaml"])
    assert refused == []
    (suite,) = write(found, tmp_path / "ours")
    folder = tmp_path / "data" / key
    folder.mkdir(parents=True)
    for split, part in (("train", rows[:3]), ("test", rows[3:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    encoder = tiny.save_bert(tmp_path / "encoder", ["one", "two"], sentence=True)
    return config, rows, load_suite(suite, overrides={"encoder": str(encoder)})


@pytest.mark.parametrize("name", TASKS)
def test_prompts_continuations_and_answers_are_the_harnesss(name, tmp_path):
    config, rows, loaded = imported(tmp_path, name)
    prepared = prepare(loaded, data_root=tmp_path / "data")
    (data,) = prepared.tasks.values()
    assert data.task.rejected == ()
    assert len(data.test) == 3
    template = icl.Template.load(tmp_path / "ours" / "templates" / f"{config['task']}.jinja")
    shots = int(config.get("num_fewshot", 0))
    predictor = icl.FewShot(None, template=template, retriever="random", shots=shots, format="plain", kind="choose").fit(
        data.task.train, inputs=data.task.inputs
    )
    for row, item in zip(rows[3:], data.test, strict=True):
        text, continuations, gold = harness(config, row)
        prompt = predictor.prompt(item)
        shown = [harness(config, rows[[e.uid for e in data.task.train].index(d.uid)]) for d in prompt.demonstrations]
        assert len(shown) == shots
        separator = config.get("fewshot_delimiter", "\n\n")
        context = config.get("description", "") + "".join(t + c[g] + separator for t, c, g in shown) + text
        assert prompt.text == context
        ours = predictor.bound.continuations(item, "plain")
        assert [texts[0] for _, texts in ours] == continuations
        assert item.choices.index(item.target) == gold


@pytest.mark.parametrize("name", ["pair", "nothing before", "digits"])
def test_a_tiny_model_chooses_what_the_harness_would(name, tmp_path):
    """The largest sum of log-likelihoods, and with acc_norm that by the length of the choice."""
    config, rows, loaded = imported(tmp_path, name, metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}])
    prepared = prepare(loaded, data_root=tmp_path / "data")
    (data,) = prepared.tasks.values()
    assert prepared.loaded.methods[0].spec.settings["readout"] == ["sum", "per_char"]
    lm = tiny.lm(bos=True)
    (cell,) = prepared.cells
    got = prepared.build(cell, lm).fit([], labels=()).predict(data.test)
    for row, item, prediction in zip(rows[3:], data.test, got, strict=True):
        text, continuations, _ = harness(config, row)
        (sums,) = lm.loglikelihoods([text], [continuations])
        assert prediction.answer == item.choices[int(np.argmax(sums))]


def test_what_is_not_taken_says_why(tmp_path):
    base = {
        "dataset_path": "a/b",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": 0,
        "doc_to_choice": ["a", "b"],
    }
    cases = {
        "fine": ({}, None),
        "python": ({"process_docs": "FUNCTION"}, "calls Python"),
        "rolls": ({"output_type": "loglikelihood_rolling"}, "loglikelihood_rolling"),
        "generates-choices": ({"output_type": "generate_until"}, "have choices too"),
        "loader": ({"dataset_kwargs": {"data_files": "x.json"}}, "dataset_kwargs"),
        "trusted": ({"dataset_kwargs": {"trust_remote_code": True}}, None),
        "no-split": ({"test_split": None}, "no split"),
        "image": ({"doc_to_image": "image"}, "doc_to_image"),
        "context": ({"doc_to_text": "{{ 0 }}"}, "before the question"),
        "python-text": ({"doc_to_choice": "['{{a}}', '{{b}}']"}, "Python reads"),
        "forbidden": ({"doc_to_target": "{{ q.__class__ }}"}, "not allowed"),
        "description": ({"description": "Hello.", "num_fewshot": 3}, "description"),
        "gone": ({"include": "nowhere.yaml"}, "missing"),
    }
    paths = []
    for name, (more, _) in cases.items():
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(
            yaml.safe_dump({"task": name, **base, **more}).replace("FUNCTION", "!function utils.process"), encoding="utf-8"
        )
    (tmp_path / "group.yaml").write_text("group: g\ntask: [fine]\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("task: [\n", encoding="utf-8")
    (tmp_path / "loop.yaml").write_text("task: loop\ninclude: loop.yaml\n", encoding="utf-8")
    found, refused = lm_eval.read([*paths, *(tmp_path / f"{name}.yaml" for name in ("group", "broken", "loop"))])
    assert {each.name for each in found} == {name for name, (_, why) in cases.items() if why is None}
    said = {each.name: each.reason for each in refused}
    assert set(said) == {name for name, (_, why) in cases.items() if why} | {"broken", "loop"}
    for name, (_, why) in cases.items():
        assert why is None or why in said[name]
    assert sum(reasons(refused).values()) == len(refused)
    assert len(write(found, tmp_path / "to")) == len(found)
    with pytest.raises(InputError, match="there already"):
        write(found, tmp_path / "to")


WRITTEN = {
    # name -> (keys of the task, a row, the references, (text written, what is read, value) of each)
    "sums": (
        {
            "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}", "generation_kwargs": {"until": ["Question:", "</s>"], "max_gen_toks": 32},
            "metric_list": [{"metric": "exact_match", "ignore_case": True, "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}],
            "filter_list": [
                {"name": "strict", "filter": [{"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, {"function": "take_first"}]},
                {"name": "loose", "filter": [{"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, {"function": "take_first"}]},
            ],
        },
        {"question": "How much is 1,000 + 1?", "answer": "One more.\n#### 1,001"}, ["One more.\n#### 1,001"],
        [(" So\n#### 1001.\n\nQuestion: 2?", "1001.", 1.0), (" #### 7", "7", 0.0), (" It is 1001", None, None)],
    ),
    "questions": (
        {
            "doc_to_text": "Question: {{question}}?\nAnswer:", "doc_to_target": "{{answer.aliases}}", "generation_kwargs": {"until": ["\n", "."]},
            "metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}],
            "filter_list": [{"name": "remove_whitespace", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        },
        {"question": "who", "answer": {"aliases": ["Ann Lee", "A. Lee"]}}, ["Ann Lee", "A. Lee"],
        [(" a lee\nmore", "a lee", 1.0), (" ann-lee", "ann-lee", 0.0)],
    ),
    "lines": (
        {
            "doc_to_text": "q", "doc_to_target": "n", "generation_kwargs": {"until": "Q:"}, "fewshot_delimiter": "\n",
            "filter_list": [{"name": "end", "filter": [{"function": "regex", "regex_pattern": "[0-9]+$"}]}],
        },
        {"q": "Say 12", "n": 12}, ["12"], [("3\n12", "12", 1.0), ("12\n3", "3", 0.0)],
    ),
    "number-asked": ({"doc_to_text": "n", "doc_to_target": 7}, {"n": 12}, ["7"], [(" 7", "7", 1.0), (" 12", "12", 0.0)]),
    "number-stated": ({"doc_to_text": 12, "doc_to_target": "7"}, {"n": 1}, ["7"], [(" 7", "7", 1.0)]),
    "number-shown": ({"doc_to_text": "{{ 12 }}", "doc_to_target": "{{ n }}"}, {"n": 7}, ["7"], [(" 7", "7", 1.0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_are_read_and_judged_as_in_the_harness(name, tmp_path):
    task, row, references, cases = WRITTEN[name]
    TASKS[name] = (task, [{**row, "i": i} for i in range(6)])
    try:
        config, _, loaded = imported(tmp_path, name, output_type="generate_until")
    finally:
        del TASKS[name]
    (data,) = prepare(loaded, data_root=tmp_path / "data").tasks.values()
    item = data.test[0]
    assert list(item.references or (item.target,)) == references
    template = icl.Template.load(tmp_path / "ours" / "templates" / f"{name}.jinja")
    predictor = icl.FewShot(None, template=template, shots=0, format="plain", retriever="random").fit([], inputs=data.task.inputs)
    text = str(config["doc_to_text"])
    assert predictor.prompt(item).text == (str(row[text]) if text in row else jinja2.Template(text).render(**row))
    (stated,) = yaml.safe_load((tmp_path / "ours" / f"{name}.yaml").read_text(encoding="utf-8"))["metrics"]
    metric = build("metric", stated, Context())
    for written, answer, value in cases:
        found = predictor.read(item, written)
        assert found.answer == answer
        if value is None:
            assert found.why
        else:
            assert metric([found], [item]).tolist() == [value]


def test_which_written_answers_are_not_taken(tmp_path):
    base = {"dataset_path": "d", "output_type": "generate_until", "test_split": "test", "doc_to_text": "{{q}}", "doc_to_target": "a"}
    last = {"function": "regex", "group_select": -1, "regex_pattern": "[0-9]+"}
    cases = {
        "fine": ({}, None),
        "translation": ({"metric_list": [{"metric": "bleu"}, {"metric": "chrf"}, {"metric": "bert"}]}, None),
        "last": ({"filter_list": [{"name": "a", "filter": [last]}]}, "its filters"),
        "two-groups": ({"filter_list": [{"name": "a", "filter": [{"function": "regex", "regex_pattern": "(a)|(b)"}]}]}, "its filters"),
        "vote": ({"filter_list": [{"name": "a", "filter": [{"function": "majority_vote"}]}]}, "its filters"),
        "no-text": ({"doc_to_text": " "}, "its text is"),
        "list-text": ({"doc_to_text": ["q"]}, "its text is"),
        "no-answer": ({"doc_to_target": ""}, "its answer "),
        "own-metric": ({"metric_list": [{"metric": "bert"}]}, "none of its metrics"),
        "flags": ({"filter_list": [{"name": "a", "filter": [{"function": "regex", "regex_pattern": "(?i)^the answer is (.*)"}]}]}, None),
    }
    for name, (more, _) in cases.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**base, "task": name, **more}), encoding="utf-8")
    found, refused = lm_eval.read(sorted(tmp_path.glob("*.yaml")))
    assert {each.name for each in found} == {name for name, (_, why) in cases.items() if why is None}
    assert {each.name: each.reason[:11] for each in refused} == {name: why[:11] for name, (_, why) in cases.items() if why}
    made = {each.name: each for each in found}
    assert made["translation"].suite["metrics"] == ["bleu", "chrf"]
    assert "Its metric bert is not known here." in made["translation"].notes
    assert "extract: (?i)(?-m:^the answer is (.*))" in made["flags"].template


def test_a_file_that_is_included_gives_what_is_not_said_again(tmp_path):
    (tmp_path / "_base.yaml").write_text(
        "dataset_path: a/b\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{q}}'\ndoc_to_choice: [a, b]\ndoc_to_target: 1\n",
        encoding="utf-8",
    )
    (tmp_path / "t.yaml").write_text("include: _base.yaml\ntask: t\ndataset_name: sub\n", encoding="utf-8")
    (found,), refused = lm_eval.read([tmp_path / "t.yaml", tmp_path / "_base.yaml"])
    assert refused == []
    assert found.suite["tasks"][0]["test"] == "hf:a/b/sub:test"


PLAIN = {
    "dataset_path": "d", "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{q}}", "doc_to_target": 0,
    "doc_to_choice": ["a", "b"],
}  # fmt: skip
BOMB = "task: t\na0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("task: t\nnum_fewshot: many\n", "a key of it has a value of another kind"),
        ("task: t\nmetric_list: 5\n", "a key of it has a value of another kind"),
        ("task: t\ndataset_kwargs: [1]\n", "a key of it has a value of another kind"),
        ("task: t\ninclude: 5\n", "a key of it has a value of another kind"),
        ("task: t\nwhen: 2024-13-45\n", "the file cannot be read"),
        ("task: t\na: &a [*a]\n", "the file cannot be read"),
        (BOMB, "the file cannot be read"),
    ],
)
def test_one_bad_file_is_refused_and_the_others_are_taken(more, reason, tmp_path):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(PLAIN) + more, encoding="utf-8")
    (tmp_path / "good.yaml").write_text(yaml.safe_dump({**PLAIN, "task": "good", "include": None}), encoding="utf-8")
    found, refused = lm_eval.read([tmp_path / "bad.yaml", tmp_path / "good.yaml"])
    assert [each.name for each in found] == ["good"]
    assert [each.reason for each in refused] == [reason]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "group: g\ntask: [a, b]\n"])
def test_files_without_a_task_are_not_passed_over_in_silence(text, tmp_path, capsys):
    (tmp_path / "g.yaml").write_text(text, encoding="utf-8")
    for where in (tmp_path / "g.yaml", tmp_path):
        assert main(["import", "lm-eval", str(where), "--to", str(tmp_path / "to")]) == 2
        assert "no task or template of others is here" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_tasks_of_one_name_do_not_write_over_each_other(tmp_path):
    for n, name in enumerate(["same", "same", "Same", "a b", "a-b", "../b"]):
        (tmp_path / f"{n}.yaml").write_text(yaml.safe_dump({**PLAIN, "task": name, "dataset_path": f"d{n}"}), encoding="utf-8")
    found, _ = lm_eval.read(sorted(tmp_path.glob("*.yaml")))
    paths = write(found, tmp_path / "to")
    assert [path.stem for path in paths] == ["same", "same-2", "Same-3", "a-b", "a-b-2", "b"]  # none is hidden
    assert [yaml.safe_load(path.read_text())["tasks"][0]["train"] for path in paths] == [f"hf:d{n}:test" for n in range(6)]
