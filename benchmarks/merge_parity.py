"""Merged weights of `nnopt ensemble` against mergekit's on the same files.

python benchmarks/merge_parity.py --mergekit ENVIRONMENT/bin/mergekit-yaml

An ancestor and three fine-tunes of a tiny Llama, in bfloat16, whose differences have a part in common. Both
compute in float32 and round once. A difference counts in steps of bfloat16 at the largest of the values that
went in; of TIES, elements as large as the threshold are counted apart: which of them are kept is open.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _llama import Llama
from _timing import Report, arguments, nnopt
from safetensors.torch import load_file, save_file
from torch import Tensor

LLAMA, DENSITY = Llama(width=64, inner=160, words=128, layers=2, heads=4), 0.5
MEMBERS = {"model_stock": "abc"}
METHODS: dict[str, tuple[str, dict[str, Any], list[str]]] = {  # ours: theirs, its parameters, our options
    "linear": ("linear", {}, ["--weights", "0.3,0.7"]),
    "slerp:t=0.3": ("slerp", {"t": 0.3}, []),
    f"ties:density={DENSITY}": ("ties", {"weight": 1.0, "density": DENSITY}, []),
    "task-arithmetic": ("task_arithmetic", {"weight": 0.6}, ["--weights", "0.6,0.6"]),
    "dare-linear:density=1": ("dare_linear", {"weight": 0.6, "density": 1.0}, ["--weights", "0.6,0.6"]),
    "dare-ties:density=1,normalize=false": (
        *("dare_ties", {"weight": 0.6, "density": 1.0}, ["--weights", "0.6,0.6"]),
    ),
    "model-stock": ("model_stock", {}, []),
}


def build(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Folders `base`, `a`, `b` and `c`, and what is in them."""
    draw = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=draw) for name, shape in LLAMA.shapes().items()}
    common = {name: 0.002 * torch.randn(shape, generator=draw) for name, shape in LLAMA.shapes().items()}
    models = {"base": base}
    for member in "abc":
        models[member] = {
            name: value + common[name] + 0.001 * torch.randn(value.shape, generator=draw)
            for name, value in base.items()
        }
    for member, weights in models.items():
        models[member] = {name: value.to(torch.bfloat16) for name, value in weights.items()}
        (folder / member).mkdir()
        (folder / member / "config.json").write_text(LLAMA.config())
        save_file(models[member], folder / member / "model.safetensors", {"format": "pt"})
    return models


def merged(folder: Path, ours: str, mergekit: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What either command makes."""
    method, parameters, options = METHODS[ours]
    members = MEMBERS.get(method, "ab")
    models: list[dict[str, Any]] = [{"model": str(folder / each)} for each in members]
    recipe: dict[str, Any] = {"merge_method": method, "dtype": "float32", "out_dtype": "bfloat16"}
    if method == "slerp":
        recipe |= {"base_model": models[0]["model"], "parameters": parameters}
    else:
        for model, weight in zip(models, (0.3, 0.7, 0.0), strict=False):
            model["parameters"] = {"weight": weight} if method == "linear" else parameters
        recipe |= {} if method == "linear" else {"base_model": str(folder / "base")}
        options = options if method == "linear" else [*options, "--base", str(folder / "base")]
    (folder / "recipe.json").write_text(json.dumps({**recipe, "models": models}))  # JSON is YAML
    theirs, mine = folder / f"theirs-{method}", folder / f"{method}.safetensors"
    command = [mergekit, str(folder / "recipe.json"), str(theirs), "--no-copy-tokenizer"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    files = [str(folder / each) for each in members]
    call = [*nnopt(), "ensemble", *files, "--method", ours, *options, "-o", str(mine), "-q"]
    subprocess.run(call, check=True, capture_output=True)
    found = {name: value for file in theirs.glob("*.safetensors") for name, value in load_file(file).items()}
    return load_file(mine), found


def at_threshold(models: dict[str, dict[str, Tensor]], name: str) -> Tensor:
    """Which elements are as large as the smallest that TIES keeps, in either member."""
    tied = torch.zeros_like(models["base"][name], dtype=torch.bool)
    for member in "ab":
        size = (models[member][name].float() - models["base"][name].float()).abs()
        tied |= size == size.flatten().topk(int(DENSITY * size.numel())).values[-1]
    return tied


def main() -> None:
    given = arguments(__doc__, mergekit="mergekit-yaml")
    report = Report(given.check)
    with TemporaryDirectory() as home:
        models = build(Path(home))
        for ours in METHODS:
            mine, theirs = merged(Path(home), ours, given.mergekit)
            worst, tied = 0.0, 0
            for name, value in mine.items():
                large = torch.stack(
                    [each[name].float().abs() for each in (*models.values(), mine, theirs)]
                ).amax(0)
                step = torch.exp2(torch.floor(torch.log2(large.clamp_min(1e-30))) - 7)
                off = (value.float() - theirs[name].float()).abs() / step
                if ours.startswith("ties"):
                    apart = at_threshold(models, name)
                    tied += int((off[apart] > 1).sum())
                    off = off[~apart]
                worst = max(worst, float(off.max()))
            rest = (
                f"; {tied} of {sum(map(Tensor.numel, mine.values()))} at the threshold apart" if tied else ""
            )
            report.bar(f"{ours}: largest difference, steps{rest}", worst, 1.0, unit="")
    report.finish()


if __name__ == "__main__":
    main()
