"""REPAIR: layers get the mean and spread that are wanted, as batch norms folded into them would give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torch.nn.utils.fusion import fuse_conv_bn_weights

from nnopt_cli.graph import Responses, repaired, resettable, responses

torch.set_num_threads(1)


def mlp() -> nn.Sequential:
    parts = [nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, 6), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(6, 3))


def convolutions() -> nn.Sequential:
    parts = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(96, 3))


NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (mlp, (40, 5)),
    "convolutions": (convolutions, (40, 2, 8, 8)),
}


def made(kind: str, seed: int) -> tuple[nn.Sequential, ExportedProgram, Tensor]:
    build, shape = NETS[kind]
    torch.manual_seed(seed)
    net = build().eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(100))
    return net, export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},)), x


def hidden(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Results of all weighted layers but the last, units first, by the module itself."""
    out: list[Tensor] = []
    for part in list(net)[:-1]:
        x = part(x)
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            out.append(x.detach().double().transpose(0, 1).flatten(1))
    return out


def with_weights(net: nn.Sequential, found: dict[str, Tensor]) -> nn.Sequential:
    net.load_state_dict({**net.state_dict(), **{name: value.float() for name, value in found.items()}})
    return net


@pytest.mark.parametrize("kind", NETS)
def test_responses_are_those_of_the_module(kind: str) -> None:
    net, program, x = made(kind, 0)
    found = responses(program, [[x]])
    for got, want in zip(found.values(), hidden(net, x), strict=True):
        torch.testing.assert_close(got.mean, want.mean(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(got.spread, want.std(1, correction=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", NETS)
def test_what_responds_as_wanted_already_stays(kind: str) -> None:
    net, program, x = made(kind, 0)
    found = repaired(program, responses(program, [[x]]), [[x]])
    for name, value in found.items():
        torch.testing.assert_close(value.float(), net.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETS)
def test_layers_respond_as_wanted_afterwards(kind: str) -> None:
    net, program, x = made(kind, 0)
    layers = resettable(program)
    others = [made(kind, seed)[1] for seed in (1, 2)]
    each = [responses(other, [[x]]) for other in others]
    wanted = {name: Responses.between([found[name] for found in each], (0.25, 0.75)) for name in each[0]}
    with_weights(net, repaired(program, wanted, [[x]]))
    for layer, got in zip(layers.values(), hidden(net, x), strict=True):
        first, second = (found[layer.weight] for found in each)
        torch.testing.assert_close(
            got.std(1, correction=0), 0.25 * first.spread + 0.75 * second.spread, rtol=1e-3, atol=1e-5
        )
        if layer.bias is not None:
            torch.testing.assert_close(
                got.mean(1), 0.25 * first.mean + 0.75 * second.mean, rtol=1e-3, atol=1e-4
            )


def test_it_is_batch_norm_folded_by_pytorch() -> None:
    """The paper's own way: batch norms in training mode behind each layer, then fused into it."""
    net, program, x = made("convolutions", 0)
    wanted = responses(made("convolutions", 1)[1], [[x]])
    found = repaired(program, wanted, [[x]])
    norms = [nn.BatchNorm2d(len(goal.mean), eps=1e-9, momentum=None) for goal in wanted.values()]
    for norm, goal in zip(norms, wanted.values(), strict=True):
        norm.load_state_dict({**norm.state_dict(), "weight": goal.spread, "bias": goal.mean})
    longer = nn.Sequential(net[0], norms[0], net[1], net[2], norms[1], *net[3:]).train()
    with torch.no_grad():
        longer(x)
    for layer, norm, goal in zip((net[0], net[2]), norms, wanted.values(), strict=True):
        positions = x.shape[0] * (36 if layer is net[0] else 16)
        assert norm.running_var is not None
        biased = norm.running_var * (positions - 1) / positions  # PyTorch keeps the unbiased one
        biased += 1e-5 * goal.spread.float() ** 2
        want = fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, biased, norm.eps, norm.weight, norm.bias
        )
        name = next(key for key, value in net.named_parameters() if value is layer.weight)
        for key, value in zip((name, name.replace("weight", "bias")), want, strict=True):
            torch.testing.assert_close(found[key].float(), value.detach(), rtol=1e-3, atol=1e-5)


def test_which_layers_can_be_reset() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normed, self.norm = nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)
            self.plain, self.shared, self.last = nn.Conv1d(4, 4, 1), nn.Linear(6, 6), nn.Linear(6, 2)
            self.register_buffer("constant", torch.randn(6, 6), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.plain(torch.relu(self.norm(self.normed(x)))).relu()
            x = nn.functional.linear(self.shared(self.shared(x).relu()).relu(), self.constant)
            return self.last(x.relu()).log_softmax(-1)

    program = export(Net().eval(), (torch.randn(3, 2, 8),))
    assert [layer.weight for layer in resettable(program).values()] == ["plain.weight"]
    assert [layer.axis for layer in resettable(program).values()] == [-2]


def test_a_unit_that_never_responds_stays_silent() -> None:
    _, program, x = made("mlp", 0)
    with torch.no_grad():
        program.state_dict["0.weight"][2].zero_()
    wanted = responses(made("mlp", 1)[1], [[x]])
    found = repaired(program, wanted, [[x]])
    assert all(value.isfinite().all() for value in found.values())
    assert not found["0.weight"][2].any()
    first = next(iter(wanted.values()))
    torch.testing.assert_close(found["0.bias"][2], first.mean[2], rtol=1e-4, atol=1e-5)
