"""Public names of a package that are imported on first use, so that importing it stays light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(namespace: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that live in its submodules.

    Args:
        namespace: the module's `globals()`, where a name is put once it was asked for.
        homes: name -> submodule, relative to the package.
    """
    package = namespace["__name__"]

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = getattr(import_module(f"{package}.{homes[name]}"), name)
        return namespace[name]

    return getattr_
