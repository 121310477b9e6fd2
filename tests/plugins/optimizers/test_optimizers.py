"""Each optimizer takes the steps of PyTorch's, bit for bit, and those of the formula in its docstring."""

from __future__ import annotations

import math

import pytest
import torch

from nnopt_cli import Optimizer, UsageError
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
NAMES = REGISTRY.names("optimizer")
STEPS = 25

# our spec -> PyTorch's class and its arguments
SAME = {
    "gd:weight_decay=0.1": (torch.optim.SGD, {"weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {}),
    "sgd:momentum=0.8,dampening=0.3,weight_decay=0.01": (
        torch.optim.SGD,
        {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    ),
    "sgd:momentum=0.9,nesterov=true": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov:momentum=0.7": (torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adam:beta1=0.8,beta2=0.95,eps=1e-6,amsgrad=true,weight_decay=0.1": (
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": True, "weight_decay": 0.1},
    ),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}),
    "adamw:weight_decay=0.2,amsgrad=true": (torch.optim.AdamW, {"weight_decay": 0.2, "amsgrad": True}),
    "nadam:momentum_decay=0.01": (torch.optim.NAdam, {"momentum_decay": 0.01}),
    "radam:beta2=0.9,weight_decay=0.1": (torch.optim.RAdam, {"betas": (0.9, 0.9), "weight_decay": 0.1}),
    "adamax": (torch.optim.Adamax, {}),
    "rmsprop:alpha=0.9,momentum=0.5,centered=true": (
        torch.optim.RMSprop,
        {"alpha": 0.9, "momentum": 0.5, "centered": True},
    ),
    "adagrad:lr_decay=0.1,initial=0.2,weight_decay=0.1": (
        torch.optim.Adagrad,
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1},
    ),
    "adadelta:rho=0.8": (torch.optim.Adadelta, {"rho": 0.8}),
    "lbfgs:iterations=3,line_search=none": (torch.optim.LBFGS, {"max_iter": 3, "history_size": 10}),
}


def make(spec: str) -> Optimizer:
    found = REGISTRY.build("optimizer", spec, allow_code=True)
    assert isinstance(found, Optimizer)
    return found


def start() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 4), (5,))
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]


def loss_of(values: list[torch.nn.Parameter], step: int) -> torch.Tensor:
    """Not convex, and another one in every step."""
    return sum(((v * (1 + step % 3)).sin() * 3 + v.square() * 0.3).sum() for v in values)  # type: ignore


def train(optimizer: torch.optim.Optimizer, values: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    for step in range(STEPS):

        def closure(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(values, step)
            loss.backward()
            return loss

        optimizer.step(closure)
    return [value.detach() for value in values]


@pytest.mark.parametrize("spec", SAME)
def test_steps_are_those_of_pytorch(spec):
    cls, arguments = SAME[spec]
    ours, theirs = start(), start()
    made = make(spec).build([{"params": ours}], 0.05)
    found, wanted = train(made, ours), train(cls(theirs, lr=0.05, **arguments), theirs)
    for a, b, first in zip(found, wanted, start(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, first.detach())


def test_every_optimizer_is_compared():
    assert {make(spec).name for spec in SAME} == set(NAMES)


# The formulas of the docstrings for one weight: from state, weight and gradient to the new weight.


def sgd(s, w, g, t, lr, momentum=0.0, dampening=0.0, nesterov=False):
    s["v"] = g if t == 1 else momentum * s["v"] + (1 - dampening) * g
    return w - lr * (g + momentum * s["v"] if nesterov else s["v"])


def means(s, g, beta1, beta2):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g


def adam(s, w, g, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0):
    means(s, g, beta1, beta2)
    w = w * (1 - lr * decay)
    return w - lr * s["m"] / (1 - beta1**t) / (math.sqrt(s["v"] / (1 - beta2**t)) + eps)


def nadam(s, w, g, t, lr, decay=4e-3):
    means(s, g, 0.9, 0.999)
    now, then = (0.9 * (1 - 0.96 ** (k * decay) / 2) for k in (t, t + 1))
    s["product"] = s.get("product", 1) * now
    size = math.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8
    return w - lr * (then * s["m"] / (1 - s["product"] * then) + (1 - now) * g / (1 - s["product"])) / size


def radam(s, w, g, t, lr, beta2=0.9):
    means(s, g, 0.9, beta2)
    m = s["m"] / (1 - 0.9**t)
    rho = 2 / (1 - beta2) - 1
    rho_t = rho - 2 * t * beta2**t / (1 - beta2**t)
    if rho_t <= 5:
        return w - lr * m
    r = math.sqrt((rho_t - 4) * (rho_t - 2) * rho / ((rho - 4) * (rho - 2) * rho_t))
    return w - lr * m * r * math.sqrt(1 - beta2**t) / (math.sqrt(s["v"]) + 1e-8)


def adamax(s, w, g, t, lr):
    means(s, g, 0.9, 0.999)
    s["u"] = max(0.999 * s.get("u", 0), abs(g) + 1e-8)
    return w - lr * s["m"] / (1 - 0.9**t) / s["u"]


def rmsprop(s, w, g, t, lr, alpha=0.99, momentum=0.0, centered=False):
    s["s"] = alpha * s.get("s", 0) + (1 - alpha) * g * g
    s["mean"] = alpha * s.get("mean", 0) + (1 - alpha) * g
    size = math.sqrt(s["s"] - (s["mean"] ** 2 if centered else 0)) + 1e-8
    s["b"] = momentum * s.get("b", 0) + g / size
    return w - lr * s["b"]


def adagrad(s, w, g, t, lr, lr_decay=0.0, initial=0.0):
    s["s"] = s.get("s", initial) + g * g
    return w - lr / (1 + (t - 1) * lr_decay) * g / (math.sqrt(s["s"]) + 1e-10)


def adadelta(s, w, g, t, lr, rho=0.9):
    s["s"] = rho * s.get("s", 0) + (1 - rho) * g * g
    d = g * math.sqrt(s.get("u", 0) + 1e-6) / math.sqrt(s["s"] + 1e-6)
    s["u"] = rho * s.get("u", 0) + (1 - rho) * d * d
    return w - lr * d


FORMULAS = {
    "gd": (sgd, {}),
    "sgd:momentum=0.8,dampening=0.3": (sgd, {"momentum": 0.8, "dampening": 0.3}),
    "momentum": (sgd, {"momentum": 0.9}),
    "nesterov": (sgd, {"momentum": 0.9, "nesterov": True}),
    "adam:beta1=0.8,beta2=0.95": (adam, {"beta1": 0.8, "beta2": 0.95}),
    "adamw:weight_decay=0.3": (adam, {"decay": 0.3}),
    "nadam": (nadam, {}),
    "radam:beta2=0.9": (radam, {}),
    "adamax": (adamax, {}),
    "rmsprop": (rmsprop, {}),
    "rmsprop:momentum=0.5,centered=true": (rmsprop, {"momentum": 0.5, "centered": True}),
    "adagrad:lr_decay=0.1,initial=0.2": (adagrad, {"lr_decay": 0.1, "initial": 0.2}),
    "adadelta": (adadelta, {}),
}


@pytest.mark.parametrize("spec", FORMULAS)
def test_steps_are_those_of_the_formula(spec):
    formula, options = FORMULAS[spec]
    weight = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    made = make(spec).build([{"params": [weight]}], 0.02)
    state, w = {}, 0.7
    for t in range(1, STEPS + 1):
        g = math.sin(5 * w) + 0.3 * w + (0.1 if t % 4 else -0.4)
        weight.grad = torch.tensor([g], dtype=torch.float64)
        made.step()
        w = formula(state, w, g, t, 0.02, **options)
        # PyTorch keeps the product of NAdam's momenta in 32 bits
        assert weight.item() == pytest.approx(w, rel=1e-7 if made.__class__.__name__ == "NAdam" else 1e-12)
    assert abs(w - 0.7) > 0.001


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("adamw", "lbfgs")])
def test_decay_is_added_to_the_gradient(name):
    """The same as training on a loss with weight_decay / 2 * w^2 in it."""
    with_decay, with_loss = start(), start()
    made = make(f"{name}:weight_decay=0.3").build([{"params": with_decay}], 0.05)
    plain = make(name).build([{"params": with_loss}], 0.05)
    for step in range(5):
        for optimizer, values, weight in ((made, with_decay, 0.0), (plain, with_loss, 0.3)):
            optimizer.zero_grad()
            (loss_of(values, step) + sum(weight / 2 * v.square().sum() for v in values)).backward()
            optimizer.step()
    for a, b in zip(with_decay, with_loss, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lbfgs"])
def test_a_group_without_decay_is_not_decayed(name):
    values = start()
    groups = [{"params": values[:1]}, {"params": values[1:], "weight_decay": 0.0}]
    made = make(f"{name}:weight_decay=0.3").build(groups, 0.05)
    assert [group["weight_decay"] for group in made.param_groups] == [0.3, 0.0]
    assert [group["lr"] for group in made.param_groups] == [0.05, 0.05]


def test_lbfgs_solves_least_squares_in_an_epoch():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    b = torch.randn(30, generator=generator, dtype=torch.float64)
    w = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    component = make("lbfgs")
    assert component.closure
    assert component.full_batch
    made = component.build([{"params": [w]}, {"params": [], "weight_decay": 0.0}], component.lr)

    def closure():
        made.zero_grad()
        loss = (a @ w - b).square().mean()
        loss.backward()
        return loss

    made.step(closure)
    assert torch.allclose(w.detach(), torch.linalg.lstsq(a, b).solution, atol=1e-4)


def test_gradient_descent_sees_all_the_data():
    assert make("gd").full_batch
    assert not make("sgd").full_batch
    assert not make("gd").closure


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sgd:lr=0", "lr"),
        ("sgd:lr=nan", "lr"),
        ("adam:lr=inf", "lr"),
        ("sgd:lr=-1", "lr"),
        ("sgd:momentum=1", "momentum"),
        ("sgd:nesterov=true", "nesterov needs a momentum"),
        ("sgd:nesterov=true,momentum=0.9,dampening=0.1", "no dampening"),
        ("adam:beta1=1", "beta1"),
        ("adam:eps=0", "eps"),
        ("adam:weight_decay=-1", "weight[-_]decay"),
        ("lbfgs:iterations=0", "iterations"),
        ("lbfgs:weight_decay=0.1", "weight[-_]decay"),
        ("adma", "Did you mean|there is no optimizer"),
    ],
)
def test_what_cannot_be(spec, message):
    with pytest.raises(UsageError, match=message):
        make(spec)
