"""Half of all channels removed from every architecture of the zoo: what stays, against Torch-Pruning 1.6.1.

python benchmarks/zoo_parity.py [NAME ...] [--family hand|torchvision|transformers] [--check]

Needs torchvision, transformers and torch-pruning beside nnopt; the last one only for the comparison.
Torch-Pruning gets no hints but the layers that make the outputs. It counts as handling an architecture
if it finishes within its time and the result runs at another batch size. Times are of one thread,
export excluded; they hold analysis, choice and cut here, trace and pruning there.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from zoo import CASES, Case, export, module

from nnopt_cli.graph import Coupling, Keep, analyse, cut, groups, mass

PATIENCE = 120  # seconds that Torch-Pruning gets for one architecture
BARS = {"resnet50": 1.0, "convnext-tiny": 1.0, "densenet121": 0.2, "vgg16": 0.2}  # our time over theirs


def half(coupling: Coupling, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """The lighter half of the units of every group."""
    weight = mass(coupling, weights)
    gone = [
        g.classes[np.argsort(weight[g.classes], kind="stable")[: len(g.classes) // 2]]
        for g in groups(coupling)
    ]
    return np.concatenate([np.zeros(0, np.int64), *gone])


def ours(program: torch.export.ExportedProgram, repeat: int) -> tuple[float, float, Coupling]:
    """Share of parameters kept, and the least CPU seconds of `repeat` rounds."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        coupling = analyse(program)
        small = cut(program, coupling, Keep(coupling, half(coupling, program.state_dict)))
        best = min(best, time.process_time() - start)
    return count(small.parameters()) / count(program.parameters()), best, coupling


def theirs(case: Case, coupling: Coupling, repeat: int) -> tuple[float, float]:
    """The same for Torch-Pruning."""
    import torch_pruning

    net, inputs = module(case), case.inputs(2)
    dense, best, share = count(net.parameters()), float("inf"), 1.0
    for _ in range(repeat):
        copied = copy.deepcopy(net)
        ends = [copied.get_submodule(name) for name in makers_of_outputs(coupling)]
        start = time.process_time()
        pruner = torch_pruning.pruner.BasePruner(
            copied,
            inputs if len(inputs) > 1 else inputs[0],
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=ends,
        )
        pruner.step()
        best = min(best, time.process_time() - start)
        with torch.no_grad():
            copied(*case.inputs(3))
        share = count(copied.parameters()) / dense
    return share, best


def makers_of_outputs(coupling: Coupling) -> Iterator[str]:
    """Modules all of whose output channels are frozen."""
    for name, node in coupling.parameters.items():
        value = coupling.value(node)
        if (
            name.endswith(".weight")
            and len(value) > 1
            and value[0] is not None
            and not coupling.roots[value[0]].any()
        ):
            yield name.removesuffix(".weight")


def count(parameters: Iterator[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@contextlib.contextmanager
def patience(seconds: int) -> Iterator[None]:
    """TimeoutError after so long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not finished after {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--family")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    missed = 0
    print(f"{'architecture':28} {'kept':>6} {'theirs':>7} {'time':>8} {'ratio':>6}")
    for case in CASES:
        if (asked.names and case.name not in asked.names) or (asked.family and case.family != asked.family):
            continue
        share, seconds, coupling = ours(export(case), asked.repeat)
        line = f"{case.name:28} {share:6.3f}"
        try:
            with patience(PATIENCE), contextlib.redirect_stdout(io.StringIO()):
                other, other_seconds = theirs(case, coupling, asked.repeat)
        except Exception as error:  # whatever breaks there only means: not handled
            said = str(error).strip().splitlines()
            line += f"       - {seconds:7.3f}s        {type(error).__name__}: {said[0][:60] if said else ''}"
            wrong = share > 0.7
        else:
            ratio = seconds / other_seconds
            line += f" {other:7.3f} {seconds:7.3f}s {ratio:6.2f}"
            wrong = share > max(min(0.45, other + 0.03), 0) or ratio > BARS.get(case.name, float("inf"))
        print(line + ("  MISSED" if wrong else ""), flush=True)
        missed += wrong
    return int(asked.check and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
