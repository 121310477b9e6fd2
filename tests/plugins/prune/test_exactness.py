"""The contract: exactly max(round(s n), zeros before) zeros, as a full stable sort would choose them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnopt_plugins.prune.bracket import Cut, Finder
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.quantile import FEW, nth
from nnopt_plugins.prune.sparsity import target
from prune_models import (
    FLOATS,
    as_words,
    check,
    edited,
    memory_model,
    naive,
    pruned_words,
    quiet,
    random_tensors,
    source_of,
)

shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=4)
SETTINGS = settings(max_examples=80, deadline=None)


@SETTINGS
@given(st.data())
def test_equals_a_full_stable_sort(data: st.DataObject) -> None:
    sizes = data.draw(shapes)
    dtypes = data.draw(st.lists(st.sampled_from(FLOATS), min_size=len(sizes), max_size=len(sizes)))
    tensors = random_tensors(
        data.draw(st.integers(0, 10**6)),
        sizes,
        dtypes,
        data.draw(st.sampled_from([0, 0, 1, 3])),
        data.draw(st.sampled_from([0.0, 0.3, 0.95])),
    )
    n = sum(tensor.size for tensor in tensors)
    k = data.draw(st.one_of(st.integers(0, n), st.sampled_from([0, 1, n - 1, n])))
    source = source_of(tensors, dtypes, data.draw(st.sampled_from([8, 64, 1 << 19])))
    finder = Finder(
        source,
        seed=data.draw(st.integers(0, 5)),
        threads=data.draw(st.sampled_from([1, 3])),
        cap_bytes=data.draw(st.sampled_from([8, 200, 1 << 26])),
        small=data.draw(st.sampled_from([0, 1 << 18])),
    )
    cut = finder.find(k)
    gone = naive(tensors, dtypes, k)
    check(tensors, edited(source, cut, data.draw(st.sampled_from([1, 7, 1 << 30]))), gone)
    assert cut.pruned == sum(int(part.sum()) for part in gone)


@SETTINGS
@given(st.data())
def test_weights_that_are_not_finite_stay(data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(FLOATS), min_size=1, max_size=3))
    tensors = random_tensors(data.draw(st.integers(0, 99)), [(4, 25)] * len(dtypes), dtypes, 2)
    odd = {"float16": [0x7C00, 0xFC00, 0x7E01], "bfloat16": [0x7F80, 0xFFFF, 0x7FC0]}
    odd |= {"float32": [0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001]}  # the last is a signalling NaN
    odd |= {"float64": [0x7FF << 52, 0xFFF << 52, 0x7FF0000000000001]}
    for tensor, dtype in zip(tensors, dtypes, strict=True):
        raw = tensor.view(f"<u{tensor.itemsize}").reshape(-1)
        for place in data.draw(st.lists(st.integers(0, 99), max_size=40)):
            raw[place] = data.draw(st.sampled_from(odd[dtype]))
    n = sum(tensor.size for tensor in tensors)
    k = data.draw(st.one_of(st.integers(0, n), st.just(n)))
    source = source_of(tensors, dtypes, 64)
    cut = Finder(source, small=data.draw(st.sampled_from([0, 1 << 18])), cap_bytes=64).find(k)
    gone = naive(tensors, dtypes, k)
    check(tensors, edited(source, cut, 11), gone)
    assert cut.pruned == sum(int(part.sum()) for part in gone)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "kind", ["normal", "constant", "two values", "mostly zero", "sorted", "layers unlike"]
)
def test_larger_than_a_sample(dtype: str, kind: str) -> None:
    n = 300_000
    rng = np.random.default_rng(3)
    values = {
        "normal": lambda: rng.standard_normal(n),
        "constant": lambda: np.full(n, 0.5),
        "two values": lambda: rng.choice([1.0, -2.0], n),
        "mostly zero": lambda: rng.standard_normal(n) * (rng.random(n) < 0.1),
        "sorted": lambda: np.sort(rng.standard_normal(n)),
        "layers unlike": lambda: rng.standard_normal(n) * np.repeat(2.0 ** np.arange(-6, 6), n // 12),
    }[kind]()
    words = as_words(values, dtype).reshape(2, -1)
    tensors, dtypes = [words[:, :7], words[:, 7:]], [dtype] * 2
    tensors = [np.ascontiguousarray(tensor) for tensor in tensors]
    for sparsity in (0.0, 0.5, 0.93, 1.0):
        k = target(sparsity, n)
        cuts: set[Cut] = set()
        for threads, cap, small in ((1, 1 << 26, 1 << 18), (2, 1 << 12, 1 << 18), (2, 1 << 10, 1 << 30)):
            source = source_of(tensors, dtypes, 1 << 14)
            cuts.add(Finder(source, threads=threads, cap_bytes=cap, small=small).find(k))
        assert len(cuts) == 1
        check(tensors, edited(source, cuts.pop(), 10_007), naive(tensors, dtypes, k))


@pytest.mark.parametrize("spread", [1, 5000, 1 << 30])
def test_nth_of_many(spread: int) -> None:
    keys = np.random.default_rng(0).integers(7, 7 + spread, FEW + 1000).astype("<u4")
    ordered = np.sort(keys)
    for rank in (1, 1000, FEW // 3, FEW + 1000):
        found, smaller = nth(np.array_split(keys, 300), rank, 7)
        assert found == ordered[rank - 1]
        assert smaller == np.searchsorted(ordered, found)


@given(st.integers(0, 1000), st.integers(0, 200))
def test_target_rounds_half_to_even(thousandths: int, groups: int) -> None:
    exact = thousandths * groups
    whole, rest = divmod(exact, 1000)
    expected = whole + (rest > 500 or (rest == 500 and whole % 2 == 1))
    assert target(thousandths / 1000, groups) == expected


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_pass_prunes_exactly_so_many(scope: str, dtype: str) -> None:
    a, b = random_tensors(1, [(30, 11), (7, 3, 3, 3)], [dtype] * 2)
    model = memory_model({"a.weight": a, "b.weight": b}, {"a.weight": dtype, "b.weight": dtype})
    run = quiet(2)
    after = pruned_words(Prune(sparsity=0.37, scope=scope).run(model, run))
    if scope == "global":
        gone = naive([a, b], [dtype] * 2, target(0.37, a.size + b.size))
    else:
        gone = [naive([x], [dtype], target(0.37, x.size))[0] for x in (a, b)]
    check([a, b], [after["a.weight"], after["b.weight"]], gone)
    assert run.facts["achieved"] == sum(int(part.sum()) for part in gone) == run.facts["target"]
    assert run.facts["prunable"] == a.size + b.size


@pytest.mark.parametrize(
    "options", [{}, {"scope": "layer"}, {"granularity": "block"}, {"criterion": "random"}]
)
def test_pruning_again_changes_nothing_and_more_removes_only_more(options: dict[str, str]) -> None:
    from nnopt_plugins.prune.criteria import Random
    from nnopt_plugins.prune.granularities import Block

    given = dict(options)
    if "granularity" in given:
        given["granularity"] = Block(rows=2, columns=3)  # type: ignore[assignment]
    if "criterion" in given:
        given["criterion"] = Random()  # type: ignore[assignment]
    tensors = random_tensors(5, [(30, 11), (8, 24)], ["float32"] * 2, palette=3)
    model = memory_model({"a.weight": tensors[0], "b.weight": tensors[1]})
    once = Prune(sparsity=0.5, **given).run(model, quiet())
    run = quiet()
    twice = Prune(sparsity=0.5, **given).run(once, run)
    less = Prune(sparsity=0.2, **given).run(once, quiet())
    more = Prune(sparsity=0.8, **given).run(once, quiet())
    for name in model.weights:
        first = once.weights[name].words().view("<u4")
        assert np.array_equal(first, twice.weights[name].words().view("<u4"))
        assert np.array_equal(first, less.weights[name].words().view("<u4"))
        assert not np.any(more.weights[name].words()[once.weights[name].words() == 0])
    assert run.facts["achieved"] == max(run.facts["target"], run.facts["achieved"])


def test_a_tied_weight_is_counted_and_pruned_once() -> None:
    a, b = random_tensors(2, [(20, 10), (10, 10)], ["float32"] * 2)
    tied = memory_model({"a.weight": a}).weights["a.weight"]
    model = memory_model({"a.weight": tied, "b.weight": b, "c.weight": tied})
    run = quiet()
    after = Prune(sparsity=0.5).run(model, run)
    assert after.weights["a.weight"] is after.weights["c.weight"]
    assert run.facts["prunable"] == 300
    zeros = sum(int((after.weights[n].words() == 0).sum()) for n in ("a.weight", "b.weight"))
    assert zeros == 150


def test_empty_tensors_do_no_harm() -> None:
    a = random_tensors(2, [(20, 10)], ["float32"])[0]
    model = memory_model(
        {"none.weight": np.zeros((0, 5), "<f4"), "a.weight": a, "nil.weight": np.zeros((5, 0), "<f4")}
    )
    after = pruned_words(Prune(sparsity=0.5).run(model, quiet()))
    assert int((after["a.weight"] == 0).sum()) == 100
    assert after["none.weight"].shape == (0, 5)
