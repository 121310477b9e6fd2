"""Forms in which models are deployed: ONNX, safetensors, PyTorch's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.export import onnx_file, torch_files

    return [onnx_file.Onnx, torch_files.Safetensors, torch_files.StateDict, torch_files.Program]
