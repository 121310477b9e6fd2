"""Criteria that look at whole units of a graph: what a channel is worth, not what a weight is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import Criterion, UsageError, Where, option

if TYPE_CHECKING:
    from nnopt_cli import Array
    from nnopt_cli.graph import Units


class UnitCriterion(Criterion, kind="criterion"):
    """A criterion that needs units, so it does not go with single weights."""

    def score(self, values: Array, where: Where) -> Array:
        """Refused: single weights have no such score."""
        raise UsageError(
            f"the criterion {self.name!r} scores channels and heads, not single weights",
            "Add --granularity channel (the model must then have a graph), or use --criterion magnitude.",
        )


class L2(UnitCriterion):
    """The Euclidean norm of everything that goes with a unit."""

    name: ClassVar[str] = "l2"

    def score_units(self, units: Units) -> Array:
        """One norm per unit."""
        return units.vectors().norm(dim=1).numpy()  # type: ignore[no-any-return]


class BatchNormScale(UnitCriterion):
    """The |gamma| of the norms that scale a unit (network slimming, Liu et al. 2017, arXiv:1708.06519)."""

    name: ClassVar[str] = "bn-scale"

    def score_units(self, units: Units) -> Array:
        """Mean |gamma| per unit; the L2 norm of its weights, where no norm scales the group."""
        import torch

        node_of = units.coupling.parameters
        gains = [
            matrix.abs().mean(1)
            for member, matrix in units.matrices()
            if any(
                "norm" in str(user.target) and _is_gain(user, node_of[member.parameter])
                for user in node_of[member.parameter].users
            )
        ]
        if not gains:
            return L2().score_units(units)
        return torch.stack(gains).mean(0).numpy()  # type: ignore[no-any-return]


def _is_gain(norm: Any, parameter: Any) -> bool:
    """Whether a norm multiplies by this parameter: its first one, of weight and bias."""
    first = [source for source in norm.all_input_nodes if source.op == "placeholder"]
    return bool(first) and first[0] is parameter


class FPGM(UnitCriterion):
    """Distance to all others: near the geometric median is redundant (He et al. 2019, arXiv:1811.00250)."""

    name: ClassVar[str] = "fpgm"

    def score_units(self, units: Units) -> Array:
        """Sum of Euclidean distances to the other units of the group."""
        import torch

        vectors = units.vectors()
        return torch.cdist(vectors, vectors).sum(1).numpy()  # type: ignore[no-any-return]


class LAMP(UnitCriterion):
    """Layer-adaptive magnitude, comparable across groups (Lee et al. 2021, arXiv:2010.07611, eq. 3)."""

    name: ClassVar[str] = "lamp"

    def score_units(self, units: Units) -> Array:
        """|u|^2 over the sum of |v|^2 of all units v of the group that are no smaller."""
        import torch

        square = units.vectors().square().sum(1)
        order = torch.argsort(square, stable=True)
        left = square[order].flip(0).cumsum(0).flip(0)
        out = torch.empty_like(square)
        out[order] = square[order] / left.clamp_min(torch.finfo(square.dtype).tiny)
        return out.numpy()  # type: ignore[no-any-return]


class Taylor(UnitCriterion):
    """First-order change of the loss (Molchanov et al. 2019, arXiv:1906.10771, eq. 8): needs --data."""

    name: ClassVar[str] = "taylor"
    needs_data: ClassVar[bool] = True

    def score_units(self, units: Units) -> Array:
        """(sum of gradient x weight)^2 per unit."""
        import torch

        total = torch.zeros(len(units), dtype=torch.float64)
        slopes = dict(units.matrices("gradients"))
        for member, matrix in units.matrices():
            if member in slopes:
                total += (matrix * slopes[member]).sum(1)
        return total.square().numpy()  # type: ignore[no-any-return]


class OBD(UnitCriterion):
    """Optimal brain damage (LeCun et al. 1989) with the Fisher diagonal for the curvature: needs --data."""

    name: ClassVar[str] = "obd"
    needs_data: ClassVar[bool] = True

    def score_units(self, units: Units) -> Array:
        """Half the sum of curvature x weight^2 per unit."""
        import torch

        total = torch.zeros(len(units), dtype=torch.float64)
        curvature = dict(units.matrices("squares"))
        for member, matrix in units.matrices():
            if member in curvature:
                total += (curvature[member] * matrix.square()).sum(1) / 2
        return total.numpy()  # type: ignore[no-any-return]


class Activation(UnitCriterion):
    """Mean |activation| on the data: units that stay silent go first (needs --data)."""

    name: ClassVar[str] = "activation"
    needs_data: ClassVar[bool] = True

    power: float = option(1.0, help="Exponent of the mean before groups compete.", gt=0)

    def score_units(self, units: Units) -> Array:
        """Mean |activation| over samples, positions and all the values that carry the unit."""
        found = units.activations()
        if found is None:
            raise UsageError("the criterion 'activation' needs data", "Add --data FILE.")
        return found**self.power
