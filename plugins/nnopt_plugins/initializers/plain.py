"""Initializers that do not count fans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import Initializer, option
from nnopt_plugins.initializers.drawing import draw

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Uniform(Initializer):
    """Uniform between -a and a.

    U(-a, a), of variance a^2 / 3

    LeCun et al. 1998, "Efficient BackProp", section 4.6, on why not zero.
    """

    a: float = option(0.05, help="The bound.", gt=0)

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import uniform_

        draw(tensor, lambda values: uniform_(values, -self.a, self.a, generator=generator))


class Normal(Initializer):
    """Normal around zero.

    N(0, std^2)

    Krizhevsky et al. 2012 (NIPS), section 5, with std 0.01.
    """

    std: float = option(0.01, help="The standard deviation.", gt=0)

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import normal_

        draw(tensor, lambda values: normal_(values, 0.0, self.std, generator=generator))


class TruncatedNormal(Initializer):
    """Normal around zero, without its tails.

    N(0, std^2) of values within cut * std; their own deviation is less (0.88 std for cut 2)

    Drawn by inverting the distribution, as PyTorch does; used by Dosovitskiy et al. 2021, arXiv:2010.11929.
    """

    std: float = option(0.02, help="Standard deviation before the tails are cut.", gt=0)
    cut: float = option(2.0, help="Where they are cut, in standard deviations.", gt=0)

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import trunc_normal_

        bound = self.cut * self.std
        draw(tensor, lambda values: trunc_normal_(values, 0.0, self.std, -bound, bound, generator=generator))


class Orthogonal(Initializer):
    """A random orthogonal matrix: rows (or columns, if fewer) at right angles, of length gain.

    Q of the QR decomposition of a normal matrix with one row per output, signs fixed by R's diagonal

    Saxe et al. 2014, arXiv:1312.6120.
    """

    gain: float = option(1.0, help="Length of the rows.", gt=0)

    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """See `Initializer`."""
        from torch.nn.init import orthogonal_

        draw(tensor, lambda values: orthogonal_(values, self.gain, generator=generator), self.name)
