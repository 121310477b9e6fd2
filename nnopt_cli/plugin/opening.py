"""Open a model with what says how it is computed: a file, and perhaps `--arch` and `--input`."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UsageError
from nnopt_cli.model.arch import Architecture, described, from_callable, from_code
from nnopt_cli.model.inputs import InputSpec
from nnopt_cli.model.io import load as load_file
from nnopt_cli.plugin.kinds import Loader

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.options import ModelOptions
    from nnopt_cli.plugin.registry import Registry

_WORDS = {"true": True, "false": False, "null": None, "none": None}


def load(
    path: str | Path,
    build: Callable[..., nn.Module] | nn.Module | None = None,
    *,
    arch: str | Loader | None = None,
    arguments: Mapping[str, Any] | None = None,
    inputs: str | Sequence[str] | InputSpec | None = None,
    key: str | None = None,
    operators: Sequence[str] = (),
) -> Model:
    """Read a model file or folder lazily and safely; nothing in it is executed.

    Args:
        path: a checkpoint, safetensors file, folder of shards, or `.pt2`.
        build: the function or class that makes the network, or a network. `model.module()` is then that
            network with the file's weights; for a `.pt2` that was shrunk, at its sizes there.
        arch: the same as `--arch` writes it: `PATH.py:NAME`, `package.module:NAME`, `timm:NAME`, …
        arguments: keyword arguments for `build` or `arch`.
        inputs: what the network is fed, as `--input` writes it: `3x224x224`. With it and `build` or
            `arch`, `model.program()` is the exported graph.
        key: which entry of a nested checkpoint holds the state dict, e.g. `ema`, where several do.
        operators: namespaces of custom operators that the graph in a `.pt2` may call; the library that
            defines them must have been imported.

    Raises:
        UnreadableError: it is broken, unsafe or not a model; the message says which and where.
        UsageError: `key`, `arch` or `inputs` do not fit; both `build` and `arch` are given.
    """
    if build is not None and arch is not None:
        raise UsageError("both build and arch say how the network is made", "Give one of them.")
    made = None
    if build is not None:
        made = from_callable(build, arguments)
    elif arch is not None:
        made = architecture(arch, arguments or {}, None)
    spec = inputs if inputs is None or isinstance(inputs, InputSpec) else InputSpec.parse(inputs)
    return load_file(path, key=key, arch=made, inputs=spec, operators=operators)


def open_model(path: Path, options: ModelOptions, registry: Registry) -> Model:
    """The same from what was typed: `--arch`, `--arch-arg`, `--input`, `--key`."""
    made, inputs = _computed(options, registry)
    for name in options.operators:
        _import_operators(name)
    return load_file(path, key=options.key, arch=made, inputs=inputs, operators=options.operators)


def new_model(options: ModelOptions, registry: Registry) -> tuple[Architecture, InputSpec | None]:
    """What a model without a file is made of. Raises UsageError where `--arch` is missing."""
    made, inputs = _computed(options, registry)
    if made is None:
        raise UsageError("without a model file, the network is what --arch builds", "Give --arch.")
    return made, inputs


def _computed(options: ModelOptions, registry: Registry) -> tuple[Architecture | None, InputSpec | None]:
    if options.arch_arg and options.arch is None:
        raise UsageError("--arch-arg is an argument of what --arch names", "Give --arch too.")
    arguments = dict(map(_argument, options.arch_arg))
    made = architecture(options.arch, arguments, registry) if options.arch else None
    return made, InputSpec.parse(options.input) if options.input else None


def architecture(arch: str | Loader, arguments: Mapping[str, Any], registry: Registry | None) -> Architecture:
    """What `--arch` names: a loader component, or the user's own code, which is imported.

    Args:
        arch: as it was written, or the component.
        arguments: keyword arguments of the call.
        registry: the loaders; None loads the installed plugins.

    Raises UsageError: there is no such loader, file, module or name.
    """
    if isinstance(arch, Loader):
        return Architecture(arch.spec(), arch.build, dict(arguments))
    name, colon, _ = arch.partition(":")
    if colon and not name.endswith(".py") and name != "code":
        registry = registry or _installed()
        if name in registry.names("loader"):
            loader = registry.build("loader", arch)
            assert isinstance(loader, Loader)
            return Architecture(arch, loader.build, dict(arguments))
    try:
        return from_code(arch, arguments)
    except UsageError as error:
        names = (registry or _installed()).names("loader")
        if Path(name).is_file() or name.endswith(".py") or not names:
            raise
        listed = f"Loaders: {', '.join(f'{each}:NAME' for each in names)}."
        raise UsageError(error.message, " ".join(filter(None, (error.hint, listed)))) from error


def _import_operators(name: str) -> None:
    """Import the package `name`, which registers its operators; without one, `--arch` has to define them."""
    if not name.isidentifier():
        raise UsageError(f"--operators {name!r}: is not a namespace", "Write a name such as torchvision.")
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise UsageError(f"--operators {name}: {described(error)}") from error
    except Exception as error:
        raise UsageError(f"--operators {name}: {described(error)}") from error


def _installed() -> Registry:
    from nnopt_cli.plugin.manager import Wanted, load_plugins

    return load_plugins(Wanted.read(os.environ))


def _argument(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`: a Python literal, `true`, `false` or `null`, else the text itself."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(f"--arch-arg {text!r}: is not NAME=VALUE")
    if value.lower() in _WORDS:
        return name.strip(), _WORDS[value.lower()]
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name.strip(), value
