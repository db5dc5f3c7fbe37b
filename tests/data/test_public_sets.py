"""Every public data set of the collection loads, and every row is used or rejected."""

import json

import pytest

from icl.data import Task, draw

PAIR = {"input": ["text_a", "text_b"]}
CHOOSE = {"input": "question", "choices": "choices"}
ANSWER = {"input": "question", "label": "answer"}
TASKS = ANSWER | {"input": {"instruction": "task", "text": "question"}}
WRITE = {"input": "source", "label": "target", "references": "targets"}
TRANSLATE = {"input": "source", "label": "target", "kind": "answer"}
CODE = {"input": "prompt", "label": "canonical_solution", "kind": "answer", "id": "task_id"}
ARGUMENTS = {
    "addsub": ANSWER,
    "agnews": {},
    "agnews_desc": {},
    "aqua": CHOOSE,
    "arc_challenge": CHOOSE,
    "atis": {},
    "banking77": {},
    "bbh": TASKS,
    "boolq": PAIR,
    "cb": PAIR,
    "clinc150": {},
    "coin_flip": {},
    "commongen": WRITE,
    "commonsense_qa": CHOOSE,
    "copa": CHOOSE | {"input": ["context", "question"]},
    "cr": {},
    "dbpedia": {},
    "dialogsum": WRITE,
    "e2e_nlg": WRITE,
    "flores_en_de": TRANSLATE,
    "flores_en_fr": TRANSLATE,
    "flores_en_zh": TRANSLATE,
    "freebaseqa": ANSWER,
    "gsm8k": ANSWER | {"rationale": "rationale"},
    "hellaswag": CHOOSE,
    "humaneval": CODE,
    "imdb": {},
    "instruction_induction": TASKS,
    "last_letters": ANSWER,
    "mbpp": CODE,
    "mmlu": CHOOSE,
    "mnli": PAIR,
    "mpqa": {},
    "mr": {},
    "multi30k_en_de": TRANSLATE,
    "multi30k_en_fr": TRANSLATE,
    "multiarith": ANSWER,
    "nq_open": ANSWER,
    "openbookqa": CHOOSE,
    "piqa": CHOOSE,
    "qnli": PAIR,
    "rte": PAIR,
    "singleeq": ANSWER,
    "snli": PAIR,
    "squad": ANSWER | {"input": ["context", "question"]},
    "sst2": {},
    "sst5": {},
    "strategyqa": {"rationale": "rationale"},
    "svamp": ANSWER,
    "trec": {"label": "label_fine"},
    "web_questions": ANSWER,
    "webnlg": WRITE,
    "wic": PAIR | {"input": ["word", "text_a", "text_b"]},
    "wmt22_en_de": WRITE,
    "wmt22_en_zh": WRITE,
    "wmt22_zh_en": WRITE,
    "xsum": TRANSLATE,
    "yelp2": {},
    "yelp5": {},
}


def test_every_set_has_its_arguments(shared):
    assert {p.name for p in (shared / "data").iterdir() if p.is_dir()} == set(ARGUMENTS)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_it_loads_whole(shared, name):
    paths = {split: path for split in ("train", "dev", "test") if (path := shared / "data" / name / f"{split}.jsonl").exists()}
    n_lines = {split: path.read_bytes().count(b"\n") for split, path in paths.items()}
    sources = dict(paths)
    train = sources.pop("train", None) or sources.pop("dev", None) or sources.pop("test")
    task = Task.load(train, **sources, **ARGUMENTS[name])
    assert sum(task.n_rows.values()) == sum(n_lines.values())
    assert len(task.train) + len(task.dev) + len(task.test) + len(task.rejected) == sum(n_lines.values())
    assert not task.rejected
    assert task.train
    assert task.test
    for split in (task.train, task.dev, task.test):
        assert len({e.uid for e in split}) == len(split)
    written = [json.loads(line) for line in train.read_text(encoding="utf-8").split("\n") if line]
    if task.kind == "choose":
        first = written[0]
        example = next(e for e in (*task.train, *task.test) if list(e.choices) == first["choices"])
        assert example.target == first["answer"][0]
    elif task.kind == "classify":
        assert {row[ARGUMENTS[name].get("label", "label")] for row in written} <= set(task.labels)
    assert len(draw(task.train, 16, labels=task.labels)) == 16
