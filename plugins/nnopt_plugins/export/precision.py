"""ONNX files in 16 bits, with islands of 32 where 16 are not enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nnopt_cli import NnoptError

if TYPE_CHECKING:
    import onnx

# Sums over many elements, and functions whose range is not that of their argument.
ISLANDS = (
    *("LayerNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization"),
    *("RMSNormalization", "LpNormalization", "MeanVarianceNormalization"),
    *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Reciprocal", "Sqrt", "Softplus", "Sinh", "Cosh"),
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
    *("ReduceLogSum", "ReduceLogSumExp", "CumSum", "GlobalAveragePool", "AveragePool"),
)
# Operators that ONNX Runtime has no 16-bit form of on the CPU, or that take their types from elsewhere.
_UNSUITED = (
    "Range",
    "TopK",
    "NonMaxSuppression",
    "RoiAlign",
    "Upsample",
    "Resize",
    "RandomNormalLike",
    "LSTM",
)
_UNSUITED_TOO = ("GRU", "RNN", "Min", "Max", "Loop", "If", "Scan", "Einsum", "GridSample", "DFT", "STFT")
_CRASHING = ("Mul",)  # ONNX Runtime 1.31 ends the process when it moves a scale in fp16 into a matrix product
_LARGEST = float(np.finfo(np.float16).max)
_ENDLESS, _MASKED = 1e30, 1e4  # what stands for infinity in float32; what is as good as that for a softmax


def converted(path: Path, dtype: Literal["fp16", "bf16"]) -> tuple[onnx.ModelProto, str]:
    """The file's model in 16 bits; inputs and outputs keep their types. Also says what stays in fp32.

    Raises NnoptError where a weight does not fit in 16 bits.
    """
    from nnopt_plugins.export.quantize import load

    model = load(path)
    return _stored(model) if dtype == "bf16" else _computed(model)


def _computed(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    import onnx
    import onnx_ir
    from onnx import TensorProto, numpy_helper
    from onnxruntime.transformers.float16 import convert_float_to_float16  # type: ignore[import-untyped]

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            fitting = _fitting(value)
            if fitting is None:
                raise NnoptError(
                    f"{tensor.name}: holds values above 65504, the largest of fp16", "Use --dtype bf16."
                )
            if fitting is not value:
                tensor.CopyFrom(numpy_helper.from_array(fitting, tensor.name))
    inferred = onnx.shape_inference.infer_shapes(model)
    present = {node.op_type for node in model.graph.node}
    for index, node in enumerate(inferred.graph.node):  # the converter tells nodes apart by their names
        node.name = f"node_{index}"
    made = convert_float_to_float16(
        inferred,
        keep_io_types=True,
        disable_shape_infer=True,
        max_finite_val=_LARGEST,
        op_block_list=[*ISLANDS, *_UNSUITED, *_UNSUITED_TOO, *_CRASHING],
    )
    made = onnx_ir.to_proto(_sorted(onnx_ir.from_proto(_once(made))))
    del made.graph.value_info[:]
    kept = sorted(present & {*ISLANDS, *_UNSUITED, *_UNSUITED_TOO, *_CRASHING})
    said = f" but for {', '.join(kept)}" if kept else ""
    return made, f"Weights and operators are in fp16{said}; inputs and outputs stay in fp32."


def _fitting(value: Any) -> Any:
    """The values with what masks attention cut down to what fp16 can add to; None where others are too large.

    A mask adds the least float32, or one number such as -1e9, to logits that are to count for nothing.
    """
    over = np.isfinite(value) & (np.abs(value) > _LARGEST)
    if not over.any():
        return value
    masks = over & ((np.abs(value) >= _ENDLESS) | ((value < 0) & (value.size == 1)))
    return (
        None if (over & ~masks).any() else np.where(masks, np.sign(value) * _MASKED, value).astype(np.float32)
    )


def check_loads(path: Path) -> None:
    """Load the file in a process of its own. Raises NnoptError where that process is killed."""
    import subprocess
    import sys

    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)
    if done.returncode < 0:
        raise NnoptError(
            f"ONNX Runtime crashes on this model in 16 bits (signal {-done.returncode})",
            "That is a fault of its optimiser. Use --dtype bf16, or leave --dtype out.",
        )


def _once(model: Any) -> Any:
    """The converter casts a value twice, under one name, where an operator reads it twice (`x * x`)."""
    seen: dict[str, Any] = {}
    for node in list(model.graph.node):
        name = node.output[0] if node.op_type == "Cast" else ""
        if name in seen and list(node.input) == list(seen[name].input):
            model.graph.node.remove(node)  # the last equal one: which of the two is the same
        elif name:
            seen[name] = node
    return model


def _sorted(model: Any) -> Any:
    """The converter puts its casts where there is room, not where they are computed."""
    model.graph.sort()
    return model


def _stored(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Weights as bf16, cast to fp32 where they are used: ONNX Runtime computes nothing in bf16 on the CPU."""
    from onnx import TensorProto, helper, numpy_helper

    casts, count = [], 0
    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        raw = _rounded(numpy_helper.to_array(tensor))
        stored = helper.make_tensor(
            f"{tensor.name}_bf16", TensorProto.BFLOAT16, list(tensor.dims), raw.tobytes(), raw=True
        )
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(stored)
        casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
        count += 1
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *rest])
    return (
        model,
        f"{count} weights are stored as bf16 and widened before use; everything is computed in fp32.",
    )


def _rounded(value: Any) -> Any:
    """The upper halves of float32, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    up = bits + 0x7FFF + ((bits >> 16) & 1)
    kept = np.where(np.isnan(value), bits | 0x400000, up)
    return (kept >> 16).astype(np.uint16)
