"""Task vectors: what fine-tuning added to a common ancestor, combined and added to it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nnopt_cli import option
from nnopt_plugins.ensemble.base import Method

if TYPE_CHECKING:
    from nnopt_cli import Array, Corresponding


class TaskVectors(Method, kind="fusion"):
    """A method on differences from the ancestor; members count one each where no weights are given."""

    base: ClassVar[Literal["no", "allowed", "required"]] = "required"
    convex: ClassVar[bool] = False

    scale: float = option(1.0, help="What the combined difference is multiplied by before it is added.", gt=0)

    def factors(self, tensor: Corresponding) -> tuple[float, ...]:
        """What the members' differences are multiplied by."""
        return tensor.weights or (1.0,) * len(tensor.members)


class TaskArithmetic(TaskVectors):
    """The ancestor plus the sum of the members' differences from it.

    Ilharco et al., "Editing models with task arithmetic", arXiv:2212.04089; negative weights unlearn.
    """

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        from nnopt_plugins.ensemble.formulas import combined

        return combined(values, [self.scale * factor for factor in self.factors(tensor)])


class Ties(TaskVectors):
    """Only the largest differences, and of these only those of the sign that the members elect; their mean.

    Yadav et al., "TIES-Merging: Resolving interference when merging models", arXiv:2306.01708.
    """

    density: float = option(0.2, help="Share of each difference that is kept, by magnitude.", gt=0, le=1)
    normalize: bool = option(True, help="Take the mean of what agrees, not the sum.")

    def survey(self, tensor: Corresponding) -> list[float]:
        from nnopt_plugins.ensemble.formulas import thresholds

        if self.density >= 1:
            return [0.0] * len(tensor.members)
        return thresholds(lambda most: (values for _, values in tensor.chunks(most)), self.density)

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        from nnopt_plugins.ensemble.formulas import elected, trimmed

        kept = [trimmed(value, least) for value, least in zip(values, found, strict=True)]
        merged = elected(kept, self.factors(tensor), normalize=self.normalize)
        return merged if self.scale == 1 else merged * merged.dtype.type(self.scale)


class DareLinear(TaskVectors):
    """The sum of the differences, of each of which random elements are dropped and the rest enlarged.

    Yu et al., "Language models are super Mario", arXiv:2311.03099.
    """

    density: float = option(0.5, help="Share of each difference that is kept, at random.", gt=0, le=1)

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        from nnopt_plugins.ensemble.formulas import combined

        kept = _dropped(values, self.density, tensor, start)
        return combined(kept, [self.scale * factor for factor in self.factors(tensor)])


class DareTies(TaskVectors):
    """Random elements of the differences are dropped and the rest enlarged; then signs are elected.

    Yu et al., arXiv:2311.03099, with steps 2 and 3 of TIES, arXiv:2306.01708.
    """

    density: float = option(0.5, help="Share of each difference that is kept, at random.", gt=0, le=1)
    normalize: bool = option(True, help="Take the mean of what agrees, not the sum.")

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        from nnopt_plugins.ensemble.formulas import elected

        kept = _dropped(values, self.density, tensor, start)
        merged = elected(kept, self.factors(tensor), normalize=self.normalize)
        return merged if self.scale == 1 else merged * merged.dtype.type(self.scale)


def _dropped(values: Sequence[Array], density: float, tensor: Corresponding, start: int) -> list[Array]:
    """Each member draws for itself."""
    from nnopt_plugins.ensemble.formulas import dropped

    streams = range(tensor.index * len(values), (tensor.index + 1) * len(values))
    return [
        dropped(value, density, tensor.seed, stream, start)
        for value, stream in zip(values, streams, strict=True)
    ]
