"""Optional packages: imported when a loader runs, with a word on how to install a missing one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from nnopt_cli import NnoptError

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def need(package: str, spec: str) -> Any:
    """Import `package`, which is also the name of nnopt's extra.

    Raises NnoptError: it is not installed, or fails on import.
    """
    try:
        _settle_torchvision()
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, spec, error) from error
        raise NnoptError(
            f"--arch {spec}: needs the package {package}, which is not installed",
            f"pip install 'nnopt[{package}]'",
        ) from None
    except Exception as error:
        raise _broken(package, spec, error) from error


def _settle_torchvision() -> None:
    """Let torchvision import where its compiled operators do not load: a CUDA build on a CPU-only PyTorch.

    It then fails as it registers shape functions for `nms` and `qnms`, which nothing declared; timm and
    transformers import it too, and fail with it. With a declaration and no implementation all networks
    work but those that call them, which are detectors.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        if "torchvision::nms does not exist" not in str(error):
            return  # whoever needs it will say so
        import torch

        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", _NMS)


def _broken(package: str, spec: str, error: Exception) -> NnoptError:
    said = str(error).strip().split("\n", 1)[0]
    return NnoptError(
        f"--arch {spec}: the package {package} is installed, but fails on import: {said}",
        f"Install a {package} that was made for this PyTorch.",
    )
