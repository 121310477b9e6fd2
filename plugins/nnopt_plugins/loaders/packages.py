"""Optional packages: imported when a loader runs, with a word on how to install a missing one."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from nnopt_cli import NnoptError

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def need(package: str, spec: str) -> Any:
    """Import `package`, which is also the name of nnopt's extra.

    Raises NnoptError: it is not installed, or fails on import.
    """
    try:
        return _imported(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, spec, error) from error
        raise NnoptError(
            f"--arch {spec}: needs the package {package}, which is not installed",
            f"pip install 'nnopt[{package}]'",
        ) from None
    except Exception as error:
        raise _broken(package, spec, error) from error


def _imported(package: str) -> Any:
    """Import it, also where torchvision's compiled operators do not load: a CUDA build on a CPU-only PyTorch.

    torchvision (which timm imports too) then fails as it registers shape functions for `nms` and `qnms`,
    which nothing declared. With a declaration and no implementation all networks work but those that
    call them, which are detectors.
    """
    try:
        return importlib.import_module(package)
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", package)]:
        del sys.modules[name]
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", _NMS)
    return importlib.import_module(package)


def _broken(package: str, spec: str, error: Exception) -> NnoptError:
    said = str(error).strip().split("\n", 1)[0]
    return NnoptError(
        f"--arch {spec}: the package {package} is installed, but fails on import: {said}",
        f"Install a {package} that was made for this PyTorch.",
    )
