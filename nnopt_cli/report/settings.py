"""Options as one reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def described(options: Mapping[str, Any]) -> list[str]:
    """A pass's options as one reads them: `sparsity 0.5`, `granularity 2:4`, `criterion random`."""
    shown = []
    for key, value in options.items():
        if key in ("name", "pass") or value is None or value is False or value in ([], {}, ()):
            continue
        label = key.replace("_", " ")
        shown.append(label if value is True else f"{label} {_value(value)}")
    return shown


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ",".join(f"{key}={_value(item)}" for key, item in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name}:{inner}" if name and inner else name or inner
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value)
    return str(value)
