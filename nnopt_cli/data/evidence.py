"""What criteria know of a program: its weights, and what data show of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.graph import Evidence

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.data.bundle import Data
    from nnopt_cli.graph import Coupling
    from nnopt_cli.run import Run


def evidence(program: ExportedProgram, coupling: Coupling, data: Data | None, run: Run) -> Evidence:
    """The weights of `program`, and with `data` the gradients of its loss and the activations of its classes.

    Raises NnoptError: there are no samples, or the loss is not finite.
    """
    weights = {**program.constants, **program.state_dict}
    if data is None:
        return Evidence(weights, seed=run.seed)
    from nnopt_cli.data.signals import activations, gradients

    means, squares = gradients(program, data.plain, data.loss, run)
    return Evidence(weights, means, squares, activations(program, coupling, data.plain, run), run.seed)
