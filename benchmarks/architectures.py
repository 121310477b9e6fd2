"""Half of the channels of every architecture of the zoo, from bare `.pt2` files: what holds of the results.

python benchmarks/architectures.py [NAME ...] [--family hand|torchvision|transformers] [--check]

Each network is exported, its file pruned as `nnopt prune --granularity channel --sparsity 0.5` does, and the
file that comes out read back. *exact*: the difference to the masked dense graph over the largest output, in
float64 where affordable, at two batch sizes. *elsewhere*: the same between the file in a process that has
neither nnopt nor the network's source and the cut, at a third batch size. *onnx*: in ONNX Runtime, fp32.
Needs torchvision and transformers for their families.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.structures import Channel
from zoo import CASES, Case, export
from zoo.proof import Foreigner, half, onnx_distance, trains, wrong_cuts_unseen

import nnopt_cli
from nnopt_cli.graph import analyse, costs, cut
from nnopt_cli.run import Run

ONNX = 1e-5  # the bar, relative to the largest output


@dataclass
class Row:
    """What was found of one architecture; `failed` names the step and says why."""

    exact: float = float("nan")
    kept: float = float("nan")
    elsewhere: float = float("nan")
    trains: bool = False
    seen: bool = False
    onnx: float = float("nan")
    failed: str = ""

    def good(self) -> bool:
        return not self.failed and self.trains and self.seen and self.elsewhere <= 1e-6 and self.onnx <= ONNX


def row(case: Case, folder: Path, foreigner: Foreigner) -> Row:
    """Prune one architecture's file and try everything on what comes out."""
    out, step = Row(), "export"
    try:
        program = export(case)
        torch.export.save(program, folder / "dense.pt2")
        step, run = "prune", Run(threads=1)
        dense = nnopt_cli.load(folder / "dense.pt2")
        nnopt_cli.save(
            Prune(granularity=Channel(), sparsity=0.5).run(dense, run), folder / "small.pt2", force=True
        )
        out.exact = run.facts["shrunk"]["difference"]  # type: ignore[index]
        step, small = "read back", nnopt_cli.load(folder / "small.pt2").program()
        out.kept = costs(small).parameters / costs(program).parameters
        step, out.elsewhere = "elsewhere", foreigner.distance(case, small, folder / "small.pt2")
        step, out.trains = "train", trains(case, program, small)
        step, coupling = "wrong cuts", analyse(program)
        keep = half(coupling)
        out.seen = not wrong_cuts_unseen(program, cut(program, coupling, keep), coupling, keep)
        step, out.onnx = "onnx", onnx_distance(case, small, folder / "small.onnx") if case.onnx else 0.0
    except Exception as error:  # any failure is a line of the table
        out.failed = (
            f"{step}: {type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
        )
    return out


def show(name: str, found: Row) -> None:
    """One line."""
    marks = f"{'yes' if found.trains else 'NO':>6} {'yes' if found.seen else 'NO':>5}"
    figures = f"{found.exact:9.1e} {found.kept:6.3f} {found.elsewhere:9.1e} {marks} {found.onnx:9.1e}"
    print(f"{name:<28} {figures}  {'ok' if found.good() else 'MISSED'} {found.failed}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--family")
    parser.add_argument("--check", action="store_true", help="exit 1 if any is missed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [
        case
        for case in CASES
        if (not given.names or case.name in given.names) and given.family in (None, case.family)
    ]
    print(f"{'':<28} {'exact':>9} {'kept':>6} {'elsewhere':>9} {'trains':>6} {'seen':>5} {'onnx':>9}")
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, Foreigner() as foreigner:
        for case in chosen:
            found = row(case, Path(folder), foreigner)
            show(case.name, found)
            tally["ok" if found.good() else "missed"] += 1
    print(f"{tally['ok']} of {len(chosen)} hold in everything (bar: all); {tally['missed']} do not")
    sys.exit(1 if given.check and tally["missed"] else 0)
