"""The model card of an exported file: what it is, where it comes from, and how to load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.report import numbers

if TYPE_CHECKING:
    from nnopt_cli.report.exported import Exported, Fed

_NUMPY = {"bfloat16": "float32"}
_FENCE = "```"


def card(record: Exported) -> str:
    """Markdown. Its code blocks run as they are, in the folder of the file."""
    name = Path(record.output or record.files[0]).name
    parts = [
        f"# {_plain(Path(name).stem)}",
        f"`{_plain(name)}` was written by nnopt {record.version} from `{_plain(Path(record.input).name)}` "
        f"as {record.format}" + (f" ({', '.join(record.settings)})" if record.settings else "") + ".",
        _figures(record),
        "## How it was verified\n\n" + _proof(record),
        "## Where it comes from\n\n" + _origin(record),
        "## How to load it\n\n" + _loading(record, name),
    ]
    if record.notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {_plain(note)}" for note in record.notes))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """A name from a file cannot end a code span or start a line of its own."""
    return " ".join(text.replace("`", "'").split())


def _figures(record: Exported) -> str:
    rows = [
        ("parameters", numbers.count(record.parameters), ""),
        ("size on disk", numbers.size(record.input_bytes), numbers.size(record.bytes)),
    ]
    if record.metric is not None:
        rows.append((record.metric.name, f"{record.metric.before:.4f}", f"{record.metric.after:.4f}"))
    if record.speed is not None:
        label = f"latency, batch {record.speed.batch}, one thread"
        first = f"{numbers.duration(record.speed.before)} (PyTorch)"
        rows.append((label, first, f"{numbers.duration(record.speed.after)} ({record.runs_in})"))
    lines = ["| | before | this file |", "|---|---|---|"]
    return "\n".join(lines + [f"| {label} | {before} | {after or before} |" for label, before, after in rows])


def _proof(record: Exported) -> str:
    parity = record.parity
    if parity.measure == "noise":
        snr = "no error at all" if parity.snr is None else f"a signal-to-noise ratio of {parity.snr:.1f} dB"
        said = f"Against {parity.against}: {snr}"
        said += (
            ""
            if parity.top1 is None
            else f", the same class for {numbers.percent(parity.top1)} of the samples"
        )
        return said + "."
    off = "infinite" if parity.difference is None else numbers.number(parity.difference)
    said = f"Against {parity.against}: largest difference {off}"
    said += f" of the largest output ({parity.tolerance:g} is allowed)" if parity.tolerance else ""
    names = dict.fromkeys(name for trial in parity.trials for name in trial.sizes)
    return said + (f", at two sizes of each of {', '.join(names)}." if names else ".")


def _origin(record: Exported) -> str:
    steps = [f"{i}. `{_plain(json.dumps(step, sort_keys=True))}`" for i, step in enumerate(record.steps, 1)]
    made = "\n".join(steps) if steps else "No pass of nnopt had changed the model before."
    return f"{made}\n\nblake3 of the weights that it was made from: `{record.blake3}`"


def _loading(record: Exported, name: str) -> str:
    if record.format == "onnx":
        return "\n\n".join(
            (
                "In ONNX Runtime (`pip install onnxruntime numpy`):",
                _code(
                    "import numpy as np",
                    "import onnxruntime",
                    "",
                    f"session = onnxruntime.InferenceSession({name!r}, providers=['CPUExecutionProvider'])",
                    *_feeds(record.inputs),
                    "outputs = session.run(None, feeds)",
                    "for output, value in zip(session.get_outputs(), outputs):",
                    "    print(output.name, value.shape, value.dtype)",
                ),
                "Between PyTorch tensors, the same session (`pip install torch`):",
                _code(
                    "import numpy as np",
                    "import onnxruntime",
                    "import torch",
                    "",
                    f"session = onnxruntime.InferenceSession({name!r}, providers=['CPUExecutionProvider'])",
                    *_feeds(record.inputs),
                    "tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}",
                    "outputs = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})",
                    "outputs = [torch.from_numpy(value) for value in outputs]",
                    "print([tuple(output.shape) for output in outputs])",
                ),
            )
        )
    return _in_pytorch(record, name)


def _in_pytorch(record: Exported, name: str) -> str:
    if record.format == "pt2":
        lines = [
            "import numpy as np",
            "import torch",
            "",
            f"module = torch.export.load({name!r}).module()",
            *_feeds(record.inputs),
            "inputs = [torch.from_numpy(value) for value in feeds.values()]",
            "with torch.no_grad():",
            "    print(module(*inputs))",
        ]
        return "In PyTorch, without the model's source:\n\n" + _code(*lines)
    if record.format == "safetensors" and not Path(name).suffix:
        lines = [
            "from pathlib import Path",
            "",
            "from safetensors.torch import load_file",
            "",
            "state = {}",
            "for shard in sorted(Path('.').glob('*.safetensors')):",
            "    state.update(load_file(shard))",
        ]
    elif record.format == "safetensors":
        lines = ["from safetensors.torch import load_file", "", f"state = load_file({name!r})"]
    else:
        lines = ["import torch", "", f"state = torch.load({name!r}, weights_only=True)"]
    said = "In PyTorch; `module.load_state_dict(state)` fills the network that the weights belong to:\n\n"
    return said + _code(*lines, "print(len(state), 'tensors')")


def _feeds(inputs: list[Fed]) -> list[str]:
    """A line for each input, of zeros and of two samples; sizes that vary are two as well."""
    lines = ["feeds = {"]
    for each in inputs:
        shape = ", ".join("2" if isinstance(size, str) else str(size) for size in each.shape)
        comma = "," if len(each.shape) == 1 else ""
        dtype = _NUMPY.get(each.dtype, each.dtype)
        varies = [size for size in each.shape if isinstance(size, str)]
        remark = f"  # may vary: {', '.join(varies)}" if varies else ""
        lines.append(f"    {each.name!r}: np.zeros(({shape}{comma}), np.{dtype}),{remark}")
    return [*lines, "}"]


def _code(*lines: str) -> str:
    return "\n".join((f"{_FENCE}python", *lines, _FENCE))
