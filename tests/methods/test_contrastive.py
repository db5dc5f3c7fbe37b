"""The contrastive loss against its sums, the batches it sees, and that tuning brings the texts of a label together."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from small_tasks import example

import icl
from icl.errors import InputError
from icl.methods._heads import CENTRES, fit_head, load_head, save_head
from icl.methods.contrastive import Contrastive, Settings
from icl.train.contrastive import ENOUGH_STEPS, FEWEST_STEPS, MOST_STEPS, batches, contrastive_loss, n_steps_for, tune


def unit(n, d, seed=0):
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_loss_is_that_of_the_paper(temperature):
    z, labels = unit(7, 5), [0, 0, 1, 1, 1, 2, 0]  # one text has no other of its label
    terms = []
    for i in range(7):
        same = [p for p in range(7) if p != i and labels[p] == labels[i]]
        if same:
            below = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in range(7) if a != i)
            terms.append(-sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / below) for p in same) / len(same))
    assert float(contrastive_loss(z, torch.tensor(labels), temperature)) == pytest.approx(sum(terms) / 6)


def test_every_step_has_pairs_of_each_label_and_all_texts_come_up():
    labels = ["a"] * 20 + ["b"] * 3 + ["c"]
    steps = batches(labels, 12, 30, seed=1)
    assert steps == batches(labels, 12, 30, seed=1) != batches(labels, 12, 30, seed=2)
    for step in steps:
        assert [sum(labels[i] == name for i in step) for name in "abc"] == [4, 3, 2]  # the lonely one stands twice
        assert len({i for i in step if labels[i] == "a"}) == 4
    times = [sum(i in step for step in steps) for i in range(20)]
    assert max(times) - min(times) <= 1


def test_more_labels_than_a_step_has_room_for():
    labels = [str(i // 3) for i in range(90)]  # 30 labels of 3
    steps = batches(labels, 16, 60, seed=0)
    assert all(len(step) == 16 and len({labels[i] for i in step}) == 8 for step in steps)
    times = [sum(name in {labels[i] for i in step} for step in steps) for name in dict.fromkeys(labels)]
    assert max(times) - min(times) <= 1


def test_steps_grow_with_the_pool_and_not_without_end():
    assert n_steps_for(8, 32) == FEWEST_STEPS
    assert n_steps_for(16, 32) == 15
    assert n_steps_for(32, 32) == ENOUGH_STEPS
    assert n_steps_for(3200, 32) == 200
    assert n_steps_for(10**7, 32) == MOST_STEPS


def test_tuning_brings_texts_of_a_label_together(encoder_folder):
    from icl.retrieve.encoders import model_in

    texts = [f"{a} {word}" for word in ("good", "fine", "nice", "bad", "poor", "awful") for a in ("the film is", "a", "it was so")]
    labels = ["+" if t.split()[-1] in ("good", "fine", "nice") else "-" for t in texts]

    def separation(model):
        vectors = model.encode(texts, lambda n=1: None)
        cosines, same = vectors @ vectors.T, np.equal.outer(labels, labels)
        return float(cosines[same].mean() - cosines[~same].mean())

    options = {"batch": 12, "steps": 30, "learning_rate": 3e-3, "temperature": 0.1, "seed": 0}
    state = torch.get_rng_state()
    model, again = model_in(encoder_folder), model_in(encoder_folder)
    before = separation(model)
    losses = tune(model, texts, labels, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    assert separation(model) > before + 0.3
    assert tune(again, texts, labels, **options) == losses
    assert not model.module.training


def test_what_tuning_took_is_written_down_and_saved(encoder_folder, tmp_path):
    from icl.retrieve import load_encoder
    from icl.retrieve.encoders import model_in
    from icl.train.cost import operations_of

    rows = [example({"text": f"{word} film"}, "+" if word in ("good", "fine") else "-") for word in ("good", "fine", "poor", "ugly")]
    predictor = Contrastive(Settings(steps=3), load_encoder(str(encoder_folder))).fit(rows)
    record, model = predictor.training, model_in(encoder_folder)
    n = model.lengths(["good film"])[0]  # as long as each of them
    assert (record["n_rows"], record["n_steps"], record["n_tokens"], record["n_padding"]) == (4, 3, 3 * 4 * n, 0)
    assert record["operations"] == pytest.approx(operations_of(model.module[0].auto_model).training(3 * 4 * n, n))
    assert record["n_trained"] < record["n_parameters"] == sum(p.numel() for p in model.module.parameters())  # the words of the rows alone
    assert record["n_bytes"] == 4 * record["n_parameters"]
    assert [point["step"] for point in record["curve"]] == [1, 2, 3]
    predictor.save(tmp_path / "saved")
    loaded = icl.load(tmp_path / "saved")
    assert loaded.training == record
    for used in (predictor, loaded):  # what using it takes is counted, too, the pool's own vectors not
        assert used.totals.computed == 0
        used.predict(["ugly film", "good film", "poor film"])
        assert used.totals.computed == 3 * n
        assert used.totals.operations == pytest.approx(operations_of(model.module).forward(3 * n, n))


def test_a_head_alone_writes_down_what_it_took(encoder_folder, tmp_path):
    from icl.methods.embedding_head import EmbeddingHead
    from icl.retrieve.encoders import SentenceEncoder
    from icl.train.cost import operations_of

    rows = [example({"text": f"{word} film"}, "+" if word in ("good", "fine") else "-") for word in ("good", "fine", "poor", "ugly")]
    encoder = SentenceEncoder(str(encoder_folder), encoder_folder, cache=False)
    predictor = EmbeddingHead(encoder=encoder).fit(rows)
    record = predictor.training
    n = 4 * encoder._model().lengths(["good film"])[0]
    assert (record["n_rows"], record["n_tokens"]) == (4, n)
    assert record["operations"] == pytest.approx(operations_of(encoder.module).forward(n, n / 4))
    assert record["n_trained"] == 2 * (encoder.dimensions + 1)
    assert record["n_bytes"] == 8 * record["n_trained"]
    predictor.predict(["ugly film"])
    assert predictor.totals.computed == n / 4
    predictor.save(tmp_path / "saved")
    assert icl.load(tmp_path / "saved").training == record


@pytest.mark.parametrize("kind", ["logistic", "kernel", "knn"])
def test_heads_learn_and_are_saved_whole(tmp_path, kind):
    generator = np.random.default_rng(0)
    centres = unit(3, 16, seed=3).numpy()
    targets = generator.integers(0, 3, 240)
    vectors = centres[targets] + generator.standard_normal((240, 16)) * 0.12
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    head = fit_head(kind, vectors[:120], targets[:120].tolist(), 3)
    shares = head.shares(vectors[120:])
    assert shares.sum(axis=1) == pytest.approx(np.ones(120))
    assert (shares.argmax(axis=1) == targets[120:]).mean() > 0.95
    assert np.array_equal(np.concatenate([head.shares(v[None]) for v in vectors[120:140]]), shares[:20])  # whatever stands beside it
    save_head(head, tmp_path / "head.safetensors")
    assert np.array_equal(load_head(tmp_path / "head.safetensors", kind, 3).shares(vectors[120:]), shares)


def test_neighbours_vote_with_their_cosine():
    rows = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    query = np.array([[0.8, 0.6, 0.0]], dtype=np.float32)
    assert fit_head("knn", rows, [0, 1, 1], 2).shares(query) == pytest.approx(np.array([[0.8, 1.2]]) / 2.0)


def test_the_kernel_separates_what_no_line_does():
    """Labels by the sign of x·y: the kernel head follows, the linear one is at chance."""
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((900, 3)) * [1, 1, 0.1]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    targets = (vectors[:, 0] * vectors[:, 1] > 0).astype(int)
    right = {
        kind: (fit_head(kind, vectors[:600], targets[:600].tolist(), 2).shares(vectors[600:]).argmax(axis=1) == targets[600:]).mean()
        for kind in ("logistic", "kernel")
    }
    assert right["kernel"] > 0.95 > 0.65 > right["logistic"]


def test_the_kernel_stays_small_on_a_large_pool():
    vectors = unit(3 * CENTRES, 8).numpy().astype(np.float32)
    head = fit_head("kernel", vectors, [i % 2 for i in range(len(vectors))], 2)
    assert head.arrays["basis"].shape == (CENTRES, CENTRES)


def test_an_encoder_without_weights_is_refused():
    from icl.methods.contrastive import Contrastive, Settings
    from icl.values import Example

    class Elsewhere:
        name = fingerprint = "elsewhere"
        dimensions = 2

        def encode(self, texts):
            return np.tile(np.array([[1, 0]], dtype=np.float32), (len(texts), 1))

        def cut(self, texts):
            return [False] * len(texts)

    rows = [Example(f"{i}-0", {"text": str(i)}, "ab"[i % 2]) for i in range(4)]
    with pytest.raises(InputError, match="no weights here"):
        Contrastive(Settings(), Elsewhere()).fit(rows)


def test_a_head_on_few_rows_of_many_labels_warns_of_nothing():
    targets = [i % 24 for i in range(30)]
    vectors = np.eye(24, dtype=np.float32)[targets]
    shares = fit_head("logistic", vectors, targets, 24).shares(vectors)  # a warning would be an error here
    assert shares.argmax(axis=1).tolist() == targets


def tuned(folder, texts, labels, steps=6):
    """(the losses, the weights) of a tuning without dropout."""
    from icl.retrieve.encoders import model_in

    model = model_in(folder)
    for module in model.module.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    losses = tune(model, texts, labels, batch=8, steps=steps, learning_rate=1e-3, temperature=0.1, seed=1)
    return losses, {name: value.clone() for name, value in model.module.state_dict().items()}


def test_what_is_left_out_of_a_step_changes_nothing(encoder_folder, monkeypatch):
    """Texts of similar length go through the encoder together, and tokens that no text has take no part: neither is seen in the result."""
    texts, labels = ["ab", "a long text of b and a", "cd", "dc dc dc dc dc dc dc", "abba", "dddd cc"], ["x", "x", "y", "y", "x", "y"]
    losses, weights = tuned(encoder_folder, texts, labels)
    before = tuned(encoder_folder, texts, labels, steps=0)[1]
    monkeypatch.setattr("icl.train.contrastive.AT_ONCE", 99)
    monkeypatch.setattr("icl.train.used_words.only_used_words", lambda module, ids: nullcontext())
    other_losses, other = tuned(encoder_folder, texts, labels)
    assert losses == pytest.approx(other_losses, abs=1e-4)
    assert weights.keys() == other.keys()
    (words,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    used = (weights[words] != before[words]).any(dim=1)
    assert 3 < int(used.sum()) < 25
    for name, value in weights.items():
        mine, plain = (value[used], other[name][used]) if name == words else (value, other[name])
        torch.testing.assert_close(mine, plain, rtol=0, atol=2e-4)
