"""Half of all channels of every architecture of the zoo: exact, smaller, trainable, and runs elsewhere.

Slow. With `NNOPT_SLOW=reduced`, of the hand-written architectures every third and eight named ones are run.
Cases whose package is not installed are skipped.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree
from zoo import CASES, Case, export

from nnopt_cli.graph import Coupling, Keep, analyse, check_cut, costs, cut, distance, groups

pytestmark = pytest.mark.slow

REDUCED = os.environ.get("NNOPT_SLOW") == "reduced"
NAMED = ("resnet50", "mobilenet-v2", "densenet121", "convnext-tiny", "swin-t", "bert", "llama", "t5")
HAND = [case for case in CASES if case.family == "hand"]
CHOSEN = [*HAND[::3], *(case for case in CASES if case.name in NAMED)] if REDUCED else CASES
TO_ONNX = [case for case in CASES if case.name in (*NAMED, "c2f", "lstm", "gqa-expand")]
ROLLS = 3  # wrong cuts tried on every architecture


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


def half(coupling: Coupling) -> Keep:
    """Removes a random half of every group: any choice must work."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(group.classes)[: len(group.classes) // 2] for group in groups(coupling)]
    return Keep(coupling, np.concatenate([np.zeros(0, np.int64), *chosen]))


def floating(outputs: object) -> list[Tensor]:
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_half_of_the_channels(case: Case) -> None:
    program = exported(case)
    coupling = analyse(program)
    keep = half(coupling)
    small = cut(program, coupling, keep)
    found = check_cut(program, small, coupling, keep)
    assert found.passed, found
    assert costs(small).parameters / costs(program).parameters <= case.most
    assert_wrong_cuts_are_seen(program, small, coupling, keep)
    assert_trains(case, program, small)
    assert_reloads(case, small)


def assert_wrong_cuts_are_seen(
    program: ExportedProgram, small: ExportedProgram, coupling: Coupling, keep: Keep
) -> None:
    """The kept indices of one dimension of one weight, rolled by one."""
    rng = np.random.default_rng(0)
    weights = {name for name, parameter in program.named_parameters() if parameter.dim() > 1}
    places = [
        (name, axis)
        for name, node in coupling.parameters.items()
        for axis, dim in enumerate(coupling.value(node))
        if name in weights and node.users and dim is not None and keep.touches(dim)
    ]
    state = small.state_dict
    for name, axis in (places[i] for i in rng.permutation(len(places))[:ROLLS]):
        right, wrong = state[name], rolled(program, coupling, keep, name, axis)
        if torch.equal(right, wrong):
            continue
        same = [other for other, tensor in state.items() if tensor is right]  # tied ones
        state.update(dict.fromkeys(same, wrong))
        assert not check_cut(program, small, coupling, keep, batches=[2]).passed, f"{name}, axis {axis}"
        state.update(dict.fromkeys(same, right))


def rolled(program: ExportedProgram, coupling: Coupling, keep: Keep, name: str, wrong: int) -> Tensor:
    tensor: Tensor = program.state_dict[name].detach()
    for axis, dim in enumerate(coupling.value(coupling.parameters[name])):
        if dim is not None:
            kept = np.roll(keep.mask(dim), 1 if axis == wrong else 0)
            tensor = tensor.index_select(axis, torch.from_numpy(kept.nonzero()[0]))
    return tensor


def assert_trains(case: Case, program: ExportedProgram, small: ExportedProgram) -> None:
    """The parameters that get a gradient before the cut get one after it."""
    reached = []
    for candidate in (program, small):
        net = candidate.module()
        results = floating(net(*case.inputs(3)))
        torch.stack([(result * torch.randn_like(result)).sum() for result in results]).sum().backward()
        reached.append({name for name, p in net.named_parameters() if p.grad is not None})
    assert reached[0] == reached[1]
    assert reached[0]


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
    onnxruntime = pytest.importorskip("onnxruntime")
    program = exported(case)
    coupling = analyse(program)
    small = cut(program, coupling, half(coupling))
    torch.onnx.export(small, case.inputs(2), tmp_path / "small.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    for batch in (2, 3):
        inputs = case.inputs(batch)
        feeds = {
            given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), inputs, strict=True)
        }
        with torch.no_grad():
            want = floating(small.module()(*inputs))
        assert distance(want, [torch.from_numpy(result) for result in session.run(None, feeds)]) <= 1e-5


def test_without_the_source(tmp_path: Path) -> None:
    """A process that has neither nnopt nor the network's class runs the file."""
    case = next(case for case in CASES if case.name == "c2f")
    program = exported(case)
    coupling = analyse(program)
    small = cut(program, coupling, half(coupling))
    torch.export.save(small, tmp_path / "small.pt2")
    torch.save(case.inputs(4), tmp_path / "inputs.pt")
    code = (
        "import sys, torch; net = torch.export.load(sys.argv[1]).module(); "
        "torch.save(net(*torch.load(sys.argv[2])), sys.argv[3]); "
        "assert not any(name.startswith(('nnopt', 'zoo')) for name in sys.modules)"
    )
    paths = [str(tmp_path / name) for name in ("small.pt2", "inputs.pt", "outputs.pt")]
    subprocess.run([sys.executable, "-P", "-c", code, *paths], check=True, cwd=tmp_path)
    with torch.no_grad():
        want = small.module()(*case.inputs(4))
    torch.testing.assert_close(torch.load(tmp_path / "outputs.pt"), want)
