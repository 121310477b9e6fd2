"""What the built-in methods in weight space have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import UsageError, WeightFusion

if TYPE_CHECKING:
    from nnopt_cli import Array, Corresponding, Members, Model, Run


class Method(WeightFusion, kind="fusion"):
    """A merge, after which the statistics of batch norms are taken anew where that is better.

    Class attributes:
        weighted: whether `--weights` means anything to it.
    """

    weighted: ClassVar[bool] = True

    def check(self, members: Members) -> None:
        if not self.weighted and members.weighting.given():
            raise UsageError(
                f"--weights: {self.name} finds itself how much each member counts", "Leave --weights out."
            )

    def fuse(self, members: Members, run: Run) -> Model:
        from nnopt_plugins.ensemble.refresh import refreshed

        return refreshed(self.merged(members, run), members, run, repair=self.convex)

    def merged(self, members: Members, run: Run) -> Model:
        """The merge alone."""
        return super().fuse(members, run)


class Combination(Method, kind="fusion"):
    """A linear combination of the members, tensor by tensor."""

    @abstractmethod
    def survey(self, tensor: Corresponding) -> Sequence[float]:
        """What each member is multiplied by."""

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        from nnopt_plugins.ensemble.formulas import combined  # numpy, which `--help` does without

        return combined(values, found)
