"""Exported files: the zoo verified, speed and size in 8 bits, accuracy in 8 bits, broken files caught.

python benchmarks/export.py [--check] [--parts zoo,speed,accuracy,broken] [--zoo KIND] [--names A,B]

KIND: reduced (every sixth of the hand-written), hand, transformers, torchvision, all.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import onnx
import torch
from _timing import Report, arguments
from nnopt_plugins.export import quantize
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.structures import Channel
from onnx import numpy_helper
from structured import resnet18
from torch.export import ExportedProgram

import nnopt_cli
from nnopt_cli import NnoptError, Run
from nnopt_cli.graph import Parity, analyse, cut, onnx_side, program_side, to_onnx, verify
from nnopt_cli.graph.backends import limited
from nnopt_cli.graph.check import distance
from nnopt_cli.graph.onnx_runtime import onnx_file
from nnopt_cli.graph.parity import STYLES, draw
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.setting import Setting
from nnopt_cli.graph.timing import interleaved

TOLERANCE = 1e-5
ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


def parity(program: ExportedProgram, folder: Path) -> tuple[Parity, float]:
    """Export and hold against PyTorch. Also gives the tolerance.

    Where PyTorch's own fp32 is further from float64 than the tolerance, no file can be held to that: it is
    then held to three times this distance. (Two roundings of that size differ by twice as much.)
    """
    path = folder / "model.onnx"
    to_onnx(program, path)
    found = verify(program_side(program), onnx_side(path, "the file"), tolerance=TOLERANCE)
    if found.passed or not found.difference < 1e-3:
        return found, TOLERANCE
    allowed = max(TOLERANCE, 3 * own_rounding(program))
    return verify(program_side(program), onnx_side(path, "the file"), tolerance=allowed), allowed


def own_rounding(program: ExportedProgram) -> float:
    """How far fp32 in PyTorch is from float64, over the largest output, on inputs such as `verify` makes."""
    side, worst = program_side(program), 0.0
    usual = {**side.spec.sizes(2), **side.sizes}
    for batch, seed in ((2, 0), (2, 1), (3, 2), (1, 2)):
        sizes = {name: batch if size == 2 else size for name, size in usual.items()}  # exported at 2
        given = draw(side.spec, sizes, seed, STYLES[0])
        with torch.no_grad():
            worst = max(worst, distance(run(program, [*given], torch.float64), run(program, [*given])))
    return worst


def half(program: ExportedProgram) -> ExportedProgram:
    """A random half of the units of every group gone."""
    from zoo.proof import half as chosen

    coupling = analyse(program)
    return cut(program, coupling, chosen(coupling))


def zoo(report: Report, which: str, names: str, folder: Path) -> None:
    """Every architecture, dense and pruned, a line each; those without a form in ONNX must be refused."""
    from zoo import CASES, export

    hand = [case for case in CASES if case.family == "hand"]
    kinds = {"reduced": hand[::6], "all": CASES}
    chosen = kinds.get(which, [case for case in CASES if case.family == which])
    if names:
        chosen = [case for case in CASES if case.name in names.split(",")]
    tally, worst, over = Counter[str](), 0.0, 0
    for case in chosen:
        start = time.perf_counter()
        try:
            dense = export(case)
        except ImportError as error:
            print(f"  {case.name}: not tried, {error}", flush=True)
            continue
        for kind in ("dense", "pruned"):
            difference, allowed, fault = tried(dense, kind == "pruned", folder)
            verdict = ("passed" if fault is None else "FAILED") if case.onnx else "no form in ONNX"
            if not case.onnx and fault is None:
                verdict = "FAILED: passed, though it has no form in ONNX"
            tally[verdict.split(":")[0]] += 1
            if fault is None and allowed > TOLERANCE:
                over += 1
                verdict += f" at {allowed:.1e}, three times PyTorch's own rounding:"
            elif fault is None:
                worst = max(worst, difference)
            spent, start = time.perf_counter() - start, time.perf_counter()
            said = f"{difference:8.1e}" if fault is None else f"         {fault}"
            print(f"  {case.name}, {kind}: {verdict} {said} ({spent:.0f} s)", flush=True)
    judged = tally["passed"] + tally["FAILED"]
    if tally["no form in ONNX"]:
        print(f"refused, as they have no form in ONNX: {tally['no form in ONNX']}")
    share = 100 * tally["passed"] / judged if judged else 0.0
    report.bar(
        f"zoo ({names or which}): exported and verified, of {judged}", share, 100, least=True, unit="%"
    )
    report.bar("largest difference over largest output of the others, in 1e-5", worst * 1e5, 1, unit="")


def tried(dense: ExportedProgram, pruned: bool, folder: Path) -> tuple[float, float, str | None]:
    """The difference between the file and PyTorch, what is allowed, and what is wrong, if anything is."""
    try:
        found, allowed = parity(half(dense) if pruned else dense, folder)
    except Exception as error:  # whatever goes wrong is a line of the table
        text = error.message if isinstance(error, NnoptError) else f"{type(error).__name__}: {error}"
        return math.nan, TOLERANCE, text.strip().splitlines()[0][:300]
    return found.difference, allowed, found.fault


def speed(report: Report, seconds: float, folder: Path) -> None:
    """ResNet-18 at half its channels in int8 against dense fp32: one sample, one thread."""
    torch.manual_seed(0)
    net = resnet18().eval()
    torch.save(net.state_dict(), folder / "net.pt")
    model = nnopt_cli.load(folder / "net.pt", net, inputs="3x224x224")
    small = Prune(granularity=Channel(), sparsity=0.5).run(model, Run(threads=1))
    to_onnx(model.program(), folder / "dense.onnx")
    to_onnx(small.program(), folder / "small.onnx")
    (name,) = [each.name for each in onnx.load(folder / "small.onnx").graph.input]
    feeds = [{name: torch.randn(4, 3, 224, 224).numpy()} for _ in range(4)]
    for per_channel in (False, True):
        quantize.static(folder / "small.onnx", folder / "int8.onnx", feeds, "min-max", per_channel, 1 << 30)
        files = [folder / "dense.onnx", folder / "int8.onnx"]
        with limited(1):
            ready = [onnx_file(path, Setting(), [torch.randn(1, 3, 224, 224)]) for path in files]
            before, after = interleaved([each.call for each in ready], seconds)
        word = "a scale per channel" if per_channel else "one scale per weight"
        print(f"ResNet-18, {word}: {before.median * 1e3:.1f} to {after.median * 1e3:.1f} ms")
        report.bar(
            f"half the channels and int8, {word}, against dense fp32",
            before.median / after.median,
            8,
            least=True,
        )
        sizes = [path.stat().st_size for path in files]
        report.bar("the same, size on disk", sizes[0] / sizes[1], 14, least=True)


def accuracy(report: Report, folder: Path) -> None:
    """ResNet-20 in int8, calibrated on 512 training images, on all test images."""
    from nnopt_cli.testing import run_command

    if not DATA.is_dir():
        print("no data: accuracy was not measured")
        return
    done = run_command(
        "export",
        next(DATA.glob("checkpoints/resnet20-*.th")),
        *("--arch", f"{ROOT}/examples/resnet_cifar.py:resnet20", "--input", "3x32x32"),
        *("--data", DATA / "cifar10" / "train.parquet", "--val", DATA / "cifar10" / "test.parquet"),
        *("--normalize", "imagenet", "--quantize", "static", "--samples", 512),
        *("-o", folder / "r20.onnx", "--json"),
    )
    metric = done.json["metric"]
    print(f"ResNet-20: {metric['before']:.4f} to {metric['after']:.4f} on {metric['samples']} test images")
    report.bar("points of accuracy lost in int8", 100 * (metric["before"] - metric["after"]), 0.5, unit="")


def broken(report: Report, folder: Path) -> None:
    """Files with one thing wrong: a transposed weight, a frozen dimension, a zeroed head."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, 4),
    ).eval()
    program = torch.export.export(net, (torch.randn(2, 5, 16),), dynamic_shapes=({0: _VARIES, 1: _VARIES},))
    right = folder / "right.onnx"
    to_onnx(program, right)
    caught = 0
    for change in (_transposed, _frozen, _zeroed):
        model = onnx.load(right)
        change(model)
        onnx.save(model, folder / "wrong.onnx")
        found = verify(program_side(program), onnx_side(folder / "wrong.onnx", "the file"), tolerance=1e-4)
        print(f"  {change.__name__.strip('_')}: {found.fault}")
        caught += not found.passed
    report.bar("broken files that are caught, of 3", caught, 3, least=True, unit="")


_VARIES = torch.export.Dim.DYNAMIC


def _weights(model: Any) -> list[Any]:
    return [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]


def _transposed(model: Any) -> None:
    weight = next(tensor for tensor in _weights(model) if tensor.dims[0] == tensor.dims[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), weight.name))


def _frozen(model: Any) -> None:
    """A reshape to the size at export, which the declared shapes do not tell."""
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[list(last.output).index(output)] = "loose"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 5, 4]), "frozen_shape"))
    model.graph.node.append(onnx.helper.make_node("Reshape", ["loose", "frozen_shape"], [output]))


def _zeroed(model: Any) -> None:
    for tensor in model.graph.initializer:
        if 4 in tensor.dims:
            value = numpy_helper.to_array(tensor) * 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def main() -> None:
    """Run the parts that were asked for."""
    given = arguments(__doc__, seconds=5.0, parts="zoo,speed,accuracy,broken", zoo="reduced", names="")
    report, parts = Report(given.check), given.parts.split(",")
    torch.set_num_threads(1)
    start = time.perf_counter()
    with TemporaryDirectory() as home, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(home)
        if "zoo" in parts:
            zoo(report, given.zoo, given.names, folder)
        if "speed" in parts:
            speed(report, given.seconds, folder)
        if "accuracy" in parts:
            accuracy(report, folder)
        if "broken" in parts:
            broken(report, folder)
    print(f"{time.perf_counter() - start:.0f} s")
    report.finish()


if __name__ == "__main__":
    main()
