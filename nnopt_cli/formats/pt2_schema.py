"""The records of a serialized program and of its weights' configuration, as kinds of JSON value.

Source: `torch/_export/serde/schema.py` of PyTorch 2.10 to 2.13 (schema 8.15 to 8.20). Left out of what is
kept: guards (PyTorch compiles them as Python), stack traces and other marks of the exporter's own files.
"""

from __future__ import annotations

import re
from typing import Any

from nnopt_cli.formats.pt2_expr import expression, symbol
from nnopt_cli.formats.pt2_records import (
    Kind,
    RefusedError,
    boolean,
    dotted,
    integer,
    later,
    name,
    number,
    one_of,
    optional,
    plain,
    record,
    sequence,
    show,
    table,
    text,
    union,
)

SCALAR_TYPES = {  # numbers of element types in a program -> torch's names
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
STRIDED = 7  # the only layout of tensors here; the others are sparse or a backend's own

_CUSTOM = "an object of a custom class belongs to it, which only that class's own code can read back"
_MODULE_STACK = re.compile(r"[\w.,;:@<>\[\]' -]{1,20000}")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_INTEGER = integer()
_TEXT = text()
_SIZE = integer(0, 1 << 48)


def _device(value: Any) -> dict[str, Any]:
    """Programs are read onto the CPU, wherever they were exported; moving them is a later step."""
    record({"type": one_of("cpu", "cuda", "mps", "xpu", "meta", "hpu", "mtia", "xla")})(value)
    return {"type": "cpu", "index": None}


def _module_stack(value: Any) -> str:
    """`key,path,class;…`: kept where it is well-formed, since names of modules help to read a graph."""
    if type(value) is not str or not _MODULE_STACK.fullmatch(value):
        return ""
    return value if all(_BRACKETS.sub("", item).count(",") == 2 for item in value.split(";")) else ""


def _metadata(value: Any) -> dict[str, str]:
    if type(value) is not dict:
        raise RefusedError(f"{show(value)} is not an object")
    out = {}
    if stack := _module_stack(value.get("nn_module_stack")):
        out["nn_module_stack"] = stack
    function = value.get("torch_fn")
    if type(function) is str and re.fullmatch(r"[\w.;]{1,500}", function):
        out["torch_fn"] = function
    return out


_HINT = union({"as_int": _INTEGER, "as_bool": boolean, "as_float": number})
_EXPR = record({"expr_str": expression, "hint": optional(_HINT)}, {"hint": None})
SYM_INT = union({"as_expr": _EXPR, "as_int": _INTEGER})
_SYM_FLOAT = union({"as_expr": _EXPR, "as_float": number})
_SYM_BOOL = union({"as_expr": _EXPR, "as_bool": boolean})
_DIMENSION = union({"as_expr": _EXPR, "as_int": _SIZE})
_FIXED = union({"as_int": _SIZE}, {"as_expr": "the size of a weight cannot be dynamic"})


def _tensor_meta(dimension: Kind) -> Kind:
    return record(
        {
            "dtype": one_of(*SCALAR_TYPES),
            "sizes": sequence(dimension),
            "requires_grad": boolean,
            "device": _device,
            "strides": sequence(dimension),
            "storage_offset": dimension,
            "layout": one_of(STRIDED),
        }
    )


TENSOR = record({"name": name})
_MAYBE_TENSOR = union({"as_tensor": TENSOR, "as_none": boolean})
_INT_REF = union({"as_name": name, "as_int": _INTEGER})
_FLOAT_REF = union({"as_name": name, "as_float": number})
_BOOL_REF = union({"as_name": name, "as_bool": boolean})
_CONSTANT = {"as_none": boolean, "as_int": _INTEGER, "as_float": number, "as_bool": boolean}

# What any value in a graph may be, beside graphs and tables of values.
_VALUES: dict[str, Kind] = {
    **_CONSTANT,
    "as_tensor": TENSOR,
    "as_tensors": sequence(TENSOR),
    "as_ints": sequence(_INTEGER),
    "as_floats": sequence(number),
    "as_string": _TEXT,
    "as_strings": sequence(_TEXT),
    "as_sym_int": _INT_REF,
    "as_sym_ints": sequence(_INT_REF),
    "as_scalar_type": one_of(*SCALAR_TYPES),
    "as_memory_format": one_of(1, 2, 3, 4),
    "as_layout": one_of(STRIDED),
    "as_device": _device,
    "as_bools": sequence(boolean),
    "as_sym_bool": _BOOL_REF,
    "as_sym_bools": sequence(_BOOL_REF),
    "as_optional_tensors": sequence(_MAYBE_TENSOR),
    "as_sym_float": _FLOAT_REF,
    "as_sym_floats": sequence(_FLOAT_REF),
    "as_optional_tensor": _MAYBE_TENSOR,
    "as_complex": record({"real": number, "imag": number}),
    "as_nested_tensors": sequence(sequence(TENSOR)),
    "as_int_lists": sequence(sequence(_INTEGER)),
    "as_float_lists": sequence(sequence(number)),
}
_REFUSED = {
    "as_custom_obj": _CUSTOM,
    "as_operator": "an operator is an argument of another, which nnopt does not follow",
    "as_graph": "a graph may only be an argument of torch.ops.higher_order operators",
}
_ARGUMENT: Kind = union(
    {
        **_VALUES,
        "as_graph": later(lambda: record({"name": name, "graph": GRAPH})),
        "as_string_to_argument": table(name, later(lambda: _ARGUMENT)),
    },
    _REFUSED,
)
_OUTPUT = union(_VALUES, _REFUSED)
# What crosses the border of a graph. PyTorch writes a text that an input must equal into Python code.
_BORDER = union({**_VALUES, "as_string": plain}, _REFUSED)

_NODE = record(
    {
        "target": text(500),
        "inputs": sequence(
            record(
                {
                    "name": lambda v: v if v == "" else plain(v),
                    "arg": _ARGUMENT,
                    "kind": optional(one_of(0, 1, 2)),
                },
                {"kind": None},
            )
        ),
        "outputs": sequence(_OUTPUT),
        "metadata": _metadata,
        "is_hop_single_tensor_return": optional(boolean),
        "name": optional(name),
    },
    {"is_hop_single_tensor_return": None, "name": None},
)


def _empty(value: Any) -> dict[str, Any]:
    if value != {}:
        raise RefusedError(_CUSTOM)
    return {}


GRAPH: Kind = record(
    {
        "inputs": sequence(_BORDER),
        "outputs": sequence(_BORDER),
        "nodes": sequence(_NODE),
        "tensor_values": table(name, _tensor_meta(_DIMENSION)),
        "sym_int_values": table(name, SYM_INT),
        "sym_bool_values": table(name, _SYM_BOOL),
        "is_single_tensor_return": boolean,
        "custom_obj_values": _empty,
        "sym_float_values": table(name, _SYM_FLOAT),
    },
    {"is_single_tensor_return": False, "custom_obj_values": {}, "sym_float_values": {}},
)

_INPUT_SPEC = union(
    {
        "user_input": record({"arg": _BORDER}),
        "parameter": record({"arg": TENSOR, "parameter_name": dotted}),
        "buffer": record({"arg": TENSOR, "buffer_name": dotted, "persistent": boolean}),
        "tensor_constant": record({"arg": TENSOR, "tensor_constant_name": dotted}),
        "constant_input": record({"name": name, "value": union({**_CONSTANT, "as_string": plain})}),
    },
    {"custom_obj": _CUSTOM, "token": "it orders side effects, and nnopt reads programs that have none"},
)
_OUTPUT_SPEC = union(
    {
        "user_output": record({"arg": _BORDER}),
        "loss_output": record({"arg": TENSOR}),
        "buffer_mutation": record({"arg": TENSOR, "buffer_name": dotted}),
        "parameter_mutation": record({"arg": TENSOR, "parameter_name": dotted}),
        "gradient_to_parameter": record({"arg": TENSOR, "parameter_name": dotted}),
        "gradient_to_user_input": record({"arg": TENSOR, "user_input_name": name}),
        "user_input_mutation": record({"arg": TENSOR, "user_input_name": name}),
    },
    {"token": "it orders side effects, and nnopt reads programs that have none"},
)
SIGNATURE = record({"input_specs": sequence(_INPUT_SPEC), "output_specs": sequence(_OUTPUT_SPEC)})
CALL = record(  # of a module; how its inputs and outputs are nested comes on top
    {
        "inputs": sequence(_BORDER),
        "outputs": sequence(_BORDER),
        "in_spec": lambda v: v,
        "out_spec": lambda v: v,
        "forward_arg_names": optional(sequence(name)),
    },
    {"forward_arg_names": None},
)
RANGES = table(symbol, record({"min_val": optional(_INTEGER), "max_val": optional(_INTEGER)}))
VERSION = record({"major": integer(0, 1 << 20), "minor": integer(0, 1 << 20)})
VERIFIERS = sequence(one_of("TRAINING", "ATEN"))

_PAYLOAD = record(
    {
        "path_name": plain,
        "is_param": boolean,
        "use_pickle": boolean,
        "tensor_meta": optional(_tensor_meta(_FIXED)),
    }
)
PAYLOADS = record({"config": table(dotted, _PAYLOAD)})
