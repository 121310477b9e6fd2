"""Operators that work on each element alone, reductions, and constants."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, sizes
from nnopt_cli.graph.labels import Value
from nnopt_cli.graph.rules.base import Table, argument, axes, broadcast, operator_name, register, tensors

RULES: Table = {}


@register(
    RULES,
    *("clone", "contiguous", "detach", "alias", "to", "_to_copy", "lift_fresh_copy", "fill", "zero", "copy"),
    *(
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "native_dropout_off",
        "softplus",
        "selu",
        "celu",
        "relu6",
    ),
    *(
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "masked_fill",
        "where",
    ),
    # spelt otherwise, and not tagged as working on elements
    *(
        "multiply",
        "subtract",
        "divide",
        "true_divide",
        "floor_divide",
        "negative",
        "absolute",
        "fix",
        "square",
    ),
    *("__or__", "__and__", "__xor__", "greater", "less", "greater_equal", "less_equal", "not_equal"),
    *("special_expit", "arctan2", "float_power", "polar", "complex", "real", "imag", "conj", "resolve_conj"),
    *("log_sigmoid", "hardsigmoid", "hardswish", "mish", "rsub", "cumsum", "softmax", "log_softmax"),
    *("_softmax", "_log_softmax", "_safe_softmax", "logcumsumexp", "rrelu"),
)
def pointwise(coupling: Coupling, node: Node) -> Value:
    """Aligned dimensions of all inputs run over the same channels; a softmax is taken over what stays."""
    return broadcast(coupling, tensors(node), sizes(node))


@register(RULES, "type_as")
def type_as(coupling: Coupling, node: Node) -> Value:
    """The second input only names a type."""
    return list(coupling.value(node.args[0]))


@register(RULES, "prelu", "_prelu_kernel")
def prelu(coupling: Coupling, node: Node) -> Value:
    """One slope per channel (axis 1), or one for all."""
    x, slope = coupling.value(node.args[0]), coupling.value(node.args[1])
    if len(slope) == 1 and len(x) > 1 and sizes(node.args[1])[0] != 1:
        coupling.labels.equate(x[1], slope[0])
        return list(x)
    return pointwise(coupling, node)


@register(
    RULES,
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "linalg_vector_norm",
    "logsumexp",
    "prod",
    "any",
    "norm",
    "all",
    "nansum",
    "nanmean",
)
def reduction(coupling: Coupling, node: Node) -> Value:
    """The dimensions that are not reduced keep their channels; a statistic is one over what stays."""
    x = coupling.value(node.args[0])
    name = operator_name(node)
    at = 2 if name in ("linalg_vector_norm", "norm") else 1
    over = set(axes(argument(node, at, "dim"), len(x)))
    kept: Value = [None if axis in over else dim for axis, dim in enumerate(x)]
    if len(sizes(node)) == len(x):  # keepdim
        return kept
    return [dim for axis, dim in enumerate(kept) if axis not in over]


@register(
    RULES, "max", "min", "median", "mode", "cummax", "cummin", "sort", "topk", "argmax", "argmin", "argsort"
)
def ordered(coupling: Coupling, node: Node) -> Any:
    """What is compared along an axis must stay where the result is an index into it, or is sorted by it."""
    if len(tensors(node)) == 2:  # max(a, b)
        return pointwise(coupling, node)
    name = operator_name(node)
    x = coupling.value(node.args[0])
    whole = name in ("max", "min", "median", "argmax", "argmin") and argument(node, 1, "dim") is None
    at = 2 if name == "topk" else 1
    default = -1 if name in ("sort", "topk", "argsort") else 0
    over = set(range(len(x))) if whole else {argument(node, at, "dim", default) % len(x)}
    if name not in ("max", "min") or (not whole and _reads_indices(node)):
        for axis in over:
            coupling.labels.freeze(x[axis])
    result = node.meta["val"]
    parts = result if isinstance(result, tuple | list) else [result]
    kept = [None if axis in over else dim for axis, dim in enumerate(x)]
    out = [kept if part.dim() == len(x) else [d for a, d in enumerate(x) if a not in over] for part in parts]
    return out if isinstance(result, tuple | list) else out[0]


def _reads_indices(node: Node) -> bool:
    """Whether the second output of `max(x, dim)`, the place of the maximum, is used."""
    return any(operator_name(user) != "getitem" or (user.args[1] == 1 and user.users) for user in node.users)


@register(RULES, "glu")
def glu(coupling: Coupling, node: Node) -> Value:
    """The two halves of an axis are multiplied."""
    x = list(coupling.value(node.args[0]))
    at = argument(node, 1, "dim", -1) % len(x)
    dim = x[at]
    if dim is not None:
        half = len(dim) // 2
        x[at] = coupling.labels.equate(dim[:half], dim[half:])
    return x


@register(RULES, "zeros", "ones", "full", "empty", "rand", "randn")
@register(RULES, "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor")
def constant(coupling: Coupling, node: Node) -> Value:
    """All entries are alike, so any may go with whatever it meets."""
    return [
        coupling.labels.fresh(size) if isinstance(size, int) and size > 1 else None for size in sizes(node)
    ]
