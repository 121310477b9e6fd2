"""`nnopt plugins new`: a package to start from."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError, UsageError

if TYPE_CHECKING:
    from nnopt_cli.plugin.registry import Registry

_TEMPLATES = {  # file of the package -> template, both with $names
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "$package/__init__.py": "package.py.txt",
    "tests/test_$package.py": "test.py.txt",
}


@dataclass(frozen=True)
class Names:
    """What the parts of a new package are called."""

    distribution: str  # nnopt-clip
    package: str  # nnopt_clip
    command: str  # clip
    cls: str  # Clip


def plan(name: str, registry: Registry) -> Names:
    """Derive all names from the package's. Raises UsageError for one that cannot be used."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", name):
        raise UsageError(f"{name!r} cannot be a package's name", "Use letters, digits and single dashes.")
    distribution = name.lower().replace("_", "-")
    package = distribution.replace("-", "_")
    command = distribution.removeprefix("nnopt-")
    cls = "".join(word.capitalize() for word in command.split("-"))
    if distribution == "nnopt" or keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise UsageError(f"{name!r} is taken: Python or nnopt uses it", f"Try nnopt-{command}.")
    if keyword.iskeyword(cls) or not cls.isidentifier():
        raise UsageError(f"{name!r}: the pass {command!r} cannot be a class called {cls!r}")
    if find_spec(package):
        raise UsageError(f"{name!r} is taken: a package {package!r} is installed here")
    if command in registry.names("pass") or command in registry.commands:
        raise UsageError(f"{name!r}: nnopt has a command {command!r} already")
    return Names(distribution, package, command, cls)


def create(names: Names, folder: Path) -> list[str]:
    """Write the package into `folder`; returns its files. Raises NnoptError if something is there."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise NnoptError(f"{folder}: exists and is not an empty folder", "Choose another with --dir.")
    source = files("nnopt_cli.plugin") / "template"
    written = []
    for place, template in _TEMPLATES.items():
        path = folder / Template(place).substitute(vars(names))
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (source / template).read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(vars(names)), encoding="utf-8")
        written.append(str(path.relative_to(folder)))
    return written
