"""What each parameter is for, read off modules and off graphs alike; which are decayed; their channels."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from nnopt_cli.graph import analyse, groups, layers_of, parameter_groups


class RMS(nn.Module):
    """A norm that PyTorch does not know; its name says what it is."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * self.weight


RMSNorm = type("RMSNorm", (RMS,), {})


class Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.gn = nn.GroupNorm(2, 8)
        self.ln = nn.LayerNorm([8])
        self.rms = RMSNorm(8)
        self.lstm = nn.GRU(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.table = nn.Embedding(10, 8)
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.one = nn.Linear(8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x, ids):
        x = self.gn(self.depthwise(self.bn(self.conv(x)).relu())).mean((2, 3))
        x = self.rms(self.ln(x))[:, None] + self.table(ids) + self.position + self.token
        x = self.lstm(x)[0]
        x = self.attention(x, x, x)[0].mean(1)
        return self.head(x), self.one(x)


KINDS = {
    "conv.weight": "conv",
    "conv.bias": "bias",
    "bn.weight": "norm",
    "bn.bias": "bias",
    "depthwise.weight": "conv",
    "gn.weight": "norm",
    "gn.bias": "bias",
    "ln.weight": "norm",
    "ln.bias": "bias",
    "rms.weight": "norm",
    "lstm.weight_ih_l0": "linear",
    "lstm.weight_hh_l0": "linear",
    "lstm.bias_ih_l0": "bias",
    "lstm.bias_hh_l0": "bias",
    "attention.in_proj_weight": "linear",
    "attention.in_proj_bias": "bias",
    "attention.out_proj.weight": "linear",
    "attention.out_proj.bias": "bias",
    "table.weight": "other",
    "one.weight": "linear",
    "one.bias": "bias",
    "head.weight": "linear",
    "head.bias": "bias",
    "position": "other",
    "token": "other",
}


@pytest.fixture(scope="module")
def many():
    return Many().eval()


@pytest.fixture(scope="module")
def program(many):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recurrent layer's flat weights
        return torch.export.export(many, (torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, dtype=torch.int64)))


@pytest.mark.parametrize("graph", [False, True])
def test_kinds(many, program, graph):
    found = layers_of(many, program if graph else None)
    assert {layer.name: layer.kind for layer in found} == KINDS
    assert all(layer.parameter is many.get_parameter(layer.name) for layer in found)
    assert all(layer.groups is None for layer in found)


@pytest.mark.parametrize("graph", [False, True])
def test_decay_is_for_what_multiplies_inputs(many, program, graph):
    layers = layers_of(many, program if graph else None)
    decayed, spared = parameter_groups(layers, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    names = {id(value): name for name, value in many.named_parameters()}
    wanted = {name for name, kind in KINDS.items() if kind in ("conv", "linear")}
    assert {names[id(v)] for v in decayed["params"]} == wanted | {"table.weight", "position"}
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    assert "weight_decay" not in parameter_groups(layers)[0]


def test_a_group_that_would_be_empty_is_left_out():
    assert len(parameter_groups(layers_of(nn.Linear(2, 1, bias=False)))) == 1
    assert parameter_groups([]) == []
    assert layers_of(nn.Linear(1, 1))[0].is_weight


def test_frozen_and_tied_parameters():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    assert [layer.name for layer in layers_of(net)] == ["0.weight", "1.bias"]


@pytest.mark.parametrize("old", [False, True])
def test_weight_norm_s_size_is_not_decayed(old):
    linear = nn.Conv1d(4, 3, 2)
    if old:
        from torch.nn.utils import weight_norm

        with pytest.warns(FutureWarning):
            net = nn.Sequential(weight_norm(linear))
    else:
        net = nn.Sequential(parametrizations.weight_norm(linear))
    got = {layer.name.rpartition(".")[2]: (layer.kind, layer.is_weight) for layer in layers_of(net)}
    size, direction = ("weight_g", "weight_v") if old else ("original0", "original1")
    assert got == {"bias": ("bias", False), size: ("other", False), direction: ("conv", True)}


def test_spectral_norm_keeps_the_layer_s_kind():
    net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3)))
    assert {layer.kind for layer in layers_of(net)} == {"bias", "linear"}


def test_without_a_graph_channels_are_the_rows_of_weights(many):
    seen: set[int] = set()
    for layer in layers_of(many, coupled=True):
        assert layer.groups is not None
        if not layer.is_weight:
            assert layer.groups == ()
            continue
        ((axis, ids),) = layer.groups
        assert axis == 0
        assert len(ids) == len(layer.parameter)
        assert seen.isdisjoint(ids.tolist())
        seen.update(ids.tolist())


def test_with_a_graph_channels_are_the_units_that_can_be_cut(many, program):
    """Each unit's places are those that pruning would remove."""
    coupling = analyse(program)
    units = [frozenset(_places(coupling, unit)) for group in groups(coupling) for unit in group.classes]
    found: dict[int, set[tuple[str, int, int]]] = {}
    for layer in layers_of(many, program, coupled=True):
        for axis, ids in layer.groups or ():
            for index, channel in enumerate(ids.tolist()):
                if channel >= 0:
                    found.setdefault(channel, set()).add((layer.name, axis, index))
    assert {frozenset(places) for places in found.values()} == {
        frozenset(place for place in unit if place[0] in KINDS) for unit in units
    }
    assert sorted(found) == list(range(len(units)))


def _places(coupling, unit):
    for name, node in coupling.parameters.items():
        for axis, dim in enumerate(coupling.value(node)):
            classes = coupling.classes(dim)
            if classes is not None:
                yield from ((name, axis, int(at)) for at in (classes == unit).nonzero()[0])


def test_nothing_that_is_cut_off_by_the_outputs(many, program):
    layers = {layer.name: layer for layer in layers_of(many, program, coupled=True)}
    assert all(channels.axis != 0 for channels in layers["head.weight"].groups)
    assert layers["head.bias"].groups == ()
    assert all(channels.axis != 1 for channels in layers["conv.weight"].groups)
