"""Fused outputs on CIFAR-10 and in ONNX Runtime; aligned averages on scikit-learn's digits.

python benchmarks/fuse.py [--check] [--data FOLDER]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _timing import Report, arguments
from nnopt_plugins.ensemble.alignment import Activations, Weights, averaged
from nnopt_plugins.ensemble.outputs import Geometric, Logits, Mean, OutputFusion, Stacking, Vote, Weighted
from nnopt_plugins.ensemble.statistics import reestimated, repaired
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import nnopt_cli
from nnopt_cli import DataOptions, Members, Model, Run
from nnopt_cli.data import Data, measure
from nnopt_cli.plugin.manager import Wanted, load_plugins

ROOT = Path(__file__).parents[1]
REGISTRY = load_plugins(Wanted(allowed=frozenset()))
METHODS: list[OutputFusion] = [Mean(), Logits(), Geometric(), Vote(), Weighted(), Stacking()]


def opened(run: Run, model: Model, data: object, **options: Any) -> Data:
    """Data for a model, as `--data` opens them."""
    values = {"data": str(data), **options}
    chosen = DataOptions.model_validate(values, context={"registry": REGISTRY, "allow_code": True})
    return chosen.open(run, model)


def cifar(folder: Path, run: Run, report: Report) -> Members:
    """Every combination of ResNet-20 and ResNet-32: fitted on 2,000 test rows, reported on 8,000 others."""
    arch = ROOT / "examples" / "resnet_cifar.py"
    models = tuple(
        nnopt_cli.load(
            next((folder / "checkpoints").glob(f"{name}-*.th")), arch=f"{arch}:{name}", inputs="3x32x32"
        )
        for name in ("resnet20", "resnet32")
    )
    test = folder / "cifar10" / "test.parquet"
    shared = {"normalize": "imagenet", "batch_size": 250}
    whole = opened(run, models[0], test, **shared)
    choosing = opened(run, models[0], test, rows="0:2000", **shared)
    rest = opened(run, models[0], test, rows="2000:", **shared)
    members = Members(models, data=choosing)

    def figures(program: Any, data: Data) -> tuple[float, float]:
        found = measure(program, data, run).metrics
        return found["accuracy"], found["nll"]

    print("                       8,000 rows: accuracy, NLL    all 10,000")
    for model, name in zip(models, ("resnet20", "resnet32"), strict=True):
        (part, nll), (all_, _) = figures(model.program(), rest), figures(model.program(), whole)
        print(f"{name:<22} {part:.4f}, {nll:.4f}               {all_:.4f}")
    for method in METHODS:
        program = method.fuse(members, run).program()
        part, nll = figures(program, rest)
        if method.needs_data:
            print(f"{method.name:<22} {part:.4f}, {nll:.4f}")
            continue
        all_, _ = figures(program, whole)
        print(f"{method.name:<22} {part:.4f}, {nll:.4f}               {all_:.4f}")
        if method.name == "mean":
            report.bar(
                "ResNet-20 + ResNet-32, mean of probabilities, 10,000 images", all_, 0.84, least=True, unit=""
            )
    return members


def in_onnx_runtime(members: Members, run: Run, report: Report, seconds: float) -> None:
    """The fused graph against its members one after another, one thread; and against PyTorch."""
    import onnxruntime

    from nnopt_cli.graph import to_onnx
    from nnopt_cli.graph.timing import interleaved

    fused = Mean().fuse(members, run).program()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with TemporaryDirectory() as folder:
        sessions = []
        for number, program in enumerate([fused, *(model.program() for model in members.models)]):
            path = Path(folder) / f"{number}.onnx"
            to_onnx(program, path)
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
        names = [session.get_inputs()[0].name for session in sessions]
        for batch in (1, 64):
            x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            feeds = [{name: x.numpy()} for name in names]
            with torch.no_grad():
                gap = float(
                    (torch.from_numpy(sessions[0].run(None, feeds[0])[0]) - fused.module()(x)).abs().max()
                )
            report.bar(f"ONNX Runtime against PyTorch, batch {batch}, largest difference", gap, 1e-4, unit="")
            sides: list[Callable[[], object]] = [
                lambda feeds=feeds: sessions[0].run(None, feeds[0]),
                lambda feeds=feeds: [sessions[i].run(None, feeds[i]) for i in (1, 2)],
            ]
            fused_time, apart = interleaved(sides, seconds)
            ratio = apart.median / fused_time.median
            report.bar(
                f"fused in ONNX Runtime against one after another, batch {batch}", ratio, 0.98, least=True
            )


def mlp() -> nn.Module:
    """Two hidden layers of 128."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def conv(layers: int = 2) -> nn.Module:
    """Convolutions of width 32 with batch norm."""
    parts: list[nn.Module] = []
    for inside in (1, *[32] * (layers - 1)):
        parts += [nn.Conv2d(inside, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))


def plain() -> nn.Module:
    """Eight hidden layers of 64 without norms, in which an average's responses fade."""
    parts: list[nn.Module] = []
    for _ in range(8):
        parts += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(64, 10))


def deeper() -> nn.Module:
    """Three of them: the longer the chain, the more an average loses."""
    return conv(3)


def digits(run: Run, report: Report) -> None:
    """Networks from two seeds on the same 1,200 digits: averaged as they are, and aligned."""
    import numpy as np
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(labels)[order]
    for name, build, shape, epochs, rate, bar in (
        ("MLP 2x128", mlp, (64,), 60, 1e-3, 0.95),
        ("two convolutions + batch norm, width 32", conv, (1, 8, 8), 15, 2e-3, 0.97),
        ("three convolutions + batch norm, width 32", deeper, (1, 8, 8), 15, 2e-3, None),
        ("MLP 8x64", plain, (64,), 60, 1e-3, None),
    ):
        pictures = x.reshape(-1, *shape)
        with TemporaryDirectory() as folder:
            rows = {"train": slice(0, 1200), "test": slice(1200, None)}
            for part, chosen in rows.items():
                np.savez(Path(folder) / f"{part}.npz", x=pictures[chosen].numpy(), y=y[chosen].numpy())
            models = []
            for seed in (1, 2):
                path = Path(folder) / f"{seed}.pt"
                torch.save(trained(build, pictures[:1200], y[:1200], seed, epochs, rate).state_dict(), path)
                models.append(nnopt_cli.load(path, build, inputs="x".join(map(str, shape))))
            data = {part: opened(run, models[0], Path(folder) / f"{part}.npz") for part in rows}
            members = Members(tuple(models), data=data["train"])

            def accuracy(model: Model, data: dict[str, Data] = data) -> float:
                return measure(model.program(), data["test"], run).metrics["accuracy"]

            def mean_of(found: Members, data: dict[str, Data] = data) -> float:
                return accuracy(reestimated(averaged(found.models), data["train"], run))

            ends = ", ".join(f"{accuracy(model):.4f}" for model in models)
            print(f"{name}: members {ends}, averaged as they are {mean_of(members):.4f}")
            for method in (Weights(), Activations()):
                moved = replace(members, models=method.aligned(members, run).models)
                found = mean_of(moved)
                restored = reestimated(averaged(moved.models), data["train"], run)
                again = accuracy(repaired(restored, moved, run))
                what = f"{name}: aligned by {method.name}, averaged"
                print(f"{what} and repaired {again:.4f}")
                if bar is None:
                    print(f"{what} {found:.4f}")
                else:
                    report.bar(what, found, bar, least=True, unit="")


def trained(
    build: Callable[[], nn.Module], x: Tensor, y: Tensor, seed: int, epochs: int, rate: float
) -> nn.Module:
    """A network from a seed, by AdamW."""
    torch.manual_seed(seed)
    net = build()
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def main() -> None:
    """Measure all of it; CIFAR-10 where the data are there."""
    given = arguments(__doc__, seconds=5.0, data=str(ROOT.parent / "shared" / "data"))
    torch.set_num_threads(1)
    report, run = Report(given.check), Run(threads=1, registry=REGISTRY)
    digits(run, report)
    if (Path(given.data) / "cifar10").exists():
        members = cifar(Path(given.data), run, report)
        in_onnx_runtime(members, run, report, given.seconds)
    else:
        print(f"{given.data}: no CIFAR-10 there, so those rows are left out")
    report.finish()


if __name__ == "__main__":
    main()
