"""`Model`: weights and, when they are known, the module and the graph that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnopt_cli.errors import NnoptError
from nnopt_cli.model.provenance import Provenance

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    from nnopt_cli.formats.checkpoint import Container
    from nnopt_cli.formats.weight import ChunkEdit, Weight
    from nnopt_cli.model.arch import Architecture
    from nnopt_cli.model.graph_source import GraphSource
    from nnopt_cli.model.inputs import InputSpec

Rung = Literal["weights", "module", "graph"]
_RUNGS: tuple[Rung, ...] = ("weights", "module", "graph")


@dataclass(frozen=True)
class Model:
    """Named tensors, read lazily, and how they are computed with, if that is known; a pass returns a new one.

    Attributes:
        weights: every tensor of the state dict in the file's order, under the model's own names
            (without a `module.` prefix); tied names share one `Weight` object.
        container: how the file held them, which is how the output will hold them.
        provenance: the passes so far, from this run and from the input's own record.
        notes: what the user should know about how the file was read.
        arch: how to build the module that the weights belong to.
        graph: where the program that computes with them comes from.
    """

    weights: Mapping[str, Weight]
    container: Container
    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()
    arch: Architecture | None = None
    graph: GraphSource | None = None

    @property
    def path(self) -> Path:
        """The file or folder that the model was read from."""
        return self.container.path

    @property
    def rung(self) -> Rung:
        """What is known: only `weights`, a `module` to load them into, or a `graph`."""
        return "graph" if self.graph else "module" if self.arch else "weights"

    @property
    def inputs(self) -> InputSpec | None:
        """What the model is fed; None below the graph rung."""
        return self.graph.inputs if self.graph else None

    @property
    def structure_changed(self) -> bool:
        """Whether the model no longer fits its source, so that only a `.pt2` can hold all of it."""
        return self.graph is not None and self.graph.structure_changed

    def require(self, rung: Rung) -> None:
        """Raise NnoptError, which says what to add, where the model is on a lower rung."""
        if _RUNGS.index(rung) <= _RUNGS.index(self.rung):
            return
        if rung == "graph" and self.arch:
            raise NnoptError(
                f"{self.path}: this needs the model's graph, and to export the module takes an input",
                "Add --input, such as 3x224x224, float32[N,128] or ids=int64[N,16]<30522.",
            )
        more = " and --input (such as 3x224x224)" if rung == "graph" else ""
        raise NnoptError(
            f"{self.path}: this needs the model's {rung}, and the file holds weights only",
            f"Add --arch (PATH.py:FUNCTION, timm:NAME, torchvision:NAME or hf:FOLDER){more}, or give a .pt2, "
            "which `nnopt convert` writes from them.",
        )

    def module(self) -> nn.Module:
        """A new module with the weights as they are now, in evaluation mode.

        It is built by the model's source where that is known (at the sizes that the graph has now), else
        it is the program as a module.

        Raises NnoptError: the rung is lower, or the weights do not fit what the source builds.
        """
        from nnopt_cli.model.fit import fill
        from nnopt_cli.model.rebuild import rebuild

        self.require("module")
        if self.arch is None:
            module: nn.Module = self.program().module()
            return module
        if self.graph is not None and not self.graph.exported:
            return rebuild(self.arch, self.program(), self.weights)
        module = self.arch.build()
        fill(module, self.weights, self.arch.spec)
        return module

    def trainable(self, device: str = "cpu") -> nn.Module:
        """A new module on `device` that can be trained, in evaluation mode; its memory is its own.

        It is built by the model's source where that is known. A bare program becomes a module whose norms
        and dropouts follow `train()` and `eval()` again.

        Raises NnoptError: the rung is lower, or the weights do not fit what the source builds.
        """
        from nnopt_cli.model.training import trainable

        return trainable(self, device)

    def trained(self, module: nn.Module) -> Model:
        """The same model with the values of `module`, which `trainable` made, in the model's own types.

        The module's tensors are held, not copied; what the module does not have stays as it is.
        """
        from nnopt_cli.model.training import trained

        return trained(self, module)

    def program(self) -> ExportedProgram:
        """The program with the weights as they are now, in memory. Not to be changed in place.

        Raises NnoptError: the rung is lower, or the module cannot be exported.
        """
        self.require("graph")
        assert self.graph is not None
        return self.graph.program(self.weights)

    def with_program(self, program: ExportedProgram, *, structure_changed: bool) -> Model:
        """The same model with `program` in place of its graph and weights.

        The names and the number of its tensors may change.

        Args:
            program: it is held, not copied; its `state_dict` gives the weights, tied ones tied.
            structure_changed: whether sizes or operators differ from this model's.
        """
        from nnopt_cli.formats.checkpoint import Container
        from nnopt_cli.model.graph_source import HeldGraph
        from nnopt_cli.model.hashing import input_hash
        from nnopt_cli.model.program_weights import program_weights

        weights = program_weights(program)
        source_hash = (self.graph.source_hash if self.graph else "") or input_hash(self)
        graph = HeldGraph(program, weights, structure_changed or self.structure_changed, source_hash)
        graph.notes += self.graph.notes if self.graph else ()
        container = Container(self.path, "pt2", self.container.files)
        return replace(self, weights=weights, container=container, graph=graph)

    def unique(self) -> dict[str, Weight]:
        """The weights without the second and later names of tied ones."""
        first = {id(weight): name for name, weight in reversed(list(self.weights.items()))}
        return {name: weight for name, weight in self.weights.items() if first[id(weight)] == name}

    def names_of(self, weight: Weight) -> list[str]:
        """All the names that `weight` goes by."""
        return [name for name, other in self.weights.items() if other is weight]

    def edit(self, edits: Mapping[str, ChunkEdit]) -> Model:
        """Apply a `ChunkEdit` to each named tensor when it is read or saved (tied names follow)."""
        return self._replace({name: self._named(name).edited(edit) for name, edit in edits.items()})

    def map(
        self,
        fn: Callable[[str, torch.Tensor], torch.Tensor],
        names: Iterable[str] | None = None,
    ) -> Model:
        """Replace each named tensor (default: all) by `fn(name, tensor)`, one tensor at a time.

        `fn` runs when the tensor is read or saved, so only one tensor per thread is in memory; it
        must return the same shape and dtype. Tied names are computed once.
        """
        chosen = self.unique() if names is None else {name: self._named(name) for name in names}
        return self._replace({name: weight.mapped(fn) for name, weight in chosen.items()})

    def _named(self, name: str) -> Weight:
        if name not in self.weights:
            from nnopt_cli.model.naming import suggest

            raise NnoptError(f"{self.path}: has no tensor {name!r}", suggest(name, self.weights) or None)
        return self.weights[name]

    def _replace(self, new: Mapping[str, Weight]) -> Model:
        swap = {id(self.weights[name]): weight for name, weight in new.items()}
        if len(swap) != len(new):
            raise NnoptError("two names of one tied tensor were given two different replacements")
        weights = {name: swap.get(id(old), old) for name, old in self.weights.items()}
        return replace(self, weights=weights)
