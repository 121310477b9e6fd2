"""`code:` references: the user's own class, from a file or a module of theirs."""

from __future__ import annotations

import inspect
import sys
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from nnopt_cli.errors import UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.plugin.component import Component

_OWN = Path(__file__).parents[1]  # a place in nnopt itself tells the user nothing


def load_class(kind: str, module: str, attribute: str) -> type[Component]:
    """The component class `attribute` of `module` (`….py`, or a dotted name). This runs the user's code.

    Raises UsageError: it is not there, fails, or is not a component of `kind`.
    """
    where = f"code:{module}:{attribute}"
    try:
        home = _from_file(Path(module)) if module.endswith(".py") else import_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where}: {describe(error)}") from error
    found = getattr(home, attribute, None)
    if found is None:
        classes = [name for name, value in vars(home).items() if inspect.isclass(value)]
        raise UsageError(f"{where}: there is no {attribute!r} in it", suggest(attribute, classes) or None)
    found = _adopted(kind, found) or found
    if not (inspect.isclass(found) and issubclass(found, Component) and found.kind == kind and found.name):
        raise UsageError(
            f"{where} is not of kind {kind}", f"Write `class {attribute}({kind.title()})` in it."
        )
    if inspect.isabstract(found):
        raise UsageError(f"{where} lacks {', '.join(sorted(found.__abstractmethods__))}")
    return found


def _adopted(kind: str, found: object) -> type[Component] | None:
    """A component made of what is none, such as an optimizer of PyTorch's, where the kind knows how."""
    if inspect.isclass(found) and issubclass(found, Component):
        return None
    base = next((cls for cls in Component.__subclasses__() if cls.kind == kind and not cls.name), None)
    return base.adopt(found) if base else None


def describe(error: BaseException) -> str:
    """An exception in one line, with the place in the code that raised it."""
    said = " ".join(str(error).split("\n", 1)[0].split())
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ours = trace is not None and Path(trace.tb_frame.f_code.co_filename).is_relative_to(_OWN)
    if trace is None or ours or isinstance(error, ImportError):
        return text
    return f"{text} ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"


def _from_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"nnopt_code_{path.stem}_{sha256(bytes(path)).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = sys.modules[name] = module_from_spec(spec)  # pydantic looks types up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
