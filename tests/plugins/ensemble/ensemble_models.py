"""Small related models as files, and the command run for real."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from nnopt_cli import Members, Run, Weighting, load, save
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))


def nnopt(*arguments, code=0, folder=None):
    """Run the command in a process of its own; its stdout, or its stderr where it should fail."""
    command = [sys.executable, "-m", "nnopt_cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def document(*arguments, **kwargs):
    """What the command prints with `--json`."""
    return json.loads(nnopt(*arguments, "--json", **kwargs))


def weights(seed, dtype=torch.float32, near=None, spread=0.05):
    """Three layers and a counter; near others, or of their own."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (24, 16), "a.bias": (24,), "b.weight": (8, 24)}
    made = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    if near is not None:
        made = {name: near[name].float() + spread * value for name, value in made.items()}
    made = {name: value.to(dtype) for name, value in made.items()}
    return {**made, "n": torch.tensor(10 + seed)}


def family(folder, count=2, dtype=torch.float32):
    """Paths of an ancestor and `count` fine-tunes of it, and their weights."""
    base = weights(0, dtype)
    found = {"base": base, **{f"m{i}": weights(i + 1, dtype, near=base) for i in range(count)}}
    for name, tensors in found.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in found}, found


def fused(folder, spec, count=2, dtype=torch.float32, base=False, everywhere=None, patterns=()):
    """What a fusion makes of the members of `family`: float64 arrays by name; and what it read."""
    paths, found = family(folder, count, dtype)
    members = Members(
        tuple(load(paths[f"m{i}"]) for i in range(count)),
        Weighting(everywhere, tuple(patterns)),
        load(paths["base"]) if base else None,
    )
    method = REGISTRY.build("fusion", spec)
    method.check(members)
    run = Run(threads=2, registry=REGISTRY)
    save(method.fuse(members, run), folder / "out.safetensors", run=run, force=True)
    made = {name: wide(value) for name, value in load_file(folder / "out.safetensors").items()}
    return made, {name: {k: wide(v) for k, v in each.items()} for name, each in found.items()}


def wide(tensor):
    """As float64."""
    return np.asarray(tensor.double().numpy())
