"""What must hold of an architecture that lost half of its channels, each as a function that measures it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from nnopt_cli.graph import Coupling, Keep, check_cut, distance, groups

from .case import Case

ROLLS = 3  # wrong cuts tried on every architecture
_FOREIGN = """
import sys, torch
torch.set_num_threads(1)
for line in sys.stdin:
    program, inputs, outputs = line.rstrip("\\n").split("\\t")
    with torch.no_grad():
        torch.save(torch.export.load(program).module()(*torch.load(inputs)), outputs)
    assert not any(name.startswith(("nnopt", "zoo", "torchvision", "transformers")) for name in sys.modules)
    print("done", flush=True)
"""


def half(coupling: Coupling) -> Keep:
    """Removes a random half of every group: any choice must work."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(group.classes)[: len(group.classes) // 2] for group in groups(coupling)]
    return Keep(coupling, np.concatenate([np.zeros(0, np.int64), *chosen]))


def floating(outputs: object) -> list[Tensor]:
    """The floating tensors among what a network returns."""
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def wrong_cuts_unseen(
    program: ExportedProgram, small: ExportedProgram, coupling: Coupling, keep: Keep
) -> list[str]:
    """Weights one dimension of which was cut at indices rolled by one, and the check saw nothing."""
    rng = np.random.default_rng(0)
    nodes = {node.name: node for node in small.graph.nodes}
    inputs = [(spec.target, nodes[spec.arg.name]) for spec in small.graph_signature.input_specs]
    used = {target for target, node in inputs if node.users}  # what computes no output is no cut either
    weights = {name for name, weight in program.named_parameters() if weight.dim() > 1 and name in used}
    places = [
        (name, axis)
        for name, node in coupling.parameters.items()
        for axis, dim in enumerate(coupling.value(node))
        if name in weights and node.users and dim is not None and keep.touches(dim)
    ]
    state, unseen = small.state_dict, []
    for name, axis in (places[i] for i in rng.permutation(len(places))[:ROLLS]):
        right, wrong = state[name], _rolled(program, coupling, keep, name, axis)
        if torch.equal(right, wrong):
            continue
        same = [other for other, tensor in state.items() if tensor is right]  # tied ones
        state.update(dict.fromkeys(same, wrong))
        if check_cut(program, small, coupling, keep, batches=[2]).passed:
            unseen.append(f"{name}, axis {axis}")
        state.update(dict.fromkeys(same, right))
    return unseen


def _rolled(program: ExportedProgram, coupling: Coupling, keep: Keep, name: str, wrong: int) -> Tensor:
    tensor: Tensor = program.state_dict[name].detach()
    for axis, dim in enumerate(coupling.value(coupling.parameters[name])):
        if dim is not None:
            kept = np.roll(keep.mask(dim), 1 if axis == wrong else 0)
            tensor = tensor.index_select(axis, torch.from_numpy(kept.nonzero()[0]))
    return tensor


def trains(case: Case, program: ExportedProgram, small: ExportedProgram) -> bool:
    """Whether the parameters that get a gradient before the cut, and no others, get one after it."""
    reached = []
    for candidate in (program, small):
        net = candidate.module()
        results = floating(net(*case.inputs(3)))
        torch.stack([(result * torch.randn_like(result)).sum() for result in results]).sum().backward()
        reached.append({name for name, p in net.named_parameters() if p.grad is not None})
    return bool(reached[0]) and reached[0] == reached[1]


def onnx_distance(case: Case, small: ExportedProgram, path: Path) -> float:
    """Largest difference over the largest output in ONNX Runtime, of two batch sizes; `path` is written."""
    import onnxruntime

    from nnopt_cli.graph.onnx_export import to_onnx

    to_onnx(small, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (2, 3):
        inputs = case.inputs(batch)
        feeds = {
            given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), inputs, strict=True)
        }
        with torch.no_grad():
            want = floating(small.module()(*inputs))
        got = [torch.from_numpy(result) for result in session.run(None, feeds)]
        worst = max(worst, distance(want, [result for result in got if result.is_floating_point()]))
    return worst


class Foreigner:
    """A process that has neither nnopt nor any network's class, and runs `.pt2` files."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-c", _FOREIGN]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.communicate()

    def distance(self, case: Case, small: ExportedProgram, path: Path) -> float:
        """How far what it computes from the file `path` is from `small`, at a batch size never seen before.

        Raises RuntimeError where it cannot run the file.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        inputs = case.inputs(5)
        given, found = path.with_suffix(".inputs"), path.with_suffix(".outputs")
        torch.save(inputs, given)
        self._child.stdin.write(f"{path}\t{given}\t{found}\n")
        self._child.stdin.flush()
        if self._child.stdout.readline() != "done\n":
            raise RuntimeError(f"a process without the source cannot run {path.name}")
        with torch.no_grad():
            want = floating(small.module()(*inputs))
        return distance(want, floating(torch.load(found, weights_only=False)))  # our own child's outputs
