"""Every method against the formula of its paper, written out anew in float64 over whole tensors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from ensemble_models import fused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nnopt_plugins.ensemble import formulas

FLOATS = ("a.weight", "a.bias", "b.weight")
EXACT = {"rtol": 2e-6, "atol": 2e-6}  # float32 arithmetic, rounded once


def check(tmp_path, spec, expected, *, dtype=torch.float32, tolerance=EXACT, **kwargs):
    made, read = fused(tmp_path, spec, dtype=dtype, **kwargs)
    members = [read[name] for name in read if name != "base"]
    for name in FLOATS:
        want = expected([member[name] for member in members], read["base"][name])
        np.testing.assert_allclose(made[name], want, err_msg=name, **tolerance)
    return made


def mean(values, base):
    return sum(values) / len(values)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_linear_is_the_mean(tmp_path, count):
    made = check(tmp_path, "linear", mean, count=count)
    assert made["n"] == 10 + count  # integers: the largest


def test_linear_with_weights_of_all_and_of_some(tmp_path):
    everywhere, some = (0.25, 0.75), (1.0, 0.0)
    made, read = fused(tmp_path, "linear", everywhere=everywhere, patterns=[("a.*", some)])
    a, b = read["m0"], read["m1"]
    np.testing.assert_allclose(made["b.weight"], 0.25 * a["b.weight"] + 0.75 * b["b.weight"], **EXACT)
    np.testing.assert_array_equal(made["a.weight"], a["a.weight"])


def slerp(t):
    def expected(values, base):
        a, b = (value.ravel() for value in values)
        angle = (
            np.arctan2(  # another way to the angle than its cosine
                np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)) / 2,
                np.linalg.norm(a / np.linalg.norm(a) + b / np.linalg.norm(b)) / 2,
            )
            * 2
        )
        out = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
        return out.reshape(values[0].shape)

    return expected


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_is_shoemakes(tmp_path, t):
    check(tmp_path, f"slerp:t={t}", slerp(t))


def test_slerp_over_a_layer_measures_one_angle(tmp_path):
    made, read = fused(tmp_path, "slerp:angle=layer")
    a, b = (np.concatenate([read[m][k].ravel() for k in ("a.weight", "a.bias")]) for m in ("m0", "m1"))
    want = slerp(0.5)([a, b], None)
    got = np.concatenate([made["a.weight"].ravel(), made["a.bias"].ravel()])
    np.testing.assert_allclose(got, want, **EXACT)


def test_karcher_of_two_is_slerp_of_directions(tmp_path):
    def expected(values, base):
        norms = [np.linalg.norm(value) for value in values]
        units = [value / norm for value, norm in zip(values, norms, strict=True)]
        return slerp(0.5)(units, None) * np.mean(norms)

    check(tmp_path, "karcher", expected)


def test_karcher_of_several_has_no_gradient(tmp_path):
    """At the mean the sum of logarithm maps vanishes; computed on the vectors themselves."""
    made, read = fused(tmp_path, "karcher", count=4)
    for name in FLOATS:
        point = made[name].ravel() / np.linalg.norm(made[name])
        total = np.zeros_like(point)
        for member in ("m0", "m1", "m2", "m3"):
            other = read[member][name].ravel() / np.linalg.norm(read[member][name])
            across = other - (other @ point) * point
            total += math.acos(np.clip(other @ point, -1, 1)) * across / np.linalg.norm(across)
        assert np.linalg.norm(total) < 1e-5
        norms = [np.linalg.norm(read[f"m{i}"][name]) for i in range(4)]
        assert np.linalg.norm(made[name]) == pytest.approx(np.mean(norms), rel=1e-6)


def test_task_arithmetic_adds_differences(tmp_path):
    def expected(values, base):
        return base + 0.5 * sum(value - base for value in values)

    check(tmp_path, "task-arithmetic:scale=0.5", expected, count=3, base=True)
    made = check(
        tmp_path,
        "task-arithmetic",
        lambda values, base: base + 2 * (values[0] - base) - (values[1] - base),
        base=True,
        everywhere=(2.0, -1.0),
    )
    assert made["n"] == 12


def ties(density, normalize=True):
    def expected(values, base):
        kept = []
        for value in values:
            flat = (value - base).ravel()
            order = sorted(range(len(flat)), key=lambda i: -abs(flat[i]))
            out = np.zeros_like(flat)
            for i in order[: int(density * len(flat))]:
                out[i] = flat[i]
            kept.append(out)
        merged = np.zeros_like(kept[0])
        for i in range(len(merged)):
            sign = 1.0 if sum(each[i] for each in kept) >= 0 else -1.0
            agree = [each[i] for each in kept if each[i] * sign > 0]
            merged[i] = sum(agree) / (len(agree) if normalize else 1) if agree else 0.0
        return base + merged.reshape(base.shape)

    return expected


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [2, 3])
def test_ties_trims_elects_and_merges(tmp_path, density, count):
    check(tmp_path, f"ties:density={density}", ties(density), count=count, base=True)


def test_ties_without_normalising_sums(tmp_path):
    check(tmp_path, "ties:density=0.5,normalize=false", ties(0.5, normalize=False), count=3, base=True)


def test_dare_at_density_one_is_what_it_builds_on(tmp_path):
    check(tmp_path, "dare-linear:density=1", lambda v, b: b + sum(x - b for x in v), base=True)
    check(tmp_path, "dare-ties:density=1", ties(1.0), base=True)


def test_dare_keeps_its_share_enlarged_and_is_right_on_average(tmp_path):
    made, read = fused(tmp_path, "dare-linear:density=0.25", base=True, everywhere=(1.0, 0.0))
    moved, full = (
        (made["a.weight"] - read["base"]["a.weight"]),
        (read["m0"]["a.weight"] - read["base"]["a.weight"]),
    )
    kept = moved != 0
    np.testing.assert_allclose(moved[kept], 4 * full[kept], rtol=1e-3, atol=1e-6)
    value = np.ones(1 << 18, np.float32)
    drawn = formulas.dropped(value, 0.25, 3, 7, 0)
    assert set(np.unique(drawn)) == {0.0, 4.0}
    assert drawn.mean() == pytest.approx(1.0, abs=6 * math.sqrt(3 / len(value)))
    assert not np.array_equal(drawn, formulas.dropped(value, 0.25, 3, 8, 0))
    assert not np.array_equal(drawn, formulas.dropped(value, 0.25, 4, 7, 0))


@given(st.integers(0, 1000), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_dare_draws_the_same_in_chunks(start, count):
    whole = formulas.dropped(np.ones(1200, np.float32), 0.5, 1, 2, 0)
    part = formulas.dropped(np.ones(count, np.float32), 0.5, 1, 2, start)
    np.testing.assert_array_equal(part, whole[start : start + count])


@pytest.mark.parametrize("count", [2, 4])
def test_model_stock_is_the_paper_s(tmp_path, count):
    def expected(values, base):
        moved = [(value - base).ravel() for value in values]
        pairs = list(itertools.combinations(moved, 2))
        cos = np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs])
        ratio = min(1.0, max(0.0, count * cos / (1 + (count - 1) * cos)))
        return ratio * (sum(values) / count) + (1 - ratio) * base

    check(tmp_path, "model-stock", expected, count=count, base=True)


def test_averages_over_checkpoints(tmp_path):
    check(tmp_path, "swa", mean, count=3)

    def running(values, base):
        average = values[0]
        for value in values[1:]:
            average = 0.9 * average + 0.1 * value
        return average

    check(tmp_path, "ema:decay=0.9", running, count=4)


@pytest.mark.parametrize("spec", ["linear", "slerp", "ties:density=1", "task-arithmetic"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(tmp_path, spec, dtype):
    """No result is further from the float64 one than half of the type's spacing, plus float32's."""
    base = spec.startswith(("ties", "task"))
    half, read = fused(tmp_path, spec, dtype=dtype, base=base)
    full = {name: {k: torch.tensor(v) for k, v in each.items()} for name, each in read.items()}
    values = {
        "linear": lambda v, b: sum(v) / 2,
        "slerp": slerp(0.5),
        "ties:density=1": ties(1.0),
        "task-arithmetic": lambda v, b: b + sum(x - b for x in v),
    }[spec]
    for name in FLOATS:
        want = values([full["m0"][name].numpy(), full["m1"][name].numpy()], full["base"][name].numpy())
        spacing = torch.finfo(dtype).eps * 2.0 ** np.floor(np.log2(np.abs(want) + 1e-30))
        assert (np.abs(half[name] - want) <= 0.5 * spacing * 1.001 + 1e-5).all()


finite = st.floats(-100, 100, width=32)


@given(arrays(np.float32, (3, 40), elements=finite), st.permutations(range(3)))
@settings(max_examples=60, deadline=None)
def test_election_does_not_mind_the_order_of_members(values, order):
    one = formulas.elected(list(values), [1.0] * 3, normalize=True)
    other = formulas.elected([values[i] for i in order], [1.0] * 3, normalize=True)
    total = values.astype(np.float64).sum(0)
    clear = np.abs(total) > 1e-3  # where the sum is all rounding, its sign is too
    np.testing.assert_allclose(one[clear], other[clear], rtol=1e-5, atol=1e-5)


@given(arrays(np.float32, (2, 300), elements=finite), st.floats(0.01, 0.99))
@settings(max_examples=80, deadline=None)
def test_thresholds_are_order_statistics(values, density):
    found = formulas.thresholds(lambda most: [list(values[:, :100]), list(values[:, 100:])], density)
    keep = int(density * 300)
    for value, least in zip(values, found, strict=True):
        want = np.sort(np.abs(value))[::-1][keep - 1] if keep else math.inf
        assert least == want


def test_thresholds_hold_where_the_sample_misleads():
    """The sampled chunks are all small; what counts lies elsewhere."""
    small, large = np.linspace(0, 1, 4096, dtype=np.float32), np.linspace(5, 9, 4096, dtype=np.float32)

    def read(most):
        return [[small]] if most is not None else [[small], [large]]

    want = np.sort(np.concatenate([small, large]))[::-1][int(0.3 * 8192) - 1]
    assert formulas.thresholds(read, 0.3) == [want]
    double = [[small.astype(np.float64) / 3], [large.astype(np.float64) / 3]]
    wide = np.sort(np.concatenate([chunk for (chunk,) in double]))[::-1][int(0.3 * 8192) - 1]
    assert formulas.thresholds(lambda most: double[:1] if most is not None else double, 0.3) == [wide]


@pytest.mark.parametrize("scale", [0.1, 1e40, 1e-60])
@pytest.mark.parametrize("alike", [True, False])
def test_thresholds_of_doubles_are_doubles(scale, alike):
    """No float32 lies at 0.1, 1e40 or 1e-60."""
    values = np.full(1000, scale) if alike else np.random.default_rng(0).standard_normal(1000) * scale
    (least,) = formulas.thresholds(lambda most: [[values[:600]], [values[600:]]], 0.25)
    assert least == np.sort(np.abs(values))[::-1][249]
    kept = np.count_nonzero(formulas.trimmed(values, least))
    assert kept == (1000 if alike else 250)


@given(arrays(np.float64, (3, 12), elements=st.floats(-10, 10)), st.permutations(range(3)))
@settings(max_examples=60, deadline=None)
def test_karcher_does_not_mind_the_order(values, order):
    values += np.eye(3, 12) + 12 * np.ones(12)  # within half a sphere, where the mean is one
    one = np.array(formulas.karcher_coefficients(values @ values.T, [1 / 3] * 3)) @ values
    mixed = values[list(order)]
    other = np.array(formulas.karcher_coefficients(mixed @ mixed.T, [1 / 3] * 3)) @ mixed
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@given(arrays(np.float64, (2, 8), elements=st.floats(-10, 10)), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_slerp_ends_at_its_ends_and_goes_both_ways(values, t):
    gram = values @ values.T
    assert formulas.slerp_coefficients(gram, 0.0) == pytest.approx((1, 0))
    assert formulas.slerp_coefficients(gram, 1.0) == pytest.approx((0, 1))
    there, back = formulas.slerp_coefficients(gram, t), formulas.slerp_coefficients(gram[::-1, ::-1], 1 - t)
    assert there == pytest.approx(back[::-1], abs=1e-9)


@pytest.mark.parametrize("spec", ["linear", "slerp", "karcher", "swa", "ema"])
def test_what_is_the_same_in_all_stays_bit_for_bit(tmp_path, spec):
    from ensemble_models import family, nnopt
    from safetensors.torch import load_file

    paths, found = family(tmp_path, 1)
    twin = tmp_path / "twin.safetensors"
    twin.write_bytes(paths["m0"].read_bytes())
    nnopt("ensemble", paths["m0"], twin, "--method", spec, "-o", tmp_path / "o.safetensors")
    for name, value in load_file(tmp_path / "o.safetensors").items():
        assert torch.equal(value, found["m0"][name])
