"""A tiny random encoder and language model, both reading bytes."""

from pathlib import Path

import pytest

CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache folder of the tests' own, for embeddings."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(request, cache, monkeypatch):
    if not any(request.node.get_closest_marker(name) for name in ("minilm", "smollm2")):  # their weights are in the user's cache
        monkeypatch.setenv("ICL_HOME", str(cache))


def byte_tokenizer(controls, **special):
    """A tokenizer with one token per byte and these control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*controls, *alphabet])}, []))
    backend.add_special_tokens(list(controls))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Path:
    """A random one-layer sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = byte_tokenizer(["[PAD]", "[CLS]", "[SEP]"], pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder / "bert")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 128}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval().save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"), max_seq_length=128)
    SentenceTransformer(modules=[words, Pooling(32), Normalize()], device="cpu").save(str(folder / "st"))
    return folder / "st"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A random two-layer Llama with a chat template and a window of 640 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = byte_tokenizer(["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"], eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=640, bos_token_id=None, eos_token_id=0, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_lm(model_folder):
    from icl import load_model

    return load_model(str(model_folder), device="cpu", dtype="float32")
