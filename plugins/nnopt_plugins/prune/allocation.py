"""How much of each layer goes: the shares at which every layer, pruned alone, lowers a metric equally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli import Run
    from nnopt_cli.data import Data
    from nnopt_cli.graph import Coupling
    from nnopt_plugins.prune.plan import Ranked

RATIOS = (0.25, 0.5, 0.75)  # shares of a group that are tried
PLACES = (0.0, *RATIOS, 1.0)
TILT = 1e-3  # of the largest drop: what free units cost, so that they go evenly and curves can be inverted
BISECTIONS = 40

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Allocation:
    """What the metric loses when one group alone loses a share of its units.

    Attributes:
        drops: by the group's name, the drop at each of `RATIOS`.
    """

    drops: Mapping[str, Sequence[float]]

    def curves(self) -> dict[str, Floats]:
        """The drop at 0, at each of `RATIOS` and at 1, relative to the largest, rising strictly.

        A drop is at least that of a smaller share: the sign of noise is no gain. Without all of its units no
        layer passes anything on, so that the drop at 1 is twice the largest of any group.
        """
        most = max((max(drops, default=0.0) for drops in self.drops.values()), default=0.0)
        scale, tilt = (most if most > 0 else 1.0), TILT * np.array(PLACES)
        return {
            name: np.maximum.accumulate([0.0, *(drop / scale for drop in drops), 2.0]) + tilt
            for name, drops in self.drops.items()
        }

    def shares(self, sizes: Mapping[str, int], share: float) -> dict[str, float]:
        """The share of each group at which all lose equally and, of all units, the fraction `share` goes.

        Args:
            sizes: units of each group.
            share: from 0 to 1.
        """
        curves = self.curves()
        total = sum(sizes.values())

        def gone(drop: float) -> dict[str, float]:
            return {name: float(np.interp(drop, curves[name], PLACES)) for name in sizes}

        low, high = 0.0, max((float(curve[-1]) for curve in curves.values()), default=0.0)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            taken = sum(part * sizes[name] for name, part in gone(middle).items())
            low, high = (middle, high) if taken < share * total else (low, middle)
        return gone(high)

    def spread(self, ranked: Sequence[Ranked], share: float) -> list[Ranked]:
        """The groups with shares of their own that come to `share` in all; those that have one keep it."""
        sizes = {
            each.group.name: max(each.whole, len(each))
            for each in ranked
            if each.share is None and each.group.name in self.drops
        }
        shares = self.shares(sizes, share) if sizes else {}
        return [
            replace(each, share=shares.get(each.group.name)) if each.share is None else each
            for each in ranked
        ]


def measure_drops(
    program: ExportedProgram, coupling: Coupling, ranked: Sequence[Ranked], data: Data, run: Run
) -> Allocation:
    """Prune each group alone, on the rows that choose, which are those of `--data`."""
    from nnopt_cli.data import score
    from nnopt_cli.graph import sensitivities

    choosing = replace(data, val=None)
    dense = score(program, choosing, run)
    found = sensitivities(
        program,
        coupling,
        [(each.group, each.scores) for each in ranked],
        RATIOS,
        partial(score, data=choosing, run=run),
    )
    drops = {group.name: [dense - value for value in values] for group, values in found}
    names = sorted(drops, key=lambda name: drops[name][1])
    run.note(
        f"Each layer went by how much {data.gate.name} depends on it: half of {names[0]} alone "
        f"costs {drops[names[0]][1]:.4f}, half of {names[-1]} alone {drops[names[-1]][1]:.4f}."
    )
    return Allocation(drops)
