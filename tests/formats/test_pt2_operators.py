"""The list of operators: what is on it only computes, and what exported programs are made of is on it."""

from __future__ import annotations

import pytest
import torch

from nnopt_cli.formats.pt2_operators import _ATEN, base_name, custom_namespace, is_allowed

SCHEMAS = [s for s in torch._C._jit_get_all_schemas() if s.name.startswith("aten::")]
NAMES = {schema.name.removeprefix("aten::") for schema in SCHEMAS}


def allowed() -> list[torch._C.FunctionSchema]:
    """What is on it, without the overloads that only TorchScript has."""
    out = []
    for schema in SCHEMAS:
        full = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
        target = f"torch.ops.{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"
        if is_allowed(target) and torch._C._dispatch_has_kernel(full):
            out.append(schema)
    return out


def test_every_name_on_it_is_an_operator():
    assert {name for name in _ATEN if not {name, f"{name}_"} & NAMES} <= {"_upsample_lanczos2d_aa"}, (
        "PyTorch 2.10 lacks that one"
    )


def test_none_takes_a_file_or_a_storage():
    """Texts that are arguments are few, and none of them names anything outside the program."""
    texts = set()
    for schema in allowed():
        for argument in schema.arguments:
            kind = str(argument.type)
            assert "Storage" not in kind
            assert "__torch__" not in kind
            if kind in ("str", "Optional[str]"):
                texts.add(argument.name)
    assert texts <= {
        *("api_name", "approximate", "assert_msg", "driver", "equation", "indexing", "interpolation"),
        *("mode", "norm", "ord", "p", "pad_mode", "padding", "padding_side", "reduce", "rounding_mode"),
        *("side", "UPLO"),
        *(
            "dim",
            "dim0",
            "dim1",
            "dim2",
            "start_dim",
            "end_dim",
            "out_dim",
            "outdim",
        ),  # names, in PyTorch 2.10
    }


def test_the_core_operators_are_on_it():
    """PyTorch tags what every backend must know; only gradients and resizing are left out."""
    missing = set()
    for schema in SCHEMAS:
        name, overload = schema.name.removeprefix("aten::"), schema.overload_name or "default"
        operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
        core = operator is not None and torch.Tag.core in operator.tags
        if core and not is_allowed(f"torch.ops.aten.{name}.{overload}"):
            missing.add(name)
    assert {name for name in missing if not name.endswith("_backward")} <= {"resize_", "_embedding_bag"}


@pytest.mark.parametrize(
    "target",
    [
        *(
            "torch.ops.aten.from_file.default",
            "torch.ops.aten.set_.default",
            "torch.ops.aten.resize_.default",
        ),
        *("torch.ops.aten._print.default", "torch.ops.aten.save.default", "torch.ops.aten.set_data.default"),
        *("torch.ops.aten._reshape_alias.default", "torch.ops.aten._nested_view_from_buffer.default"),
        *("torch.ops.aten._sparse_coo_tensor_unsafe.default", "torch.ops.aten.record_stream.default"),
        *("torch.ops.higher_order.call_torchbind", "torch.ops.higher_order.aoti_call_delegate"),
        *("torch.ops.higher_order.print", "torch.ops.higher_order.triton_kernel_wrapper_functional"),
        *(
            "torch.ops.prims.device_put.default",
            "torch.ops.load_library",
            "torch.ops.aten",
            "torch.ops.aten.add",
        ),
        *(
            "torch.ops.aten.add.Tensor.__call__",
            "torch.ops.aten.add.__class__",
            "torch.ops.aten.add.Tensor\n",
        ),
        *(
            "_operator.attrgetter",
            "_operator.methodcaller",
            "_operator.setitem",
            "math.exp",
            "os.system",
            "",
            "#a:b",
        ),
        *(
            "torch.load",
            "torch.compile",
            "torch.export.custom_ops._call_custom_autograd_function_in_pre_dispatch",
        ),
    ],
)
def test_not_on_it(target):
    assert not is_allowed(target)
    assert not custom_namespace(target)


def test_parts_of_a_target():
    assert base_name("torch.ops.aten.zeros.default") == "zeros"
    assert base_name("torch.ops.acme.zeros.default") == ""
    assert custom_namespace("torch.ops.acme.zeros.default") == "acme"
    assert is_allowed("torch.ops.aten.relu_.default")
    assert is_allowed("_operator.floordiv")
