"""What training sees of a network: its parameters, what each is for, and which channels lie in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["conv", "linear", "norm", "bias", "other"]


class Channels(NamedTuple):
    """The channels along one axis of a parameter.

    Attributes:
        axis: the axis.
        ids: int64, one for every index along the axis: which channel it is. The same number in several
            parameters says that they are coupled: the same channel; -1 for one that is no channel.
    """

    axis: int
    ids: Tensor


@dataclass(frozen=True)
class Layer:
    """A parameter and what it is for.

    Attributes:
        name: its name in the network.
        parameter: the tensor that is trained.
        kind: weight of a convolution or of a linear map, gain of a norm, a bias, or something else.
        groups: its channels, one entry for each axis that has any; None where nobody asked.
    """

    name: str
    parameter: Tensor
    kind: Kind
    groups: tuple[Channels, ...] | None = None
