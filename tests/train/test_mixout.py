"""Mixout: the formula on numbers, that its mean is the weight, and what of a model it mixes."""

import pytest
import torch
from torch import nn

from icl.train.mixout import mixing, mixout


def test_each_element_is_the_start_or_the_weight_scaled_so_that_the_mean_is_the_weight():
    """With a half: start stays start, and weight becomes (weight - start/2) / ½ = 2 weight - start."""
    torch.manual_seed(0)
    weight, start = torch.full((100, 100), 3.0), torch.full((100, 100), 1.0)
    mixed = mixout(weight, start, 0.5)
    assert set(mixed.unique().tolist()) == {1.0, 5.0}
    assert mixed.mean().item() == pytest.approx(3.0, abs=0.1)
    assert torch.equal(mixout(start, start, 0.9), start) or torch.allclose(mixout(start, start, 0.9), start)
    few = mixout(weight, start, 0.1)
    assert (few == 1.0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert few.max().item() == pytest.approx((3 - 0.1) / 0.9)


def test_the_linear_layers_of_the_base_are_mixed_and_the_weights_themselves_learn():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    mixed = mixing(model, model[0], 0.5)
    with torch.no_grad():
        model[0].weight += 1.0
    rows = {"input": torch.randn(3, 4)}
    plain = model(**rows)
    shown = mixed(model)
    assert torch.equal(shown(**rows), shown(**rows))  # one draw
    assert not torch.equal(shown(**rows), plain)
    assert not torch.equal(mixed(model)(**rows), shown(**rows))  # another one
    assert torch.equal(model(**rows), plain)
    shown(**rows).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
    assert torch.equal(mixing(model, model[1], 0.5)(model)(**rows), plain)  # no linear layer in it
