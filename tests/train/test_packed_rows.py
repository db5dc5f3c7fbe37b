"""Rows of several documents: nothing lost, little padded, and no document sees another."""

import numpy as np
import pytest
import tiny
import torch

from icl.train.packing import NO_LABEL, Packed, cut, how_to_pack, logits_at, pack
from icl.train.perplexity import token_losses


def test_documents_are_cut_into_whole_rows_and_a_rest():
    assert cut([5, 0, 1, 12], 5).tolist() == [[0, 0, 5], [3, 0, 5], [3, 5, 10], [3, 10, 12]]
    assert cut([6], 5).tolist() == [[0, 0, 5]]  # one token alone predicts nothing


def test_every_piece_stands_in_one_row_that_it_fits_into():
    sizes = np.random.default_rng(0).integers(1, 41, 500)
    rows = pack(sizes, 64)
    assert sorted(piece for row in rows for piece in row) == list(range(500))
    assert max(sum(int(sizes[p]) for p in row) for row in rows) <= 64
    assert len(rows) <= 1.02 * -(-int(sizes.sum()) // 64)  # best fit: hardly more than if pieces could be cut anywhere


def bert():
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.3)
    ).eval()


def roberta():
    from transformers import RobertaConfig, RobertaForMaskedLM

    torch.manual_seed(0)
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.3,
            max_position_embeddings=100, pad_token_id=1,
        )
    ).eval()  # fmt: skip


MODELS = {
    "llama": (lambda: tiny.model("llama"), True, True),
    "gpt2": (lambda: tiny.model("gpt2"), True, True),
    "gpt-neox": (lambda: tiny.model("gpt-neox"), True, True),
    "mistral, window 16": (lambda: tiny.model("mistral"), True, False),
    "bloom": (lambda: tiny.model("bloom"), True, False),
    "mamba": (lambda: tiny.model("mamba"), True, False),
    "bert": (bert, False, True),
    "roberta": (roberta, False, True),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_piece_has_the_loss_it_has_alone(name):
    """Where an architecture cannot keep pieces apart, that is found out, and each gets a row of its own."""
    made, causal, apart = MODELS[name]
    model = made()
    packed = how_to_pack(model, tiny.tokenizer(), 64, causal=causal)
    assert packed.apart == apart
    rng = np.random.default_rng(1)
    pieces = [rng.integers(5, 290, n).tolist() for n in (30, 21, 13)]
    labels = [[NO_LABEL, *piece[1:]] for piece in pieces]

    def losses(rows, aims):
        with torch.no_grad():
            return token_losses(model, packed, packed.batch(rows, aims), causal=causal)[0]

    alone = torch.cat([losses([[piece]], [[aim]]) for piece, aim in zip(pieces, labels, strict=True)])
    together = losses([pieces], [labels]) if apart else losses([[p] for p in pieces], [[a] for a in labels])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-4)
    assert len(alone) == sum(map(len, pieces)) - 3


def test_logits_of_some_places_are_those_of_all():
    model = bert()
    ids = torch.randint(5, 290, (2, 7), generator=torch.manual_seed(0))
    places = torch.zeros(2, 7, dtype=torch.bool)
    places[0, 3] = places[1, 0] = places[1, 6] = True
    with torch.no_grad():
        every = model(input_ids=ids).logits
        torch.testing.assert_close(logits_at(model, {"input_ids": ids}, places), every[places], rtol=0, atol=1e-5)
        torch.testing.assert_close(model(input_ids=ids).logits, every)  # and afterwards it is as it was


def test_a_batch_says_whose_each_place_is():
    batch = Packed(True, 0, 9).batch([[[1, 2], [3]], [[4, 5, 6, 7]]], [[[NO_LABEL, 2], [3]], [[4, 5, 6, 7]]])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9], [4, 5, 6, 7]]
    assert batch["owner"].tolist() == [[0, 0, 1, -1], [0, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[NO_LABEL, 2, 3, NO_LABEL], [4, 5, 6, 7]]
