"""Criteria: how important a weight is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Criterion

if TYPE_CHECKING:
    from nnopt_cli import Array, Where


class Magnitude(Criterion):
    """The weight's absolute value: the smallest go first."""

    by_magnitude: ClassVar[bool] = True

    def score(self, values: Array, where: Where) -> Array:
        """|w|. Source: Han et al., "Learning both weights and connections", arXiv:1506.02626."""
        return abs(values)


class Random(Criterion):
    """Nothing but chance, the same for the same `--seed`: the baseline that a criterion has to beat."""

    def score(self, values: Array, where: Where) -> Array:
        """Uniform on [0, 1), a hash of seed, tensor and flat index."""
        from nnopt_plugins.prune.noise import uniform

        return uniform(where.seed, where.index, where.start, len(values))
