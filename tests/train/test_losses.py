"""Each loss against its paper's formula, written out on logits by hand."""

import math

import pytest
import torch

from icl.train.losses import class_weights, distilled, divergence, label_loss, r_drop

LOGITS = [[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [-0.5, -0.5, 4.0], [1.0, 1.0, 1.0]]
TARGETS = [0, 2, 1, 1]


def p_of(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def losses(**options):
    targets = options.pop("targets", torch.tensor(TARGETS))
    return label_loss(torch.tensor(LOGITS, dtype=torch.float64), targets, **options).tolist()


def test_cross_entropy():
    assert losses() == pytest.approx([-math.log(p_of(row)[y]) for row, y in zip(LOGITS, TARGETS, strict=True)], abs=1e-6)


def test_probabilities_as_targets():
    q = [0.2, 0.5, 0.3]
    expected = [-sum(a * math.log(b) for a, b in zip(q, p_of(row), strict=True)) for row in LOGITS]
    assert losses(targets=torch.tensor([q] * 4)) == pytest.approx(expected, abs=1e-6)
    hard = torch.nn.functional.one_hot(torch.tensor(TARGETS), 3).float()
    assert losses(targets=hard, focal=2.0, smoothing=0.1) == pytest.approx(losses(focal=2.0, smoothing=0.1))


def test_label_smoothing():
    """Szegedy et al. 2016, sec. 7: q'(k) = (1 - ε) δ(k, y) + ε / K."""
    expected = []
    for row, y in zip(LOGITS, TARGETS, strict=True):
        q = [0.9 * (k == y) + 0.1 / 3 for k in range(3)]
        expected.append(-sum(a * math.log(b) for a, b in zip(q, p_of(row), strict=True)))
    assert losses(smoothing=0.1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal(gamma):
    """Lin et al. 2017, eq. 4 and 5: -α (1 - p)^γ log p."""
    expected = [-((1 - p_of(row)[y]) ** gamma) * math.log(p_of(row)[y]) for row, y in zip(LOGITS, TARGETS, strict=True)]
    assert losses(focal=gamma) == pytest.approx(expected, abs=1e-6)
    alpha = [0.25, 3.0, 1.5]
    weighted = [alpha[y] * loss for y, loss in zip(TARGETS, expected, strict=True)]
    assert losses(focal=gamma, weights=torch.tensor(alpha)) == pytest.approx(weighted, abs=1e-5)


def test_focal_has_gradients_where_a_row_is_certainly_right():
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    label_loss(logits, torch.tensor([0]), focal=0.5).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_class_weights():
    weights = torch.tensor([0.5, 2.0, 1.0])
    assert losses(weights=weights) == pytest.approx([float(weights[y]) * loss for y, loss in zip(TARGETS, losses(), strict=True)])
    assert class_weights("none", ["a"], ["a"]) is None
    assert class_weights("balanced", ["a"] * 10 + ["b"], ["a", "b", "c"]) == pytest.approx([11 / 20, 11 / 2, 1.0])
    assert class_weights({"b": 3}, ["a", "b"], ["a", "b"]) == [1.0, 3.0]


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_distilled(temperature):
    """Hinton et al. 2015, sec. 2.1: T² times the cross-entropy with softmax(v / T), of softmax(z / T); a label stays a label."""
    teacher = [2.0, 0.5, -1.0]
    targets = torch.tensor([p_of(teacher)] * 3 + [[0.0, 1.0, 0.0]])
    expected = []
    for row in LOGITS[:3]:
        q, p = p_of([v / temperature for v in teacher]), p_of([z / temperature for z in row])
        expected.append(-(temperature**2) * sum(a * math.log(b) for a, b in zip(q, p, strict=True)))
    expected.append(-math.log(p_of(LOGITS[3])[1]))
    found = distilled(label_loss, temperature)(torch.tensor(LOGITS, dtype=torch.float64), targets)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_r_drop_is_the_formula_of_the_paper():
    """Eq. 4 halved: -½ log P₁ - ½ log P₂ + α/4 (KL(P₁ ‖ P₂) + KL(P₂ ‖ P₁)), here for p = (½, ½) and q = (0.8, 0.2)."""
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.8, 0.2]])
    kl_pq = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    kl_qp = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert divergence(p.log(), q.log()).item() == pytest.approx((kl_pq + kl_qp) / 2, abs=1e-6)
    found = r_drop(label_loss, p.log(), q.log() + 3, torch.tensor([1]), 4.0)
    assert found.item() == pytest.approx(-0.5 * math.log(0.5) - 0.5 * math.log(0.2) + kl_pq + kl_qp, abs=1e-5)
    assert r_drop(label_loss, p.log(), p.log(), torch.tensor([0]), 4.0).item() == pytest.approx(math.log(2))
