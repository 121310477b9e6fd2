"""Eight-bit ONNX files, by ONNX Runtime's quantizer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt_cli import NnoptError

if TYPE_CHECKING:
    import onnx

    from nnopt_cli.data import Data

_LARGE = 256  # elements from which a weight is worth its scales


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without annotations of intermediate shapes, changed in place.

    The exporter's name sizes by its own symbols; the quantizer infers shapes anew, and where the two differ
    in a name or a rank, as they do in transformers, it stops.
    """
    del model.graph.value_info[:]
    return model


def load(path: Path) -> onnx.ModelProto:
    """A file with its external data, ready for the quantizer."""
    import onnx

    return without_shapes(onnx.load(path))


def with_own_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a copy of the weight for every `Gemm` that shares one, changed in place.

    The quantizer turns the weight of each `Gemm` around where it lies: one that two of them share, as equal
    layers do, would be turned twice.
    """
    import onnx

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input if name in weights)
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Gemm" or readers[node.input[1]] < 2:
            continue
        copy = onnx.TensorProto()
        copy.CopyFrom(weights[node.input[1]])
        copy.name = f"{node.input[1]}_of_{index}"
        model.graph.initializer.append(copy)
        readers[node.input[1]] -= 1  # the last one keeps it
        node.input[1] = copy.name
    return model


def save(model: onnx.ModelProto, path: Path, limit: int) -> None:
    """Write a model; weights of `limit` bytes or more go to a file beside it."""
    import onnx

    if model.ByteSize() > limit:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    else:
        onnx.save(model, path)


def weights_only(path: Path, per_channel: bool) -> tuple[onnx.ModelProto, int]:
    """Weights of convolutions and matrix products as int8 and a scale; they are widened when they are used.

    Symmetric, round to nearest: q = round(w / s), s = max |w| / 127.

    Returns the model, and how many weights were converted.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    axes = _output_axes(model, weights)
    nodes = []
    for name, axis in axes.items():
        value = numpy_helper.to_array(weights[name]).astype(np.float32)
        others = tuple(i for i in range(value.ndim) if i != axis)
        peak = np.abs(value).max(axis=others if per_channel else None, keepdims=True)
        scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
        whole = np.clip(np.rint(value / scale), -127, 127).astype(np.int8)
        scales = scale.reshape(-1) if per_channel else scale.reshape(())
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.append(numpy_helper.from_array(whole, f"{name}_quantized"))
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
        inputs = [f"{name}_quantized", f"{name}_scale"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axis))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    if not nodes:
        raise NnoptError("there is no weight of a convolution or matrix product that is worth it")
    assert isinstance(model, onnx.ModelProto)
    return model, len(nodes)


def _output_axes(model: onnx.ModelProto, weights: Mapping[str, Any]) -> dict[str, int]:
    """The weights that all their readers multiply with, and which axis their output channels lie along."""
    from onnx import TensorProto

    axes: dict[str, int] = {}
    spoilt = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name not in weights:
                continue
            axis = _axis(node, place, len(weights[name].dims))
            large = np.prod(weights[name].dims) >= _LARGE and weights[name].data_type == TensorProto.FLOAT
            if axis is None or not large or axes.setdefault(name, axis) != axis:
                spoilt.add(name)
    return {name: axis for name, axis in axes.items() if name not in spoilt}


def _axis(node: Any, place: int, rank: int) -> int | None:
    if node.op_type in ("Conv", "ConvTranspose") and place == 1:
        return 0 if node.op_type == "Conv" else 1
    if node.op_type == "MatMul" and place == 1 and rank >= 2:
        return rank - 1
    if node.op_type == "Gemm" and place == 1:
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if turned else 1
    return None


def dynamic(path: Path, target: Path, per_channel: bool, limit: int) -> None:
    """Matrix products in int8; the ranges of activations are taken as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    model = with_own_weights(load(path))
    with _quiet():
        quantize_dynamic(
            model,
            target,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[
                "MatMul",
                "Gemm",
                "Attention",
                "LSTM",
            ],  # no integer Conv takes dynamic ranges
            use_external_data_format=model.ByteSize() > limit,
            extra_options={"DefaultTensorType": 1},
        )
    _as_before(path, target, limit)


def static(
    path: Path,
    target: Path,
    feeds: Sequence[Mapping[str, Any]],
    calibration: str,
    per_channel: bool,
    limit: int,
) -> None:
    """Convolutions, matrix products and what lies between in int8, with ranges measured on `feeds`."""
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    method = {
        "min-max": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[calibration]
    model = with_own_weights(load(path))
    with _quiet():
        quantize_static(
            model,
            target,
            _reader(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            use_external_data_format=model.ByteSize() > limit,
            extra_options={"CalibStridedMinMax": 1},  # of all methods: activations of one batch at a time
        )
    _as_before(path, target, limit)


def _reader(feeds: Sequence[Mapping[str, Any]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives the feeds of a range, one after the other."""

        def __init__(self) -> None:
            self._left = iter(feeds)

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(feeds[start_index:end_index])

        def get_next(self) -> Any:
            return next(self._left, None)

    return Reader()


def _as_before(path: Path, target: Path, limit: int) -> None:
    """Put the metadata back, which the quantizer drops, and its own shape annotations out."""
    import onnx

    kept = onnx.load(path, load_external_data=False).metadata_props
    made = without_shapes(onnx.load(target))
    for stale in target.parent.glob(f"{target.name}.data"):
        stale.unlink()
    del made.metadata_props[:]
    made.metadata_props.extend(kept)
    save(made, target, limit)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs advice to the root logger, and prints."""
    from contextlib import redirect_stdout
    from io import StringIO
    from warnings import catch_warnings, simplefilter

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with catch_warnings(), redirect_stdout(StringIO()):
        simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


def feeds(data: Data, path: Path, samples: int) -> list[dict[str, Any]]:
    """Inputs by name for calibration: rows of `--data`, evenly spread over them, as they are."""
    import onnx

    from nnopt_cli.data import named_inputs, spread

    names = [each.name for each in onnx.load(path, load_external_data=False).graph.input]
    out = [
        {name: value.contiguous().numpy() for name, value in named_inputs(batch, names).items()}
        for batch in spread(data, samples)
    ]
    if not out:
        raise NnoptError(f"{data.plain.source.origin}: there is no data to calibrate on")
    return out
