"""`Architecture`: how to build the `nn.Module` that a file's weights belong to, from the user's own code."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.model.naming import suggest

if TYPE_CHECKING:
    from torch import nn

_CODE = re.compile(r"(?:code:)?(?P<module>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")


@dataclass(frozen=True)
class Architecture:
    """How to build a module.

    Attributes:
        spec: as it was written, for messages.
        maker: what is called, or the module itself.
        arguments: keyword arguments of the call.
        home: the folder that the code's own imports are looked for in.
    """

    spec: str
    maker: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    home: Path | None = None

    def build(self) -> nn.Module:
        """A new module in evaluation mode, its random values seeded. This runs the user's code.

        Raises NnoptError: it fails, or gives something else than a module.
        """
        import torch
        from torch import nn

        with importable(self.home), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = self._made()
        if not isinstance(made, nn.Module):
            given = "a class, not an object of it" if inspect.isclass(made) else f"a {type(made).__name__}"
            raise NnoptError(
                f"--arch {self.spec}: gives {given}, not an nn.Module",
                "Name a function without arguments that returns the network, or its class.",
            )
        return made.eval()

    def _made(self) -> Any:
        from copy import deepcopy

        from torch import nn

        if isinstance(self.maker, nn.Module):
            return deepcopy(self.maker)
        try:
            inspect.signature(self.maker).bind(**self.arguments)
        except TypeError as error:
            raise _misfit(self.spec, self.maker, str(error)) from None
        except ValueError:  # builtins have no signature
            pass
        try:
            return self.maker(**self.arguments)
        except NnoptError:
            raise
        except (Exception, SystemExit) as error:
            raise NnoptError(f"--arch {self.spec}: {described(error)}") from error


def from_code(spec: str, arguments: Mapping[str, Any] | None = None) -> Architecture:
    """The architecture that `PATH.py:NAME` or `package.module:NAME` refers to. This runs the user's code.

    Raises UsageError: there is no such file, module or name, it fails on import, or cannot be called.
    """
    maker, home = find_code(spec, "--arch")
    if not callable(maker):
        raise UsageError(
            f"--arch {spec}: is a {type(maker).__name__}, which cannot be called",
            "Name a function that returns the network, or its class.",
        )
    return Architecture(spec, maker, dict(arguments or {}), home)


def find_code(spec: str, flag: str) -> tuple[Any, Path]:
    """What a reference to code names, and the folder that its own imports are looked for in.

    Args:
        spec: `PATH.py:NAME` or `package.module:NAME`.
        flag: what it was given for, for messages.

    Raises UsageError: there is no such file, module or name, or it fails on import.
    """
    found = _CODE.fullmatch(spec)
    if not found:
        raise UsageError(f"{flag} {spec!r}: not understood", "Write PATH.py:NAME or package.module:NAME.")
    module, name = found["module"], found["name"]
    path = Path(module).expanduser() if module.endswith(".py") else None
    home = path.resolve().parent if path else Path.cwd()
    with importable(home):
        try:
            code: Any = _from_file(path) if path else import_module(module)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{flag} {spec}: {described(error)}", _import_hint(error, module)) from error
    at = code
    for part in name.split("."):
        inner = getattr(at, part, None)
        if inner is None:
            known = [key for key, value in vars(code).items() if callable(value) and not key.startswith("_")]
            raise UsageError(
                f"{flag} {spec}: there is no {name!r} in {module}",
                suggest(name, known) or (f"There are: {', '.join(known[:8])}." if known else None),
            )
        at = inner
    return at, home


def from_callable(build: Callable[..., Any], arguments: Mapping[str, Any] | None = None) -> Architecture:
    """The architecture that a Python function, a class, or a module itself stands for."""
    if not callable(build):
        raise UsageError(
            f"build is a {type(build).__name__}, not a function that returns an nn.Module",
            "Pass the function or the class itself.",
        )
    name = getattr(build, "__qualname__", type(build).__name__)
    return Architecture(name, build, dict(arguments or {}))


def described(error: BaseException) -> str:
    """An exception in one line, with the place in the user's own code where it came from."""
    said = " ".join(str(error).strip().split("\n", 1)[0].split())
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = None if isinstance(error, ImportError | FileNotFoundError) else user_line(error)
    return f"{text} ({place})" if place else text


def user_line(error: BaseException) -> str | None:
    """`net.py, line 12: code` for the innermost line of `error` outside of libraries, if there is one."""
    import linecache

    found = None
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if is_user_code(name):
            found = (name, trace.tb_lineno)
        trace = trace.tb_next
    if found is None:
        return None
    code = linecache.getline(*found).strip()
    return f"{shown_path(found[0])}, line {found[1]}" + (f": {code}" if code else "")


def is_user_code(filename: str) -> bool:
    """Whether a line of code belongs to neither Python, an installed package of libraries, nor nnopt."""
    import sysconfig

    if filename.startswith("<"):
        return False
    path = Path(filename)
    own = Path(__file__).resolve().parent.parent
    places = [Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")]
    installed = {"site-packages", "dist-packages"}.intersection(path.parts)
    return not installed and not any(place in path.parents for place in (own, *places))


def shown_path(filename: str) -> str:
    """A path as short as it is clear: below the current folder, else whole."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if Path.cwd() in path.parents else str(path)


def _misfit(spec: str, maker: Callable[..., Any], why: str) -> UsageError:
    signature = inspect.signature(maker).replace(return_annotation=inspect.Signature.empty)
    form = f"{spec.rpartition(':')[2]}{signature}"
    return UsageError(
        f"--arch {spec}: {why}", f"It is called as {form}; --arch-arg NAME=VALUE gives a value."
    )


def _import_hint(error: BaseException, module: str) -> str | None:
    if isinstance(error, FileNotFoundError):
        return "Write PATH.py:NAME; the path is relative to where nnopt runs."
    if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
        return "It is neither installed nor in this folder. For a file, write PATH.py:NAME."
    return None


@contextmanager
def importable(home: Path | None) -> Iterator[None]:
    """Let code import what lies beside it, as if it were run from there."""
    if home is None or str(home) in sys.path:
        yield
        return
    sys.path.insert(0, str(home))
    try:
        yield
    finally:
        if str(home) in sys.path:
            sys.path.remove(str(home))


def _from_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"nnopt_arch_{path.stem}_{sha256(bytes(path)).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses and pickling look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
