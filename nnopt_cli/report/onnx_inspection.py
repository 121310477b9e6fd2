"""What is in an ONNX file: as data, and on a terminal."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.report import numbers
from nnopt_cli.report.exported import Fed
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 12  # operators that are listed


class Stored(Row):
    """The weights of one element type."""

    dtype: str
    tensors: int
    elements: int
    bytes: int


class OnnxInspection(Row):
    """An ONNX file."""

    path: str
    bytes: int  # with the files of weights beside it
    files: list[str]
    opset: int
    ir: int  # version of the file format
    producer: str
    inputs: list[Fed]
    outputs: list[Fed]
    operators: dict[str, int]  # how often each occurs, the most frequent first
    weights: list[Stored]
    metadata: dict[str, str]
    provenance: dict[str, Any] | None  # nnopt's own record; as claimed by the file
    version: str


def inspect_onnx(path: Path) -> OnnxInspection:
    """Read the graph; weights that lie in files beside it are counted, not read.

    Raises UnreadableError: it is not there, or no ONNX file.
    """
    import onnx

    from nnopt_cli import __version__
    from nnopt_cli.formats.sniff import check_path
    from nnopt_cli.model.provenance import KEY

    if check_path(path) == "folder":
        raise UnreadableError(f"{path}: is a folder, and no ONNX file")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own classes, which differ between its versions
        raise UnreadableError(f"{path}: is not an ONNX file, or a broken one") from error
    if not model.graph.node and not model.graph.output:
        raise UnreadableError(f"{path}: is not an ONNX file: it holds no graph")
    beside = sorted(
        {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    )
    plain = [name for name in beside if Path(name).name == name and (path.parent / name).is_file()]
    files = [path, *(path.parent / name for name in plain)]
    held = {each.name for each in model.graph.initializer}
    strings = {each.key: each.value for each in model.metadata_props}
    return OnnxInspection(
        path=str(path),
        bytes=sum(file.stat().st_size for file in files),
        files=[file.name for file in files],
        opset=next((each.version for each in model.opset_import if not each.domain), 0),
        ir=model.ir_version,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        inputs=[_fed(each) for each in model.graph.input if each.name not in held],
        outputs=[_fed(each) for each in model.graph.output],
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        weights=_stored(model),
        metadata={key: value for key, value in strings.items() if key != KEY},
        provenance=_record(strings.get(KEY)),
        version=__version__,
    )


def _fed(value: Any) -> Fed:
    kind = value.type.tensor_type
    sizes = [
        dim.dim_param or "?" if not dim.HasField("dim_value") else dim.dim_value for dim in kind.shape.dim
    ]
    return Fed(name=value.name, dtype=_named(kind.elem_type), shape=sizes)


def _named(number: int) -> str:
    import onnx

    known = onnx.TensorProto.DataType.items()
    name = next((name for name, each in known if each == number), "?").lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _stored(model: Any) -> list[Stored]:
    found: dict[str, list[int]] = {}
    for tensor in model.graph.initializer:
        found.setdefault(_named(tensor.data_type), []).append(math.prod(tensor.dims))
    return [
        Stored(dtype=name, tensors=len(each), elements=sum(each), bytes=sum(each) * _width(name))
        for name, each in sorted(found.items(), key=lambda item: -sum(item[1]) * _width(item[0]))
    ]


def _width(dtype: str) -> int:
    bits = "".join(character for character in dtype.partition("e")[0] if character.isdigit())
    return max(1, int(bits or 8) // 8)


def _record(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def render(record: OnnxInspection, console: Console) -> None:
    """Show `record` on `console`."""
    page = Page(console)
    page.line(page.text(record.path, "bold cyan"))
    beside = f"with {', '.join(record.files[1:])}" if record.files[1:] else ""
    rows = [
        ("format", page.joined(("ONNX", numbers.size(record.bytes), beside))),
        ("opset", page.joined((str(record.opset), f"IR {record.ir}", record.producer))),
    ]
    rows += [("input", _line(each)) for each in record.inputs]
    rows += [("output", _line(each)) for each in record.outputs]
    rows += [("metadata", f"{key}={value}") for key, value in record.metadata.items()]
    page.pairs(rows)
    if record.provenance is not None:
        page.heading("Made by nnopt", "as the file says")
        steps = record.provenance.get("steps")
        for step in steps if isinstance(steps, list) else []:
            page.prose(json.dumps(step, sort_keys=True), bullet=True)
        results = record.provenance.get("results")
        if isinstance(results, dict) and "export" in results:
            page.prose(f"exported as {json.dumps(results['export'], sort_keys=True)}", bullet=True)
    page.heading("Weights")
    columns = (Column("type", align="left"), Column("tensors"), Column("elements"), Column("size"))
    page.table(
        columns,
        [
            [each.dtype, numbers.count(each.tensors), numbers.count(each.elements), numbers.size(each.bytes)]
            for each in record.weights
        ],
    )
    page.heading("Operators", numbers.count(sum(record.operators.values())))
    listed = [f"{name} {count}" for name, count in list(record.operators.items())[:_SHOWN]]
    more = len(record.operators) - _SHOWN
    page.prose(", ".join(listed) + (f", and {more} more" if more > 0 else ""))


def _line(each: Fed) -> str:
    return f"{each.name}={each.dtype}[{','.join(map(str, each.shape))}]"
