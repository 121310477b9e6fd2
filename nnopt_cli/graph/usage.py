"""What every parameter of a graph is for: the weight of a convolution, a linear map, an embedding, …

Works on a list of plain calls, so that a graph can be read with PyTorch or from a file's text alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch.export import ExportedProgram

CONVOLUTION, LINEAR, RECURRENT, EMBEDDING, OTHER = (
    "convolution",
    "linear map",
    "recurrent layer",
    "embedding",
    "other",
)


class Call(NamedTuple):
    """One operator of a graph.

    Attributes:
        operator: its name without namespace and overload, e.g. `conv2d`.
        inputs: by position, the names of the values that it reads there (several for a list).
        outputs: the names of its results.
    """

    operator: str
    inputs: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]


_CONVOLUTIONS = {
    *(f"conv{n}d" for n in (1, 2, 3)),
    *(f"conv_transpose{n}d" for n in (1, 2, 3)),
    "convolution",
}
_READS: dict[str, tuple[str, tuple[int, ...] | None]] = {  # operator -> role, positions (None: any)
    **dict.fromkeys(_CONVOLUTIONS, (CONVOLUTION, (1,))),
    "linear": (LINEAR, (1,)),
    "addmm": (LINEAR, (1, 2)),
    "baddbmm": (LINEAR, (1, 2)),
    "bilinear": (LINEAR, (2,)),
    **dict.fromkeys(("mm", "bmm", "matmul", "einsum"), (LINEAR, None)),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), (RECURRENT, (2, 3))),
    **dict.fromkeys(("embedding", "embedding_bag", "_embedding_bag"), (EMBEDDING, (0,))),
}
_SAME = {  # a weight is still the weight after these, read at position 0
    *("t", "transpose", "permute", "numpy_T", "mT", "view", "reshape", "flatten", "unflatten", "unsqueeze"),
    *("squeeze", "expand", "contiguous", "clone", "detach", "alias", "to", "_to_copy", "type_as", "slice"),
    *("select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "getitem", "_weight_norm", "mul"),
    *("div", "sub", "lift_fresh_copy", "swapaxes", "movedim"),
}


def uses(calls: Iterable[Call], parameters: Mapping[str, str]) -> dict[str, set[str]]:
    """For every parameter that the graph reads, what it is read as.

    Args:
        calls: the graph, in order.
        parameters: the name of each placeholder that holds one -> the parameter's name.
    """
    stands_for: dict[str, set[str]] = {value: {name} for value, name in parameters.items()}
    out: dict[str, set[str]] = {}
    for call in calls:
        role, positions = _READS.get(call.operator, (OTHER, None))
        read = [name for names in call.inputs for name in names]
        if call.operator in _SAME and read and all(name in stands_for for name in read):
            found = {parameter for name in read[:1] for parameter in stands_for[name]}
            stands_for.update(dict.fromkeys(call.outputs, found))
            continue  # made of parameters alone: what becomes of it decides
        for position, names in enumerate(call.inputs):
            for parameter in {parameter for name in names for parameter in stands_for.get(name, ())}:
                here = positions is None or position in positions
                out.setdefault(parameter, set()).add(role if here else OTHER)
    return out


def program_uses(program: ExportedProgram) -> dict[str, set[str]]:
    """`uses` of an exported program: the names are those of its `state_dict` and constants."""
    parameters = {s.arg.name: str(s.target) for s in program.graph_signature.input_specs if s.target}
    calls = (_call(node) for node in program.graph.nodes if node.op == "call_function")
    return uses(calls, parameters)


def file_uses(text: bytes) -> dict[str, set[str]]:
    """`uses` of the program in a `.pt2` file, given as its JSON; PyTorch is not imported.

    Raises KeyError, TypeError or ValueError for what is not such a program.
    """
    module = json.loads(text)["graph_module"]
    parameters = {}
    for spec in module["signature"]["input_specs"]:
        ((_, item),) = spec.items()
        for key in ("parameter_name", "buffer_name", "tensor_constant_name"):
            if key in item:
                parameters[item["arg"]["name"]] = item[key]
    nodes = module["graph"]["nodes"]
    calls = (
        Call(
            node["target"].removeprefix("torch.ops.").split(".")[1],
            tuple(tuple(_json_names(argument["arg"])) for argument in node["inputs"]),
            tuple(name for output in node["outputs"] for name in _json_names(output)),
        )
        for node in nodes
        if node["target"].startswith("torch.ops.")
    )
    return uses(calls, parameters)


def _json_names(argument: Any) -> list[str]:
    """The tensors that an argument or a result names: `{"as_tensor": {"name": …}}` and lists of them."""
    ((form, value),) = argument.items()
    if form == "as_tensor":
        return [value["name"]]
    if form == "as_tensors":
        return [item["name"] for item in value]
    if form == "as_optional_tensors":
        return [name for item in value for name in _json_names(item)]
    return []


def _call(node: Any) -> Call:
    schema = getattr(node.target, "_schema", None)
    name = schema.name.partition("::")[2] if schema is not None else getattr(node.target, "__name__", "")
    values = list(node.args)
    if schema is not None:  # keyword arguments at their positions
        names = [argument.name for argument in schema.arguments]
        for key, value in node.kwargs.items():
            at = names.index(key)
            values += [None] * (at + 1 - len(values))
            values[at] = value
    return Call(name, tuple(tuple(_names(value)) for value in values), (node.name,))


def _names(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [name for item in value for name in _names(item)]
    return [value.name] if hasattr(value, "all_input_nodes") else []
