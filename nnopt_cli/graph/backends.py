"""Programs set up to run where they are deployed: in PyTorch, compiled by it, or in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from nnopt_cli.errors import NnoptError
from nnopt_cli.graph.inputs import sample_inputs
from nnopt_cli.graph.onnx_export import to_onnx
from nnopt_cli.graph.onnx_runtime import onnx_file
from nnopt_cli.graph.setting import Ready, Setting, first_line, quiet

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Backend = Literal["eager", "compiled", "onnx", "sparse"]


def prepare(program: ExportedProgram, backend: Backend, setting: Setting, folder: Path) -> Ready:
    """Set `program` up, with its first pass done.

    Args:
        program: any exported program.
        backend: `eager` and `compiled` are PyTorch's, `onnx` is ONNX Runtime, `sparse` is eager with 2:4
            weights of linear maps on the sparse kernels of an NVIDIA GPU.
        setting: batch, device, threads, dtype.
        folder: where the ONNX file of `program` may lie as long as it is used.

    Raises NnoptError with the reason where it cannot be had here.
    """
    if backend == "onnx":
        if setting.dtype is not None:
            raise NnoptError("--dtype is for PyTorch; ONNX Runtime runs a graph in its own types")
        path = Path(mkdtemp(dir=folder), "model.onnx")
        to_onnx(program, path)
        return onnx_file(path, setting, sample_inputs(program, setting.batch))
    module = program.module()
    if setting.dtype is not None:
        module = module.to(setting.dtype)
    module = module.to(setting.device)
    inputs = [
        value.to(setting.device) if isinstance(value, torch.Tensor) else value
        for value in sample_inputs(program, setting.batch, dtype=setting.dtype)
    ]
    notes = (make_sparse(program, module, setting.device),) if backend == "sparse" else ()
    run: Callable[..., Any] = compiled(module) if backend == "compiled" else module
    arguments, keywords = _arguments(program, inputs)

    def call() -> Any:
        with torch.inference_mode():
            return run(*arguments, **keywords)

    held = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    try:
        call()
    except Exception as error:  # a compiler, a kernel or a type may be missing: the message is all there is
        raise NnoptError(f"it does not run {_where(backend, setting)}: {first_line(error)}") from error
    return Ready(call, lambda: _peak(call, held, setting.device), _leading(inputs), notes)


def _where(backend: Backend, setting: Setting) -> str:
    word = {"compiled": "under torch.compile", "sparse": "on sparse kernels"}.get(backend, "in PyTorch")
    return f"{word} on {setting.device}" + (f" in {str(setting.dtype)[6:]}" if setting.dtype else "")


def _arguments(program: ExportedProgram, inputs: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Flat inputs as the module is called."""
    from torch.utils import _pytree as pytree

    positional, named = pytree.tree_unflatten(inputs, program.call_spec.in_spec)
    return list(positional), dict(named)


def _leading(inputs: Sequence[Any]) -> int:
    return next((len(value) for value in inputs if isinstance(value, torch.Tensor) and value.dim()), 1)


def compiled(module: nn.Module) -> Callable[..., Any]:
    """`module` under `torch.compile`, for static shapes, compiled by the first call, quietly."""
    made: list[Callable[..., Any]] = []

    def call(*arguments: Any, **keywords: Any) -> Any:
        if made:
            return made[0](*arguments, **keywords)
        with quiet():
            run = torch.compile(module, dynamic=False)
            run(*arguments, **keywords)
            made.append(run)
            return run(*arguments, **keywords)

    return call


def make_sparse(program: ExportedProgram, module: nn.Module, device: str) -> str:
    """Give the 2:4 weights of linear maps in `module` to the sparse kernels; says how many there are.

    Raises NnoptError where the device has no such kernels, or no weight fits them.
    """
    from nnopt_cli.graph.usage import LINEAR, program_uses

    if not device.startswith("cuda"):
        raise NnoptError(f"sparse kernels need an NVIDIA GPU, and this runs on {device}: add --device cuda")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise NnoptError("sparse kernels need a GPU of compute capability 8.0 (Ampere) or later")
    linear = {name for name, roles in program_uses(program).items() if roles == {LINEAR}}
    found = [name for name, weight in module.named_parameters() if name in linear and is_2_4(weight)]
    done, why = 0, "no linear map has 2:4 weights (`nnopt prune --granularity 2:4` makes some)"
    for name in found:
        weight = module.get_parameter(name)
        try:
            sparse = torch.sparse.to_sparse_semi_structured(weight.detach())
        except (RuntimeError, ValueError, NotImplementedError) as error:
            why = first_line(error)  # its dtype or size has no kernel
            continue
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(sparse, requires_grad=False))
        done += 1
    if not done:
        raise NnoptError(f"no weight runs on sparse kernels: {why}")
    return f"{done} of {len(linear)} weights of linear maps run on sparse 2:4 kernels."


def is_2_4(weight: torch.Tensor) -> bool:
    """Whether at most two of every four consecutive values of each row of a matrix are not zero."""
    if weight.dim() != 2 or weight.shape[1] % 4:
        return False
    return bool((weight.reshape(-1, 4).count_nonzero(dim=1) <= 2).all())


def _peak(call: Callable[[], Any], held: int, device: str) -> int | None:
    """Bytes of the weights, and of all that the pass allocates beside them at most."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return held + int(torch.cuda.max_memory_allocated(device)) - before
    if device != "cpu":
        return None
    from torch.autograd.profiler import profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it writes to stderr that it starts and stops
    with profile(profile_memory=True, use_kineto=True) as seen:
        call()
    assert seen.kineto_results is not None
    events = [event for event in seen.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return held + most


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """PyTorch on so many threads, for as long as this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
