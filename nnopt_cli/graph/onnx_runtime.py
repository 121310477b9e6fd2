"""ONNX Runtime: where most models are deployed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from nnopt_cli.errors import NnoptError
from nnopt_cli.graph.setting import Ready, Setting, first_line


def opened(path: Path, threads: int = 1, device: str = "cpu") -> Any:
    """A session of the file at `path`. Raises NnoptError where it does not load."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise NnoptError(
            f"this needs ONNX Runtime, which is not installed here ({error})",
            "Run `pip install onnxruntime`; it belongs to nnopt's own dependencies.",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=[_provider(device)])
    except NnoptError:
        raise
    except Exception as error:  # ONNX Runtime has its own classes for each of its status codes
        raise NnoptError(f"it does not load in ONNX Runtime: {first_line(error)}") from error


def onnx_file(path: Path, setting: Setting, inputs: Sequence[Any] | Mapping[str, Any] = ()) -> Ready:
    """Set an ONNX file up in ONNX Runtime.

    Args:
        path: the file; it stays until the result was used.
        setting: batch, device and threads.
        inputs: tensors in the order of the file's inputs or by name; random ones for those left out.

    Raises NnoptError where it does not load or run.
    """
    session = opened(path, setting.threads, setting.device)
    try:
        feeds = _feeds(session, inputs, setting.batch)
        session.run(None, feeds)
    except NnoptError:
        raise
    except Exception as error:  # ONNX Runtime has its own classes for each of its status codes
        raise NnoptError(f"it does not run in ONNX Runtime: {first_line(error)}") from error
    batch = next((value.shape[0] for value in feeds.values() if value.ndim), 1)

    return Ready(lambda: session.run(None, feeds), lambda: _onnx_peak(path, feeds, setting), int(batch))


def _provider(device: str) -> Any:
    if device == "cpu":
        return "CPUExecutionProvider"
    import onnxruntime

    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)})
    raise NnoptError(f"the installed ONNX Runtime has no support for {device}")


ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}


def _feeds(session: Any, given: Sequence[Any] | Mapping[str, Any], batch: int) -> dict[str, Any]:
    wanted = session.get_inputs()
    by_name = dict(given) if isinstance(given, Mapping) else {}
    if not isinstance(given, Mapping) and given:
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        by_name = {each.name: value for each, value in zip(wanted, tensors, strict=True)}
    unknown = sorted(set(by_name) - {each.name for each in wanted})
    if unknown:
        names = ", ".join(each.name for each in wanted)
        raise NnoptError(f"it has no input {unknown[0]!r}; its inputs are {names}")
    return {
        each.name: by_name[each.name].numpy() if each.name in by_name else _drawn(each, batch)
        for each in wanted
    }


def _drawn(wanted: Any, batch: int) -> Any:
    """Random values for an input: of its sizes that vary the first is the batch, and no other may."""
    kind = ONNX_TYPES.get(wanted.type)
    shape = [batch if axis == 0 and not isinstance(s, int) else s for axis, s in enumerate(wanted.shape)]
    if kind is None or not all(isinstance(size, int) for size in shape):
        sizes = ",".join(map(str, wanted.shape))
        raise NnoptError(
            f"its input {wanted.name} is {wanted.type}[{sizes}], for which nothing can be made up",
            f"Say what it is fed: --input '{wanted.name}=float32[1,3,224,224]', for example.",
        )
    rng = np.random.default_rng(0)
    if issubclass(kind, np.floating):
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(0, 2, shape).astype(kind)


_CHILD = """
import re, sys
import numpy, onnxruntime
def resident():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
feeds = dict(numpy.load(sys.argv[2]))
before = resident()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
options.log_severity_level = 4
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for _ in range(2):
    session.run(None, feeds)
print(resident() - before)
"""


def _onnx_peak(path: Path, feeds: dict[str, Any], setting: Setting) -> int | None:
    """How much a process grows that loads and runs the file; only Linux tells."""
    if setting.device != "cpu" or not Path("/proc/self/status").exists():
        return None
    with TemporaryDirectory(prefix="nnopt-") as folder:
        values = Path(folder, "feeds.npz")
        np.savez(values, **feeds)
        command = [sys.executable, "-c", _CHILD, str(path), str(values), str(setting.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None
