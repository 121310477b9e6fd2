"""`check_component` holds the components of training to their rules, one at a time."""

from __future__ import annotations

import pytest
import torch

from nnopt_cli import Initializer, LearningRateSchedule, Optimizer, Regularizer
from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.testing import check_component

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
KINDS = ("optimizer", "learning-rate-schedule", "regularizer", "initializer")


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_ones_pass(kind):
    for cls in REGISTRY.all(kind):
        check_component(cls)


def made(base, **body):
    return type("Made", (base,), {"__doc__": "Made up.", "__module__": __name__, **body})


class Forgetful(torch.optim.SGD):
    """Its momentum is not in its state."""

    def step(self, closure=None):
        for group in self.param_groups:
            for value in group["params"]:
                self.mass = 0.9 * getattr(self, "mass", 0.0) + value.grad.mean().item()
                value.data.sub_(0.01 * self.mass)


def sgd(groups, lr):
    return torch.optim.SGD(groups, lr=lr)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda self, groups, lr: "sgd", "no optimizer"),
        (lambda self, groups, lr: sgd(groups[:1], lr), "left out"),
        (lambda self, groups, lr: sgd(groups, 1e-30), "do not change"),
        (lambda self, groups, lr: sgd(groups, 1e30), "NaN or infinity"),
        (lambda self, groups, lr: Forgetful(groups, lr=lr), "resumed"),
    ],
)
def test_optimizers(build, message):
    with pytest.raises(AssertionError, match=message):
        check_component(made(Optimizer, build=build))


ASKED = []


def remembers(self, step, total, steps_per_epoch):
    ASKED.append(step)
    return len(ASKED)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"factor": lambda self, step, total, per: -1.0}, "negative"),
        ({"factor": lambda self, step, total, per: float("nan")}, "no number"),
        ({"factor": lambda self, step, total, per: 0.0}, "are 0"),
        ({"factor": remembers}, "asked before"),
        (
            {
                "factor": lambda self, step, total, per: 1.0,
                "update": lambda self, state, figure, larger: ASKED.append(1) or float(len(ASKED)),
            },
            "outside of its state",
        ),
    ],
)
def test_schedules(body, message):
    with pytest.raises(AssertionError, match=message):
        check_component(made(LearningRateSchedule, **body))


def doubles(self, layers):
    for layer in layers:
        layer.parameter.data.mul_(2)
    return torch.zeros(())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "overrides none"),
        ({"penalty": lambda self, layers: torch.ones(2)}, "not a scalar"),
        ({"penalty": lambda self, layers: torch.tensor(float("inf"))}, "returned inf"),
        (
            {"penalty": lambda self, layers: layers[0].parameter.flatten(1).square().sum(1).sqrt().sum()},
            "channel is zero",
        ),
        ({"penalty": doubles}, "changes weights"),
    ],
)
def test_regularizers(body, message):
    with pytest.raises(AssertionError, match=message):
        check_component(made(Regularizer, **body))


def by_global_chance(self, tensor, generator):
    tensor.normal_()


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda self, tensor, generator: None, "no numbers"),
        (lambda self, tensor, generator: tensor.zero_(), "returns nothing"),
        (by_global_chance, "same values"),
    ],
)
def test_initializers(fill, message):
    with pytest.raises(AssertionError, match=message):
        check_component(made(Initializer, fill=fill))
