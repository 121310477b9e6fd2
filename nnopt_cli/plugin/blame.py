"""Whose fault an error is: the component whose code was running, and the package that it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nnopt_cli.errors import ComponentError, NnoptError
from nnopt_cli.plugin.component import Component

if TYPE_CHECKING:
    from nnopt_cli.plugin.registry import Plugin, Registry


@contextmanager
def blaming(registry: Registry, running: Sequence[Component] = ()) -> Iterator[None]:
    """Name the component in what it raises unexpectedly, so that the report reaches its author.

    Args:
        registry: says which package a component came from.
        running: whose work the block does; blamed where no component's own code is in the traceback,
            as with a function that a pass left behind to be called later.
    """
    try:
        yield
    except ComponentError as error:
        if not error.title:
            raise ComponentError(
                error.component, error.fault, error.hint, _title([error.component], registry)
            ) from error
        raise
    except (NnoptError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        found = _culprit(error.__traceback__)
        blamed = [found] if found else list(running)
        if not blamed:
            raise
        title = _title(blamed, registry)
        if isinstance(error, SystemExit):
            fault = f"ended the program (exit {error.code!r})"
        elif all(_builtin(component, registry) for component in blamed):
            if not getattr(error, "__notes__", ()):
                error.add_note(f"in {title}")
            raise
        else:
            fault = f"failed: {_said(error, blamed[0])}"
        raise ComponentError(blamed[0], fault, "Run it again with -vv for the traceback.", title) from error


def _culprit(trace: TracebackType | None) -> Component | None:
    """The component whose method is the innermost of those in the traceback."""
    found = None
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, Component):
            found = owner
        trace = trace.tb_next
    return found


def _said(error: BaseException, component: Component) -> str:
    """The exception in one line, with the last place in the component's own file that led to it."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    trace, place = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == type(component).__module__:
            place = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return text + place


def _title(components: Sequence[Component], registry: Registry) -> str:
    """`the criterion 'gumbel' of plugin 'roundoff' (nnopt-roundoff 0.1.0)`."""
    names = ", ".join(dict.fromkeys(repr(component.name) for component in components))
    kind = components[0].kind
    what = f"the {kind if len(components) == 1 else 'passes'} {names}"
    plugins = dict.fromkeys(plugin for each in components if (plugin := _plugin(each, registry)))
    said = ", ".join(f"{plugin.name!r} ({plugin.distribution} {plugin.version})" for plugin in plugins)
    return f"{what} of plugin {said}" if said else what


def _plugin(component: Component, registry: Registry) -> Plugin | None:
    owner = registry.owner(type(component))
    return next((plugin for plugin in registry.plugins if owner and plugin.name == owner), None)


def _builtin(component: Component, registry: Registry) -> bool:
    plugin = _plugin(component, registry)
    return plugin is not None and plugin.builtin
