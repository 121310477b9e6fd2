"""What nnopt runs on: versions, machine, devices, plugins. Made to be pasted into a bug report."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.plugin.registry import Registry

LIBRARIES = (
    "torch",
    "numpy",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "typer",
    "rich",
    "pydantic",
    "pluggy",
)
VARIABLES = ("NNOPT_", "CUDA_VISIBLE_DEVICES", "OMP_", "MKL_NUM_THREADS", "PYTORCH_")  # beginnings of names


class Device(Row):
    """One accelerator."""

    name: str  # as `--device` takes it
    model: str
    bytes: int | None = None  # its memory


class PluginState(Row):
    """One plugin."""

    name: str
    distribution: str
    version: str
    state: str
    why: str = ""  # why it was left out


class Environment(Row):
    """What nnopt runs on."""

    nnopt: str
    python: str
    platform: str
    machine: str
    libraries: dict[str, str | None]  # None where one is not installed
    cores: int  # that this process may use
    cores_total: int
    memory: int | None  # bytes
    devices: list[Device]
    torch_build: str  # what torch was built for, or why it cannot be imported
    plugins: list[PluginState]
    variables: dict[str, str]


def environment(registry: Registry, variables: Mapping[str, str]) -> Environment:
    """Look around. Imports torch (it knows the devices); one that is broken is reported, not raised.

    Args:
        registry: the plugins.
        variables: the process's environment; only those of nnopt and of the libraries' threads are kept.
    """
    from nnopt_cli import __version__
    from nnopt_cli.run import usable_cores

    build, devices = _torch()
    return Environment(
        nnopt=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        platform=platform.platform(),
        machine=platform.machine(),
        libraries={name: _version(name) for name in LIBRARIES},
        cores=usable_cores(),
        cores_total=os.cpu_count() or 1,
        memory=_memory(),
        devices=devices,
        torch_build=build,
        plugins=[
            PluginState(name=p.name, distribution=p.distribution, version=p.version, state=p.state, why=p.why)
            for p in registry.plugins
        ],
        variables={key: value for key, value in sorted(variables.items()) if key.startswith(VARIABLES)},
    )


def render(record: Environment, console: Console) -> None:
    """Show `record` on `console`."""
    page = Page(console)
    page.line(page.text(f"nnopt {record.nnopt}", "bold cyan"))
    page.pairs(
        [
            ("python", page.joined((record.python, record.platform))),
            ("cores", f"{record.cores} usable of {record.cores_total}"),
            ("memory", numbers.size(record.memory) if record.memory else "unknown"),
            ("torch", record.torch_build),
            *((device.name, _device(page, device)) for device in record.devices),
        ]
    )
    page.heading("Libraries")
    page.pairs(
        [(name, found or page.text("not installed", "red")) for name, found in record.libraries.items()]
    )
    page.heading("Plugins")
    page.pairs(
        [
            (
                p.name,
                page.text(page.joined((p.state, f"{p.distribution} {p.version}", p.why)), _colour(p.state)),
            )
            for p in record.plugins
        ]
    )
    if record.variables:
        page.heading("Variables")
        page.pairs(record.variables.items())


def _colour(state: str) -> str:
    return "red" if state == "broken" else ""


def _device(page: Page, device: Device) -> str:
    return page.joined((device.model, numbers.size(device.bytes) if device.bytes else ""))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a platform without these names
        return None


def _torch() -> tuple[str, list[Device]]:
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways; saying how is what this is for
        return f"cannot be imported: {type(error).__name__}: {error}", []
    devices = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        devices.append(Device(name=f"cuda:{index}", model=found.name, bytes=found.total_memory))
    if sys.platform == "darwin" and torch.backends.mps.is_available():
        devices.append(Device(name="mps", model=platform.processor() or "Metal"))
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    return f"{torch.__version__}, built for {built}, {torch.get_num_threads()} threads", devices
