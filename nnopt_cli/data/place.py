"""Programs and modules on the device that computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from nnopt_cli.graph.cutting import assemble, duplicate


def placed(program: ExportedProgram, device: str) -> ExportedProgram:
    """A copy on `device`, its nodes called the same, with the devices that the graph names.

    The program itself where the device is the CPU, and it is left as it is.
    """
    if torch.device(device).type == "cpu":
        return program
    from torch.export.passes import move_to_device_pass

    graph = duplicate(program.graph)
    copied = assemble(program, graph, dict(program.state_dict), dict(program.constants))
    return move_to_device_pass(copied, device)


def as_call(thing: nn.Module | ExportedProgram | Callable[..., Any], device: str) -> Callable[..., Any]:
    """A module, program or function as something to call, on `device`."""
    if isinstance(thing, ExportedProgram):
        return placed(thing, device).module()
    if isinstance(thing, nn.Module) and torch.device(device).type != "cpu":
        return thing.to(device)
    return thing
