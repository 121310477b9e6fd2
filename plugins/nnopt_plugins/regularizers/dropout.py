"""The rate of the dropout that a network has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import NnoptError, Regularizer, option

if TYPE_CHECKING:
    from torch import nn


class Dropout(Regularizer):
    """Sets the rate of the dropout layers that the network has; none is added.

    each activation is 0 with probability rate, else divided by 1 - rate

    Srivastava et al. 2014 (JMLR 15).
    """

    rate: float = option(0.5, help="Probability with which an activation is dropped.", ge=0, lt=1)

    def prepare(self, network: nn.Module) -> None:
        """See `Regularizer`. Raises NnoptError for a network without dropout."""
        from torch.nn import MultiheadAttention, RNNBase
        from torch.nn.modules.dropout import _DropoutNd

        changed = 0
        for module in network.modules():
            if isinstance(module, _DropoutNd):
                module.p = self.rate
            elif isinstance(module, (MultiheadAttention, RNNBase)) and getattr(module, "num_layers", 2) > 1:
                module.dropout = self.rate  # between the layers of a recurrent net, so one has none
            else:
                continue
            changed += 1
        if not changed:
            raise NnoptError(
                "the regularizer 'dropout': the network has no dropout layer whose rate could be set",
                "Leave it out, or build the network with dropout (--arch).",
            )
