"""Programs as ONNX files, by PyTorch's exporter: names kept, nothing of the source left in."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.graph.setting import first_line, quiet

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.model.inputs import InputSpec

EXTERNAL = 1 << 30  # bytes of weights from which an ONNX file keeps them beside it (its limit is 2 GB)
OLDEST, NEWEST = 17, 25  # opsets; what the exporter gives below and above is not what was asked for


def to_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    opset: int | None = None,
    external: int = EXTERNAL,
    spec: InputSpec | None = None,
    strings: Mapping[str, str] | None = None,
) -> None:
    """Write `program` as an ONNX file; constants are folded, batch norms too, into what stands before them.

    Inputs keep their names. Outputs are called by their keys where the program returns a dict, else
    `output`, or `output_0`, `output_1`, …

    Args:
        program: what to write.
        path: the file; weights that are kept beside it go to `path` with `.data` appended.
        opset: version of the operator set; the exporter's own choice by default.
        external: bytes of weights from which they are kept in a file of their own.
        spec: what the program is fed, for the names of sizes that vary.
        strings: metadata.

    Raises:
        UsageError: `opset` is none that can be written.
        NnoptError: it has no form in ONNX; the message names what has none.
    """
    if opset is not None and not OLDEST <= opset <= NEWEST:
        word = "old" if opset < OLDEST else "new"
        raise UsageError(
            f"--opset {opset}: is too {word} for PyTorch's exporter",
            f"Give one from {OLDEST} to {NEWEST}, or none.",
        )
    names = output_names(program)
    try:
        with quiet():
            made = _exported(program, opset, names)
    except Exception as error:  # the exporter raises whatever its parts do
        raise NnoptError(f"it cannot be written as ONNX: {_reason(error)}") from error
    found = made.model.opset_imports.get("")
    if opset is not None and found != opset:
        raise NnoptError(
            f"--opset {opset}: this model cannot be written in it, only in {found}", f"Give --opset {found}."
        )
    _finish(made.model, axis_names(program, spec), strings or {})
    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    try:
        with quiet():
            made.save(path, external_data=size > external)
    except OSError:
        raise
    except Exception as error:
        raise NnoptError(f"it cannot be written as ONNX: {first_line(error)}") from error


def _exported(program: ExportedProgram, opset: int | None, names: list[str]) -> Any:
    """By PyTorch's exporter; nothing is folded where its optimiser fails, as on splits of varying sizes."""
    given: dict[str, Any] = {"opset_version": opset, "output_names": names}
    try:
        return torch.onnx.export(program, dynamo=True, verbose=False, **given)
    except Exception as error:
        if not _in_optimizer(error):
            raise
        return torch.onnx.export(program, dynamo=True, verbose=False, optimize=False, **given)


def _in_optimizer(error: BaseException | None) -> bool:
    """Whether an exception, or one that it came from, passed through the optimiser."""
    while error is not None:
        frames = traceback.walk_tb(error.__traceback__)
        if any(f.f_globals.get("__name__", "").startswith("onnxscript.optimizer") for f, _ in frames):
            return True
        error = error.__cause__
    return False


def output_names(program: ExportedProgram) -> list[str]:
    """What the outputs are called: by the keys of a dict, else by their number."""
    specs = [s for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    out_spec = program.call_spec.out_spec
    if out_spec is None or out_spec.num_leaves != len(specs):
        return _numbered(len(specs))
    made = pytree.tree_unflatten(list(range(len(specs))), out_spec)
    paths, _ = pytree.tree_flatten_with_path(made)
    names = [
        ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path, _ in paths
    ]
    if not isinstance(made, Mapping):
        return _numbered(len(specs))
    taken = {node.name for node in program.graph.nodes if node.op == "placeholder"}
    return [f"{name}_output" if name in taken else name for name in names]


def _numbered(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _reason(error: BaseException) -> str:
    """The innermost reason: the exporter wraps it, and prefixes a summary of its own steps."""
    seen: BaseException = error
    while seen.__cause__ is not None:
        seen = seen.__cause__
    text = f"{seen} {error}"
    if found := re.search(
        r"No (?:ONNX function|decompositions) (?:found )?(?:registered )?for.*?([\w]+[.:]+[\w.:]+)", text
    ):
        return f"the operator {found[1]} has no form there"
    return first_line(seen)


def axis_names(program: ExportedProgram, spec: InputSpec | None) -> dict[str, str]:
    """Readable names for the exporter's symbols: the user's own where they are known."""
    from nnopt_cli.graph.signature import input_spec
    from nnopt_cli.model.inputs import BATCH, Dim

    found = input_spec(program)
    own = found if spec is None or len(spec.inputs) != len(found.inputs) else spec
    out: dict[str, str] = {}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    user = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    tensors = [n for n in nodes if n.name in user and hasattr(n.meta["val"], "shape")]
    for node, each in zip(tensors, own.inputs, strict=True):
        for axis, (size, dim) in enumerate(zip(node.meta["val"].shape, each.shape, strict=True)):
            if not hasattr(size, "node") or not isinstance(dim, Dim):
                continue
            for symbol in sorted(map(str, size.node.expr.free_symbols)):
                plain = f"{node.name}_dim_{axis}" if dim.name == symbol else dim.name
                out.setdefault(symbol, "batch" if dim.name in (own.batch, BATCH) else plain)
    return out


def _finish(model: Any, axes: Mapping[str, str], strings: Mapping[str, str]) -> None:
    """Rename sizes, put the strings in, and take out the exporter's notes: they hold paths of the source."""
    import onnx_ir

    pattern = re.compile(r"\b(" + "|".join(map(re.escape, axes)) + r")\b") if axes else None

    def renamed(shape: Any) -> Any:
        if shape is None or pattern is None:
            return shape
        return onnx_ir.Shape(
            [d if isinstance(d, int) else _dim(d, lambda m: axes[m[1]], pattern) for d in shape]
        )

    def tidy(value: Any) -> None:
        value.shape = renamed(value.shape)
        value.metadata_props.clear()
        value.doc_string = None

    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        graph.doc_string = None
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            tidy(value)
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                tidy(value)
    model.doc_string = None
    model.metadata_props.clear()
    model.metadata_props.update(strings)


def _dim(size: Any, by: Any, pattern: Any) -> Any:
    return None if size.value is None else pattern.sub(by, str(size.value))
