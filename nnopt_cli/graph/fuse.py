"""Several programs as one: the same inputs go to all of them, and their outputs are combined.

What the members have in common at their lower end, with equal weights, is stored and computed once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nnopt_cli.errors import UsageError
from nnopt_cli.graph.setting import quiet
from nnopt_cli.graph.sharing import Shared, share
from nnopt_cli.graph.signature import input_spec
from nnopt_cli.model.inputs import Dim, Input, InputSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Pick = Callable[[Any], Tensor]  # the output that counts, of all that a program gives
MEMBER = "members."  # a member's tensors are called `members.0.conv1.weight` in the fused program


@dataclass(frozen=True)
class Fused:
    """Several programs as one.

    Attributes:
        program: it holds all of them.
        shared: what it stores and computes once.
    """

    program: ExportedProgram
    shared: Shared


def fused(programs: Sequence[ExportedProgram], combine: nn.Module, pick: Pick) -> Fused:
    """One program that feeds its inputs to all `programs` and gives what `combine` makes of their outputs.

    Args:
        programs: two or more, which may differ in architecture; their tensors are held, not copied.
        combine: called with the picked output of every member, in order; its parameters become the program's.
        pick: which of a member's outputs counts.

    Raises UsageError: the members do not take the same inputs (see `common_inputs`).
    """
    spec = common_inputs([input_spec(program) for program in programs])
    args, kwargs = spec.example()
    names = [*_input_names(programs[0])[: len(args)], *kwargs]
    network = _Network([program.module() for program in programs], combine, pick, names)
    positional, named = spec.dynamic_shapes()
    shapes = {**dict(zip(names, positional, strict=False)), **named}
    with quiet(), torch.no_grad():
        program = torch.export.export(network, args, kwargs, dynamic_shapes=shapes, strict=False)
    return Fused(*share(program, MEMBER))


class _Network(nn.Module):
    """What is traced."""

    def __init__(
        self, members: Sequence[nn.Module], combine: nn.Module, pick: Pick, names: Sequence[str]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combine = combine
        self._pick = pick
        self.forward = _called(self._forward, names)

    def train(self, mode: bool = True) -> _Network:
        """Nothing: members stay in the mode that they were exported in."""
        return self

    def _forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        return self.combine([self._pick(member(*args, **kwargs)) for member in self.members])


def _called(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`function` with a signature that names its arguments, by which an export names the program's inputs."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    return forward


def _input_names(program: ExportedProgram) -> list[str]:
    specs = program.graph_signature.input_specs
    return [spec.arg.name for spec in specs if spec.kind.name == "USER_INPUT"]


def output_values(program: ExportedProgram) -> Any:
    """What a program gives, in its own structure, as fake tensors that tell shapes and element types."""
    results: Any = next(iter(reversed(program.graph.nodes))).args[0]
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    flat = [
        result.meta["val"] if hasattr(result, "meta") else result
        for result, kind in zip(results, kinds, strict=True)
        if kind == "USER_OUTPUT"
    ]
    return pytree.tree_unflatten(flat, program.call_spec.out_spec)


def common_inputs(specs: Sequence[InputSpec], names: Sequence[str] = ()) -> InputSpec:
    """What all of several programs can be fed: a size is fixed where one of them fixes it.

    Args:
        specs: the programs' inputs.
        names: what messages call the programs; by default they are numbered.

    Raises UsageError that says which two programs differ in what.
    """
    called = list(names) or [f"member {number}" for number in range(1, len(specs) + 1)]
    first = specs[0]
    out = list(first.inputs)
    for spec, name in zip(specs[1:], called[1:], strict=True):
        if len(spec.inputs) != len(first.inputs):
            raise UsageError(
                f"{called[0]} takes {first}, and {name} takes {spec}",
                "Only networks that take the same inputs can answer together.",
            )
        for at, (one, other) in enumerate(zip(out, spec.inputs, strict=True)):
            met = _met(one, other)
            if met is None:
                raise UsageError(
                    f"input {at + 1} of {called[0]} is {first.inputs[at]}, and of {name} {other}",
                    "Only networks that take the same inputs can answer together.",
                )
            out[at] = met
    return InputSpec(_settled(tuple(out)))


def _met(one: Input, other: Input) -> Input | None:
    """An input that suits both; None if there is none."""
    same = (one.name, one.dtype, len(one.shape)) == (other.name, other.dtype, len(other.shape))
    shape = [_met_size(a, b) for a, b in zip(one.shape, other.shape, strict=True)] if same else [None]
    if any(size is None for size in shape):
        return None
    sizes = tuple(size for size in shape if size is not None)
    return replace(one, shape=sizes, below=min(one.below, other.below))


def _met_size(one: int | Dim, other: int | Dim) -> int | Dim | None:
    if isinstance(one, int) and isinstance(other, int):
        return one if one == other else None
    if isinstance(one, int) or isinstance(other, int):
        fixed, varied = (one, other) if isinstance(one, int) else (other, one)
        assert isinstance(fixed, int)
        assert isinstance(varied, Dim)
        times, rest = divmod(fixed - varied.offset, varied.factor)
        high = times if varied.high is None else varied.high
        return fixed if not rest and varied.low <= times <= high else None
    if (one.factor, one.offset) != (other.factor, other.offset):
        return None
    low = max(one.low, other.low)
    end = _least(one.high, other.high)
    return replace(one, low=low, high=end) if end is None or low < end else None


def _least(one: int | None, other: int | None) -> int | None:
    ends = [end for end in (one, other) if end is not None]
    return min(ends) if ends else None


def _settled(inputs: tuple[Input, ...]) -> tuple[Input, ...]:
    """All places of one varying size with the range that suits them all."""
    ranges: dict[str, tuple[int, int | None]] = {}
    for dim in (dim for each in inputs for dim in each.shape if isinstance(dim, Dim)):
        low, high = ranges.get(dim.name, (1, None))
        ranges[dim.name] = max(low, dim.low), _least(high, dim.high)

    def settled(dim: int | Dim) -> int | Dim:
        if isinstance(dim, int):
            return dim
        low, high = ranges[dim.name]
        return replace(dim, low=low, high=high)

    return tuple(replace(each, shape=tuple(map(settled, each.shape))) for each in inputs)
