"""Finds the installed plugins and loads each on its own, so that a broken one costs only itself."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import pluggy

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.plugin.code import describe
from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.flags import clashes
from nnopt_cli.plugin.hookspecs import GROUP, Hooks
from nnopt_cli.plugin.noise import stdout_to_stderr
from nnopt_cli.plugin.registry import Plugin, Registry

OWN = "nnopt"  # the distribution whose plugins are the built-in ones
HOOK = "nnopt_components"
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "pyarrow", "pandas", "scipy", "transformers")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class _Found:
    """An entry point, and the distribution that it comes from."""

    entry: EntryPoint
    distribution: str
    version: str

    @property
    def order(self) -> tuple[bool, str, str]:
        """Built-in plugins first, then by name."""
        return self.distribution != OWN, self.entry.name, self.distribution

    @property
    def names(self) -> set[str]:
        """What it may be called by."""
        return {self.entry.name, self.distribution}


@dataclass(frozen=True)
class Wanted:
    """Which plugins to load.

    Attributes:
        allowed: names or distributions (`NNOPT_PLUGINS`); None for all. Built-in ones are always allowed.
        blocked: names or distributions (`--no-plugin`), not even imported.
        strict: whether a broken plugin is an error (`NNOPT_STRICT_PLUGINS=1`).
    """

    allowed: frozenset[str] | None = None
    blocked: frozenset[str] = frozenset()
    strict: bool = False

    @classmethod
    def read(cls, environ: Mapping[str, str], blocked: Iterable[str] = ()) -> Wanted:
        """From the environment and what `--no-plugin` named."""
        listed = environ.get("NNOPT_PLUGINS")
        allowed = None if listed is None else frozenset(filter(None, map(str.strip, listed.split(","))))
        return cls(allowed, frozenset(blocked), environ.get("NNOPT_STRICT_PLUGINS", "0") not in ("", "0"))


def load_plugins(wanted: Wanted, commands: Iterable[str] = ()) -> Registry:
    """Load every installed plugin that is wanted.

    Args:
        wanted: what to load and what not.
        commands: names that no pass may take.

    Returns:
        The components; `registry.plugins` says what became of each plugin, broken ones included.

    Raises:
        UsageError: `--no-plugin` names one that is not installed.
    """
    registry = Registry(commands)
    found = sorted(_installed(), key=lambda each: each.order)
    known = {name for each in found for name in each.names}
    _check_names(known, wanted.blocked)
    for each in found:
        plugin = _load(each, wanted)
        if plugin.state == "loaded":
            try:
                registry.add(plugin.components, plugin.name)
            except NnoptError as error:
                plugin = plugin.broken(error.message)
        registry.plugins.append(plugin)
    for name in sorted((wanted.allowed or frozenset()) - known):
        absent = Plugin(name, "", "", "", False, "broken", "NNOPT_PLUGINS names it, but it is not installed")
        registry.plugins.append(absent)
    return registry


def _installed() -> Iterator[_Found]:
    """All plugins; the metadata of a distribution is parsed once, whatever it brings."""
    read: dict[int, tuple[str, str]] = {}
    for entry in entry_points(group=GROUP):
        home = entry.dist
        if home is not None and id(home) not in read:
            read[id(home)] = home.name, home.version
        yield _Found(entry, *(read[id(home)] if home is not None else ("", "")))


def _check_names(known: set[str], blocked: Iterable[str]) -> None:
    names = sorted(known - {OWN})
    for name in blocked:
        if name not in names:
            hint = suggest(name, names) or f"Installed: {', '.join(names)}."
            raise UsageError(f"--no-plugin {name!r}: there is no such plugin", hint)


def _load(found: _Found, wanted: Wanted) -> Plugin:
    entry, names, distribution = found.entry, found.names, found.distribution
    plugin = Plugin(entry.name, entry.value, distribution, found.version, distribution == OWN, "off")
    if names & wanted.blocked:
        return replace(plugin, why="left out by --no-plugin")
    if not plugin.builtin and wanted.allowed is not None and not names & wanted.allowed:
        return replace(plugin, why="not listed in NNOPT_PLUGINS")
    before = {name for name in HEAVY if name in sys.modules}
    start = time.perf_counter()
    try:
        with stdout_to_stderr():
            module = entry.load()
            components = _components(module, entry.name)
    except KeyboardInterrupt:
        raise
    except NnoptError as error:
        return plugin.broken(error.message)
    except BaseException as error:  # also SystemExit: a plugin must not end the program
        return plugin.broken(describe(error))
    seconds = time.perf_counter() - start
    heavy = tuple(
        name for name in HEAVY if name in sys.modules and (name not in before or _uses(module, name))
    )
    return replace(plugin, state="loaded", components=components, heavy=heavy, seconds=seconds)


def _uses(module: ModuleType, library: str) -> bool:
    """Whether a plugin's module holds something of a library that was in memory before it."""
    package = getattr(module, "__name__", "").partition(".")[0]
    homes = [home for name, home in sys.modules.items() if name.partition(".")[0] == package]
    values = (value for home in homes for value in vars(home).values())
    return any(
        isinstance(value, ModuleType) and value.__name__.partition(".")[0] == library for value in values
    )


def _components(module: object, name: str) -> tuple[type[Component], ...]:
    """Ask a plugin for its components. Raises NnoptError that says what is wrong with it."""
    manager = pluggy.PluginManager(GROUP)  # one for each, so that none sees or spoils another
    manager.add_hookspecs(Hooks)
    try:
        manager.register(module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        said = re.sub(r" in plugin <.*>$", "", " ".join(str(error).split()))  # where it lies tells nothing
        raise NnoptError(f"{said}; the hook is {HOOK}()") from error
    if not manager.hook.nnopt_components.get_hookimpls():
        close = suggest(HOOK, [key for key in dir(module) if key != HOOK])
        marked = f"is {HOOK} marked with @nnopt_cli.hookimpl?" if hasattr(module, HOOK) else ""
        raise NnoptError(f"it has no hook {HOOK}(); {marked or close}".rstrip("; "))
    answer = next(iter(manager.hook.nnopt_components()), None)  # pluggy drops a None
    if not isinstance(answer, (list, tuple)):
        raise NnoptError(f"{HOOK}() returned {type(answer).__name__}, not a list of component classes")
    for cls in answer:
        if fault := component_fault(cls):
            raise NnoptError(fault)
    return tuple(answer)


def component_fault(cls: object) -> str | None:
    """Why `cls` cannot be a component, or None."""
    if not (inspect.isclass(cls) and issubclass(cls, Component)):
        return f"{HOOK}() returned {cls!r}, which is not a component class"
    if not cls.kind or not cls.name:
        return f"{cls.__name__} is not a component: extend a kind, such as Pass or Criterion"
    if not _NAME.fullmatch(cls.name):
        return f"{cls.__name__} is called {cls.name!r}; names are lower-case words joined by dashes"
    if inspect.isabstract(cls):
        return f"{cls.__name__} is abstract: it lacks {', '.join(sorted(cls.__abstractmethods__))}"
    if not getattr(cls, "__pydantic_fields_complete__", True):  # pydantic 2.10 tells later, on first use
        return f"{cls.__name__}: the type of an option is not importable when the class is made"
    if hidden := [name for name in cls.model_fields if any(hasattr(base, name) for base in cls.__bases__)]:
        return f"{cls.__name__}: the option {hidden[0]!r} hides what every component has; rename it"
    if cls.kind == "pass" and (taken := clashes(cls)):
        return f"{cls.__name__}: {' and '.join(taken)}: flags that all commands share; rename the option"
    return None
