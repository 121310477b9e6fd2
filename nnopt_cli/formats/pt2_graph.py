"""What a graph's records say together: every operator allowed, every name made once before it is used,
every size one that a tensor can have."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nnopt_cli.formats.pt2_operators import VMAP, base_name, custom_namespace, is_allowed, is_higher_order
from nnopt_cli.formats.pt2_records import RefusedError, name

MOST_ELEMENTS = 1 << 33  # of one tensor: 32 GiB of float32
_DEPTH = 8  # graphs within graphs
_POWER = 64

# Operators that make a tensor as large as an argument says, and which argument that is.
_SIZED = {
    **dict.fromkeys(("zeros", "ones", "empty", "full", "rand", "randn", "randint", "normal"), ("size",)),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"), ("size",)),
    **dict.fromkeys(("empty_strided", "empty_permuted"), ("size",)),
    **dict.fromkeys(("linspace", "logspace"), ("steps",)),
    **dict.fromkeys(("tril_indices", "triu_indices"), ("row", "col")),
    **dict.fromkeys(("pad", "constant_pad_nd"), ("pad",)),
    **dict.fromkeys(("reflection_pad1d", "reflection_pad2d", "reflection_pad3d"), ("padding",)),
    **dict.fromkeys(("replication_pad1d", "replication_pad2d", "replication_pad3d"), ("padding",)),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), ("output_size",)),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), ("output_size",)),
    **dict.fromkeys(("upsample_trilinear3d", "col2im", "fft_fft2", "fft_fftn"), ("output_size", "s")),
    **dict.fromkeys(("bartlett_window", "blackman_window", "hamming_window"), ("window_length",)),
    **dict.fromkeys(("hann_window", "kaiser_window"), ("window_length",)),
    **dict.fromkeys(("randperm", "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_fftfreq"), ("n",)),
    "arange": ("end",),
    "range": ("end",),
    "eye": ("n", "m"),
    "repeat": ("repeats",),
    "repeat_interleave": ("repeats",),
    "tile": ("dims",),
    "one_hot": ("num_classes",),
    "bincount": ("minlength",),
    "histc": ("bins",),
    "nonzero_static": ("size",),
    "vander": ("N",),
}


@dataclass(frozen=True)
class Rules:
    """What a caller lets through.

    Attributes:
        custom: namespaces of operators other than PyTorch's that may appear; None for any.
    """

    custom: Collection[str] | None = ()


def check_graph(graph: Mapping[str, Any], rules: Rules, depth: int = 0) -> None:
    """Raises RefusedError for a graph, as `GRAPH` returns it, that must not be run or cannot be."""
    if depth > _DEPTH:
        raise RefusedError("it has graphs within graphs, too deeply")
    for word, meta in graph["tensor_values"].items():
        try:
            check_elements([size.get("as_int", 1) for size in meta["sizes"]])
        except RefusedError as problem:
            raise problem.under(f".tensor_values[{word}]") from None
    known: set[str] = set()
    for index, value in enumerate(graph["inputs"]):
        _define(graph, value, known, f".inputs[{index}]")
    for index, node in enumerate(graph["nodes"]):
        try:
            _check_node(graph, node, known, rules, depth)
        except RefusedError as problem:
            label = node["name"] or next(iter(_names(node["outputs"])), "")
            raise problem.under(f".nodes[{index}] {label}".rstrip()) from None
    _check_balance([node["target"] for node in graph["nodes"]])
    for index, value in enumerate(graph["outputs"]):
        _check_known(value, known, f".outputs[{index}]")


def _check_balance(targets: list[str]) -> None:
    """What torch.vmap switches on must be off in the end: it is a state of the whole process."""
    level = 0
    for target in targets:
        level += (target == f"{VMAP}increment_nesting") - (target == f"{VMAP}decrement_nesting")
        if level < 0:
            break
    if level:
        raise RefusedError("it leaves torch.vmap switched on, or switches off what is not on")


def check_elements(sizes: list[int]) -> int:
    """The product of `sizes`. Raises RefusedError where no tensor can be that large."""
    count = math.prod(abs(size) for size in sizes)
    if count > MOST_ELEMENTS:
        raise RefusedError(f"it asks for a tensor of {count:,} elements, and {MOST_ELEMENTS:,} are the most")
    return count


def _check_node(
    graph: Mapping[str, Any], node: Mapping[str, Any], known: set[str], rules: Rules, depth: int
) -> None:
    target = node["target"]
    _check_target(target, rules)
    for argument in node["inputs"]:
        _check_known(argument["arg"], known, "")
        if "as_graph" in argument["arg"]:
            if not is_higher_order(target):
                raise RefusedError(f"{target} is given a graph, and takes none")
            try:
                check_graph(argument["arg"]["as_graph"]["graph"], rules, depth + 1)
            except RefusedError as problem:
                raise problem.under(f".{argument['arg']['as_graph']['name']}") from None
        if argument["name"] and (is_higher_order(target) or not target.startswith("torch.ops.")):
            name(argument["name"])  # these have no schema to look it up in: it is written into code
    _check_sizes(target, node["inputs"])
    outputs = list(_names(node["outputs"]))
    for value in node["outputs"]:
        _define(graph, value, known, ".outputs")
    if node["name"] and node["name"] not in outputs:
        _add(node["name"], known)


def _check_target(target: str, rules: Rules) -> None:
    if is_allowed(target):
        return
    space = custom_namespace(target)
    if space and (rules.custom is None or space in rules.custom):
        return
    if space:
        raise RefusedError(
            f"it calls {target}, a custom operator: it needs the library that defines it",
            f"Import that library first, and allow its namespace {space!r} (--operators {space}); "
            "or export the model without custom operators.",
        )
    raise RefusedError(
        f"it calls {target}, which is not among the operators that nnopt lets a file call",
        "Only PyTorch's operators that compute, and do nothing else, are. Export the model without it.",
    )


def _check_sizes(target: str, inputs: list[Mapping[str, Any]]) -> None:
    base = base_name(target)
    if base in _SIZED:
        sizes = [
            abs(size)
            for argument in inputs
            if argument["name"] in _SIZED[base]
            for size in _integers(argument["arg"])
        ]
        check_elements([size for size in sizes if size > 1])
    if target in ("_operator.pow", "_operator.lshift", "_operator.rshift"):
        power = inputs[1]["arg"].get("as_int") if len(inputs) == 2 else None
        if power is None or not 0 <= power <= _POWER:
            raise RefusedError(f"{target} may only have a constant up to {_POWER} as its second argument")


def _integers(value: Mapping[str, Any]) -> Iterator[int]:
    ((kind, item),) = value.items()
    if kind == "as_int":
        yield item
    elif kind == "as_ints":
        yield from item
    elif kind in ("as_sym_int", "as_sym_ints"):
        for part in item if kind == "as_sym_ints" else [item]:
            if "as_int" in part:
                yield part["as_int"]


def _names(value: Any) -> Iterator[str]:
    """Every name of a tensor or a size in a value, or in a list of values."""
    if isinstance(value, list):
        for item in value:
            yield from _names(item)
    elif isinstance(value, dict):
        for word, item in value.items():
            if word in ("name", "as_name"):
                yield item
            elif word == "as_string_to_argument":
                for argument in item.values():
                    yield from _names(argument)
            elif word not in ("as_graph", "as_device"):
                yield from _names(item)


def _check_known(value: Any, known: set[str], where: str) -> None:
    for word in _names(value):
        if word not in known:
            raise RefusedError(f"it uses {word!r}, which nothing before it makes").under(where)


def _define(graph: Mapping[str, Any], value: Mapping[str, Any], known: set[str], where: str) -> None:
    ((kind, _),) = value.items()
    tables = {
        "as_sym_int": "sym_int_values",
        "as_sym_ints": "sym_int_values",
        "as_sym_float": "sym_float_values",
        "as_sym_floats": "sym_float_values",
        "as_sym_bool": "sym_bool_values",
        "as_sym_bools": "sym_bool_values",
    }
    home = graph[tables.get(kind, "tensor_values")]
    try:
        for word in _names(value):
            _add(word, known)
            if word not in home:
                raise RefusedError(f"the sizes of {word!r} are not there")
    except RefusedError as problem:
        raise problem.under(where) from None


def _add(word: str, known: set[str]) -> None:
    if word in known:
        raise RefusedError(f"{word!r} is made a second time")
    known.add(word)
