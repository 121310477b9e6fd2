"""Label classes against a plain union-find, and reshape alignment against PyTorch's own reshape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt_cli.graph.labels import FROZEN, Labels
from nnopt_cli.graph.shapes import align


def naive_classes(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The smallest label of each one's class, by repeated relabelling."""
    name = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            low = min(name[a], name[b])
            name = [low if n in (name[a], name[b]) else n for n in name]
    return name


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_classes_equal_a_plain_union_find(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 24))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=40))
    labels = Labels()
    labels.fresh(count - 1)
    for a, b in pairs:
        labels.equate(np.array([a]), np.array([b]))
    assert labels.solve().tolist() == naive_classes(count, pairs)


def test_frozen_absorbs_and_none_freezes() -> None:
    labels = Labels()
    a, b, c = labels.fresh(3), labels.fresh(3), labels.fresh(2)
    labels.equate(a, b)
    assert labels.equate(b, None) is None
    roots = labels.solve()
    assert (roots[a] == FROZEN).all()
    assert (roots[b] == FROZEN).all()
    assert (roots[c] == c).all()


def test_unequal_lengths_are_refused() -> None:
    labels = Labels()
    with pytest.raises(ValueError, match="cannot equal"):
        labels.equate(labels.fresh(2), labels.fresh(3))


def test_long_chains_are_followed_to_the_end() -> None:
    labels = Labels()
    chain = labels.fresh(50_000)
    labels.equate(chain[:-1], chain[1:])
    assert (labels.solve()[chain] == chain[0]).all()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_aligned_blocks_are_independent_reshapes(data: st.DataObject) -> None:
    """Reshaping block by block gives what one reshape gives, and no block could be cut further."""
    factors = data.draw(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=6))
    cuts = [
        sorted(data.draw(st.sets(st.integers(1, len(factors) - 1)))) if len(factors) > 1 else [] for _ in "ab"
    ]
    source, target = (
        [math.prod(factors[a:b]) for a, b in zip([0, *c], [*c, len(factors)], strict=True)] for c in cuts
    )
    blocks = align(source, target)
    assert [b.i0 for b in blocks] == [0, *[b.i1 for b in blocks][:-1]]
    assert blocks[-1].i1 == len(source)
    assert blocks[-1].o1 == len(target)
    for block in blocks:
        inner, outer = source[block.i0 : block.i1], target[block.o0 : block.o1]
        assert math.prod(inner) == math.prod(outer)
        prefixes = {math.prod(inner[:i]) for i in range(1, len(inner))}
        split = prefixes & {math.prod(outer[:o]) for o in range(1, len(outer))}
        assert not {p for p in split if p not in (1, math.prod(inner))}
    x = torch.arange(math.prod(source)).reshape(source)
    assert torch.equal(x.reshape(target).flatten(), x.flatten())


def test_sizes_that_never_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="line up"):
        align([2, 3], [4, 2])
