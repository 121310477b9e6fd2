"""The whole zoo: half of every group's channels goes, exactly; a rolled choice is noticed.

Slow. With `NNOPT_SLOW=reduced` every third of the hand-written cases is run. Cases whose package is not
installed are skipped.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from zoo import CASES, Case, export

from nnopt_cli.graph import Coupling, Keep, analyse, check_cut, costs, cut, groups

REDUCED = os.environ.get("NNOPT_SLOW") == "reduced"
CHOSEN = [case for case in CASES if case.family == "hand"][::3] if REDUCED else CASES


def half(coupling: Coupling, shift: int = 0) -> Keep:
    """Removes a random half of every group; `shift` rolls the choice by that many units."""
    rng = np.random.default_rng(0)
    removed = [np.zeros(0, np.int64)]
    for group in groups(coupling):
        chosen = rng.permutation(len(group.classes))[: len(group.classes) // 2]
        removed.append(np.roll(group.classes, shift)[chosen])
    return Keep(coupling, np.concatenate(removed))


@pytest.mark.slow
@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_half_of_the_channels_goes_exactly(case: Case) -> None:
    if case.needs:
        pytest.importorskip(case.needs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that build and export the networks
        program = export(case)
        coupling = analyse(program)
        keep, rolled = half(coupling), half(coupling, shift=1)
        small = cut(program, coupling, keep)
        found = check_cut(program, small, coupling, keep)
        assert found.passed, found
        share = costs(small).parameters / costs(program).parameters
        assert share <= case.most
        _trains(small, case)
        if len(groups(coupling)) and share < 1:
            assert not check_cut(program, cut(program, coupling, rolled), coupling, keep).passed


def _trains(program: Any, case: Case) -> None:
    module = program.module()
    result = module(*case.inputs(3))
    leaves = torch.utils._pytree.tree_leaves(result)
    sum(
        leaf.float().sum() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad
    ).backward()
    assert any(parameter.grad is not None for parameter in module.parameters())
