"""Fixtures for finding demonstrations: a tiny real sentence-transformers model, a cache folder of the test's own."""

from pathlib import Path

import pytest

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] my new card has not arrived yet where is the that was posted please give me money back for"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """Folder of a random two-layer BERT with mean pooling, 16 tokens at most, separate prompts for queries and documents."""
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from icl.weights import quiet_transformers

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:?!"
    vocabulary = [*WORDS.split(), *letters, *(f"##{c}" for c in letters)]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(vocabulary))}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )
    torch.manual_seed(0)
    plain, folder = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    with quiet_transformers():
        model = SentenceTransformer(str(plain), device="cpu", prompts={"query": "where: ", "document": "card: "})
        model.max_seq_length = 16
        model.save(str(folder))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch, request):
    """Embeddings go into the test's own folder; tests with the pretrained encoder share the real cache, where its weights are."""
    if not request.node.get_closest_marker("minilm"):
        monkeypatch.setenv("ICL_HOME", str(tmp_path / "icl-home"))


@pytest.fixture
def one_thread():
    """Texts encoded one by one take ten times as long when several threads wait for each other on a busy machine."""
    import torch

    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)
