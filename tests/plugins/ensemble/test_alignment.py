"""Alignment and statistics of whole models; a shared trunk is stored once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import nnopt_cli
from nnopt_cli import Members, Run, UsageError
from nnopt_cli.graph import Order, analyse, exchangeable, norm_statistics, permuted
from nnopt_cli.plugin.manager import Wanted, load_plugins

torch.set_num_threads(1)
REGISTRY = load_plugins(Wanted(allowed=frozenset()))


def net(width: int = 6) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(128, 3)),
    )


def model(folder, seed: int, width: int = 6) -> nnopt_cli.Model:
    torch.manual_seed(seed)
    path = folder / f"{seed}-{width}.pt"
    torch.save(net(width).state_dict(), path)
    return nnopt_cli.load(path, lambda: net(width), inputs="1x8x8")


def test_a_permuted_member_is_put_back_and_keeps_its_form(tmp_path):
    one = model(tmp_path, 1)
    coupling = analyse(one.program())
    order = Order.unchanged(coupling)
    rng = np.random.default_rng(0)
    for group in exchangeable(coupling):
        order = order.with_group(group, rng.permutation(len(group.classes)))
    state = permuted(one.program(), order).state_dict
    torch.save({name: state[name].detach() for name in one.weights}, tmp_path / "moved.pt")
    other = nnopt_cli.load(tmp_path / "moved.pt", net, inputs="1x8x8")
    found = REGISTRY.build("alignment", "weights").align(Members((one, other)), Run(registry=REGISTRY))
    assert found.models[0] is one
    assert found.models[1].container.format == other.container.format  # still weights in a .pt
    for name, weight in found.models[1].weights.items():
        assert torch.equal(weight.torch(), one.weights[name].torch()), name


def test_other_architectures_cannot_be_aligned(tmp_path):
    members = Members((model(tmp_path, 1), model(tmp_path, 2, width=7)))
    with pytest.raises(UsageError, match=r"2-7.pt are of different architectures: 0.weight"):
        REGISTRY.build("alignment", "weights").align(members, Run(registry=REGISTRY))


def test_a_trunk_is_averaged_and_stored_once(tmp_path):
    one, two = model(tmp_path, 1), model(tmp_path, 2)
    members = Members((one, two), share_trunk=1)
    run = Run(registry=REGISTRY)
    fused = REGISTRY.build("fusion", "mean").fuse(members, run)
    convolutions = [n for n in fused.program().graph.nodes if "conv2d" in str(n.target)]
    assert len(convolutions) == 3
    assert run.facts["shared"]["layers"] == 2  # the convolution and its norm
    aligned = REGISTRY.build("alignment", "weights").align(Members((one, two)), Run(registry=REGISTRY))
    want = (one.weights["0.weight"].torch() + aligned.models[1].weights["0.weight"].torch()) / 2
    torch.testing.assert_close(fused.weights["members.0.0.weight"].torch(), want)


def test_statistics_are_those_of_training_in_pytorch(tmp_path):
    """`momentum=None`: the plain mean of the batches' statistics."""
    one = model(tmp_path, 1)
    feeds = [[torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(seed))] for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = norm_statistics(one.program(), feeds)
    module = net()
    module.load_state_dict({name: weight.torch() for name, weight in one.weights.items()})
    module.train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    with torch.no_grad():
        for feed in feeds:
            module(*feed)
    want = {name: value for name, value in module.state_dict().items() if "running" in name}
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name].float(), value, rtol=1e-4, atol=1e-5)
