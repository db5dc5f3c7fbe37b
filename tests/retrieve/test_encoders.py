"""Encoders: right vectors, whatever the batch; each text encoded once."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from retrieve_samples import HashEncoder

from icl.errors import IclError, InputError
from icl.retrieve import encode_pool, load_encoder, same_encoder
from icl.retrieve.encoders import MAX_BATCH, MAX_BATCH_TOKENS, _batches

TEXTS = ["where is my card", "", "please give me the money back, please, for the new card that was posted yet", "my", "card!", "日本語 🙂"]


def count_encoded(encoder, monkeypatch):
    """List that grows by what the model is really asked to encode."""
    model = encoder._model()
    seen = []
    original = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, texts, advance: (seen.extend(texts), original(self, texts, advance))[1])
    return seen


def test_vectors_are_those_of_sentence_transformers(tiny_encoder):
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(tiny_encoder), device="cpu").encode_query(TEXTS, normalize_embeddings=True)
    found = load_encoder(str(tiny_encoder)).encode(TEXTS)
    assert found.shape == (6, 32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_rows_and_queries_are_encoded_alike_with_the_query_prompt(tiny_encoder):
    """Demonstrations and queries are inputs of one kind: with a prompt on one side only, a text would not be nearest to itself."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    found = load_encoder(str(tiny_encoder)).encode(["my card"])[0]
    np.testing.assert_allclose(found, model.encode(["where: my card"], normalize_embeddings=True)[0], atol=1e-6)
    assert not np.allclose(found, model.encode_document(["my card"], normalize_embeddings=True)[0], atol=1e-3)


def test_a_vector_does_not_depend_on_its_batch(tiny_encoder, one_thread):
    encoder = load_encoder(str(tiny_encoder), cache=False)
    texts = [f"my card {i}" for i in range(40)] + TEXTS
    together = encoder.encode(texts)
    backwards = encoder.encode(texts[::-1])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, backwards, atol=5e-7)
    np.testing.assert_allclose(together, alone, atol=5e-7)


def test_batches_hold_one_length_each_and_every_text_once():
    lengths = [3, 300, 3, 7, 1, 300, *([5] * 200), *([40_000] * 2)]
    assert list(_batches([0, 0], 256)) == []
    batches = list(_batches(lengths, 256))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        cut = {min(lengths[i], 256) for i in batch}
        assert len(cut) == 1
        assert len(batch) <= MAX_BATCH
        assert len(batch) * cut.pop() <= MAX_BATCH_TOKENS
    assert [len(b) for b in _batches([40_000] * 2, None)] == [1, 1], "a text longer than a batch may be goes alone"


@pytest.mark.parametrize("kind", ["transformer", "static"])
def test_a_text_without_a_token_has_a_vector(tmp_path, kind):
    """Where the tokenizer adds no token of its own the model has nothing to read; the other texts' vectors are as ever."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2, "money": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind == "static":
        modules = [StaticEmbedding(backend, embedding_dim=16)]
    else:
        PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path / "bert")
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        BertModel(BertConfig(vocab_size=4, **sizes)).save_pretrained(tmp_path / "bert")
        modules = [Transformer(str(tmp_path / "bert")), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "st"))
    encoder = load_encoder(str(tmp_path / "st"))
    vectors = encoder.encode(["card", "", "money card", "  "])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[1], vectors[3])
    np.testing.assert_allclose(encoder.encode(["money card"])[0], vectors[2], atol=1e-6)
    np.testing.assert_array_equal(load_encoder(str(tmp_path / "st"), cache=False).encode([""]), vectors[1:2])
    assert load_encoder(str(tmp_path / "st"), cache=False).encode(["", ""]).shape == (2, 16)


def test_a_second_time_nothing_is_encoded(tiny_encoder, monkeypatch):
    first = load_encoder(str(tiny_encoder))
    seen = count_encoded(first, monkeypatch)
    vectors = first.encode([*TEXTS, *TEXTS])
    assert sorted(seen) == sorted(TEXTS), "a repeated text is encoded once"
    again = load_encoder(str(tiny_encoder))
    assert (again.encode([*TEXTS, *TEXTS]) == vectors).all()
    again.encode([TEXTS[3], "something new"])
    assert seen[len(TEXTS) :] == ["something new"]


def test_from_the_cache_alone_the_model_is_never_loaded(tiny_encoder, monkeypatch):
    expected = load_encoder(str(tiny_encoder)).encode(TEXTS)
    again = load_encoder(str(tiny_encoder))
    monkeypatch.setattr(type(again), "_model", lambda self: pytest.fail("the model was loaded"))
    assert (again.encode(TEXTS) == expected).all()
    assert again.dimensions == 32


def test_without_cache_nothing_is_written(tiny_encoder, tmp_path):
    encoder = load_encoder(str(tiny_encoder), cache=False)
    encoder.encode(TEXTS)
    assert encoder.dimensions == 32
    assert not (tmp_path / "icl-home").exists()


def test_cut_texts_are_known(tiny_encoder):
    encoder = load_encoder(str(tiny_encoder))
    assert encoder.cut(["my card", "card " * 12, "card " * 13, "card " * 100]) == [False, False, True, True]  # [CLS] where : … [SEP]
    assert encoder.cut([]) == []
    long = encoder.encode(["card " * 13, "card " * 100])
    assert (long[0] == long[1]).all(), "what is cut is not seen"


def test_half_a_surrogate_pair_is_text_too(tiny_encoder):
    encoder = load_encoder(str(tiny_encoder))
    assert np.isfinite(encoder.encode(["my \ud83d card"])).all()
    assert encoder.cut(["\ud83d"]) == [False]


def test_a_fingerprint_follows_the_files(tiny_encoder, tmp_path):
    same, changed = tmp_path / "same", tmp_path / "changed"
    shutil.copytree(tiny_encoder, same)
    shutil.copytree(tiny_encoder, changed)
    config = changed / "tokenizer_config.json"
    config.write_text(config.read_text().replace(": 16", ": 12"))
    a, b, c = (load_encoder(str(folder)).fingerprint for folder in (tiny_encoder, same, changed))
    assert a == b
    assert not same_encoder(a, c)


def test_other_library_versions_are_the_same_encoder_but_another_cache(tiny_encoder):
    fingerprint = load_encoder(str(tiny_encoder)).fingerprint
    model, _, runtime = fingerprint.partition("+")
    other = f"{model}+{'0' * len(runtime)}"
    assert other != fingerprint
    assert same_encoder(other, fingerprint)
    assert not same_encoder("mine+1", "mine+2"), "only fingerprints of ours are taken apart"


def test_an_encoder_object_is_used_as_it_is():
    encoder = HashEncoder()
    assert load_encoder(encoder) is encoder
    with pytest.raises(InputError, match=r"no encoder: it has no .*encode"):
        load_encoder(object())


@pytest.mark.parametrize(
    ("name", "words"),
    [("no-such", ["no encoder 'no-such'", "minilm"]), ("./no-such/folder", ["no folder"]), ("nobody/nothing", ["model hub", "minilm"])],
)
def test_unknown_encoders(name, words):
    with pytest.raises(InputError) as caught:
        load_encoder(name)
    assert all(word in str(caught.value) for word in words)


def test_a_folder_that_is_no_encoder(tmp_path):
    with pytest.raises(InputError, match="holds no sentence-transformers model"):
        load_encoder(str(tmp_path))
    (tmp_path / "modules.json").write_text("[{]")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder(str(tmp_path)).encode(["x"])


def cache_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "icl-home" / "embeddings").glob("*.sqlite")
    return path


def test_a_damaged_entry_is_encoded_again(tiny_encoder, tmp_path, monkeypatch):
    encoder = load_encoder(str(tiny_encoder))
    expected = encoder.encode(TEXTS)
    with sqlite3.connect(cache_file(tmp_path)) as db:
        key, vector = db.execute("SELECT key, vector FROM vectors").fetchone()
        db.execute("UPDATE vectors SET vector = ? WHERE key = ?", (vector[:7] + bytes([vector[7] ^ 64]) + vector[8:], key))
    db.close()
    seen = count_encoded(encoder, monkeypatch)
    assert (encoder.encode(TEXTS) == expected).all()
    assert len(seen) == 1


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100, None])
def test_a_damaged_cache_is_built_anew(tiny_encoder, tmp_path, content):
    encoder = load_encoder(str(tiny_encoder))
    expected = encoder.encode(TEXTS)
    path = cache_file(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[:100] + b"\xff" * (len(raw) - 100) if content is None else content)
    for _ in range(3):  # the first time finds the damage, then it is whole again
        assert (encoder.encode(TEXTS) == expected).all()


def test_where_nothing_can_be_written_it_works_without_a_cache(tiny_encoder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "file"))
    encoder = load_encoder(str(tiny_encoder))
    assert encoder.encode(TEXTS).shape == (6, 32)
    assert encoder.dimensions == 32


@pytest.mark.minilm
def test_minilm_knows_what_is_alike():
    encoder = load_encoder("minilm", cache=False)
    a, b, c = encoder.encode(["Where is my parcel?", "The package has not arrived.", "The film was a bore."])
    assert encoder.dimensions == 384
    assert a @ b > a @ c + 0.2


@pytest.mark.minilm
def test_minilm_vectors_do_not_depend_on_the_batch(one_thread):
    encoder = load_encoder("minilm", cache=False)
    texts = [f"my card number {i} did not arrive" for i in range(30)] + ["short", "a somewhat longer text about something else entirely"]
    assert np.abs(encoder.encode(texts) - np.concatenate([encoder.encode([t]) for t in texts])).max() < 5e-7


def test_many_texts_are_encoded_by_several_processes(tiny_encoder, monkeypatch, one_thread):
    """The same vectors, in order, also where the calling script has no `if __name__ == "__main__"`; what a library prints does no harm."""
    import torch

    texts = [f"where is card no {i % 37} of {i}" for i in range(300)]
    alone = load_encoder(str(tiny_encoder), cache=False).encode(texts)
    monkeypatch.setattr("icl.retrieve.encode_pool.PAYS_FROM", 100)
    monkeypatch.setattr("icl.retrieve.encoders.CHUNK", 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    started = []
    monkeypatch.setattr(
        "icl.retrieve.encode_pool._Worker", lambda folder, make=encode_pool._Worker: started.append(make(folder)) or started[-1]
    )
    together = load_encoder(str(tiny_encoder), cache=False).encode(texts)
    assert len(started) == 2
    assert np.abs(together - alone).max() < 1e-6
    assert all(worker._process.poll() is not None for worker in started), "no process is left behind"


@pytest.mark.slow
def test_a_process_that_dies_is_told(tiny_encoder, tmp_path):
    with pytest.raises(IclError, match="a process that encodes texts ended"):
        list(encode_pool.encode_chunks(tmp_path / "no-model", [["a"], ["b"]], 2, lambda n: None))
