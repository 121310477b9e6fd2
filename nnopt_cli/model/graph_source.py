"""`GraphSource`: where a model's `ExportedProgram` comes from. It is read or exported on first use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError, UnreadableError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from nnopt_cli.formats.weight import Weight
    from nnopt_cli.model.arch import Architecture
    from nnopt_cli.model.inputs import InputSpec

    Made = tuple[ExportedProgram, Mapping[str, str], Mapping[str, Weight]]


class GraphSource(ABC):
    """A program, and the weights that it was made with.

    Attributes:
        structure_changed: whether a pass changed sizes or operators.
        source_hash: content hash of the input's weights, where the program's are others.
        exported: whether it is what the model's source makes; if not, it may differ from that.
        notes: what the user should know about how it was made; complete once it was.
    """

    structure_changed = False
    source_hash = ""
    exported = False

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._base: ExportedProgram | None = None
        self._names: Mapping[str, str] = {}  # the program's name -> the model's
        self._origin: Mapping[str, Weight] = {}  # what the program was made with, by the model's name
        self._inputs: InputSpec | None = None

    @property
    def inputs(self) -> InputSpec:
        """What the program is fed."""
        from nnopt_cli.graph.signature import input_spec

        if self._inputs is None:
            self._inputs = input_spec(self.base({}))
        return self._inputs

    def base(self, weights: Mapping[str, Weight]) -> ExportedProgram:
        """The program as it was made, once; a module that is exported takes `weights` for it."""
        if self._base is None:
            self._base, self._names, self._origin = self._make(weights)
        return self._base

    def program(self, weights: Mapping[str, Weight]) -> ExportedProgram:
        """The program with `weights`: the same object as before where none of them was edited.

        Raises NnoptError where a weight no longer has the shape or dtype that the graph was made for.
        """
        base, changed = self.base(weights), self.edited(weights)
        return with_weights(base, changed) if changed else base

    def edited(self, weights: Mapping[str, Weight]) -> dict[str, Weight]:
        """Those of `weights` that the program was not made with, by the program's names."""
        self.base(weights)
        return {
            name: weights[ours]
            for name, ours in self._names.items()
            if ours in weights and weights[ours] is not self._origin[ours]
        }

    def uses(self, weights: Mapping[str, Weight]) -> Mapping[str, Collection[str]]:
        """What the graph reads each weight as, by the model's names (see `nnopt_cli.graph.usage`)."""
        from nnopt_cli.graph.usage import program_uses

        found = program_uses(self.base(weights))
        return {self._names.get(name, name): roles for name, roles in found.items()}

    @abstractmethod
    def _make(self, weights: Mapping[str, Weight]) -> Made:
        """The program, whose weights have which names in the model, and what these were."""


class FileGraph(GraphSource):
    """A program in a `.pt2` file."""

    def __init__(
        self,
        path: Path,
        weights: Mapping[str, Weight],
        text: Callable[[], bytes],
        operators: Collection[str] = (),
    ) -> None:
        """`weights` are the file's own, by the program's names; `text` gives the program as JSON.

        `operators` are namespaces of custom operators that it may call.
        """
        super().__init__()
        self._path = path
        self._weights = weights
        self._text = text
        self._operators = operators

    def uses(self, weights: Mapping[str, Weight]) -> Mapping[str, Collection[str]]:
        """Read off the file's text: PyTorch is not imported for it."""
        from nnopt_cli.graph.usage import file_uses

        try:
            return file_uses(self._text())
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            raise UnreadableError(f"{self._path}: its program is not understood: {error!r:.200}") from None

    def _make(self, weights: Mapping[str, Weight]) -> Made:
        from nnopt_cli.formats.pt2_read import read_program

        found = read_program(self._path, custom=self._operators)
        self.notes += found.notes
        return found.program, {name: name for name in self._weights}, self._weights


class ModuleGraph(GraphSource):
    """A module that is exported."""

    exported = True

    def __init__(self, arch: Architecture, inputs: InputSpec) -> None:
        super().__init__()
        self._arch = arch
        self._inputs = inputs

    def _make(self, weights: Mapping[str, Weight]) -> Made:
        from nnopt_cli.graph.export import export
        from nnopt_cli.model.fit import fill

        module = self._arch.build()
        origin = {
            name: weight.origin for name, weight in weights.items()
        }  # edits are put on top, and counted
        fit = fill(module, origin, self._arch.spec)
        assert self._inputs is not None
        program = export(module, self._inputs, self._arch.spec)
        self.notes += fit.notes
        return program, fit.names, origin


class HeldGraph(GraphSource):
    """A program in memory."""

    def __init__(
        self,
        program: ExportedProgram,
        weights: Mapping[str, Weight],
        structure_changed: bool,
        source_hash: str = "",
    ) -> None:
        super().__init__()
        self.source_hash = source_hash
        self._base, self._origin = program, weights
        self._names = {name: name for name in weights}
        self.structure_changed = structure_changed

    def _make(self, weights: Mapping[str, Weight]) -> Made:
        raise AssertionError("it is held from the start")


def with_weights(program: ExportedProgram, changed: Mapping[str, Weight]) -> ExportedProgram:
    """`program` with other values in the named tensors, in new memory; what is tied stays tied."""
    import torch

    from nnopt_cli.graph.coupling import identity
    from nnopt_cli.graph.cutting import assemble, duplicate

    made: dict[object, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {**program.constants, **program.state_dict}
    for name, weight in changed.items():
        old = tensors[name]
        if identity(old) not in made:
            made[identity(old)] = _like(name, old, weight)
    state, constants = dict(program.state_dict), dict(program.constants)
    for home in (state, constants):
        for name, tensor in home.items():
            if isinstance(tensor, torch.Tensor):
                home[name] = made.get(identity(tensor), tensor)
    return assemble(program, duplicate(program.graph), state, constants)


def _like(name: str, old: torch.Tensor, weight: Weight) -> torch.Tensor:
    from torch import nn

    new = weight.torch()
    if new.shape != old.shape or new.dtype != old.dtype:
        raise NnoptError(
            f"{name}: the graph was made for {str(old.dtype)[6:]}{list(old.shape)}, and the weight is now "
            f"{weight.dtype}{list(weight.shape)}",
            "Change the program itself, and take it over with Model.with_program.",
        )
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
