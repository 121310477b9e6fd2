"""What nnopt knows about graphs: channel coupling, cutting, the masked reference. Public to plugins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnopt_cli.graph.coupling import Coupling as Coupling
    from nnopt_cli.graph.coupling import Frozen as Frozen
    from nnopt_cli.graph.coupling import analyse as analyse
    from nnopt_cli.graph.cut import cut as cut
    from nnopt_cli.graph.keep import Keep as Keep
    from nnopt_cli.graph.reference import run as run
    from nnopt_cli.graph.reference import run_masked as run_masked
    from nnopt_cli.graph.units import Group as Group
    from nnopt_cli.graph.units import Member as Member
    from nnopt_cli.graph.units import groups as groups

_HOME = {
    "Coupling": "coupling",
    "Frozen": "coupling",
    "analyse": "coupling",
    "cut": "cut",
    "Keep": "keep",
    "run": "reference",
    "run_masked": "reference",
    "Group": "units",
    "Member": "units",
    "groups": "units",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
