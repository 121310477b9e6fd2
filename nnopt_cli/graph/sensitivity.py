"""How much a model depends on each of its groups of channels, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnopt_cli.graph.cutting import cut
from nnopt_cli.graph.evidence import Evidence, Units
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.units import Group, Scores, groups

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.graph.coupling import Coupling


def sensitivity(
    program: ExportedProgram,
    coupling: Coupling,
    evidence: Evidence,
    rank: Callable[[Units], Scores],
    ratios: Sequence[float],
    score: Callable[[ExportedProgram], float],
) -> Iterator[tuple[Group, list[float]]]:
    """For each group, what `score` gives when it alone loses each of the fractions `ratios` of its units.

    Args:
        program: the dense program.
        coupling: its analysis.
        evidence: what `rank` may look at.
        rank: the importance of each unit of a group; the least important go, of equal ones the first.
        ratios: fractions from 0 to 1; at least one unit stays.
        score: measures a program.
    """
    for group in groups(coupling):
        order = np.argsort(rank(Units(coupling, group, evidence)), kind="stable")
        found = []
        for ratio in ratios:
            count = min(round(ratio * len(order)), len(order) - 1)
            found.append(score(cut(program, coupling, Keep(coupling, group.classes[order[:count]]))))
        yield group, found
