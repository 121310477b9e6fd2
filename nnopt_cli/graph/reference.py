"""The reference that a cut is held against: the dense graph, with removed channels masked out.

It shares nothing with `cut` and `resize`: every operator runs at its full size on the full weights,
and after each one the removed channels are set to zero. Statistics (means, norms, softmax) are
taken over the channels that stay, which is what a smaller network computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from nnopt_cli.graph.coupling import Coupling
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.labels import Array
from nnopt_cli.graph.parts import idle, part_of
from nnopt_cli.graph.rules.base import argument, operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Watch = Callable[[Node, Any], None]  # called with each operator and its result

# Operators whose result at one channel depends on the others, other than by a sum of products.
STATISTICS = {
    *("layer_norm", "rms_norm", "group_norm", "mean", "var", "std", "var_mean", "std_mean"),
    *("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax", "logsumexp", "logcumsumexp"),
    *("amax", "amin", "max", "min", "prod", "cumprod", "cummax", "cummin", "norm", "linalg_vector_norm"),
}
_DROPOUTS = {"dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "alpha_dropout_"}


def run(
    program: ExportedProgram,
    inputs: list[Any],
    dtype: torch.dtype | None = None,
    watch: Watch | None = None,
) -> list[Any]:
    """The program's outputs, flat, with all floating tensors cast to `dtype` first; dropout is off."""
    return _flat(_Cast(program.graph_module, dtype, watch).run(*bind(program, inputs, dtype)))


def run_masked(
    program: ExportedProgram,
    coupling: Coupling,
    keep: Keep,
    inputs: list[Any],
    dtype: torch.dtype | None = None,
    watch: Watch | None = None,
) -> list[Any]:
    """The dense program's outputs with everything that `keep` removes masked out.

    `watch` sees of each result what `keep` keeps.
    """
    masked = _Masked(program.graph_module, dtype, watch, coupling, keep)
    return _flat(masked.run(*bind(program, inputs, dtype)))


def run_zeroed(program: ExportedProgram, nodes: Collection[str], inputs: list[Any]) -> list[Any]:
    """The program's outputs with the results of some nodes set to zero."""
    zeroed = _Zeroed(program.graph_module, None, None)
    zeroed.names = set(nodes)
    with torch.no_grad():
        return _flat(zeroed.run(*bind(program, inputs)))


def bind(program: ExportedProgram, inputs: list[Any], dtype: torch.dtype | None = None) -> list[Any]:
    """Arguments for the graph's placeholders, in order: copies, as a graph may write to them."""
    given = iter(inputs)
    out = []
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            value = next(given)
        else:
            name = str(spec.target)
            value = program.state_dict.get(name, program.constants.get(name))
        if isinstance(value, Tensor):
            value = value.detach().clone()
            value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
        out.append(value)
    return out


class _Cast(Interpreter):
    """Runs a graph with `dtype` in place of every floating type that it names or makes."""

    def __init__(self, module: GraphModule, dtype: torch.dtype | None, watch: Watch | None) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._dtype = dtype
        self._watch = watch

    def run_node(self, n: Node) -> Any:
        if n.op != "call_function":
            return self.finish(n, super().run_node(n))
        name = operator_name(n)
        if name == "_assert_tensor_metadata":
            return None  # it names the type that the graph was exported in
        inner = part_of(n)
        if inner is not None:  # without its own say on gradients and types
            part, operands = inner
            result = self.within(part).run(*(self.env[operand] for operand in operands))
        else:
            result = self.env[n.args[0]] if name in _DROPOUTS else self.compute(n)  # type: ignore[index]
        result = self.finish(n, pytree.tree_map_only(Tensor, self._typed, result))
        if self._watch is not None:
            self._watch(n, self.seen(n, result))
        return result

    def within(self, part: GraphModule) -> _Cast:
        """What runs a part of the graph."""
        return _Cast(part, self._dtype, None)

    def compute(self, node: Node) -> Any:
        """The operator's own result."""
        return super().run_node(node)

    def finish(self, node: Node, result: Any) -> Any:
        """What is passed on of it."""
        return result

    def seen(self, node: Node, result: Any) -> Any:
        """What is shown of it."""
        return result

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return self.named(args), self.named(kwargs)

    def named(self, arguments: Any) -> Any:
        """Arguments with `dtype` for every floating type among them."""
        if self._dtype is None:
            return arguments
        return pytree.tree_map_only(
            torch.dtype, lambda dtype: self._dtype if dtype.is_floating_point else dtype, arguments
        )

    def _typed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype) if self._dtype is not None and tensor.is_floating_point() else tensor


class _Zeroed(_Cast):
    names: set[str]

    def finish(self, node: Node, result: Any) -> Any:
        return torch.zeros_like(result) if node.name in self.names else result


class _Masked(_Cast):
    def __init__(
        self,
        module: GraphModule,
        dtype: torch.dtype | None,
        watch: Watch | None,
        coupling: Coupling,
        keep: Keep,
    ) -> None:
        super().__init__(module, dtype, watch)
        self._coupling = coupling
        self._keep = keep
        self._idle = idle(module.graph)  # the analysis looks at none of these

    def run_node(self, n: Node) -> Any:
        return None if n in self._idle else super().run_node(n)

    def compute(self, node: Node) -> Any:
        name = operator_name(node)
        if not _is_statistic(node, name) or not self._reads_cut(node):
            return super().compute(node)
        if name == "group_norm":
            return self._group_norm(node)
        args: Any
        args, kwargs = map_arg((node.args, node.kwargs), lambda source: self._taken(source, self.env[source]))
        if name in ("layer_norm", "rms_norm"):
            args = (args[0], list(args[0].shape[-len(args[1]) :]), *args[2:])
        result = node.target(*self.named(args), **self.named(kwargs))  # type: ignore[operator]
        return self._over_kept(node, result, self._spread)

    def within(self, part: GraphModule) -> _Cast:
        return _Masked(part, self._dtype, None, self._coupling, self._keep)

    def finish(self, node: Node, result: Any) -> Any:
        return self._over_kept(node, result, self._zeroed)

    def seen(self, node: Node, result: Any) -> Any:
        return self._over_kept(node, result, self._pick)

    def _reads_cut(self, node: Node) -> bool:
        return any(self._keep.touches(dim) for dim in self._coupling.value(node.args[0]))

    def _over_kept(self, node: Node, result: Any, change: Callable[[Tensor, int, Array], Tensor]) -> Any:
        """`change` every axis, of every tensor of a result, along which something goes."""
        value = self._coupling.values.get(node)
        if value is None:
            return result
        if isinstance(result, tuple | list):
            return type(result)(self._change(v, r, change) for v, r in zip(value, result, strict=True))
        return self._change(value, result, change)

    def _change(self, value: Any, tensor: Any, change: Callable[[Tensor, int, Array], Tensor]) -> Any:
        if isinstance(tensor, Tensor):
            for axis, dim in enumerate(value):
                if dim is not None and self._keep.touches(dim):
                    tensor = change(tensor, axis, dim)
        return tensor

    def _taken(self, source: Node, tensor: Any) -> Any:
        return self._over_kept(source, tensor, self._pick)

    def _index(self, dim: Array, size: int, kept: bool, device: torch.device) -> Tensor:
        """The places along an axis of `size` (a period of `dim`, repeated) that stay, or that go."""
        mask = torch.from_numpy(self._keep.mask(dim)).repeat(size // len(dim))
        return (mask if kept else ~mask).nonzero().flatten().to(device)

    def _pick(self, tensor: Tensor, axis: int, dim: Array) -> Tensor:
        return tensor.index_select(axis, self._index(dim, tensor.shape[axis], True, tensor.device))

    def _spread(self, tensor: Tensor, axis: int, dim: Array) -> Tensor:
        """Kept values put back in their places, zeros between them."""
        shape = list(tensor.shape)
        shape[axis] = len(dim) * (tensor.shape[axis] // self._keep.count(dim))
        index = self._index(dim, shape[axis], True, tensor.device)
        return tensor.new_zeros(shape).index_copy(axis, index, tensor)

    def _zeroed(self, tensor: Tensor, axis: int, dim: Array) -> Tensor:
        """In place, so that a view stays one (graphs may write through it), unless elements share memory."""
        index = self._index(dim, tensor.shape[axis], False, tensor.device)
        if any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)):
            return tensor.index_fill(axis, index, 0)
        return tensor.index_fill_(axis, index, 0)

    def _group_norm(self, node: Node) -> Tensor:
        """Moments over the channels that stay in each group."""
        x: Tensor = self.env[node.args[0]]  # type: ignore[index]
        groups, eps = int(argument(node, 1, "num_groups")), float(argument(node, 4, "eps", 1e-5))
        dim = self._coupling.value(node.args[0])[1]
        assert dim is not None
        shape = [1, -1, *[1] * (x.dim() - 2)]
        stays = torch.from_numpy(self._keep.mask(dim)).to(x.device, x.dtype).reshape(shape).expand_as(x)
        values, stays = (t.reshape(x.shape[0], groups, -1) for t in (x, stays))
        count = stays.sum(-1, keepdim=True)
        mean = (values * stays).sum(-1, keepdim=True) / count
        variance = ((values - mean).square() * stays).sum(-1, keepdim=True) / count
        out = ((values - mean) / (variance + eps).sqrt()).reshape(x.shape)
        for at, name, combine in ((2, "weight", torch.mul), (3, "bias", torch.add)):
            parameter = argument(node, at, name)
            if parameter is not None:
                out = combine(out, self.env[parameter].reshape(shape))
        return out


def _is_statistic(node: Node, name: str) -> bool:
    if name in ("batch_norm", "instance_norm"):  # of the batch itself, or of what was measured before
        return bool(argument(node, 5, "training" if name == "batch_norm" else "use_input_stats", False))
    return name in STATISTICS


def _flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]
