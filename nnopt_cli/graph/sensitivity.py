"""How much a model depends on each of its groups of channels, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnopt_cli.graph.cutting import cut
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.units import Group, Scores

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.graph.coupling import Coupling


def sensitivities(
    program: ExportedProgram,
    coupling: Coupling,
    ranked: Sequence[tuple[Group, Scores]],
    ratios: Sequence[float],
    score: Callable[[ExportedProgram], float],
) -> Iterator[tuple[Group, list[float]]]:
    """For each group, what `score` gives when it alone loses each of the fractions `ratios` of its units.

    Args:
        program: the dense program.
        coupling: its analysis.
        ranked: groups of it, and the importance of their units; the least go, of equal ones the first.
        ratios: fractions from 0 to 1; at least one unit stays.
        score: measures a program.
    """
    for group, scores in ranked:
        order = np.argsort(scores, kind="stable")
        found = []
        for ratio in ratios:
            count = min(round(ratio * len(order)), len(order) - 1)
            found.append(score(cut(program, coupling, Keep(coupling, group.classes[order[:count]]))))
        yield group, found
