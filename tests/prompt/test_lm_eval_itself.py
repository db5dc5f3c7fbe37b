"""Imported tasks beside lm-evaluation-harness itself: its own task files, made-up rows, tiny models; the same choice for every item.

Needs `pip install lm_eval` (0.4.9 or newer) in the environment of the tests; it is none of icl's own dependencies.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml

from icl.evaluate import load_suite
from icl.evaluate.prepare import prepare
from icl.prompt.importers import lm_eval as importer
from icl.prompt.importers import write

lm_eval = pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow

ROWS = 12
WORDS = "tea river the a red old stone why does sing bird on under glass 7 12 seldom Ann Paris it's quick. moon, ten".split()  # noqa: SIM905

# Task file below lm_eval/tasks -> columns of its rows. A text is that many words; ("place", n): the number of a choice.
TEXT, LONG = 4, 15
TASKS = {
    "piqa/piqa.yaml": {"goal": TEXT, "sol1": TEXT, "sol2": TEXT, "label": ("place", 2)},
    "arc/arc_easy.yaml": {"question": TEXT, "choices": ("lettered", 4), "answerKey": ("letter", 4)},
    "openbookqa/openbookqa.yaml": {"question_stem": TEXT, "choices": ("lettered", 4), "answerKey": ("letter", 4)},
    "super_glue/boolq/default.yaml": {"passage": LONG, "question": TEXT, "label": ("place", 2)},
    "super_glue/rte/default.yaml": {"premise": LONG, "hypothesis": TEXT, "label": ("place", 2)},
    "super_glue/wic/default.yaml": {"sentence1": LONG, "sentence2": LONG, "start1": ("place", 4), "end1": ("place", 9), "label": ("place", 2)},
    "glue/sst2/default.yaml": {"sentence": LONG, "label": ("place", 2)},
    "glue/cola/default.yaml": {"sentence": TEXT, "label": ("place", 2)},
    "glue/mrpc/default.yaml": {"sentence1": LONG, "sentence2": LONG, "label": ("place", 2)},
    "glue/qqp/default.yaml": {"question1": LONG, "question2": LONG, "label": ("place", 2)},
    "glue/qnli/default.yaml": {"question": TEXT, "sentence": LONG, "label": ("place", 2)},
    "glue/wnli/default.yaml": {"sentence1": LONG, "sentence2": TEXT, "label": ("place", 2)},
    "sciq/sciq.yaml": {"support": LONG, "question": TEXT, "distractor1": 1, "distractor2": 2, "distractor3": 3, "correct_answer": 2},
    "swag/swag.yaml": {"startphrase": LONG, "ending0": TEXT, "ending1": TEXT, "ending2": TEXT, "ending3": TEXT, "label": ("place", 4)},
    "anli/anli_r1.yaml": {"premise": LONG, "hypothesis": TEXT, "label": ("place", 3)},
    "commonsense_qa/default.yaml": {"question": TEXT, "choices": ("lettered", 5), "answerKey": ("letter", 5)},
    "siqa/siqa.yaml": {"context": LONG, "question": TEXT, "answerA": TEXT, "answerB": 2, "answerC": 1, "label": ("digit", 3)},
    "truthfulqa/truthfulqa_mc1.yaml": {"question": TEXT, "mc1_targets": ("lettered targets", 4)},
    "mmlu/default/mmlu_astronomy.yaml": {"question": TEXT, "choices": ("texts", 4), "answer": ("place", 4)},
    "blimp/adjunct_island.yaml": {"sentence_good": TEXT, "sentence_bad": TEXT},
    "xnli/xnli_en.yaml": {"premise": LONG, "hypothesis": TEXT, "label": ("place", 3)},
    "belebele/belebele_eng_Latn.yaml": {
        "flores_passage": LONG, "question": TEXT, **{f"mc_answer{i}": 2 for i in range(1, 5)}, "correct_answer_num": ("digit", 4),
    },
    "headqa/headqa_en.yaml": {"qtext": TEXT, "answers": ("headed", 4), "ra": ("number", 4)},
    "hendrycks_ethics/commonsense.yaml": {"input": LONG, "label": ("place", 2)},
    "mc_taco/default.yaml": {"sentence": LONG, "question": TEXT, "answer": TEXT, "label": ("place", 2)},
    "winogender/winogender.yaml": {"sentence": LONG, "pronoun": 1, "occupation": 1, "participant": 1, "label": ("place", 2)},
}  # fmt: skip
MODELS = {"gpt2": False, "llama": True}
"""Architecture -> whether its tokenizer puts a first token before every text."""


def _value(rng, kind):
    def text(n):
        return " ".join(rng.choice(WORDS) for _ in range(n))

    if isinstance(kind, int):
        return text(kind)
    what, n = kind
    place = rng.randrange(n)
    texts = [text(rng.randint(1, 3)) + f" {i}" for i in range(n)]
    return {
        "place": place, "letter": "ABCDEFGHI"[place], "digit": str(place + 1), "number": place + 1, "texts": texts,
        "lettered": {"text": texts, "label": list("ABCDE"[:n])},
        "lettered targets": {"choices": texts, "labels": [1] + [0] * (n - 1)},
        "headed": [{"aid": i + 1, "atext": each} for i, each in enumerate(texts)],
    }[what]  # fmt: skip


def made_up(file):
    rng = random.Random(file)
    return [{"n": i, **{name: _value(rng, kind) for name, kind in TASKS[file].items()}} for i in range(2 * ROWS)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(name -> (its prepared data and method, its rows), a task manager that knows the same tasks on the same rows)."""
    from lm_eval.tasks import TaskManager

    tmp_path = tmp_path_factory.mktemp("harness")
    home = Path(lm_eval.__file__).parent / "tasks"
    found, refused = importer.read([home / file for file in TASKS])
    assert refused == []
    encoder = tiny.save_bert(tmp_path / "encoder", ["one", "two"], sentence=True)
    (tmp_path / "theirs").mkdir()
    ours = {}
    for file, suite, made in zip(TASKS, write(found, tmp_path / "ours"), found, strict=True):
        rows = made_up(file)
        paths = {}
        for split, part in (("train", rows[ROWS:]), ("test", rows[:ROWS])):
            paths[split] = tmp_path / "rows" / made.name / f"{split}.jsonl"
            paths[split].parent.mkdir(parents=True, exist_ok=True)
            paths[split].write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        stated = yaml.safe_load(suite.read_text(encoding="utf-8"))
        test = stated["tasks"][0]["test"].rpartition(":")[2]
        stated["tasks"][0] |= {"train": str(paths["train"]), "test": str(paths["test"])}
        stated["encoder"] = str(encoder)
        suite.write_text(yaml.safe_dump(stated), encoding="utf-8")
        splits = {split: str(paths["train"]) for split in ("train", "validation", "dev", "train_r1", "dev_r1")} | {test: str(paths["test"])}
        theirs = {
            "include": str(home / file), "task": f"made-up-{made.name}", "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": splits},
        }  # fmt: skip
        (tmp_path / "theirs" / f"{made.name}.yaml").write_text(yaml.safe_dump(theirs), encoding="utf-8")
        prepared = prepare(load_suite(suite))
        ours[made.name] = prepared, rows[:ROWS]
    return ours, TaskManager(include_path=str(tmp_path / "theirs"), include_defaults=False)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_choices_and_likelihoods_as_the_harness(name, world, monkeypatch, tmp_path):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    ours, tasks = world
    assert len(ours) >= 20
    bos = MODELS[name]
    theirs = HFLM(pretrained=tiny.model(name), tokenizer=tiny.tokenizer(bos=bos), add_bos_token=bos, device="cpu", batch_size=8)
    results = simple_evaluate(theirs, tasks=[f"made-up-{each}" for each in ours], task_manager=tasks, bootstrap_iters=0, log_samples=True)
    lm = tiny.lm(name, bos=bos)
    for each, (prepared, rows) in ours.items():
        (data,) = prepared.tasks.values()
        (cell,) = prepared.cells
        predictor = prepared.build(cell, lm).fit([], labels=(), inputs=data.task.inputs)
        samples = {sample["doc"]["n"]: sample for sample in results["samples"][f"made-up-{each}"]}
        assert len(data.test) == len(samples) == len(rows) == ROWS
        for row, item, prediction in zip(rows, data.test, predictor.predict(data.test), strict=True):
            sample = samples[row["n"]]
            sums = np.array([float(one[0]) for one in sample["filtered_resps"]])
            assert sums.size == len(item.choices)
            gold = str(sample["target"])
            assert (item.choices[int(gold)] if gold.isdigit() else gold) == item.target
            assert prediction.answer == item.choices[int(np.argmax(sums))], (each, row)
            texts = [texts[0] for _, texts in predictor.bound.continuations(item, "plain")]
            (mine,) = lm.loglikelihoods([predictor.prompt(item)], [texts])
            np.testing.assert_allclose(mine, sums, atol=2e-3, err_msg=each)
