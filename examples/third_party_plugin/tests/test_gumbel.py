"""The criterion `gumbel`."""

import numpy as np
import pytest
from nnopt_roundoff import Gumbel
from nnopt_roundoff.gumbel import uniform

from nnopt_cli import Where
from nnopt_cli.testing import check_component


def test_it_keeps_the_rules_for_components():
    check_component(Gumbel)
    check_component(Gumbel, temperature=0.25)


def test_numbers_are_uniform_and_streams_differ():
    draws = uniform(1, 2, 0, 100_000)
    assert 0 < draws.min() < draws.max() < 1
    assert np.histogram(draws, 10, (0, 1))[0] == pytest.approx(10_000, abs=500)
    for other in (uniform(2, 2, 0, 100_000), uniform(1, 3, 0, 100_000), uniform(1, 2, 1, 100_000)):
        assert abs(np.corrcoef(draws, other)[0, 1]) < 0.02


def test_the_chance_to_be_best_is_proportional_to_magnitude():
    values = np.tile(np.array([1, 2, 5], np.float32), 30_000)
    scores = Gumbel(temperature=1).score(values, Where(name="w", index=0, start=0, seed=0))
    wins = np.bincount(scores.reshape(-1, 3).argmax(axis=1)) / 30_000
    assert wins == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_it_prunes(nnopt_command, nnopt_file):
    path = nnopt_file("model.pt")
    options = ("--sparsity", 0.5, "--criterion", "gumbel:temperature=0.5", "--json", "--force")
    result = nnopt_command("prune", path, *options)
    assert result.code == 0, result.stderr
    after = result.json["after"]
    assert after["prunable_zeros"] == round(after["prunable"] / 2)
    assert result.json["options"]["criterion"] == {"name": "gumbel", "temperature": 0.5}
    zeros = [row["zeros_after"] for row in result.json["tensors"]]
    again = [row["zeros_after"] for row in nnopt_command("prune", path, *options).json["tensors"]]
    other = [
        row["zeros_after"] for row in nnopt_command("prune", path, *options, "--seed", 5).json["tensors"]
    ]
    assert zeros == again != other
