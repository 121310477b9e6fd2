"""The one hook of nnopt. A plugin is a module that implements it, named by a `nnopt` entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from nnopt_cli.plugin.component import Component

GROUP = "nnopt"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """Every hook that a plugin may implement."""

    @hookspec
    def nnopt_components(self) -> list[type[Component]]:  # type: ignore[empty-body]
        """Return the plugin's component classes. Import heavy libraries in their methods, not here."""
