"""A program's tensors as the weights of a `Model`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.formats.weight import MemoryWeight, Weight

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def program_weights(program: ExportedProgram) -> dict[str, Weight]:
    """Parameters and buffers by name, sharing memory where they can; names of one tensor share one weight."""
    import torch

    from nnopt_cli.graph.coupling import identity

    made: dict[object, Weight] = {}
    out: dict[str, Weight] = {}
    for name, tensor in program.state_dict.items():
        if isinstance(tensor, torch.Tensor):
            place = identity(tensor)
            if place not in made:
                made[place] = MemoryWeight.of(name, tensor)
            out[name] = made[place]
    return out
