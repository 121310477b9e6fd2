"""`Model`: weights and, when it is known, a graph. This file knows the weights rung."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError
from nnopt_cli.model.provenance import Provenance

if TYPE_CHECKING:
    import torch

    from nnopt_cli.formats.checkpoint import Container
    from nnopt_cli.formats.weight import ChunkEdit, Weight


@dataclass(frozen=True)
class Model:
    """A model on the weights rung: named tensors, read lazily; a pass returns a new one.

    Attributes:
        weights: every tensor of the state dict in the file's order, under the model's own names
            (without a `module.` prefix); tied names share one `Weight` object.
        container: how the file held them, which is how the output will hold them.
        provenance: the passes so far, from this run and from the input's own record.
        notes: what the user should know about how the file was read.
    """

    weights: Mapping[str, Weight]
    container: Container
    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file or folder that the model was read from."""
        return self.container.path

    def unique(self) -> dict[str, Weight]:
        """The weights without the second and later names of tied ones."""
        first = {id(weight): name for name, weight in reversed(list(self.weights.items()))}
        return {name: weight for name, weight in self.weights.items() if first[id(weight)] == name}

    def names_of(self, weight: Weight) -> list[str]:
        """All the names that `weight` goes by."""
        return [name for name, other in self.weights.items() if other is weight]

    def edit(self, edits: Mapping[str, ChunkEdit]) -> Model:
        """Apply a `ChunkEdit` to each named tensor when it is read or saved (tied names follow)."""
        return self._replace({name: self.weights[name].edited(edit) for name, edit in edits.items()})

    def map(
        self,
        fn: Callable[[str, torch.Tensor], torch.Tensor],
        names: Iterable[str] | None = None,
    ) -> Model:
        """Replace each named tensor (default: all) by `fn(name, tensor)`, one tensor at a time.

        `fn` runs when the tensor is read or saved, so only one tensor per thread is in memory; it
        must return the same shape and dtype. Tied names are computed once.
        """
        chosen = self.unique() if names is None else {name: self.weights[name] for name in names}
        return self._replace({name: weight.mapped(fn) for name, weight in chosen.items()})

    def _replace(self, new: Mapping[str, Weight]) -> Model:
        swap = {id(self.weights[name]): weight for name, weight in new.items()}
        if len(swap) != len(new):
            raise NnoptError("two names of one tied tensor were given two different replacements")
        weights = {name: swap.get(id(old), old) for name, old in self.weights.items()}
        return replace(self, weights=weights)
