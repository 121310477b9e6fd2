"""How fast an exported file is, beside the model that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.exporter import Exporter
    from nnopt_cli.report.exported import Speed

SECONDS = 0.5  # about how long each side is measured


def speed(exporter: Exporter, model: Model, place: Path) -> Speed | None:
    """Latency of one sample on one thread, the model in PyTorch and the file where it runs, interleaved.

    None where nothing runs the file, or nothing can be made up to feed it.
    """
    if not exporter.runs_in:
        return None
    import torch

    from nnopt_cli.graph.backends import limited, prepare
    from nnopt_cli.graph.inputs import sample_inputs
    from nnopt_cli.graph.onnx_runtime import onnx_file
    from nnopt_cli.graph.setting import Setting
    from nnopt_cli.graph.timing import interleaved
    from nnopt_cli.report.exported import Speed

    program, setting = model.program(), Setting()
    try:
        with limited(1):
            first = prepare(program, "eager", setting, place.parent)
            if place.suffix == ".onnx":
                second = onnx_file(place, setting, sample_inputs(program))
            else:
                second = prepare(torch.export.load(place), "eager", setting, place.parent)
            before, after = interleaved([first.call, second.call], SECONDS)
    except NnoptError:
        return None
    return Speed(before=before.median, after=after.median, batch=first.batch)
