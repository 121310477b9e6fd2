"""The rate of the dropout that a network has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        from torch.fx import GraphModule

        changed = 0
        for module in network.modules():
            changed += self._set(module)
            if isinstance(module, GraphModule):
                changed += self._rewrite(module)
        if not changed:
            raise NnoptError(
                "the regularizer 'dropout': the network has no dropout layer whose rate could be set",
                "Leave it out, or build the network with dropout (--arch).",
            )

    def _set(self, module: nn.Module) -> int:
        from torch.nn import MultiheadAttention, RNNBase
        from torch.nn.modules.dropout import _DropoutNd

        if isinstance(module, _DropoutNd):
            module.p = self.rate
        elif isinstance(module, MultiheadAttention) or (
            isinstance(module, RNNBase) and module.num_layers > 1
        ):
            module.dropout = self.rate
        else:
            return 0
        return 1

    def _rewrite(self, module: Any) -> int:
        """The same for the calls of an exported graph, whose second argument is the rate."""
        from torch import ops

        aten = ops.aten
        kinds = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
        targets = {kind.default for kind in kinds}
        found = [node for node in module.graph.nodes if node.target in targets]
        for node in found:
            node.update_arg(1, self.rate)
        if found:
            module.recompile()
        return len(found)
