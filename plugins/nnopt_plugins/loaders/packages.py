"""Optional packages: imported when a loader runs, with a word on how to install a missing one."""

from __future__ import annotations

import importlib
from typing import Any

from nnopt_cli import NnoptError


def need(package: str, spec: str) -> Any:
    """Import `package`, which is also the name of nnopt's extra.

    Raises NnoptError: it is not installed, or fails on import.
    """
    try:
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


def _broken(package: str, spec: str, error: Exception) -> NnoptError:
    said = str(error).strip().split("\n", 1)[0]
    return NnoptError(
        f"--arch {spec}: the package {package} is installed, but fails on import: {said}",
        f"Install a {package} that was made for this PyTorch.",
    )
