"""The cut, the check and the cost on small networks, with negative controls."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nnopt_cli.graph import Coupling, Keep, analyse, cut, groups
from nnopt_cli.graph.check import check_cut, distance
from nnopt_cli.graph.cost import costs
from nnopt_cli.graph.inputs import sample_inputs
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.residual import blocks, without_blocks


class Residual(nn.Module):
    """Two residual blocks with batch norm, a concatenation, and a head of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.bn = nn.BatchNorm2d(12)
        self.a = nn.Conv2d(12, 10, 3, padding=1)
        self.b = nn.Conv2d(10, 12, 1)
        self.c = nn.Conv2d(24, 8, 1, bias=False)
        self.head, self.other = nn.Linear(8, 5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bn(self.stem(x)).relu()
        y = x + self.b(self.a(x).relu())
        z = self.c(torch.cat([x, y], 1)).mean((2, 3))
        return self.head(z), self.other(z)


class Attention(nn.Module):
    """Multi-head attention over tokens with a packed projection, and a feed-forward block."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Embedding(11, width)
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.head = nn.Linear(width, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        batch, tokens, width = x.shape
        packed = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(mixed)
        return self.head(x + self.down(F.gelu(self.up(x))))


CASES = {"residual": (Residual, (2, 3, 6, 6)), "attention": (Attention, (2, 7))}


def exported(name: str) -> torch.export.ExportedProgram:
    """One of the cases with random weights and statistics, batch dynamic."""
    build, shape = CASES[name]
    torch.manual_seed(0)
    net = build().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    example = torch.randn(shape) if len(shape) == 4 else torch.randint(0, 11, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def half(coupling: Coupling, seed: int = 0, shift: int = 0) -> Keep:
    """Removes a random half of every group; `shift` rolls the choice by that many units."""
    rng = np.random.default_rng(seed)
    removed = []
    for group in groups(coupling):
        chosen = rng.permutation(len(group.classes))[: len(group.classes) // 2]
        removed.append(np.roll(group.classes, shift)[chosen])
    return Keep(coupling, np.concatenate(removed))


@pytest.fixture(params=CASES)
def program(request: pytest.FixtureRequest) -> Any:
    return exported(request.param)


def test_half_of_all_channels_goes_exactly(program: Any) -> None:
    coupling = analyse(program)
    assert coupling.frozen == []
    small = cut(program, coupling, half(coupling))
    found = check_cut(program, small, coupling, half(coupling))
    assert found.passed
    assert found.difference < 1e-12
    assert costs(small).parameters < 0.5 * costs(program).parameters
    assert costs(small).macs < 0.5 * costs(program).macs


class Idle(nn.Module):
    """Computes what no output needs, from channels that are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Linear(4, 12), nn.Linear(12, 3), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        self.norm(x.reshape(-1, 12)).mean(1)
        return self.last(x)


def test_what_no_output_needs_is_not_run(tmp_path: Path) -> None:
    made = torch.export.export(Idle(), (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(made, tmp_path / "idle.pt2")
    program = torch.export.load(tmp_path / "idle.pt2")
    assert any(node.op == "call_function" and not node.users for node in program.graph.nodes)
    coupling = analyse(program)
    keep = half(coupling)
    assert check_cut(program, cut(program, coupling, keep), coupling, keep).passed


def test_a_cut_of_the_wrong_channels_is_caught_and_located(program: Any) -> None:
    coupling = analyse(program)
    wrong = cut(program, coupling, half(coupling, shift=1))
    found = check_cut(program, wrong, coupling, half(coupling))
    assert not found.passed
    assert found.culprit


def test_the_small_program_trains_and_takes_other_batches(program: Any) -> None:
    coupling = analyse(program)
    module = cut(program, coupling, half(coupling)).module()
    for batch in (1, 5):
        result = module(*sample_inputs(program, batch))
        sum(part.sum() for part in (result if isinstance(result, tuple) else (result,))).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_heads_are_found_and_go_whole() -> None:
    coupling = analyse(exported("attention"))
    (heads,) = (group for group in groups(coupling) if group.heads)
    assert len(heads.classes) == 4
    assert {member.parameter for member in heads.members} == {"qkv.weight", "qkv.bias", "out.weight"}
    labels = coupling.value(coupling.parameters["qkv.weight"])[0]
    assert np.unique(coupling.roots[labels], return_counts=True)[1].tolist() == [12, 12, 12, 12]


def test_inputs_and_outputs_are_left_alone(program: Any) -> None:
    coupling = analyse(program)
    small = cut(program, coupling, half(coupling))
    inputs = sample_inputs(program, 3)
    for before, after in zip(run(program, inputs), run(small, inputs), strict=True):
        assert before.shape == after.shape


def test_an_operator_without_a_rule_freezes_and_says_so() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.renorm(self.b(self.a(x).relu()), 2, 0, 1.0))

    odd = torch.export.export(Odd(), (torch.randn(2, 3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    coupling = analyse(odd)
    assert any("renorm" in place.operator for place in coupling.frozen)
    assert [group.name for group in groups(coupling)] == ["a.weight"]  # what renorm reads and gives stays
    assert check_cut(odd, cut(odd, coupling, half(coupling)), coupling, half(coupling)).passed


def test_macs_equal_half_the_flops_that_pytorch_counts() -> None:
    found = costs(exported("residual"), batch=4)
    net = Residual().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(4, 3, 6, 6))
    assert 2 * found.macs == counter.get_total_flops()
    assert found.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert sum(layer.macs for layer in found.layers) == found.macs


def test_a_residual_block_can_go_whole() -> None:
    program = exported("residual")
    (block,) = blocks(program)
    assert set(block.parameters) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    small = without_blocks(program, [block])
    assert not set(block.parameters) & set(small.state_dict)
    net = program.module()
    with torch.no_grad():
        net.get_submodule("b").weight.zero_()
        net.get_submodule("b").bias.zero_()
    inputs = sample_inputs(program, 3)
    assert distance(list(net(*inputs)), run(small, inputs)) < 1e-6


def test_distance_sees_shapes_and_values_that_are_not_finite() -> None:
    ones = torch.ones(2)
    assert distance([ones], [ones]) == 0
    assert distance([ones], [torch.ones(3)]) == float("inf")
    assert distance([ones], [torch.tensor([1.0, float("nan")])]) == float("inf")
    assert distance([ones, ones], [ones]) == float("inf")


def test_costs_are_foretold_without_cutting(program: Any) -> None:
    coupling = analyse(program)
    keep = half(coupling)
    foretold, real = costs(program, 3, coupling, keep), costs(cut(program, coupling, keep), 3)
    assert (foretold.macs, foretold.parameters) == (real.macs, real.parameters)
    assert [layer.macs for layer in foretold.layers] == [layer.macs for layer in real.layers]
    assert foretold.peak_bytes == real.peak_bytes
