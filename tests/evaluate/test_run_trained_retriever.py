"""A trained retriever in a suite: beside others on equal terms, its prompts counted, shipped with its encoder, the same when resumed."""

import json
import random

import pytest
import tiny

import icl
from icl.evaluate import loading
from icl.ship import check

EPR = {"name": "epr", "few_shot": {"retriever": [{"epr": {"queries": 10, "candidates": 3, "epochs": 1}}], "shots": 2}}
KNN = {"name": "knn", "few_shot": {"retriever": [{"knn": {"encoder": "mine"}}], "shots": 2}}


def rows(n, seed):
    rng = random.Random(seed)
    words = ["film", "cup", "oil", "team", "plot", "share", "joke", "goal"]
    return [{"text": f"{' '.join(rng.sample(words, 4))} {seed} {i}", "label": rng.choice(["sports", "business"])} for i in range(n)]


@pytest.fixture
def suite_file(tmp_path, encoder_folder):
    """A suite with an encoder beside it, named by a stage."""
    tiny.save(tmp_path / "tiny", "llama")
    for name, n, seed in (("train", 24, 1), ("test", 36, 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(n, seed)))
    (tmp_path / "mine").symlink_to(encoder_folder)
    suite = {
        "encoder": "mine",
        "models": ["tiny"],
        "tasks": [{"name": "news", "train": "train.jsonl", "test": "test.jsonl"}],
        "methods": [EPR, KNN],
        "budgets": [20],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    return tmp_path / "suite.yaml"


@pytest.fixture
def encoder_folder(tmp_path):
    """A random sentence-transformers model that reads characters."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval().save_pretrained(tmp_path / "bert")
    words = Transformer(str(tmp_path / "bert"), max_seq_length=64)
    SentenceTransformer(modules=[words, Pooling(16), Normalize()], device="cpu").save(str(tmp_path / "st"))
    return tmp_path / "st"


def test_a_suite_trains_a_retriever_on_each_pool(suite_file, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    run = icl.run(suite_file, tmp_path / "out")
    assert run.exit_code == 0
    cells = {cell["method"]: cell for cell in run.document["cells"]}
    assert cells["epr"]["tokens_naive"] > cells["knn"]["tokens_naive"] * 1.3, "training is part of the cost"
    assert len(run.document["manifest"]["encoders"]) == 1, "one encoder under one name"
    saved = tmp_path / "out" / cells["epr"]["predictor"]
    assert len([*(saved / "learned").rglob("*.safetensors")]) == 1
    assert check(saved) == [], "it answers the same without training"

    real, calls = loop_predict(), []

    def stop(predictor, queries, cell):
        calls.append(cell.method)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(predictor, queries, cell)

    with monkeypatch.context() as patch:
        patch.setattr("icl.evaluate.guarded.predict", stop)
        icl.run(suite_file, tmp_path / "resumed")
    assert len(calls) == 2
    assert not (tmp_path / "resumed" / "results.json").exists()
    icl.run(suite_file, tmp_path / "resumed")
    assert (tmp_path / "resumed" / "results.json").read_bytes() == (tmp_path / "out" / "results.json").read_bytes()


def loop_predict():
    from icl.evaluate import guarded

    return guarded.predict


def test_encoders_that_stages_name_are_found_beside_the_suite():
    found = loading.stage_encoders([{"knn": {"encoder": "a"}}, "mmr", {"hybrid": {"of": ["bm25", {"epr": {"base": "b", "queries": 3}}]}}])
    assert [*found] == ["a", "b"]
    assert [*loading.stage_encoders("knn")] == [*loading.stage_encoders(None)] == []
