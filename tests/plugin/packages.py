"""Makes real packages with real entry points and installs them with pip, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from nnopt_cli.testing import Result

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "1.2.3"
[project.entry-points.nnopt]
{entries}
[tool.hatch.build.targets.wheel]
packages = {modules}
"""
HEAD = "from nnopt_cli import Component, Criterion, Pass, TensorFilter, hookimpl, option\n"


def package(folder: Path, name: str, sources: Mapping[str, str]) -> Path:
    """Write the distribution `name`; `sources` maps each entry point to the code of its module."""
    entries, modules = [], []
    for entry, source in sources.items():
        module = f"{name}_{entry}".replace("-", "_")
        (folder / name / module).mkdir(parents=True)
        (folder / name / module / "__init__.py").write_text(dedent(source))
        entries.append(f'{entry} = "{module}"')
        modules.append(module)
    text = PYPROJECT.format(name=name, modules=modules, entries="\n".join(entries))
    (folder / name / "pyproject.toml").write_text(text)
    return folder / name


def install(target: Path, folders: Iterable[Path]) -> None:
    """Install packages into the folder `target`, which serves as a site-packages."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--no-build-isolation", "--no-compile", "--no-index", "--target", str(target), *map(str, folders)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Site:
    """An environment: the current one, and packages that are installed beside it."""

    path: Path

    def python(self, *args: object, env: Mapping[str, str] | None = None) -> Result:
        """Run Python in it."""
        merged = {key: value for key, value in os.environ.items() if not key.startswith("NNOPT_")}
        merged |= {"PYTHONPATH": str(self.path), **(env or {})}
        done = subprocess.run([sys.executable, *map(str, args)], env=merged, capture_output=True, text=True)
        return Result(done.returncode, done.stdout, done.stderr)

    def nnopt(self, *args: object, env: Mapping[str, str] | None = None) -> Result:
        """Run `nnopt ARGS…` in it."""
        return self.python("-m", "nnopt_cli", *args, env=env)
