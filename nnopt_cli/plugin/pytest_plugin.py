"""Fixtures for the tests of plugins. pytest loads this in every project, so it imports nothing but pytest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run
    from nnopt_cli.testing import Result


@pytest.fixture
def nnopt_model() -> Callable[..., Model]:
    """`nnopt_model(seed=0)`: a small model in memory, see `nnopt_cli.testing.small_model`."""
    from nnopt_cli.testing import small_model

    return small_model


@pytest.fixture
def nnopt_file(tmp_path: Path) -> Callable[..., Path]:
    """`nnopt_file(name="model.safetensors", seed=0)`: the small model as a file in `tmp_path`."""
    from nnopt_cli.testing import small_file

    def write(name: str = "model.safetensors", seed: int = 0) -> Path:
        return small_file(tmp_path / name, seed)

    return write


@pytest.fixture
def nnopt_run() -> Run:
    """A quiet `Run` with seed 0 on the CPU."""
    from nnopt_cli.run import Run

    return Run()


@pytest.fixture
def nnopt_command() -> Callable[..., Result]:
    """`nnopt_command("prune", path, …)` runs a command in this process; see `nnopt_cli.testing.Result`."""
    from nnopt_cli.testing import run_command

    return run_command
