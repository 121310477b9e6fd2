"""Initializers that keep the variance of signals from layer to layer.

fan_in is the number of inputs of an output (columns times the kernel's positions), fan_out that of
outputs of an input (rows times positions). As `torch.nn.init`, they read axis 0 as outputs, which in
transposed convolutions are the inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnopt_cli import Initializer, option
from nnopt_plugins.initializers.drawing import draw

if TYPE_CHECKING:
    from torch import Generator, Tensor


class GlorotUniform(Initializer):
    """Glorot's (Xavier's) rule for tanh and linear layers, uniform.

    U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out))

    Glorot and Bengio 2010 (AISTATS), eq. 16.
    """

    gain: float = option(1.0, help="Factor; 5/3 is usual for tanh.", gt=0)

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import xavier_uniform_

        draw(tensor, lambda values: xavier_uniform_(values, self.gain, generator=generator), self.name)


class GlorotNormal(Initializer):
    """Glorot's (Xavier's) rule for tanh and linear layers, normal.

    N(0, gain^2 * 2 / (fan_in + fan_out))

    Glorot and Bengio 2010 (AISTATS), eq. 12.
    """

    gain: float = option(1.0, help="Factor; 5/3 is usual for tanh.", gt=0)

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import xavier_normal_

        draw(tensor, lambda values: xavier_normal_(values, self.gain, generator=generator), self.name)


class He(Initializer, kind="initializer"):
    """The options of both forms of He's (Kaiming's) rule."""

    mode: Literal["fan-in", "fan-out"] = option("fan-in", help="Keep the variance forwards or backwards.")
    slope: float = option(0.0, help="Slope of a leaky ReLU below zero.", ge=0)


class HeUniform(He):
    """He's (Kaiming's) rule for ReLU, uniform.

    U(-b, b), b = sqrt(6 / ((1 + slope^2) * fan))

    He et al. 2015, arXiv:1502.01852, eq. 10 to 15.
    """

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import kaiming_uniform_

        mode: Literal["fan_in", "fan_out"] = "fan_in" if self.mode == "fan-in" else "fan_out"
        draw(
            tensor, lambda values: kaiming_uniform_(values, self.slope, mode, generator=generator), self.name
        )


class HeNormal(He):
    """He's (Kaiming's) rule for ReLU, normal.

    N(0, 2 / ((1 + slope^2) * fan))

    He et al. 2015, arXiv:1502.01852, eq. 10 to 15.
    """

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import kaiming_normal_

        mode: Literal["fan_in", "fan_out"] = "fan_in" if self.mode == "fan-in" else "fan_out"
        draw(tensor, lambda values: kaiming_normal_(values, self.slope, mode, generator=generator), self.name)
