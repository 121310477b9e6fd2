"""What a program is fed, read off its graph; and its outputs in forms that need no source to load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnopt_cli.graph.inputs import table_rows
from nnopt_cli.model.inputs import BATCH, Dim, Input, InputSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_ENDLESS = 1 << 40  # sizes have no limit of their own; some exports write the largest integer


def input_spec(program: ExportedProgram) -> InputSpec:
    """The inputs of `program` in the order of its placeholders.

    One that is passed by keyword keeps its name. Integers get the range of the embedding that they
    index, if they do.
    """
    user = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in user]
    names = _keywords(program, len(nodes))
    ranges = {str(symbol): bounds for symbol, bounds in program.range_constraints.items()}
    batch = next((str(s) for node in nodes for s in _leading(node)), "")
    out = []
    for node, name in zip(nodes, names, strict=True):
        value = node.meta["val"]
        if not hasattr(value, "shape"):
            continue  # a number or a flag that the export fixed
        shape = tuple(_dim(size, ranges, batch) for size in value.shape)
        out.append(Input(name, str(value.dtype).removeprefix("torch."), shape, table_rows(node)))
    return InputSpec(tuple(out))


def _leading(node: Node) -> list[Any]:
    shape = getattr(node.meta["val"], "shape", ())
    return [symbol for size in shape[:1] if hasattr(size, "node") for symbol in size.node.expr.free_symbols]


def _keywords(program: ExportedProgram, count: int) -> list[str]:
    """The keyword of every flat input, empty where it is positional or inside a list or a dict."""
    spec: Any = program.call_spec.in_spec
    positional, named = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    out = [""] * positional.num_leaves
    children = named.children() if callable(getattr(named, "children", None)) else named.children_specs
    for key, child in zip(named.context or (), children, strict=True):
        out += [str(key)] if child.num_leaves == 1 else [""] * child.num_leaves
    return out if len(out) == count else [""] * count


def _dim(size: Any, ranges: dict[str, Any], batch: str) -> int | Dim:
    if not hasattr(size, "node"):
        return int(size)
    expression = size.node.expr
    symbols = sorted(expression.free_symbols, key=str)
    if not symbols:
        return int(expression)
    symbol = symbols[0]
    offset = int(expression.subs({symbol: 0}))
    factor = int(expression.subs({symbol: 1})) - offset
    low, high = _bounds(ranges.get(str(symbol)))
    return Dim(BATCH if str(symbol) == batch else str(symbol), low, high, factor, offset)


def _bounds(found: Any) -> tuple[int, int | None]:
    """A range of the program; a lower end of 2 is export's own assumption and is not enforced."""
    low = int(found.lower) if found is not None and found.lower.is_Integer else 1
    high = int(found.upper) if found is not None and found.upper.is_Integer else _ENDLESS
    return (low if low > 2 else 1), high if high < _ENDLESS else None
