"""What the components of training must do: a part of `check_component`."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from nnopt_cli.plugin.training import Regularizer

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from nnopt_cli.plugin.training import Initializer, LearningRateSchedule, Optimizer


def check_optimizer(optimizer: Optimizer) -> None:
    """It takes groups, changes weights, and goes on from its saved state as if nothing had been."""
    import torch

    values = _weights()
    made = _built(optimizer, values)
    assert isinstance(made, torch.optim.Optimizer), f"build() returned {type(made).__name__}, no optimizer"
    held = [value for group in made.param_groups for value in group["params"]]
    assert {id(value) for value in held} == {id(value) for value in values}, "some parameters are left out"
    before = [value.detach().clone() for value in values]
    _train(optimizer, made, values, 3)
    assert all(bool(value.isfinite().all()) for value in values), "its steps lead to NaN or infinity"
    changed = [not torch.equal(a, b) for a, b in zip(before, values, strict=True)]
    assert all(changed), "some parameters do not change"
    again = [value.detach().clone().requires_grad_() for value in values]
    resumed = _built(optimizer, again)
    resumed.load_state_dict(deepcopy(made.state_dict()))
    _train(optimizer, made, values, 2)
    _train(optimizer, resumed, again, 2)
    same = all(torch.equal(a, b) for a, b in zip(values, again, strict=True))
    assert same, "resumed from its state_dict() it takes other steps: it keeps something elsewhere"


def _weights() -> list[Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (4,))
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def _built(optimizer: Optimizer, values: list[Tensor]) -> optim.Optimizer:
    return optimizer.build([{"params": values[:1]}, {"params": values[1:], "weight_decay": 0.0}], 0.01)


def _train(optimizer: Optimizer, made: optim.Optimizer, values: list[Tensor], steps: int) -> None:
    def closure() -> Any:
        made.zero_grad()
        loss = sum((value - 1).square().sum() for value in values)
        loss.backward()  # type: ignore[union-attr]
        return loss

    for _ in range(steps):
        if optimizer.closure:
            made.step(closure)
        else:
            closure()
            made.step()


def check_schedule(schedule: LearningRateSchedule) -> None:
    """Its factors are finite and not negative, and follow from nothing but the arguments."""
    for total, per_epoch in ((1, 1), (7, 3), (100, 10)):
        factors = [schedule.factor(step, total, per_epoch) for step in range(total)]
        assert all(math.isfinite(f) and f >= 0 for f in factors), (
            f"a factor is negative or no number: {factors}"
        )
        assert any(factors), f"all factors of {total} steps are 0"
        again = [schedule.factor(step, total, per_epoch) for step in reversed(range(total))]
        assert again[::-1] == factors, "a factor depends on what was asked before; a resumed run would differ"
    state: dict[str, Any] = {}
    for figure in (0.5, 0.6, 0.6, math.nan, 0.4, 0.4, 0.4):
        kept = json.loads(json.dumps(state, allow_nan=False))
        factor = schedule.update(state, figure, True)
        assert math.isfinite(factor), f"update() returned {factor}"
        assert factor >= 0, f"update() returned {factor}"
        assert schedule.update(kept, figure, True) == factor, "update() keeps something outside of its state"


def check_regularizer(regularizer: Regularizer) -> None:
    """It does something; its penalty is a number with finite gradients, also where weights are zero."""
    import torch

    from nnopt_cli.graph.layers import layers_of

    own = type(regularizer)
    hooks = ("prepare", "penalty", "before_step")
    assert any(getattr(own, hook) is not getattr(Regularizer, hook) for hook in hooks), (
        f"it overrides none of {', '.join(hooks)}"
    )
    network = _network()
    regularizer.prepare(network)
    layers = layers_of(network, coupled=True)
    before = [layer.parameter.detach().clone() for layer in layers]
    penalty = regularizer.penalty(layers)
    assert penalty.shape == (), f"penalty() returned a tensor of shape {list(penalty.shape)}, not a scalar"
    assert bool(penalty.isfinite()), f"penalty() returned {penalty.item()}"
    kept = all(torch.equal(old, layer.parameter) for old, layer in zip(before, layers, strict=True))
    assert kept, "penalty() changes weights; that is for before_step()"
    if penalty.requires_grad:
        penalty.backward()  # type: ignore[no-untyped-call]
        slopes = [layer.parameter.grad for layer in layers if layer.parameter.grad is not None]
        finite = all(bool(slope.isfinite().all()) for slope in slopes)
        assert finite, "the penalty's gradient is not finite where a channel is zero, as pruned ones are"
    regularizer.before_step(layers, 0.1)
    assert all(bool(layer.parameter.isfinite().all()) for layer in layers), (
        "before_step() makes weights no numbers"
    )


def _network() -> nn.Module:
    """Convolution, norm, dropout and a linear map, with a channel of zeros."""
    from torch import nn

    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.1), nn.Flatten(), nn.Linear(16, 3)
    )
    for value in network.parameters():
        value.data[0] = 0
    return network


def check_initializer(initializer: Initializer) -> None:
    """It fills the whole tensor with numbers that follow from the generator alone."""
    import torch

    def drawn(seed: int) -> Tensor:
        tensor = torch.full((6, 5, 3, 3), math.nan)
        assert initializer.fill(tensor, torch.Generator().manual_seed(seed)) is None, (
            "fill() works in place and returns nothing"
        )
        return tensor

    state = torch.get_rng_state()
    first = drawn(0)
    assert bool(first.isfinite().all()), "fill() leaves values that are no numbers"
    assert torch.equal(first, drawn(0)), "the same generator must give the same values"
    assert torch.equal(state, torch.get_rng_state()), "chance may come from the generator alone"
