"""N:M, blocks, random scores and components of others, each against a naive reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnopt_plugins.prune.blocks import fold, unfold
from nnopt_plugins.prune.criteria import Random
from nnopt_plugins.prune.granularities import NM, Block
from nnopt_plugins.prune.noise import mix, uniform
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.sparsity import target
from prune_models import FLOATS, as_float64, check, memory_model, pruned_words, quiet, random_tensors

from nnopt_cli import Array, Criterion, Grouping, NnoptError, Pattern, Run, Where

SETTINGS = settings(max_examples=60, deadline=None)


def read_in_chunks(weight, step: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    out = np.empty(weight.numel, weight.dtype.word)
    step = max(1, step // weight.unit) * weight.unit
    for start in range(0, weight.numel, step):
        weight.read_into(out[start : start + step], start)
    return out.reshape(weight.shape)


def naive_nm(words: np.ndarray, dtype: str, n: int, m: int) -> np.ndarray:
    """Zeros after N:M: each group of dimension 1, at each kernel position, by a stable argsort."""
    size = np.abs(as_float64(words, dtype))
    rank = np.where(np.isfinite(size), size, np.inf)
    gone = size == 0
    for out_ in range(words.shape[0]):
        for place in np.ndindex(*words.shape[2:]):
            for first in range(0, words.shape[1] - m + 1, m):
                group = (out_, slice(first, first + m), *place)
                for lost in np.argsort(rank[group], kind="stable")[: m - n]:
                    at = (out_, first + int(lost), *place)
                    gone[at] = np.isfinite(size[at])
    return gone


@SETTINGS
@given(st.data())
def test_nm_equals_a_stable_argsort(data: st.DataObject) -> None:
    m = data.draw(st.sampled_from([2, 3, 4, 5, 8, 16]))
    n = data.draw(st.integers(1, m - 1))
    shape = data.draw(st.sampled_from([(3, 16), (2, 17), (3, 8, 3), (2, 9, 2, 2), (4, 1, 3, 3), (1, 32)]))
    dtype = data.draw(st.sampled_from(FLOATS))
    words = random_tensors(
        data.draw(st.integers(0, 999)), [shape], [dtype], data.draw(st.sampled_from([0, 1, 3]))
    )[0]
    model = memory_model({"a.weight": words}, {"a.weight": dtype})
    run = quiet()
    weight = Prune(granularity=NM(n=n, m=m)).run(model, run).weights["a.weight"]
    gone = naive_nm(words, dtype, n, m)
    check([words], [weight.words()], [gone])
    check([words], [read_in_chunks(weight, data.draw(st.sampled_from([1, 20])))], [gone])
    assert bool(run.notes) == bool(shape[1] % m)


def test_nm_keeps_weights_that_are_not_finite_and_never_revives() -> None:
    words = np.array([[np.nan, 1, np.inf, -np.inf, 3, 0, 0, -2]], "<f4")
    model = memory_model({"a.weight": words})
    with pytest.raises(NnoptError, match=r"a\.weight has 1 NaN and 2 infinite weights"):
        Prune(granularity=NM()).run(model, quiet())
    once = Prune(granularity=NM(), non_finite="keep").run(model, quiet())
    expected = np.array([[np.nan, 0, np.inf, -np.inf, 3, 0, 0, -2]], "<f4")
    assert np.array_equal(once.weights["a.weight"].words(), expected, equal_nan=True)
    again = Prune(granularity=NM(n=3, m=4), non_finite="keep").run(once, quiet())
    assert np.array_equal(again.weights["a.weight"].words(), expected, equal_nan=True)


def naive_blocks(words: np.ndarray, rows: int, columns: int, k: int) -> np.ndarray:
    """Zeros after pruning the `k` blocks of smallest mean magnitude; sums in the documented order."""
    matrix = np.abs(words.astype("<f8")).reshape(words.shape[0], -1)
    blocks = []
    for top in range(0, matrix.shape[0], rows):
        for left in range(0, matrix.shape[1], columns):
            block = matrix[top : top + rows, left : left + columns]
            total = 0.0
            for column in range(block.shape[1]):
                down = 0.0
                for value in block[:, column]:
                    down += float(value)
                total += down
            blocks.append((total / block.size, top, left))
    gone = matrix == 0
    for place in np.argsort([score for score, _, _ in blocks], kind="stable")[:k]:
        _, top, left = blocks[place]
        gone[top : top + rows, left : left + columns] = True
    return gone.reshape(words.shape)


@SETTINGS
@given(st.data())
def test_blocks_equal_a_naive_count(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    shape = data.draw(st.sampled_from([(8, 12), (7, 11), (1, 5), (6, 3, 3), (5, 2, 2, 2)]))
    palette = data.draw(st.sampled_from([0, 1]))
    words = random_tensors(data.draw(st.integers(0, 999)), [shape], ["float32"], palette)[0]
    sparsity = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    blocks = math.ceil(shape[0] / rows) * math.ceil(math.prod(shape[1:]) / columns)
    run = quiet()
    model = Prune(sparsity=sparsity, granularity=Block(rows=rows, columns=columns)).run(
        memory_model({"a.weight": words}), run
    )
    gone = naive_blocks(words, rows, columns, target(sparsity, blocks))
    check([words], [model.weights["a.weight"].words()], [gone])
    check([words], [read_in_chunks(model.weights["a.weight"], 1)], [gone])
    assert run.facts["groups"] == blocks


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
def test_unfold_is_the_inverse_of_fold(rows: int, columns: int, high: int, wide: int) -> None:
    blocks = fold(np.add, np.ones(high * wide), wide, rows, columns)
    assert blocks.sum() == high * wide
    named = unfold(np.arange(len(blocks)), high * wide, wide, rows, columns)
    assert np.array_equal(np.bincount(named), blocks)


def test_random_is_uniform_and_belongs_to_its_seed() -> None:
    first, other = uniform(0, 3, 0, 100_000), uniform(1, 3, 0, 100_000)
    assert np.array_equal(first[500:700], uniform(0, 3, 500, 200))
    for numbers in (first, other, uniform(0, 4, 0, 100_000)):
        counts = np.bincount((numbers * 100).astype(int), minlength=100)
        assert 60 < float(((counts - 1000) ** 2 / 1000).sum()) < 160  # chi-squared, 99 degrees of freedom
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.015
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.015


def test_mix_is_splitmix64() -> None:
    # the generator's published first outputs for seed 1234567
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mix(np.arange(3, dtype=np.uint64), 1234567).tolist() == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_random_pruning_prunes_each_tensor_alike_and_the_seed_decides(threads: int) -> None:
    tensors = random_tensors(0, [(200, 50), (100, 100)], ["float32", "float16"])
    model = memory_model({"a.weight": tensors[0], "b.weight": tensors[1]})
    prune = Prune(sparsity=0.5, criterion=Random())
    masks = []
    for seed in (0, 0, 1):
        after = pruned_words(prune.run(model, Run(seed=seed, threads=threads)))
        masks.append([after[name] == 0 for name in after])
    assert sum(int(mask.sum()) for mask in masks[0]) == 10_000
    assert all(4700 < int(mask.sum()) < 5300 for mask in masks[0])
    assert all(np.array_equal(a, b) for a, b in zip(masks[0], masks[1], strict=True))
    assert 0.45 < float((masks[0][0] == masks[2][0]).mean()) < 0.55


class Signed(Criterion):
    """A stranger's criterion: negative numbers go first, the very large never."""

    never: float = 2.5

    def score(self, values: Array, where: Where) -> Array:
        return np.where(values > self.never, np.nan, values)


class Rows(Grouping):
    """A stranger's granularity: whole outputs."""

    def unit(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[1:])

    def gather(self, op: np.ufunc, values: Array, shape: tuple[int, ...]) -> Array:
        return op.reduce(values.reshape(-1, self.unit(shape)), axis=1)

    def spread(self, groups: Array, shape: tuple[int, ...], count: int) -> Array:
        return np.repeat(groups, self.unit(shape))


class OnePerRow(Pattern):
    """A stranger's pattern: each output keeps its largest weight."""

    def unit(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[1:])

    def keep(self, keys: Array, shape: tuple[int, ...]) -> Array:
        rows = keys.reshape(-1, self.unit(shape))
        return (np.arange(rows.shape[1]) == rows.argmax(axis=1)[:, None]).reshape(-1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_criterion_of_others(dtype: str) -> None:
    words = random_tensors(4, [(40, 25)], [dtype], zeros=0.1)[0]
    values = as_float64(words, dtype).reshape(-1)
    order = np.argsort(np.where(values == 0, -np.inf, values), kind="stable")
    for sparsity in (0.05, 0.5, 1.0):
        gone = values == 0
        gone[order[: target(sparsity, 1000)]] = True
        gone &= ~(values > 2.5)
        model = memory_model({"a.weight": words}, {"a.weight": dtype})
        after = Prune(sparsity=sparsity, criterion=Signed()).run(model, quiet())
        check([words], [after.weights["a.weight"].words()], [gone.reshape(words.shape)])


def test_granularities_of_others() -> None:
    words = random_tensors(4, [(40, 3, 3, 3)], ["float32"])[0]
    model = memory_model({"a.weight": words})
    after = Prune(sparsity=0.25, granularity=Rows()).run(model, quiet()).weights["a.weight"].words()
    means = np.abs(words.astype("<f8")).reshape(40, -1).mean(axis=1)
    gone = np.zeros((40, 27), bool)
    gone[np.argsort(means)[:10]] = True
    check([words], [after], [gone.reshape(words.shape)])
    alone = Prune(granularity=OnePerRow()).run(model, quiet()).weights["a.weight"].words().reshape(40, -1)
    assert np.array_equal(np.abs(alone).max(axis=1), np.abs(words).reshape(40, -1).max(axis=1))
    assert np.count_nonzero(alone) == 40


def test_a_criterion_that_scores_wrongly_is_named() -> None:
    class Short(Criterion):
        """Too few scores."""

        def score(self, values: Array, where: Where) -> Array:
            return values[1:]

    model = memory_model({"a.weight": random_tensors(4, [(4, 5)], ["float32"])[0]})
    with pytest.raises(NnoptError, match=r"'short' gave float32 scores of shape \[19\] for 20 weights"):
        Prune(sparsity=0.5, criterion=Short()).run(model, quiet())
