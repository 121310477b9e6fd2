"""Inputs that a program accepts, made up: for checking a cut, verifying an export, timing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from nnopt_cli.graph.coupling import is_tensor, sizes
from nnopt_cli.graph.rules.base import operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_SPREAD = 64  # nodes looked at for the table that an integer input indexes


def sample_inputs(
    program: ExportedProgram, batch: int = 2, seed: int = 0, dtype: torch.dtype | None = None
) -> list[Any]:
    """Random values for the program's inputs, flat and in order.

    Floating inputs are standard normal; integer ones stay below the rows of the embedding that they
    index (else 0 or 1); booleans are true. The leading dynamic dimension is `batch`, any other
    dynamic one is as it was when the program was exported, or fits the range that it was given.

    Args:
        program: any exported program.
        batch: size of the leading dynamic dimension.
        seed: of the generator.
        dtype: of floating inputs, instead of their own.
    """
    names = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    numbers = _numbers(program, nodes, batch)
    generator = torch.Generator().manual_seed(seed)
    return [
        _value(node, numbers, generator, dtype) if is_tensor(node) else node.meta["val"] for node in nodes
    ]


def _numbers(program: ExportedProgram, nodes: list[Node], batch: int) -> dict[Any, int]:
    """A number for every symbol in the inputs' sizes."""
    out: dict[Any, int] = {}
    for node in nodes:
        for axis, size in enumerate(sizes(node) if is_tensor(node) else []):
            for symbol in size.node.expr.free_symbols if hasattr(size, "node") else ():
                if symbol in out:
                    continue
                known = program.range_constraints.get(symbol)
                low = int(known.lower) if known is not None and known.lower > 2 else 1  # 2: export's own
                high = int(known.upper) if known is not None and known.upper < 1 << 30 else 1 << 30
                wanted = batch if axis == 0 else recorded_size(size.node.shape_env, symbol)
                out[symbol] = min(max(wanted, low), high)
    return out


def recorded_size(shape_env: Any, symbol: Any) -> int:
    """A dynamic size as it was when the program was exported; 16 where that is not recorded."""
    for table in ("backed_var_to_val", "var_to_val"):
        value = getattr(shape_env, table, {}).get(symbol)
        if value is not None:
            return int(value)
    return 16


def _value(node: Node, numbers: dict[Any, int], generator: torch.Generator, dtype: torch.dtype | None) -> Any:
    shape = [s if isinstance(s, int) else int(s.node.expr.subs(numbers)) for s in sizes(node)]
    own = node.meta["val"].dtype
    if own.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype or own)
    if own.is_complex:
        return torch.randn(shape, generator=generator, dtype=torch.complex128).to(own)
    if own == torch.bool:
        return torch.ones(shape, dtype=own)
    return torch.randint(0, table_rows(node), shape, generator=generator).to(own)


def table_rows(node: Node) -> int:
    """How many different values an integer input may take: the rows of the table that it indexes."""
    queue, seen = deque([node]), {node}
    while queue and len(seen) < _SPREAD:
        at = queue.popleft()
        for user in at.users:
            name = operator_name(user) if user.op == "call_function" else ""
            if name == "embedding" and user.args[1] is at:
                return int(sizes(user.args[0])[0])
            if is_tensor(user) and user not in seen and not user.meta["val"].dtype.is_floating_point:
                seen.add(user)
                queue.append(user)
    return 2
