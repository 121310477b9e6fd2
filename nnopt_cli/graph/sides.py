"""`Side`: something that computes, whether PyTorch or ONNX Runtime runs it, so that two can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from nnopt_cli.errors import NnoptError
from nnopt_cli.graph.inputs import recorded_size
from nnopt_cli.graph.onnx_export import axis_names, output_names
from nnopt_cli.graph.onnx_runtime import ONNX_TYPES, opened
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.setting import first_line
from nnopt_cli.graph.signature import input_spec
from nnopt_cli.model.inputs import BATCH, Dim, Input, InputSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_PRODUCT = re.compile(r"(\d+)\s*\*\s*(\w+)|(\w+)\s*\*\s*(\d+)")


@dataclass(frozen=True)
class Side:
    """Something that computes.

    Attributes:
        name: what messages call it.
        spec: what it is fed; every input has a name.
        outputs: names of its outputs, in order.
        call: tensors in the order of `spec` -> outputs in the order of `outputs`; raises NnoptError with
            the runtime's own words.
        sizes: of the dimensions that vary, as it was exported, where that is known.
        fixed: places of the outputs that depend on no input, where that is known.
    """

    name: str
    spec: InputSpec
    outputs: tuple[str, ...]
    call: Callable[[Sequence[Tensor]], list[Tensor]]
    sizes: Mapping[str, int] = field(default_factory=dict)
    fixed: frozenset[int] = frozenset()


def program_side(program: ExportedProgram, name: str = "PyTorch") -> Side:
    """A program, run in PyTorch operator by operator in its own types."""
    nodes = _user_inputs(program)
    tensors = [node for node in nodes if hasattr(node.meta["val"], "shape")]
    spec = _readable(input_spec(program), {BATCH: "batch", **axis_names(program, None)})
    named = InputSpec(
        tuple(
            Input(each.name or node.name, each.dtype, each.shape, each.below)
            for each, node in zip(spec.inputs, tensors, strict=True)
        )
    )

    def call(given: Sequence[Tensor]) -> list[Tensor]:
        values = iter(_typed(given, named))
        flat = [next(values) if node in tensors else node.meta["val"] for node in nodes]
        try:
            with torch.no_grad():
                found = run(program, flat)
        except Exception as error:  # whatever an operator raises
            raise NnoptError(f"it fails in PyTorch: {first_line(error)}") from error
        return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]

    names = output_names(program)
    return Side(name, named, tuple(names), call, _recorded(spec, tensors), _constant(program, nodes))


def _readable(spec: InputSpec, names: Mapping[str, str]) -> InputSpec:
    """The sizes that vary called as an ONNX file calls them, not by the graph's own symbols."""

    def named(dim: int | Dim) -> int | Dim:
        return dim if isinstance(dim, int) else replace(dim, name=names.get(dim.name, dim.name))

    return InputSpec(tuple(replace(each, shape=tuple(map(named, each.shape))) for each in spec.inputs))


def _user_inputs(program: ExportedProgram) -> list[Any]:
    user = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in user]


def _typed(given: Sequence[Tensor], spec: InputSpec) -> list[Tensor]:
    """Floating inputs in the types that are wanted: two sides may compute in different ones."""
    return [
        value.to(getattr(torch, each.dtype)) if value.is_floating_point() else value
        for value, each in zip(given, spec.inputs, strict=True)
    ]


def _recorded(spec: InputSpec, nodes: Sequence[Any]) -> dict[str, int]:
    out: dict[str, int] = {}
    for each, node in zip(spec.inputs, nodes, strict=True):
        for dim, size in zip(each.shape, node.meta["val"].shape, strict=True):
            if isinstance(dim, Dim) and hasattr(size, "node"):
                symbol = sorted(size.node.expr.free_symbols, key=str)[0]
                out.setdefault(dim.name, recorded_size(size.node.shape_env, symbol))
    return out


def _constant(program: ExportedProgram, inputs: Sequence[Any]) -> frozenset[int]:
    """Outputs that no path leads to from an input's values."""
    reached = set(inputs)
    for node in program.graph.nodes:
        if reached.intersection(node.all_input_nodes) and "sym_size" not in str(node.target):
            reached.add(node)
    specs = [s for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    names = {node.name for node in reached}
    return frozenset(i for i, spec in enumerate(specs) if getattr(spec.arg, "name", None) not in names)


def onnx_side(path: Path, name: str | None = None, threads: int = 1) -> Side:
    """An ONNX file, run in ONNX Runtime on the CPU. Raises NnoptError where it does not load."""
    session = opened(path, threads)
    spec = InputSpec(tuple(_declared(each) for each in session.get_inputs()))
    names = tuple(each.name for each in session.get_outputs())

    def call(given: Sequence[Tensor]) -> list[Tensor]:
        values = _typed(given, spec)
        feeds = {e.name: v.contiguous().numpy() for e, v in zip(spec.inputs, values, strict=True)}
        try:
            found = session.run(None, feeds)
        except Exception as error:  # ONNX Runtime has its own classes for each of its status codes
            raise NnoptError(f"it fails in ONNX Runtime: {first_line(error)}") from error
        return [torch.from_numpy(value) for value in found]

    return Side(name or path.name, spec, names, call)


def _declared(each: Any) -> Input:
    kind = ONNX_TYPES.get(each.type)
    if kind is None:
        raise NnoptError(f"its input {each.name} is {each.type}, for which nothing can be made up")
    sizes = [_size(size, f"{each.name}_{axis}") for axis, size in enumerate(each.shape)]
    return Input(each.name, _torch_name(kind), tuple(sizes))


def _torch_name(kind: Any) -> str:
    name = str(kind.__name__)
    return "bool" if name.startswith("bool") else name


def _size(size: Any, otherwise: str) -> int | Dim:
    if isinstance(size, int):
        return size
    text = str(size or otherwise)
    if found := _PRODUCT.fullmatch(text):
        return Dim(found[2] or found[3], factor=int(found[1] or found[4]))
    return Dim(text)
