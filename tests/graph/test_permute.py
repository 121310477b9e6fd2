"""A network in another order of its channels computes the same, and matching finds the order back exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from zoo import CASES, export

from nnopt_cli.graph import (
    Coupling,
    Order,
    analyse,
    check_permuted,
    exchangeable,
    groups,
    match_activations,
    match_weights,
    permuted,
    same_graph,
    sample_inputs,
)

torch.set_num_threads(1)
HAND = {case.name: case for case in CASES if case.family == "hand"}
NAMED = [
    *("resnet50", "mobilenet-v2", "densenet121", "attention-einsum", "gqa-expand", "lstm", "crnn", "mixer"),
    *("split-attention", "squeeze-excite", "wavenet", "c2f", "mixture-of-experts", "hyper-connections"),
]
QUICK = [name for name in NAMED if name in HAND]
QUICK += [name for name in list(HAND)[::12] if name not in QUICK]


def shuffled(coupling: Coupling, seed: int = 1) -> Order:
    """Every unit of every group in a random place."""
    rng = np.random.default_rng(seed)
    order = Order.unchanged(coupling)
    for group in exchangeable(coupling):
        order = order.with_group(group, rng.permutation(len(group.classes)))
    return order


def unequal(one: ExportedProgram, other: ExportedProgram) -> list[str]:
    return [name for name, t in one.state_dict.items() if not torch.equal(t, other.state_dict[name])]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No warnings of exporting the zoo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def held(name: str) -> None:
    """Permuted at random a network computes the same; weight matching finds its own order again."""
    program = export(HAND[name])
    coupling = analyse(program)
    order = shuffled(coupling)
    moved = permuted(program, order)
    if exchangeable(coupling):
        assert unequal(program, moved)
    found = check_permuted(program, moved, order)
    assert found.passed, found
    back = permuted(moved, match_weights(program, moved, coupling))
    assert unequal(program, back) == []


@pytest.mark.parametrize("name", QUICK)
def test_a_random_order_is_undone_exactly(name):
    held(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HAND if name not in QUICK])
def test_a_random_order_is_undone_exactly_everywhere(name):
    held(name)


@pytest.mark.parametrize("name", ["c2f", "mixer", "lstm"])
def test_a_wrong_order_of_one_tensor_is_seen(name):
    """The negative control: one dimension of one weight is left as it was."""
    program = export(HAND[name])
    coupling = analyse(program)
    order = shuffled(coupling)
    seen = 0
    for key in unequal(program, permuted(program, order))[:6]:
        moved = permuted(program, order)
        moved.state_dict[key] = program.state_dict[key]
        found = check_permuted(program, moved, order, batches=[2])
        assert not found.passed, key
        assert found.culprit
        seen += 1
    assert seen


class Halves(nn.Module):
    """Only the first half is rectified: its channels may not change places with those of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.first(x).chunk(2, -1)
        return self.last(torch.cat([one.relu(), two], -1))


def exported(net: nn.Module, *inputs: Tensor) -> ExportedProgram:
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    return torch.export.export(net.eval(), inputs, dynamic_shapes=shapes)


def test_only_channels_that_the_graph_treats_alike_change_places():
    torch.manual_seed(0)
    program = exported(Halves(), torch.randn(2, 6))
    coupling = analyse(program)
    assert [len(group.classes) for group in groups(coupling)] == [16]  # any of them can be removed
    assert sorted(len(group.classes) for group in exchangeable(coupling)) == [8, 8]
    order = shuffled(coupling)
    assert check_permuted(program, permuted(program, order), order).passed
    whole = groups(coupling)[0]
    wrong = Order.unchanged(coupling).with_group(whole, np.roll(np.arange(16), 8))
    with pytest.raises(ValueError, match="treat alike"):
        check_permuted(program, permuted(program, wrong), wrong)


class Flat(nn.Module):
    """Each channel is four columns of the last layer; the norm's statistics move along."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)).relu().flatten(1))


def test_the_permutation_of_every_tensor_by_hand():
    torch.manual_seed(0)
    net = Flat()
    nn.init.uniform_(net.norm.weight)
    net.norm.running_mean.uniform_()
    program = exported(net, torch.randn(2, 1, 4, 4))
    coupling = analyse(program)
    (group,) = exchangeable(coupling)
    places = np.array([3, 1, 4, 0, 2])
    state = permuted(program, Order.unchanged(coupling).with_group(group, places)).state_dict
    for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean"):
        torch.testing.assert_close(state[name], program.state_dict[name][places], rtol=0, atol=0)
    columns = program.state_dict["last.weight"].reshape(3, 5, 4)[:, places].reshape(3, 20)
    torch.testing.assert_close(state["last.weight"], columns, rtol=0, atol=0)
    assert torch.equal(state["last.bias"], program.state_dict["last.bias"])


def test_heads_move_whole():
    program = export(HAND["attention-einsum"])
    coupling = analyse(program)
    assert any(group.heads or len(group.classes) == 4 for group in exchangeable(coupling))


def test_matching_by_activations_finds_units_that_respond():
    """On noise no unit of this network is always off, so that all are told apart."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3))
    program = exported(net, torch.randn(2, 12))
    coupling = analyse(program)
    moved = permuted(program, shuffled(coupling))
    feeds = [sample_inputs(program, 64, seed) for seed in range(3)]
    assert unequal(program, permuted(moved, match_activations(program, moved, coupling, feeds))) == []


def test_matched_weights_agree_at_least_as_much_as_before():
    torch.manual_seed(0)

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))

    one, two = (exported(net(), torch.randn(2, 12)) for _ in range(2))
    coupling = analyse(one)
    moved = permuted(two, match_weights(one, two, coupling))

    def product(other: ExportedProgram) -> float:
        pairs = ((t.detach(), other.state_dict[name].detach()) for name, t in one.state_dict.items())
        return sum(float((a * b).sum()) for a, b in pairs)

    assert product(moved) > product(two) + 1
    assert check_permuted(two, moved, match_weights(one, two, coupling)).passed


def test_graphs_that_differ_are_told_apart():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    wide = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    tanh = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(2, 4)
    program = exported(net, x)
    assert same_graph(program, exported(net, x)) == ""
    assert "0.weight: [8, 4] and [9, 4]" in same_graph(program, exported(wide, x))
    assert "relu" in same_graph(program, exported(tanh, x))


class Branches(nn.Module):
    """Two branches that are alike but for their order, or for a stride."""

    def __init__(self, first: str = "a", stride: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 2, 1, stride), nn.Conv1d(2, 2, 1)
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = (self.a, self.b) if self.first == "a" else (self.b, self.a)
        return torch.cat([one(x), other(x)], 2)


def test_graphs_are_told_apart_by_their_wiring_and_arguments():
    x = torch.randn(2, 2, 8)
    program = exported(Branches(), x)
    assert same_graph(program, exported(Branches(), x)) == ""
    assert "conv1d" in same_graph(program, exported(Branches("b"), x))
    assert "conv1d" in same_graph(program, exported(Branches(stride=2), x))
    free, other = (
        torch.export.export(
            Branches().eval(),
            (torch.randn(size, 2, 8),),
            dynamic_shapes=({0: torch.export.Dim(name, min=2)},),
        )
        for size, name in ((4, "n"), (5, "batch"))
    )
    assert same_graph(free, other) == ""
