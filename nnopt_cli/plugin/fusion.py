"""The kinds that make one model of several: `Fusion`, its form for weights, and `Alignment` before it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nnopt_cli.plugin.component import Component

if TYPE_CHECKING:
    from nnopt_cli.data import Data
    from nnopt_cli.formats.weight import Array
    from nnopt_cli.model.blend import Corresponding
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

Integers = Literal["max", "first", "error"]


@dataclass(frozen=True)
class Weighting:
    """How much each member counts.

    Attributes:
        everywhere: one number per member, as `--weights A,B` gives them; None where none were given.
        patterns: for tensors that a glob matches, other numbers; the last one that matches counts.
    """

    everywhere: tuple[float, ...] | None = None
    patterns: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def given(self) -> list[tuple[str, tuple[float, ...]]]:
        """All that was given, each with the glob that it is for."""
        return [*([("*", self.everywhere)] if self.everywhere else []), *self.patterns]

    def of(self, name: str) -> tuple[float, ...] | None:
        """What was given for the tensor `name`."""
        from fnmatch import fnmatchcase

        found = [weights for glob, weights in self.patterns if fnmatchcase(name, glob)]
        return found[-1] if found else self.everywhere


@dataclass(frozen=True)
class Members:
    """What is fused.

    Attributes:
        models: two or more, in the order in which they were given.
        weighting: how much each counts.
        base: the ancestor that they were fine-tuned from, if it was named.
        data: `--data`, opened for the first model. What is chosen or fitted is chosen on `data.plain`;
            `data.val` (`--val`, `--val-split`) is kept for the report.
        integers: which value an integer tensor gets where members differ.
        aligned: how their units were put into one order, if they were.
        share_trunk: how many of the lowest layers are made one by averaging; `auto` as many as the
            metric allows. Only for fusions of outputs.
    """

    models: tuple[Model, ...]
    weighting: Weighting = Weighting()
    base: Model | None = None
    data: Data | None = None
    integers: Integers = "max"
    aligned: Alignment | None = None
    share_trunk: int | Literal["auto"] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What messages call them: file names, or paths where those are equal."""
        short = [model.path.name for model in self.models]
        whole = [str(model.path) for model in self.models]
        return tuple(short if len(set(short)) == len(set(whole)) else whole)


class Fusion(Component, kind="fusion"):
    """Maps several models to one, as `nnopt ensemble` asks.

    Class attributes:
        space: `weights`, where members must have the same names and shapes; or `outputs`, where they
            must take the same inputs and give outputs of the same shape.
        needs: the lowest rung that every member must be on.
        needs_data: whether it works only with `--data`.
        base: whether it works on differences from an ancestor, `--base`.
        convex: whether the weights of members must sum to one.
        most: how many members it takes at most.
    """

    space: ClassVar[Literal["weights", "outputs"]] = "weights"
    needs: ClassVar[Literal["weights", "module", "graph"]] = "weights"
    needs_data: ClassVar[bool] = False
    base: ClassVar[Literal["no", "allowed", "required"]] = "no"
    convex: ClassVar[bool] = True
    most: ClassVar[int | None] = None

    def chosen(self, members: Members, run: Run) -> tuple[Fusion, Members]:
        """The fusion that does the work, and on what: itself, but for one that chooses by reading weights.

        It is called after all members were opened, before they are checked against the fusion.
        """
        return self, members

    def check(self, members: Members) -> None:
        """Raise UsageError where options and members do not fit; headers only, before anything is read."""

    @abstractmethod
    def fuse(self, members: Members, run: Run) -> Model:
        """The one model.

        Say what matters with `run.note(...)` and `run.facts`; write no file, print nothing. One that
        fuses outputs returns `members.models[0].with_program(program, structure_changed=True)`.
        """


class WeightFusion(Fusion, kind="fusion"):
    """Fuses tensor by tensor, each in chunks, at constant memory and the speed of the disk.

    With `base = "required"` (or where `--base` is given and `allowed`), values are differences from the
    ancestor, and what `merge` returns is added to it. All is computed in float32 (float64 for
    tensors that are) and rounded once. Integers, and what is equal in all members, never get here.
    """

    def survey(self, tensor: Corresponding) -> Any:
        """What `merge` has to know of the whole tensor; it is read once more for this. Nothing by default."""
        return None

    @abstractmethod
    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        """The merged elements: a function of these alone, which several threads or processes may ask for.

        Args:
            values: for each member a chunk of its tensor, 1-D, float32 or float64, not to be changed.
            tensor: which tensor this is, and the weights of members for it.
            found: what `survey` returned.
            start: flat index of the first element.
        """

    def fuse(self, members: Members, run: Run) -> Model:
        """The first model with tensors that are merged when they are read or saved."""
        from nnopt_cli.model.blended import blended

        return blended(
            self,
            members.models,
            weights=members.weighting.of,
            base=members.base if self.base != "no" else None,
            integers=members.integers,
            run=run,
        )


class Alignment(Component, kind="alignment"):
    """Puts the units of networks that were trained apart into one order, as `--align` asks."""

    needs: ClassVar[Literal["weights", "module", "graph"]] = "graph"
    needs_data: ClassVar[bool] = False

    @abstractmethod
    def align(self, members: Members, run: Run) -> Members:
        """The same networks, computing the same functions, their units ordered like the first one's.

        Raise NnoptError where a member does not compute the same afterwards, or where graphs differ.
        """
