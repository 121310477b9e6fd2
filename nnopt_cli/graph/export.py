"""Module to graph: `torch.export`, and what stops it, named by construct and line of the user's source."""

from __future__ import annotations

import inspect
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import NnoptError
from nnopt_cli.model.arch import described, is_user_code, shown_path, user_line

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from nnopt_cli.model.inputs import InputSpec

_SHAPES = "torch.fx.experimental.symbolic_shapes"  # the logger that tells where a size was fixed
_REWRITE = "Write it with tensors (torch.where, torch.cond, a mask), or leave that part out of the module."


def export(module: nn.Module, inputs: InputSpec, spec: str = "") -> ExportedProgram:
    """Export `module` in evaluation mode, un-decomposed, its dynamic dimensions kept dynamic.

    Args:
        module: what to export; it is run once, on random inputs.
        inputs: what its `forward` takes.
        spec: what was given for `--arch`, for messages.

    Raises:
        NnoptError: `forward` does not take these inputs, fails on them, or does something that no graph
            holds; the message names the construct and the line of the source that it stands in.
    """
    import torch

    module.eval()
    args, kwargs = inputs.example(dtype=float_type(module))
    shapes = _bound(module, *inputs.dynamic_shapes(), inputs, spec)
    _try(module, args, kwargs, inputs, spec)

    def attempt() -> ExportedProgram:
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)

    with _quiet():
        try:
            program = attempt()
        except Exception as error:
            raise _explained(error, attempt, inputs, spec) from error
    _check_sizes(program, inputs, spec)
    return _plain_outputs(program)


def float_type(module: nn.Module) -> str:
    """The floating type of the module's first floating parameter; float32 if it has none."""
    found = (p.dtype for p in module.parameters() if p.is_floating_point() and p.dtype.itemsize > 1)
    return str(next(found, "float32")).removeprefix("torch.")


def _bound(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: InputSpec, spec: str
) -> dict[str, Any]:
    """Dynamic shapes by the names of `forward`'s arguments. Raises NnoptError where they do not bind."""
    signature = inspect.signature(module.forward)
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise NnoptError(
            f"--input {inputs}: {type(module).__name__}.forward takes other arguments: {error}",
            f"It is declared as forward{signature}; give one --input for each tensor, NAME=… by keyword.",
        ) from None


def _try(module: nn.Module, args: Any, kwargs: Any, inputs: InputSpec, spec: str) -> None:
    """Run the module as it is, so that an input of the wrong shape is not blamed on the export."""
    import torch

    with torch.no_grad(), _quiet():
        try:
            module(*args, **kwargs)
        except Exception as error:
            fed = ", ".join(f"{str(t.dtype)[6:]}{list(t.shape)}" for t in (*args, *kwargs.values()))
            raise NnoptError(
                f"--input {inputs}: the module of --arch {spec} fails when fed {fed}: {described(error)}",
                "Give the shapes and element types that the model was trained with.",
            ) from error


def _explained(error: Exception, attempt: Callable[[], object], inputs: InputSpec, spec: str) -> NnoptError:
    text = str(error)
    where = user_line(error)
    at = f" at {where}" if where else ""
    head = f"--arch {spec}: the model cannot be exported"
    if "data-dependent" in text:
        return NnoptError(
            f"{head}: its control flow depends on the values of a tensor{at}",
            f"A graph has one path for all values. {_REWRITE}",
        )
    if "Constraints violated" in text or "specialized it to be a constant" in text:
        return _fixed(head, attempt, inputs)
    if found := re.search(r"fake impl registered for <CustomOpDef\(([\w:.]+)\)>", text):
        return _custom(head, found[1], at)
    if found := re.search(r"([\w]+[:.]+[\w.:]+).*(?:no fake impl|fake (?:kernel|impl)|Meta)", text):
        return _custom(head, found[1], at)
    if "not a known type" in text and (found := re.search(r"<class '([^']+)'>", text)):
        return NnoptError(
            f"{head}: its forward takes or returns a {found[1]}, neither a tensor nor a list, tuple or dict",
            "Let forward return tensors.",
        )
    if "not supported for tensor subclasses" in text:
        return NnoptError(f"{head}: it takes a tensor out of PyTorch{at}", _REWRITE)
    return NnoptError(f"{head}: {described(error)}", _REWRITE)


def _custom(head: str, name: str, at: str) -> NnoptError:
    return NnoptError(
        f"{head}: the operator {name} has no shape function{at}",
        f"Register one beside it: @torch.library.register_fake({name!r}).",
    )


@dataclass
class _Watch(logging.Handler):
    """Takes the line of the user's source at which a dynamic size became a constant."""

    places: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        if "set_replacement" in str(record.msg):
            import linecache

            frame: Any = sys._getframe()
            while frame is not None and not is_user_code(frame.f_code.co_filename):
                frame = frame.f_back
            if frame is not None and frame.f_code.co_name != "<module>":
                name, line = frame.f_code.co_filename, frame.f_lineno
                self.places.append(
                    f"{shown_path(name)}, line {line}: {linecache.getline(name, line).strip()}"
                )

    __hash__ = logging.Handler.__hash__


def _fixed(head: str, attempt: Callable[[], object], inputs: InputSpec) -> NnoptError:
    """A size that should vary is a constant to the code: export again, watching where that happens."""
    watch = _Watch()
    logger = logging.getLogger(_SHAPES)
    level, handlers = logger.level, logger.handlers
    logger.setLevel(logging.INFO)
    logger.handlers = [watch]
    try:
        attempt()
    except Exception as error:
        text = str(error)
    else:
        text = ""
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
    found = re.search(r"specialized it to be a constant \((\d+)\)", text)
    value = f" {found[1]}" if found else ""
    at = f" at {watch.places[0]}" if watch.places else ""
    return NnoptError(
        f"{head}: its code fixes a size that --input {inputs} lets vary to the constant{value}{at}",
        "Take the size from the tensor (x.shape[0]) there, or write the number in --input, which fixes it.",
    )


def _check_sizes(program: ExportedProgram, inputs: InputSpec, spec: str) -> None:
    """A size that should vary and no longer does is an error, however export let it pass."""
    from nnopt_cli.graph.signature import input_spec
    from nnopt_cli.model.inputs import Dim

    wanted = [each for each in inputs.inputs if not each.name]
    got = [each for each in input_spec(program).inputs if not each.name]
    for asked, found in zip(wanted, got, strict=False):
        for axis, (one, other) in enumerate(zip(asked.shape, found.shape, strict=False)):
            if isinstance(one, Dim) and isinstance(other, int):
                raise NnoptError(
                    f"--arch {spec}: the export fixed dimension {axis} of {asked} to {other}",
                    "Write the number in --input to accept that.",
                )


def _plain_outputs(program: ExportedProgram) -> ExportedProgram:
    """Outputs of a library's own class become a dict, else a tuple: the file then loads without it."""
    from torch.utils import _pytree as pytree

    call = program.module_call_graph[0].signature
    if call is None or _is_plain(call.out_spec):
        return program
    leaves: Any = list(range(call.out_spec.num_leaves))
    made = pytree.tree_unflatten(leaves, call.out_spec)
    plain = _as_plain(made)
    flat, out_spec = pytree.tree_flatten(plain)
    if flat == leaves:  # the order must hold: the graph returns them so
        call.out_spec = out_spec
    else:
        call.out_spec = pytree.tree_flatten(tuple(leaves))[1]
    return program


def _is_plain(spec: Any) -> bool:
    children = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    return spec.type in (None, tuple, list, dict) and all(map(_is_plain, children))


def _as_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_as_plain(item) for item in value)
    if hasattr(value, "__dict__") and not isinstance(value, int):
        return {key: _as_plain(item) for key, item in vars(value).items() if item is not None}
    return value


@contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch logs and prints on the way is in the message, or of no use to who runs a command."""
    loggers = [logging.getLogger(name) for name in (_SHAPES, "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
