"""Penalties have the values and gradients of their formulas; decay and dropout do what they say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nnopt_cli import Layer, NnoptError, Regularizer, UsageError
from nnopt_cli.graph import Channels, analyse, groups, layers_of, parameter_groups
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
NAMES = REGISTRY.names("regularizer")
PENALTIES = ("l1", "l2", "elastic-net", "group-lasso", "orthogonality")


def make(spec: str) -> Regularizer:
    found = REGISTRY.build("regularizer", spec)
    assert isinstance(found, Regularizer)
    return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(6, 4)
        for value in self.parameters():
            nn.init.normal_(value, std=0.5)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = x + self.second(x)
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def net():
    return Net().double().eval()


@pytest.fixture(scope="module")
def program(net):
    return torch.export.export(net, (torch.zeros(2, 3, 8, 8, dtype=torch.float64),))


def weights(net):
    return [net.first.weight, net.second.weight, net.head.weight]


def closed_form(spec, net):
    w = [value.detach().numpy() for value in weights(net)]
    flat = [value.reshape(len(value), -1) for value in w]
    match spec:
        case "l1:weight=0.1":
            return 0.1 * sum(abs(v).sum() for v in w)
        case "l1:weight=0.1,on=norms":
            return 0.1 * abs(net.norm.weight.detach().numpy()).sum()
        case "l2:weight=0.1":
            return 0.05 * sum((v**2).sum() for v in w)
        case "l2:weight=0.1,on=all":
            return 0.05 * sum((v.detach().numpy() ** 2).sum() for v in net.parameters())
        case "elastic-net:weight=0.1,ratio=0.3":
            return 0.1 * sum(0.3 * abs(v).sum() + 0.35 * (v**2).sum() for v in w)
        case "group-lasso:weight=0.1":
            rows = [row for v in flat for row in v]
            return 0.1 * sum(math.sqrt(len(row)) * math.sqrt((row**2).sum()) for row in rows)
        case "orthogonality:weight=0.1":
            total = 0.0
            for v in flat:
                v = v if len(v) <= v.shape[1] else v.T
                for i in range(len(v)):
                    for j in range(len(v)):
                        total += ((v[i] * v[j]).sum() - (i == j)) ** 2
            return 0.1 * total
    raise AssertionError(spec)


SPECS = (
    "l1:weight=0.1",
    "l1:weight=0.1,on=norms",
    "l2:weight=0.1",
    "l2:weight=0.1,on=all",
    "elastic-net:weight=0.1,ratio=0.3",
    "group-lasso:weight=0.1",
    "orthogonality:weight=0.1",
)


@pytest.mark.parametrize("spec", SPECS)
def test_penalties_are_those_of_the_formula(net, spec):
    got = make(spec).penalty(layers_of(net))
    assert got.shape == ()
    assert got.item() == pytest.approx(closed_form(spec, net), rel=1e-12)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("coupled", [False, True])
def test_gradients_are_the_slopes_of_the_penalty(net, program, spec, coupled):
    net.zero_grad()
    layers = layers_of(net, program if coupled else None, coupled=coupled)
    make(spec).penalty(layers).backward()
    touched = 0
    for layer in layers:
        slope = layer.parameter.grad
        flat = layer.parameter.detach().view(-1)
        for at in range(0, flat.numel(), max(1, flat.numel() // 5)):
            old, step = flat[at].item(), 1e-6
            values = []
            for shift in (step, -step):
                flat[at] = old + shift
                values.append(make(spec).penalty(layers).item())
            flat[at] = old
            numeric = (values[0] - values[1]) / (2 * step)
            exact = 0.0 if slope is None else slope.view(-1)[at].item()
            assert exact == pytest.approx(numeric, rel=1e-5, abs=1e-7)
            touched += exact != 0
    assert touched


def test_coupled_group_lasso_counts_all_that_goes_with_a_channel(net, program):
    """The same from the units that structured pruning would cut, one by one in NumPy."""
    total = 0.0
    coupling = analyse(program)
    state = dict(net.named_parameters())
    channels = 0
    for group in groups(coupling):
        for unit in group.classes:
            values = []
            for member in group.members:
                if member.parameter in state:
                    dim = coupling.value(coupling.parameters[member.parameter])[member.axis]
                    mine = torch.from_numpy(coupling.roots[dim] == unit)
                    value = state[member.parameter].detach().movedim(member.axis, 0)
                    values.append(value[mine].reshape(-1))
            vector = torch.cat(values).numpy()
            total += math.sqrt(len(vector)) * math.sqrt((vector**2).sum())
            channels += 1
    got = make("group-lasso:weight=1").penalty(layers_of(net, program, coupled=True))
    assert got.item() == pytest.approx(total, rel=1e-12)
    assert channels == 6  # one for each channel of the residual stream; nothing else can be cut


def test_what_is_no_channel_is_in_no_group():
    weight = torch.tensor([[3.0, 4.0], [5.0, 12.0], [8.0, 15.0]], requires_grad=True)
    ids = torch.tensor([0, -1, 0])
    layers = [Layer("w", weight, "linear", (Channels(0, ids),)), Layer("b", torch.ones(3), "bias", ())]
    got = make("group-lasso:weight=1").penalty(layers)
    assert got.item() == pytest.approx(2 * math.sqrt(25 + 289))  # sqrt of 4 numbers, times the norm
    got.backward()
    assert weight.grad[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("spec", PENALTIES)
def test_zero_weights_have_a_gradient_of_zero_or_at_least_a_finite_one(spec):
    """Pruned channels: a norm has no gradient at 0, which must not become NaN."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net[0].weight.data[1] = 0
    net[1].weight.data.zero_()
    make(spec).penalty(layers_of(net)).backward()
    assert all(torch.isfinite(layer.weight.grad).all() for layer in net)
    assert net[0].weight.grad[1].tolist() == [0.0] * 4
    assert net[1].weight.grad.eq(0).all()


def test_l2_is_what_an_optimizer_s_decay_does(net):
    layers = layers_of(net)
    net.zero_grad()
    make("l2:weight=0.3").penalty(layers).backward()
    for layer in layers:
        if layer.is_weight:
            assert torch.allclose(layer.parameter.grad, 0.3 * layer.parameter.detach(), rtol=1e-14)
        else:
            assert layer.parameter.grad is None


def test_several_at_once_add_up(net):
    layers = layers_of(net)
    parts = [make(spec).penalty(layers).item() for spec in SPECS]
    assert sum(make(spec).penalty(layers) for spec in SPECS).item() == pytest.approx(sum(parts))


def trained(with_component: bool) -> list[torch.Tensor]:
    net = Net().double()
    layers = layers_of(net)
    decay = make("weight-decay:weight=0.2")
    ours = torch.optim.AdamW(parameter_groups(layers, 0.0 if with_component else 0.2), lr=0.01)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net.eval()
    for _ in range(5):
        ours.zero_grad()
        net(x).square().mean().backward()
        if with_component:
            decay.before_step(layers, 0.01)
        ours.step()
    return [value.detach().clone() for value in net.parameters()]


def test_decoupled_decay_is_adamw_s():
    """On top of Adam without decay the component does exactly what AdamW does."""
    for a, b in zip(trained(True), trained(False), strict=True):
        assert torch.equal(a, b)


def test_decoupled_decay_adds_nothing_to_the_loss(net):
    assert make("weight-decay").penalty(layers_of(net)).item() == 0
    before = [value.clone() for value in net.parameters()]
    make("l1").before_step(layers_of(net), 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_dropout_sets_the_rate_of_every_layer_that_has_one():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Dropout(0.1), nn.Dropout2d(0.2), nn.AlphaDropout(0.3)
            self.attention = nn.MultiheadAttention(4, 2, dropout=0.1)
            self.deep, self.shallow = nn.LSTM(4, 4, 2, dropout=0.1), nn.LSTM(4, 4, 1)
            self.linear = nn.Linear(4, 4)

    net = Mixed()
    make("dropout:rate=0.7").prepare(net)
    assert [net.a.p, net.b.p, net.c.p, net.attention.dropout, net.deep.dropout] == [0.7] * 5
    assert net.shallow.dropout == 0


def test_dropped_activations_are_as_many_as_asked():
    net = nn.Sequential(nn.Dropout(0.5))
    make("dropout:rate=0.25").prepare(net)
    torch.manual_seed(0)
    out = net.train()(torch.ones(100_000))
    assert out.eq(0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.max().item() == pytest.approx(1 / 0.75)


def test_a_network_without_dropout_is_an_error():
    with pytest.raises(NnoptError, match="no dropout layer"):
        make("dropout").prepare(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_network_without_weights_has_no_penalty(name):
    assert make(name).penalty([]).item() == 0


def test_group_lasso_empties_channels_that_do_not_matter():
    """What it is for: of 20 hidden units 3 are needed, and whole units vanish; L2 shrinks all alike."""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    y = x[:, :1].relu() - x[:, 1:2].relu() + 0.5 * x[:, 2:3].relu()

    def dead_units(spec: str) -> int:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 20, bias=False), nn.ReLU(), nn.Linear(20, 1, bias=False))
        program = torch.export.export(net, (x,))
        layers = layers_of(net, program, coupled=True)
        optimizer, component = torch.optim.Adam(net.parameters(), lr=0.03), make(spec)
        for _ in range(150):
            optimizer.zero_grad()
            ((net(x) - y).square().mean() + component.penalty(layers)).backward()
            optimizer.step()
        norms = torch.cat([net[0].weight, net[2].weight.T], 1).norm(dim=1)
        return int((norms < 0.05 * norms.max()).sum())

    assert dead_units("group-lasso:weight=0.003") >= 8
    assert dead_units("l2:weight=0.003") <= 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("l1:weight=-1", "weight"),
        ("l1:weight=inf", "weight"),
        ("l1:on=biases", "on"),
        ("elastic-net:ratio=2", "ratio"),
        ("dropout:rate=1", "rate"),
        ("l3", "there is no regularizer"),
    ],
)
def test_what_cannot_be(spec, message):
    with pytest.raises(UsageError, match=message):
        make(spec)


def test_every_regularizer_is_tested():
    assert set(NAMES) == {*PENALTIES, "weight-decay", "dropout"}
    assert {name for name in NAMES if make(name).needs_channels} == {"group-lasso"}
