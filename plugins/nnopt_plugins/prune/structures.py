"""What can be removed from a graph: channels, attention heads, whole residual blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import Granularity, Structure, option

if TYPE_CHECKING:
    from nnopt_cli.graph import Coupling, Group


class Channel(Structure):
    """Channels of convolutions, features of linear maps, hidden units, and attention heads, physically."""

    heads: bool = option(True, help="Whether attention heads may go too.")

    def candidates(self, coupling: Coupling) -> list[Group]:
        """Every group of coupled channels."""
        from nnopt_cli.graph import groups

        return [group for group in groups(coupling) if self.heads or not group.heads]


class Head(Structure):
    """Attention heads, whole, with their query, key, value and output weights."""

    def candidates(self, coupling: Coupling) -> list[Group]:
        """The groups that attention reads as heads."""
        from nnopt_cli.graph import groups

        return [group for group in groups(coupling) if group.heads]


class Layer(Granularity):
    """Whole residual branches: `x + f(x)` becomes `x`."""
