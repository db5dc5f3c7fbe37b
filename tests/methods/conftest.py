"""A tiny random encoder and language model."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache folder of the tests' own, for embeddings."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Path:
    """A random one-layer sentence-transformers model that reads bytes."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    BertModel(config).eval().save_pretrained(folder / "bert")
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"), max_seq_length=128)
    SentenceTransformer(modules=[words, Pooling(32), Normalize()], device="cpu").save(str(folder / "st"))
    return folder / "st"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny random Llama with a byte-level tokenizer."""
    from tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="session")
def tiny_lm(model_folder):
    from icl import load_model

    return load_model(str(model_folder), device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def _own_cache(request, cache, monkeypatch):
    if not any(request.node.get_closest_marker(name) for name in ("minilm", "smollm2")):  # their weights are in the user's cache
        monkeypatch.setenv("ICL_HOME", str(cache))
