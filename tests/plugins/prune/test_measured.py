"""Budgets that are measured on data or on a clock: --max-drop, --allocate sensitivity, --speedup."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnopt_plugins.datasets.arrays import Arrays
from nnopt_plugins.prune.allocation import Allocation
from nnopt_plugins.prune.budget import Budget
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.structures import Channel, Layer
from prune_models import quiet
from structured_nets import INPUTS, Residual, made

import nnopt_cli
from nnopt_cli import GateMissedError, Model, UsageError


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(96, 3, 8, 8, generator=generator) + torch.randn(96, 3, 1, 1, generator=generator)


@pytest.fixture(scope="module")
def lame(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A residual network whose second branch gives nothing."""
    torch.set_num_threads(1)
    net = made(Residual)
    with torch.no_grad():
        net.b2.weight.zero_()
        net.b2.bias.zero_()
        net.head.bias -= net(images()).mean(0)  # so that no class always wins
    path = tmp_path_factory.mktemp("lame") / "lame.pt"
    torch.save(net.state_dict(), path)
    return nnopt_cli.load(path, Residual, inputs=INPUTS[Residual])


@pytest.fixture(scope="module")
def data(lame: Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Images labelled by that network itself: its accuracy is 1."""
    x = images()
    with torch.no_grad():
        y = lame.program().module()(x).argmax(1)
    assert len(set(y.tolist())) > 3
    path = tmp_path_factory.mktemp("data") / "own.npz"
    np.savez(path, x=x.numpy(), y=y.numpy())
    return path


def pruned(model: Model, data: Path, **options: Any) -> tuple[Model, Any]:
    run = quiet()
    method = Prune(data=Arrays(path=str(data)), granularity=options.pop("granularity", Channel()), **options)
    return method.run(model, run), run


def widths(run: Any) -> dict[str, tuple[int, int]]:
    return {row["layer"]: (row["before"], row["after"]) for row in run.facts["shrunk"]["widths"]}


def test_what_matters_little_goes_first(lame: Model, data: Path) -> None:
    _, even = pruned(lame, data, sparsity=0.4)
    _, run = pruned(lame, data, sparsity=0.4, allocate="sensitivity")
    assert even.facts["units"][1] == pytest.approx(run.facts["units"][1], abs=2), "as many in all"
    got = widths(run)
    assert got["a2.weight"][1] < 0.4 * got["a2.weight"][0], "the branch that gives nothing"
    assert got["a1.weight"][1] > widths(even)["a1.weight"][1]
    assert run.facts["shrunk"]["metric"][1] > even.facts["shrunk"]["metric"][1]
    assert any("by how much accuracy depends on it" in note for note in run.notes)


def test_several_steps_keep_to_the_first_allocation(lame: Model, data: Path) -> None:
    _, once = pruned(lame, data, sparsity=0.4, allocate="sensitivity")
    _, twice = pruned(lame, data, sparsity=0.4, allocate="sensitivity", steps=2)
    assert widths(twice) == widths(once)


@pytest.mark.parametrize("granularity", [Channel(), Layer()], ids=lambda each: each.name)
def test_max_drop_removes_what_costs_nothing(lame: Model, data: Path, granularity: Any) -> None:
    after, run = pruned(lame, data, max_drop="0", granularity=granularity, include=("a2.*",))
    assert run.facts["shrunk"]["metric"] == (1.0, 1.0)
    kept = after.weights["a2.weight"].shape[0] if "a2.weight" in after.weights else 0
    assert kept <= 2
    assert after.weights["a1.weight"].shape[0] == 12


@pytest.mark.parametrize("granularity", [Channel(), Layer()], ids=lambda each: each.name)
def test_max_drop_that_cannot_be_met(lame: Model, data: Path, granularity: Any) -> None:
    options = {"max_drop": "0", "granularity": granularity, "include": ("a1.*",)}
    with pytest.raises(GateMissedError, match="--max-drop 0: even the smallest cut lowers accuracy"):
        pruned(lame, data, **options)
    after, run = pruned(lame, data, keep_best=True, **options)
    assert run.gate_missed
    assert run.facts["shrunk"]["metric"][1] < 1
    assert "a1.weight" not in after.weights or after.weights["a1.weight"].shape[0] < 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"allocate": "sensitivity", "scope": "global"}, "does not go with --scope global"),
        ({"allocate": "sensitivity", "granularity": Layer()}, "does not go with --granularity layer"),
    ],
    ids=str,
)
def test_allocations_that_do_not_fit(lame: Model, data: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pruned(lame, data, sparsity=0.5, **options)


def test_an_allocation_needs_data(lame: Model) -> None:
    with pytest.raises(UsageError, match="--allocate sensitivity needs data"):
        Prune(sparsity=0.5, granularity=Channel(), allocate="sensitivity").run(lame, quiet())


Drops = st.dictionaries(
    st.text("abc", min_size=1),
    st.tuples(*[st.floats(-0.1, 1.0)] * 3),
    min_size=1,
)


@given(Drops, st.floats(0, 1), st.data())
def test_shares_come_to_what_was_asked(drops: Mapping[str, Any], share: float, draw: Any) -> None:
    sizes = {name: draw.draw(st.integers(1, 500)) for name in drops}
    found = Allocation(drops).shares(sizes, share)
    total = sum(sizes.values())
    assert sum(found[name] * sizes[name] for name in sizes) == pytest.approx(share * total, abs=1e-6 * total)
    assert all(0 <= part <= 1 for part in found.values())


def test_equal_layers_go_equally_and_a_dear_one_less() -> None:
    drops = {"a": (0.0, 0.0, 0.0), "b": (0.0, 0.0, 0.0), "dear": (0.3, 0.6, 0.8)}
    found = Allocation(drops).shares(dict.fromkeys(drops, 100), 0.3)
    assert found["a"] == pytest.approx(found["b"])
    assert found["a"] > 0.4 > 0.02 > found["dear"]


class Clock:
    """A stopwatch by which a branch less is a third less."""

    def against(self, small: int) -> tuple[SimpleNamespace, SimpleNamespace]:
        return SimpleNamespace(median=3.0), SimpleNamespace(median=float(small))


@pytest.mark.parametrize(("factor", "left"), [(1.2, 2), (1.5, 2), (1.6, 1), (3.0, 1)])
def test_a_speedup_takes_the_smallest_share_that_is_fast_enough(factor: float, left: int) -> None:
    budget: Any = Budget("speedup", factor, watch=Clock())  # type: ignore[arg-type]
    share = budget.share(lambda part: 3 - round(part * 2) or None, None, "")
    assert 3 - round(share * 2) == left


def test_a_speedup_that_cannot_be(lame: Model) -> None:
    budget: Any = Budget("speedup", 9.0, watch=Clock())  # type: ignore[arg-type]
    with pytest.raises(nnopt_cli.NnoptError, match="cannot be met: this machine is too slow even x"):
        budget.share(lambda part: 3 - round(part * 2), None, "x")
