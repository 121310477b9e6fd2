"""The pass `roundoff`."""

import numpy as np
import pytest
from nnopt_roundoff import Roundoff
from nnopt_roundoff.roundoff import Round

from nnopt_cli import load
from nnopt_cli.testing import check_component


def test_it_keeps_the_rules_for_components():
    check_component(Roundoff)
    check_component(Roundoff, bits=0, exclude=("fc1.*",))


@pytest.mark.parametrize("bits", [1, 7, 10, 15])
def test_float32_agrees_with_rounding_the_significand(bits):
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    fraction, exponent = np.frexp(values.astype(np.float64))
    expected = np.ldexp(np.rint(fraction * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)
    Round(23, 23 - bits)(values, 0)
    assert np.array_equal(values, expected.astype(np.float32))


def test_seven_bits_are_bfloat16(nnopt_model, nnopt_run):
    import torch

    model = nnopt_model()
    out = Roundoff(bits=7).run(model, nnopt_run)
    before, after = model.weights["fc1.weight"].torch(), out.weights["fc1.weight"].torch()
    assert after.equal(before.to(torch.bfloat16).float())
    assert out.weights["brain.weight"] is model.weights["brain.weight"]  # has no more than seven


def test_special_values_stay():
    words = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, np.finfo(np.float32).max], np.float32)
    before = words.tobytes()
    Round(23, 20)(words, 0)
    assert words.tobytes() == before


def test_the_command(nnopt_command, nnopt_file):
    result = nnopt_command("roundoff", nnopt_file("model.pt"), "--bits", 2, "--json")
    assert result.code == 0, result.stderr
    assert result.json["options"] == {"name": "roundoff", "bits": 2}
    weight = load(result.json["output"]).weights["fc1.weight"].words().view("<u4")
    assert not (weight & ((1 << 21) - 1)).any()
