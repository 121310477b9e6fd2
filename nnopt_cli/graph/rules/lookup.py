"""Operators that read or write at places computed elsewhere."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, sizes
from nnopt_cli.graph.labels import Value
from nnopt_cli.graph.rules.base import Table, argument, axes, operator_name, register

RULES: Table = {}


@register(RULES, "embedding")
def embedding(coupling: Coupling, node: Node) -> Value:
    """Rows are looked up by number, so all stay; columns are channels."""
    table, index = coupling.value(node.args[0]), node.args[1]
    coupling.labels.freeze(table[0])
    coupling.freeze(index)  # type: ignore[arg-type]
    return [*[None] * len(sizes(index)), table[1]]


@register(RULES, "index", "_unsafe_index")
def index_(coupling: Coupling, node: Node) -> Value:
    """Indices computed elsewhere: the axes they point into stay whole, and so do they."""
    x = coupling.value(node.args[0])
    where: Any = node.args[1]
    at = [axis for axis, index in enumerate(where) if index is not None]
    for axis in at:
        coupling.freeze(where[axis])
        coupling.labels.freeze(x[axis])
    rank = len(sizes(node)) - (len(x) - len(at))
    if at != list(range(at[0], at[-1] + 1)):  # indices that are apart come first
        return [*[None] * rank, *[dim for axis, dim in enumerate(x) if axis not in at]]
    return [*x[: at[0]], *[None] * rank, *x[at[-1] + 1 :]]


@register(RULES, "index_select")
def index_select(coupling: Coupling, node: Node) -> Value:
    """Like `index`, along one axis."""
    x = list(coupling.value(node.args[0]))
    at = argument(node, 1, "dim") % len(x)
    coupling.freeze(argument(node, 2, "index"))
    coupling.labels.freeze(x[at])
    x[at] = None
    return x


@register(RULES, "gather", "take_along_dim", "scatter", "scatter_add", "scatter_reduce")
def gather(coupling: Coupling, node: Node) -> Value:
    """Places along one axis, which stays whole; beside it, tensors of one size run over the same channels."""
    at = argument(node, 1 if operator_name(node) != "take_along_dim" else 2, "dim", 0)
    involved = [source for source in node.all_input_nodes if coupling.values.get(source)]
    at %= len(sizes(node))
    out: Value = []
    for axis, size in enumerate(sizes(node)):
        dims = [coupling.value(source)[axis] for source in involved]
        same = axis != at and all(sizes(source)[axis] == size for source in involved)
        for dim in dims if not same else []:
            coupling.labels.freeze(dim)
        out.append(coupling.labels.equate(*dims) if same else None)
    return out


@register(RULES, "grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(coupling: Coupling, node: Node) -> Value:
    """Pixels read at places that a grid gives; channels pass through."""
    x = coupling.value(node.args[0])
    coupling.freeze(argument(node, 1, "grid"))
    for dim in x[2:]:
        coupling.labels.freeze(dim)
    return [*x[:2], *[None] * (len(x) - 2)]


@register(
    RULES, "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"
)
@register(RULES, "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn", "fft_fftshift", "fft_ifftshift")
def fourier(coupling: Coupling, node: Node) -> Value:
    """The transformed axes mix all their places, and stay whole."""
    x = list(coupling.value(node.args[0]))
    name = operator_name(node)
    default: Any = [-2, -1] if name.endswith("2") else None if name.endswith(("n", "shift")) else -1
    given = argument(node, 1 if name.endswith("shift") else 2, "dim", default)
    for axis in axes(given, len(x)):
        coupling.labels.freeze(x[axis])
        x[axis] = None
    return x
