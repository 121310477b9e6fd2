"""Losses have the values of their formulas, in NumPy, and PyTorch's gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnopt_cli import NnoptError, UsageError
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((7, 4)) * 3
CLASSES = np.array([0, 1, 2, 3, 3, 1, 0])
SHARES = RNG.dirichlet(np.ones(4), 7)
LABELS = (RNG.random((7, 4)) < 0.4).astype(float)
VALUES = RNG.standard_normal((7, 4)) * 2


def value(spec: str, target) -> float:
    loss = REGISTRY.build("loss", spec)
    outputs = torch.tensor(LOGITS, requires_grad=True)
    out = loss(outputs, torch.as_tensor(target))
    assert out.shape == ()
    out.backward()
    step = torch.autograd.functional.jacobian(lambda o: loss(o, torch.as_tensor(target)), outputs.detach())
    assert torch.equal(outputs.grad, step)
    assert outputs.grad.abs().sum() > 0
    return out.item()


def log_p() -> np.ndarray:
    return LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))


def softened(share: float) -> np.ndarray:
    return np.eye(4)[CLASSES] * (1 - share) + share / 4


def test_cross_entropy():
    wanted = -log_p()[np.arange(7), CLASSES].mean()
    assert value("cross-entropy", CLASSES) == pytest.approx(wanted, rel=1e-12)
    assert value("cross-entropy", np.eye(4)[CLASSES]) == pytest.approx(wanted, rel=1e-12)
    assert value("kl", CLASSES) == pytest.approx(wanted, rel=1e-12)


def test_smoothing_spreads_the_target():
    wanted = -(softened(0.2) * log_p()).sum(1).mean()
    assert value("cross-entropy:smoothing=0.2", CLASSES) == pytest.approx(wanted, rel=1e-12)


def test_class_weights_weigh_the_mean():
    factors = np.array([1, 2, 0.5, 3])
    each = -log_p()[np.arange(7), CLASSES] * factors[CLASSES]
    wanted = each.sum() / factors[CLASSES].sum()
    assert value("cross-entropy:weights=[1,2,0.5,3]", CLASSES) == pytest.approx(wanted, rel=1e-6)


def test_samples_without_a_class_do_not_count():
    some = CLASSES.copy()
    some[2] = -100
    kept = np.arange(7) != 2
    wanted = -log_p()[np.arange(7), CLASSES][kept].mean()
    assert value("cross-entropy", some) == pytest.approx(wanted, rel=1e-12)


def test_binary_cross_entropy():
    p = 1 / (1 + np.exp(-LOGITS))
    each = -LABELS * np.log(p) - (1 - LABELS) * np.log(1 - p)
    assert value("binary-cross-entropy", LABELS) == pytest.approx(each.mean(), rel=1e-9)
    each = -3 * LABELS * np.log(p) - (1 - LABELS) * np.log(1 - p)
    assert value("binary-cross-entropy:positive=3", LABELS) == pytest.approx(each.mean(), rel=1e-9)


def test_divergence():
    wanted = (SHARES * (np.log(SHARES) - log_p())).sum(1).mean()
    assert value("kl", SHARES) == pytest.approx(wanted, rel=1e-12)
    loss = REGISTRY.build("loss", "kl")
    assert loss(torch.tensor(np.log(SHARES)), torch.tensor(SHARES)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("spec", "formula"),
    [
        ("mse", lambda e: e**2),
        ("mae", abs),
        ("huber", lambda e: np.where(abs(e) <= 1, e**2 / 2, abs(e) - 0.5)),
        ("huber:delta=2.5", lambda e: np.where(abs(e) <= 2.5, e**2 / 2, 2.5 * (abs(e) - 1.25))),
    ],
)
def test_values(spec, formula):
    assert value(spec, VALUES) == pytest.approx(formula(LOGITS - VALUES).mean(), rel=1e-12)


def test_weights_of_another_number_of_classes():
    loss = REGISTRY.build("loss", "cross-entropy:weights=[1,2]")
    with pytest.raises(NnoptError, match=r"2 weights.*4 classes"):
        loss(torch.tensor(LOGITS), torch.as_tensor(CLASSES))


@pytest.mark.parametrize(
    "spec",
    [
        "cross-entropy:smoothing=1",
        "huber:delta=0",
        "binary-cross-entropy:positive=0",
        "cross-entropy:weights=[1,-1]",
    ],
)
def test_what_cannot_be(spec):
    with pytest.raises(UsageError):
        REGISTRY.build("loss", spec)


@pytest.mark.parametrize("spec", ["mse", "mae", "huber"])
def test_class_numbers_are_not_stretched_to_the_shape_of_logits(spec):
    with pytest.raises(NnoptError, match="differ in shape"):
        REGISTRY.build("loss", spec)(torch.zeros(4, 4), torch.zeros(4))
