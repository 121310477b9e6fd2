"""Imports point one way, `--help` stays light, and plugins see only what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nnopt_cli

ROOT = Path(__file__).parents[1]
CORE = ROOT / "nnopt_cli"
PLUGINS = ROOT / "plugins" / "nnopt_plugins"

# What each part of the core may import of the core, beside itself. Model, graph and data stand on one level.
FOUNDATION = {"errors", "run", "lazy", "__init__"}
BELOW = {
    "formats": set(),
    "graph": {"formats", "model"},
    "data": {"formats", "model", "graph"},
    "model": {"formats", "graph"},
    "plugin": {"formats", "model", "graph", "data", "testing"},
    "report": {"formats", "model", "graph", "data"},
    "testing": {"formats", "model", "plugin", "app"},
    "recipe": {"plugin", "model"},
    "commands": {"formats", "model", "graph", "data", "plugin", "report", "recipe"},
    "early": {"plugin", "report"},
    "failure": {"plugin", "report", "early"},
    "app": {"commands", "plugin", "report", "early", "failure"},
    "__main__": {"app"},
}
PUBLIC = {"nnopt_cli", "nnopt_cli.graph", "nnopt_cli.data", "nnopt_cli.testing"}


def imports(path: Path) -> list[tuple[str, str, bool]]:
    """(module, name, only for type checking) of each import in a file, wherever it stands."""
    found = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, "", typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.extend((node.module or "", alias.name, typing_only) for alias in node.names)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only or guarded)

    visit(ast.parse(path.read_text()), False)
    return found


def part(module: str, name: str = "") -> str:
    """`nnopt_cli.model.io` is in the part `model`; `from nnopt_cli import run` is in `run`."""
    words = module.split(".")
    if len(words) > 1:
        return words[1]
    return name if (CORE / f"{name}.py").exists() or (CORE / name).is_dir() else "__init__"


CORE_FILES = sorted(CORE.rglob("*.py"))
PLUGIN_FILES = sorted(PLUGINS.rglob("*.py"))


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_imports_one_way(path):
    own = path.relative_to(CORE).parts[0].removesuffix(".py")
    for module, name, typing_only in imports(path):
        assert module.partition(".")[0] != "nnopt_plugins", f"the core knows no method, yet imports {module}"
        if module.partition(".")[0] != "nnopt_cli" or own in FOUNDATION or typing_only:
            continue
        target = part(module, name)
        allowed = target == own or target in FOUNDATION or target in BELOW[own]
        assert allowed, f"{own} may not import {module} ({name})"


def test_the_foundation_stands_on_nothing():
    for name in ("errors.py", "run.py", "lazy.py"):
        for module, _, typing_only in imports(CORE / name):
            assert typing_only or not module.startswith("nnopt_cli"), f"{name} imports {module}"


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_only_public_names(path):
    for module, name, _ in imports(path):
        if module.partition(".")[0] != "nnopt_cli":
            continue
        assert module in PUBLIC, f"{path.name} imports {module}, which is private"
        if module == "nnopt_cli":
            assert name in nnopt_cli.__all__, f"{path.name} imports {name}, which nnopt_cli does not export"


def test_there_is_something_to_check():
    assert len(CORE_FILES) > 20
    assert len(PLUGIN_FILES) > 3
    assert ("nnopt_cli.model.model", "Model", True) in imports(CORE / "plugin" / "kinds.py")


def test_public_names_exist_and_are_declared_for_type_checkers():
    declared = set()
    for node in ast.walk(ast.parse((CORE / "__init__.py").read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            declared = {alias.asname for child in node.body for alias in child.names}
    for name in nnopt_cli.__all__:
        assert getattr(nnopt_cli, name) is not None
    assert declared | {"__version__"} == set(nnopt_cli.__all__)


LIGHT = """
import sys
sys.argv = ["nnopt", *{args!r}]
from nnopt_cli.app import main
code = main()
loaded = [name for name in ("torch", "numpy", "onnx", "safetensors") if name in sys.modules]
assert code == 0 and not loaded, (code, loaded)
"""


@pytest.mark.parametrize(
    "args", [["--help"], ["prune", "--help"], ["plugins"], ["plugins", "--json"], ["--version"]], ids=" ".join
)
def test_looking_around_imports_neither_torch_nor_numpy(args):
    done = subprocess.run([sys.executable, "-c", LIGHT.format(args=args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_nnopt_is_light():
    heavy = ("torch", "numpy", "pydantic", "typer")
    code = f"import sys, nnopt_cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [*CORE_FILES, *PLUGIN_FILES], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 450, "a module this long is usually two"
