"""Half of all channels of every architecture of the zoo: exact, smaller, trainable, and runs elsewhere.

Slow. With `NNOPT_SLOW=reduced`, of the hand-written architectures every third and eight named ones are run.
Cases whose package is not installed are skipped.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.export import ExportedProgram
from zoo import CASES, Case, export
from zoo.proof import Foreigner, floating, half, onnx_distance, trains, wrong_cuts_unseen

import nnopt_cli
from nnopt_cli.graph import analyse, check_cut, costs, cut, distance
from nnopt_cli.testing import run_command

pytestmark = pytest.mark.slow

REDUCED = os.environ.get("NNOPT_SLOW") == "reduced"
NAMED = ("resnet50", "mobilenet-v2", "densenet121", "convnext-tiny", "swin-t", "bert", "llama", "t5")
HAND = [case for case in CASES if case.family == "hand"]
CHOSEN = [*HAND[::3], *(case for case in CASES if case.name in NAMED)] if REDUCED else CASES
TO_ONNX = [case for case in CASES if case.name in (*NAMED, "c2f", "lstm", "gqa-expand")]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """One thread, and no warnings of the libraries that build and export the networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


def exported(case: Case) -> ExportedProgram:
    if case.needs:
        pytest.importorskip(case.needs) if case.needs != "torchvision" else _torchvision()
    return export(case)


def _torchvision() -> None:
    from zoo.vision import torchvision

    try:
        torchvision()
    except ImportError:
        pytest.skip("torchvision is not installed")


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_half_of_the_channels(case: Case) -> None:
    program = exported(case)
    coupling = analyse(program)
    keep = half(coupling)
    small = cut(program, coupling, keep)
    found = check_cut(program, small, coupling, keep)
    assert found.passed, found
    assert costs(small).parameters / costs(program).parameters <= case.most
    assert not wrong_cuts_unseen(program, small, coupling, keep)
    assert trains(case, program, small)
    assert_reloads(case, small)


def assert_reloads(case: Case, small: ExportedProgram) -> None:
    """Saved and read back, it computes the same at a batch size that was never seen."""
    file = io.BytesIO()
    torch.export.save(small, file)
    file.seek(0)
    again, inputs = torch.export.load(file), case.inputs(5)
    with torch.no_grad():
        want, got = (floating(p.module()(*inputs)) for p in (small, again))
    assert distance(want, got) <= 1e-6


@pytest.mark.parametrize("case", TO_ONNX, ids=lambda case: case.name)
def test_to_onnx(case: Case, tmp_path: Path) -> None:
    """ONNX Runtime computes the same to 1e-5 of the largest output, at another batch size too."""
    program = exported(case)
    coupling = analyse(program)
    small = cut(program, coupling, half(coupling))
    assert onnx_distance(case, small, tmp_path / "small.onnx") <= 1e-5


def test_the_command_and_a_process_without_the_source(tmp_path: Path) -> None:
    """A bare file becomes a smaller one, which runs where neither nnopt nor the network's class is."""
    case = next(case for case in CASES if case.name == "c2f")
    torch.export.save(exported(case), tmp_path / "dense.pt2")
    small = tmp_path / "small.pt2"
    done = run_command("prune", tmp_path / "dense.pt2", "--granularity", "channel", "-s", 0.5, "-o", small)
    assert done.code == 0, done.stderr
    with Foreigner() as foreigner:
        assert foreigner.distance(case, nnopt_cli.load(small).program(), small) <= 1e-6
