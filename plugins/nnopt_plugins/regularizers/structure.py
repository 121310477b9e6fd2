"""Regularizers that look at channels as wholes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Regularizer, option

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli import Layer


class GroupLasso(Regularizer):
    """The norms of whole channels: those that matter least vanish altogether, ready to be cut.

    weight * sum over channels of sqrt(n) * ||all n parameters that go with the channel||_2; on a graph these
    are the coupled ones (rows, the columns that read them, gains, biases), else the rows of each weight

    Yuan and Lin 2006; Wen et al. 2016, arXiv:1608.03665; coupled: Fang et al. 2023, arXiv:2301.12900.
    """

    needs_channels: ClassVar[bool] = True

    weight: float = option(1e-5, help="Its share in the loss.", ge=0)

    def penalty(self, layers: Sequence[Layer]) -> Tensor:
        """See `Regularizer`."""
        import torch

        found = list(_squares(layers))
        if not found:
            return torch.zeros(())
        ids = torch.cat([ids for ids, _, _ in found]) + 1  # 0 takes what is no channel
        values = torch.cat([values for _, values, _ in found])
        count = torch.cat([torch.full_like(values.detach(), size) for _, values, size in found])
        squares = values.new_zeros(len(ids) + 1).index_add(0, ids, values)[1:]
        sizes = count.new_zeros(len(ids) + 1).index_add(0, ids, count)[1:]
        alive = squares > 0  # at 0 the norm has no gradient; 0 is the smallest of its subgradients
        return self.weight * ((torch.where(alive, squares, 1.0) * sizes).sqrt() * alive).sum()


def _squares(layers: Sequence[Layer]) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Along every axis with channels: which they are, their sums of squares, how many numbers each is."""
    import torch

    own = 0
    for layer in layers:
        value = layer.parameter
        if layer.groups is None and layer.is_weight:
            rows = torch.arange(own, own + len(value), device=value.device)
            own += len(value)
            yield rows, value.square().flatten(1).sum(1), value[0].numel()
        for axis, ids in layer.groups or ():
            others = [dim for dim in range(value.dim()) if dim != axis]
            squares = value.square()
            size = value.numel() // max(1, value.shape[axis])
            yield ids.to(value.device), squares.sum(others) if others else squares, size


class Orthogonality(Regularizer):
    """Rows (or columns, if fewer) of each weight at right angles and of length 1: gradients keep their size.

    weight * sum over layers of ||W W^T - 1||_F^2, W with one row per output

    Bansal et al. 2018, arXiv:1810.09102, section 3.1; Brock et al. 2017, arXiv:1609.07093.
    """

    weight: float = option(1e-4, help="Its share in the loss.", ge=0)

    def penalty(self, layers: Sequence[Layer]) -> Tensor:
        """See `Regularizer`."""
        import torch

        parts = []
        for layer in layers:
            if layer.kind in ("conv", "linear") and layer.is_weight:
                rows = layer.parameter.flatten(1)
                rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
                unit = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
                parts.append((rows @ rows.T - unit).square().sum())
        return self.weight * torch.stack(parts).sum() if parts else torch.zeros(())
