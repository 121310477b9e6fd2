"""The test kit for authors of plugins: a small model, a way to run commands, and `check_component`.

The pytest plugin that comes with nnopt offers the same as fixtures: `nnopt_model`, `nnopt_file`,
`nnopt_run` and `nnopt_command`.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.plugin.conformance import check_component

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model

__all__ = ["Result", "check_component", "run_command", "run_process", "small_file", "small_model"]


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        code: its exit code.
        stdout: its result.
        stderr: its messages.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The document that `--json` printed. Raises ValueError if stdout is not exactly one."""
        import json

        return json.loads(self.stdout)


def run_command(*args: object) -> Result:
    """Run `nnopt ARGS…` in this process, with the plugins that are installed."""
    from nnopt_cli.app import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return Result(code, out.getvalue(), err.getvalue())


def run_process(*args: object, env: Mapping[str, str] | None = None, timeout: float = 120) -> Result:
    """Run `nnopt ARGS…` in a process of its own, as a user does; `env` is added to the environment."""
    command = [sys.executable, "-m", "nnopt_cli", *(str(arg) for arg in args)]
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout
    )
    return Result(done.returncode, done.stdout, done.stderr)


def small_model(seed: int = 0) -> Model:
    """A model of a few hundred weights with all that usually goes wrong, in memory.

    A convolution, its norm with running statistics and an integer counter, an embedding tied to a
    head, linear maps in float32, float16, bfloat16 and float64, a scalar and an empty tensor.
    """
    import numpy as np

    from nnopt_cli.formats.checkpoint import Container
    from nnopt_cli.formats.dtypes import dtype_named
    from nnopt_cli.formats.weight import MemoryWeight, Weight
    from nnopt_cli.model.model import Model

    draw = np.random.default_rng(seed)

    def normal(name: str, *shape: int, dtype: str = "float32") -> Weight:
        values = draw.standard_normal(shape).astype("float64" if dtype == "float64" else "float32")
        if dtype == "bfloat16":  # the upper half of a float32
            return MemoryWeight(name, dtype_named(dtype), (values.view("<u4") >> 16).astype("<u2"))
        return MemoryWeight.of(name, values.astype(dtype))

    weights = [
        normal("embed.weight", 12, 6),
        normal("conv1.weight", 8, 3, 3, 3),
        MemoryWeight.of("bn1.weight", np.ones(8, "float32")),
        normal("bn1.bias", 8),
        normal("bn1.running_mean", 8),
        MemoryWeight.of("bn1.num_batches_tracked", np.array(7, "int64")),
        normal("fc1.weight", 10, 16),
        normal("fc1.bias", 10),
        normal("half.weight", 6, 8, dtype="float16"),
        normal("brain.weight", 8, 6, dtype="bfloat16"),
        normal("double.weight", 5, 7, dtype="float64"),
        MemoryWeight.of("scale", np.array(1.5, "float32")),
        MemoryWeight.of("empty", np.empty((0, 4), "float32")),
    ]
    named = {weight.name: weight for weight in weights}
    named["head.weight"] = named["embed.weight"]
    return Model(named, Container(Path("small.safetensors"), "safetensors", ()))


def small_file(path: str | Path, seed: int = 0) -> Path:
    """Write `small_model(seed)` to `path`; its suffix picks the format."""
    from nnopt_cli.model.io import save

    saved = save(small_model(seed), path, force=True)
    assert saved.path is not None
    return saved.path
