"""`icl train retriever` on a small file, with a tiny model and a tiny encoder."""

import json

import pytest
import tiny

import icl


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(a language model, a sentence encoder), both random."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(root / "bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval().save_pretrained(root / "bert")
    words = Transformer(str(root / "bert"), max_seq_length=64)
    SentenceTransformer(modules=[words, Pooling(16), Normalize()], device="cpu").save(str(root / "st"))
    return tiny.save(root / "lm", "llama"), root / "st"


def test_a_file_becomes_an_encoder(icl_cli, reviews, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    lm, base = folders
    small = ["--queries", "8", "--candidates", "3", "--epochs", "1", "--limit", "20"]
    answer = icl_cli("train", "retriever", "--pool", reviews, "--model", lm, "--base", base, "--out", "mine", *small)
    assert answer.code == 0, answer.err
    assert answer.out == "mine\n"
    record = json.loads((tmp_path / "mine" / "training.json").read_text())
    assert f"{record['mean_reciprocal_rank']['after']:.3f} after training" in answer.err
    assert (record["n_rows"], record["n_prompts"], record["model"], record["template"]) == (20, 24, str(lm), "default")
    pool = icl.Task.load(reviews, holdout=0).train
    predictor = icl.FewShot(None, retriever={"knn": {"encoder": "mine"}}, shots=2).fit(pool)
    assert len(predictor.prompt("The soup was fine.").demonstrations) == 2


@pytest.mark.parametrize(("more", "says"), [
    (["--limit", "2"], "too few"),
    (["--candidates-by", "mmr"], "candidates_by"),
    (["--base", "nothing"], "there is no encoder 'nothing'"),
    (["--label", "tag"], "tag"),
    (["--out", "reviews.csv"], "not a trained encoder"),
], ids=lambda value: value if isinstance(value, str) else value[0])  # fmt: skip
def test_what_cannot_be_trained_is_2(icl_cli, reviews, folders, more, says):
    lm, base = folders
    answer = icl_cli("train", "retriever", "--pool", reviews, "--model", lm, "--base", base, "--out", "new", *more)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err
