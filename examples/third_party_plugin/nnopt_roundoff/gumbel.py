"""The criterion `gumbel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import Criterion, option

if TYPE_CHECKING:
    from nnopt_cli import Array, Where


class Gumbel(Criterion):
    """Draw which weights stay, each with a chance that grows with its magnitude.

    Keeping the k best is then a draw of k weights without replacement, with chances proportional to
    |w|^(1/temperature). Source: Kool et al., "Stochastic beams and where to find them", arXiv:1903.06059.
    """

    temperature: float = option(1.0, help="0.1 is nearly magnitude, 10 nearly random.", gt=0)

    def score(self, values: Array, where: Where) -> Array:
        """log|w| / temperature plus standard Gumbel noise, the same for the same seed, tensor and place."""
        import numpy as np

        with np.errstate(divide="ignore"):  # log 0 is -inf: zeros go first
            size = np.log(np.abs(values).astype(np.float64))
        chance = uniform(where.seed, where.index, where.start, len(values))
        return size / self.temperature - np.log(-np.log(chance))


def uniform(seed: int, stream: int, start: int, count: int) -> Array:
    """Numbers in (0, 1) that depend on nothing but seed, stream and place: any chunk gives the same ones.

    A counter through the mixing function of SplitMix64 (Steele et al., OOPSLA 2014,
    doi:10.1145/2660193.2660195).
    """
    import numpy as np

    key = mix(np.array([seed], np.uint64) + mix(np.array([stream], np.uint64)))
    places = np.arange(start, start + count, dtype=np.uint64)
    return ((mix(key + places) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def mix(x: Array) -> Array:
    """SplitMix64's step and finaliser, element by element, modulo 2^64."""
    import numpy as np

    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
