"""The reference that a cut is held against: the dense graph, with removed channels masked out.

It shares nothing with `cut` and `resize`: every operator runs at its full size on the full weights,
and after each one the removed channels are set to zero. Statistics (means, norms, softmax) are
taken over the channels that stay, which is what a smaller network computes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from nnopt_cli.graph.coupling import Coupling
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.labels import Value
from nnopt_cli.graph.rules.base import argument, operator_name
from nnopt_cli.graph.rules.base import axes as as_axes

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Operators whose result at one channel depends on the others, other than by a sum of products.
STATISTICS = {
    *("layer_norm", "rms_norm", "mean", "var", "std", "softmax", "_softmax", "_safe_softmax", "log_softmax"),
    *("_log_softmax", "logsumexp", "amax", "amin", "max", "min", "prod", "logcumsumexp"),
}


@dataclass
class Trail:
    """Every node's result, by name; for finding where two runs part."""

    values: dict[str, Any] = field(default_factory=dict)


def run(
    program: ExportedProgram,
    inputs: list[Any],
    dtype: torch.dtype | None = None,
    trail: Trail | None = None,
) -> list[Any]:
    """The program's outputs, flat, with all floating tensors cast to `dtype` first."""
    return _flat(_Cast(program.graph_module, dtype, trail).run(*bind(program, inputs, dtype)))


def run_masked(
    program: ExportedProgram,
    coupling: Coupling,
    keep: Keep,
    inputs: list[Any],
    dtype: torch.dtype | None = None,
    trail: Trail | None = None,
) -> list[Any]:
    """The dense program's outputs with everything that `keep` removes masked out."""
    masked = _Masked(program.graph_module, dtype, trail, coupling, keep)
    return _flat(masked.run(*bind(program, inputs, dtype)))


def run_zeroed(program: ExportedProgram, nodes: Collection[str], inputs: list[Any]) -> list[Any]:
    """The program's outputs with the results of some nodes set to zero."""
    zeroed = _Zeroed(program.graph_module, None, None)
    zeroed.names = set(nodes)
    with torch.no_grad():
        return _flat(zeroed.run(*bind(program, inputs)))


def bind(program: ExportedProgram, inputs: list[Any], dtype: torch.dtype | None = None) -> list[Any]:
    """Arguments for the graph's placeholders: parameters, buffers, constants and `inputs`, in order."""
    given = iter(inputs)
    out = []
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            value = next(given)
        else:
            name = str(spec.target)
            value = program.state_dict.get(name, program.constants.get(name))
        if isinstance(value, Tensor):
            value = value.detach()
            value = value.to(dtype) if dtype is not None and value.is_floating_point() else value.clone()
        out.append(value)
    return out


class _Cast(Interpreter):
    """Runs a graph with `dtype` in place of every floating type that it names."""

    def __init__(self, module: GraphModule, dtype: torch.dtype | None, trail: Trail | None) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._dtype = dtype
        self._trail = trail

    def run_node(self, n: Node) -> Any:
        result = self.compute(n)
        if self._trail is not None:
            self._trail.values[n.name] = result
        return result

    def compute(self, node: Node) -> Any:
        return super().run_node(node)

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if self._dtype is None:
            return args, kwargs
        cast = self._named
        return tuple(cast(arg) for arg in args), {name: cast(arg) for name, arg in kwargs.items()}

    def _named(self, value: Any) -> Any:
        return self._dtype if isinstance(value, torch.dtype) and value.is_floating_point else value


class _Zeroed(_Cast):
    names: set[str]

    def compute(self, node: Node) -> Any:
        result = super().compute(node)
        return torch.zeros_like(result) if node.name in self.names else result


class _Masked(_Cast):
    def __init__(
        self,
        module: GraphModule,
        dtype: torch.dtype | None,
        trail: Trail | None,
        coupling: Coupling,
        keep: Keep,
    ) -> None:
        super().__init__(module, dtype, trail)
        self._coupling = coupling
        self._keep = keep

    def compute(self, node: Node) -> Any:
        if node.op == "call_function" and operator_name(node) in STATISTICS and self._reads_cut(node):
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            result = self._over_what_stays(node, list(args), kwargs)
        else:
            result = super().compute(node)
        return self._masked(self._coupling.values.get(node), result)

    def _reads_cut(self, node: Node) -> bool:
        return any(self._keep.touches(dim) for dim in self._coupling.value(node.args[0]))

    def _masked(self, value: Any, result: Any) -> Any:
        if isinstance(result, Tensor) and value is not None:
            for axis, dim in enumerate(value):
                if dim is not None and self._keep.touches(dim):
                    mask = torch.from_numpy(self._keep.mask(dim)).repeat(result.shape[axis] // len(dim))
                    shape = [-1 if at == axis else 1 for at in range(result.dim())]
                    result = torch.where(
                        mask.reshape(shape).to(result.device), result, torch.zeros_like(result)
                    )
            return result
        if isinstance(result, tuple | list) and value is not None:
            return type(result)(self._masked(v, r) for v, r in zip(value, result, strict=True))
        return result

    def _over_what_stays(self, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Gather the channels that stay, apply the operator, scatter its result back to full size."""
        value = self._coupling.value(node.args[0])
        taken = self._taken(value, args[0])
        full = args[0]
        for axis, index in taken.items():
            args[0] = args[0].index_select(axis, index)
        if operator_name(node) in ("layer_norm", "rms_norm"):
            self._narrow_affine(args, taken)
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        reduced = self._reduced(node, full.dim()) if not _same_rank(result, full) else set()
        left = [axis for axis in range(full.dim()) if axis not in reduced]
        parts = result if isinstance(result, tuple | list) else (result,)
        spread = []
        for part in parts:
            for axis, index in taken.items():
                if axis in left and part.shape[left.index(axis)] == len(index):
                    shape = list(part.shape)
                    shape[left.index(axis)] = full.shape[axis]
                    part = torch.zeros(shape, dtype=part.dtype).index_copy(left.index(axis), index, part)
            spread.append(part)
        return type(result)(spread) if isinstance(result, tuple | list) else spread[0]

    def _taken(self, value: Value, tensor: Tensor) -> dict[int, Tensor]:
        out = {}
        for axis, dim in enumerate(value):
            if dim is not None and self._keep.touches(dim):
                mask = torch.from_numpy(self._keep.mask(dim)).repeat(tensor.shape[axis] // len(dim))
                out[axis] = mask.nonzero().flatten()
        return out

    @staticmethod
    def _narrow_affine(args: list[Any], taken: dict[int, Tensor]) -> None:
        rank, over = args[0].dim(), len(args[1])
        args[1] = list(args[0].shape[-over:])
        for at in (2, 3):
            if len(args) > at and isinstance(args[at], Tensor):
                for axis, index in taken.items():
                    if axis >= rank - args[at].dim():
                        args[at] = args[at].index_select(axis - rank, index)

    @staticmethod
    def _reduced(node: Node, rank: int) -> set[int]:
        return set(as_axes(argument(node, 1, "dim"), rank))


def _same_rank(result: Any, full: Tensor) -> bool:
    first = result if isinstance(result, Tensor) else result[0]
    return bool(first.dim() == full.dim())


def _flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]
