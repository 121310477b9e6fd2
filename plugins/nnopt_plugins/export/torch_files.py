"""Files that PyTorch itself reads: weights as safetensors or a state dict, and whole programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from nnopt_cli import Exporter, NnoptError, option
from nnopt_plugins.export.options import SixteenBit, parse_size

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli import Job, Model
    from nnopt_cli.graph import Parity

_STATISTICS = ("running_mean", "running_var")  # a batch norm in 16 bits keeps them in 32
_LARGEST = 65504.0  # of fp16


class _Weights(SixteenBit, kind="exporter"):
    """An exporter of weights alone."""

    def weights(self, model: Model, job: Job) -> Model:
        """The model in the wanted type."""
        return cast(model, self.dtype, job) if self.dtype else model

    def held(self, model: Model, found: Mapping[str, Tensor]) -> Parity:
        """Every tensor that was read back against the model's own, bit for bit."""
        from nnopt_cli.graph import Parity

        worst = 0.0
        missing = sorted(set(model.weights) ^ set(found))
        if missing:
            return Parity("the weights", fault=f"{missing[0]} is in one of the two only")
        for name, weight in model.weights.items():
            want = weight.torch()
            if self.dtype and _casts(name, want):
                worst = max(worst, _rounding(want, found[name]))
                want = want.to(_torch_type(self.dtype))
            if not _same(want, found[name]):
                return Parity("the weights", fault=f"{name} is not what was written")
        return Parity("the weights, read back by PyTorch", difference=worst, tolerance=worst)


class Safetensors(_Weights):
    """Weights as safetensors: one file, or a folder of shards with an index."""

    name = "safetensors"
    suffixes: ClassVar[tuple[str, ...]] = (".safetensors", "")

    shard_size: str = option(
        "5GB", help="Folder of safetensors: the most that one shard holds.", metavar="SIZE"
    )

    @field_validator("shard_size")
    @classmethod
    def _bytes(cls, text: str) -> str:
        parse_size(text)
        return text

    def export(self, model: Model, path: Path, job: Job) -> None:
        """Write a file, or a folder where the path has no suffix."""
        from nnopt_cli import save

        shards = None if path.suffix else parse_size(self.shard_size)
        save(self.weights(model, job), path, run=job.run, plain=True, shard_bytes=shards)

    def verify(self, model: Model, path: Path, job: Job) -> Parity:
        """Read it by the safetensors library."""
        from safetensors.torch import load_file

        files = [path]
        if path.is_dir():
            index = path / "model.safetensors.index.json"
            names = (
                set(json.loads(index.read_text())["weight_map"].values())
                if index.exists()
                else {"model.safetensors"}
            )
            files = [path / name for name in sorted(names)]
        found: dict[str, Any] = {}
        for file in files:
            found.update(load_file(file))
        first = {id(weight): name for name, weight in reversed(list(model.weights.items()))}
        for name, weight in model.weights.items():  # tied tensors are stored under their first name
            if name not in found and first[id(weight)] in found:
                found[name] = found[first[id(weight)]]
        return self.held(model, found)


class StateDict(_Weights):
    """Weights as a state dict that `torch.load(weights_only=True)` reads."""

    name = "state-dict"
    suffixes: ClassVar[tuple[str, ...]] = (".pt", ".pth", ".bin")

    def export(self, model: Model, path: Path, job: Job) -> None:
        """Write names and tensors, and nothing that the input held beside them."""
        from nnopt_cli import save

        save(self.weights(model, job), path, run=job.run, plain=True)

    def verify(self, model: Model, path: Path, job: Job) -> Parity:
        """Read it by `torch.load`."""
        import torch

        found = torch.load(path, weights_only=True)
        return self.held(model, {name: value for name, value in found.items() if torch.is_tensor(value)})


class Program(Exporter):
    """The program with its weights, which PyTorch runs without the model's source."""

    name = "pt2"
    suffixes: ClassVar[tuple[str, ...]] = (".pt2",)
    needs: ClassVar[Literal["weights", "module", "graph"]] = "graph"
    runs_in: ClassVar[str] = "PyTorch"

    def export(self, model: Model, path: Path, job: Job) -> None:
        """Write graph and weights; nothing is folded, so that it can still be trained."""
        from nnopt_cli import save

        save(model, path, run=job.run)

    def verify(self, model: Model, path: Path, job: Job) -> Parity:
        """Read it by `torch.export.load` and run it."""
        import torch

        from nnopt_cli.graph import program_side, verify

        found = torch.export.load(path)
        return verify(
            program_side(model.program()),
            program_side(found, "the .pt2 file"),
            tolerance=job.tolerance or 1e-6,
        )

    def opened(self, path: Path, job: Job) -> Callable[..., Any]:
        """The program as a module."""
        import torch

        module: Callable[..., Any] = torch.export.load(path).module()
        return module


def cast(model: Model, dtype: str, job: Job) -> Model:
    """Floating weights in 16 bits, in memory; running statistics stay. Raises NnoptError on overflow."""
    from dataclasses import replace

    from nnopt_cli import MemoryWeight

    made: dict[int, Any] = {}
    kept = []
    for name, weight in model.unique().items():
        value = weight.torch()
        if not _casts(name, value):
            kept += [name] if value.is_floating_point() else []
            made[id(weight)] = weight
            continue
        finite = value[value.isfinite()]
        if dtype == "fp16" and finite.numel() and float(finite.abs().max()) > _LARGEST:
            raise NnoptError(f"{name}: holds values above 65504, the largest of fp16", "Use --dtype bf16.")
        made[id(weight)] = MemoryWeight.of(name, value.to(_torch_type(dtype)).contiguous())
    if kept:
        job.run.note(f"Running statistics stay in fp32 ({len(kept)} tensors).")
    return replace(model, weights={name: made[id(weight)] for name, weight in model.weights.items()})


def _casts(name: str, value: Tensor) -> bool:
    return (
        value.is_floating_point() and value.dtype.itemsize > 2 and name.rpartition(".")[2] not in _STATISTICS
    )


def _torch_type(dtype: str) -> Any:
    import torch

    return torch.float16 if dtype == "fp16" else torch.bfloat16


def _same(want: Tensor, got: Tensor) -> bool:
    import torch

    if want.dtype != got.dtype or want.shape != got.shape:
        return False
    if want.is_sparse:
        return bool(torch.equal(want.to_dense(), got.to_dense()))
    want, got = want.contiguous(), got.contiguous()
    return bool(torch.equal(want.reshape(-1).view(torch.uint8), got.reshape(-1).view(torch.uint8)))


def _rounding(want: Tensor, got: Tensor) -> float:
    scale = float(want.abs().max()) if want.numel() else 0.0
    return float((want.double() - got.double()).abs().max()) / scale if scale else 0.0
