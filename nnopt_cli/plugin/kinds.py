"""The kinds of component: what a class is follows from which of these it extends."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnopt_cli.plugin.component import Component

if TYPE_CHECKING:
    from nnopt_cli.formats.weight import Array
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run


class Pass(Component, kind="pass"):
    """Maps a model to a model; becomes a sub-command of its name."""

    @abstractmethod
    def run(self, model: Model, run: Run) -> Model:
        """Return the changed model; say what matters with `run.note(...)`, write no file, print nothing."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which elements of which tensor a criterion is looking at.

    Attributes:
        name: the tensor's name.
        index: its place in the order of the model's tensors.
        start: flat index of the first element.
        seed: the run's seed.
    """

    name: str
    index: int
    start: int
    seed: int


class Criterion(Component, kind="criterion"):
    """Says how important each weight is; the least important are pruned first."""

    @abstractmethod
    def score(self, values: Array, where: Where) -> Array:
        """Importance of each of `values`.

        Args:
            values: 1-D float32 or float64 weights (16-bit ones come as float32, exactly).
            where: which elements these are.

        Returns:
            As many numbers, larger for more important, NaN for never prune. The result for an element may
            not depend on which other elements are in `values`: they are an arbitrary chunk.
        """


class Granularity(Component, kind="granularity"):
    """Says what is removed at once."""
