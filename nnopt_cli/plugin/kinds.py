"""The kinds of component: what a class is follows from which of these it extends."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from nnopt_cli.plugin.component import Component

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from nnopt_cli.data import Task
    from nnopt_cli.data.evaluation import Tally
    from nnopt_cli.formats.weight import Array
    from nnopt_cli.graph import Coupling, Group, Units
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run


class Pass(Component, kind="pass"):
    """Maps a model to a model; becomes a sub-command of its name.

    Class attributes:
        suffix: the word in the output's name, `model.SUFFIX.pt`; by default the pass's name.
        needs: the lowest rung that it works on; a model on a lower one is refused before it runs.
        reshapes: whether it may change sizes or operators, so that the output becomes a `.pt2`.
        from_scratch: whether it also works without a file, on what `--arch` builds.
        on_gpu: whether `--device auto` means a GPU where there is one.
    """

    suffix: ClassVar[str] = ""
    reshapes: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    on_gpu: ClassVar[bool] = False
    needs: ClassVar[Literal["weights", "module", "graph"]] = "weights"

    def check(self, model: Model) -> None:
        """Raise `nnopt_cli.UsageError` for options that contradict each other or do not fit the model.

        Called before `run`, and before the output is looked at; no tensor is to be read. By default nothing
        is refused.
        """

    @abstractmethod
    def run(self, model: Model, run: Run) -> Model:
        """Return the changed model; say what matters with `run.note(...)`, write no file, print nothing."""


class Loader(Component, kind="loader"):
    """Builds the network of a model, as `--arch NAME:WHAT` asks; WHAT is its first option."""

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        """`name:WHAT` sets the first option, whatever WHAT holds."""
        name, colon, what = text.partition(":")
        first = next(iter(cls.model_fields), None)
        if name != cls.name or not colon or first is None or re.match(rf"{first}\s*=", what):
            return None
        return cls.model_validate({first: what})

    @abstractmethod
    def build(self, **arguments: Any) -> nn.Module:
        """A new network at its full size; its weights are filled in afterwards, so they may be random.

        Args:
            arguments: what `--arch-arg NAME=VALUE` gives.

        Nothing may be downloaded, and no code of a model file run. Raise `nnopt_cli.NnoptError` with a hint
        where a package or a name is missing.
        """


class Dataset(Component, kind="dataset"):
    """Data to measure or to learn on, as `--data` names them; a short form may take a path."""

    @abstractmethod
    def open(self, run: Run) -> Any:
        """The data, read as late as may be.

        Returns:
            A `nnopt_cli.data.Table`, `Samples` or `Stream`; or what becomes one: a PyTorch Dataset or
            DataLoader, arrays or tensors by name or as `(x, y)`, any iterable of `(input, target)`.

        Raise `nnopt_cli.NnoptError` with a hint where a file or a package is missing.
        """


class Loss(Component, kind="loss"):
    """What training minimises.

    Class attributes:
        tasks: what it is for: `classification`, `regression`, `multi-label`.
        default_for: the tasks that it is the usual loss for.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression", "multi-label")
    default_for: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def adopt(cls, found: object) -> type[Component] | None:
        """A loss module, such as those of `torch.nn`, or a function of outputs, target and options."""
        from nnopt_cli.plugin.losses import foreign_loss

        return foreign_loss(found)

    @abstractmethod
    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch, a scalar that gradients flow through.

        Args:
            outputs: floating, batch first; for classes, dimension 1 holds one logit for each.
            target: for classes their numbers (int64; -100 for none), or shares of the classes (floating,
                the outputs' shape); for labels and values the outputs' shape and type.
        """


class Metric(Component, kind="metric"):
    """A figure that says how good a model is.

    Class attributes:
        tasks: what it is for: `classification`, `regression`, `multi-label`.
        default_for: the tasks in which it decides where no other is named.
        larger_is_better: in which direction it improves.
        detail: whether it is taken only where figures of every class are asked for.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression", "multi-label")
    default_for: ClassVar[tuple[str, ...]] = ()
    larger_is_better: ClassVar[bool] = True
    detail: ClassVar[bool] = False

    def fits(self, task: Task) -> bool:
        """Whether it says anything about such a task; by default where its kind is one of `tasks`."""
        return task.kind in self.tasks

    @abstractmethod
    def build(self, task: Task) -> Tally:
        """A new tally: an object with `update(outputs, target)` for every batch, and `compute()` at the end.

        Any `torchmetrics.Metric` is one. `update` gets what a loss gets. `compute` gives a tensor: a single
        number, one for every class, or a matrix.
        """


@dataclass(frozen=True, slots=True)
class Where:
    """Which elements of which tensor a criterion is looking at.

    Attributes:
        name: the tensor's name.
        index: its place in the order of the model's tensors, tied ones counted once.
        start: flat index of the first element.
        seed: the run's seed.
    """

    name: str
    index: int
    start: int
    seed: int


class Criterion(Component, kind="criterion"):
    """Says how important each weight, or each unit of a graph, is; the least important go first.

    Class attributes:
        by_magnitude: promise that scores order and tie exactly as |w| does. Bit patterns are then
            compared in place of scores, which is several times faster and also runs on a GPU.
    """

    by_magnitude: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False  # `Units` then hold gradients and activations, from --data

    @abstractmethod
    def score(self, values: Array, where: Where) -> Array:
        """Importance of each of `values`.

        Args:
            values: 1-D float32 or float64 weights, not to be changed (16-bit ones come as float32, exactly).
            where: which elements these are.

        Returns:
            As many numbers, larger for more important, NaN for never prune. The result for an element may
            not depend on which other elements are in `values`: they are an arbitrary chunk.
            Weights that are zero count as least important whatever their score.
        """

    def score_units(self, units: Units) -> Array:
        """Importance of each unit (channel, head) of a group: by default the sum of its weights' scores.

        Returns:
            One finite number per unit, larger for more important. Scores of different groups are
            compared only under `--scope global`, after division by each group's mean.
        """
        import numpy as np

        total = np.zeros(len(units))
        for index, (member, matrix) in enumerate(units.matrices()):
            where = Where(member.parameter, index, 0, units.evidence.seed)
            total += np.asarray(self.score(matrix.numpy().reshape(-1), where)).reshape(matrix.shape).sum(1)
        return total


class Granularity(Component, kind="granularity"):
    """Says what is removed at once. Extend `Grouping`, `Pattern` or, on graphs, `Structure`."""


class Grouping(Granularity, kind="granularity"):
    """Weights that are removed together: groups, of which `--sparsity` says what fraction goes.

    A tensor is cut into *bands*: equal runs of consecutive elements (the last may be shorter), each
    holding whole groups and equally many of them. Methods see one or more whole bands at a time, 1-D,
    row-major, from an arbitrary band on. The score of a group is the mean of its elements' scores.
    """

    @abstractmethod
    def unit(self, shape: tuple[int, ...]) -> int:
        """Elements in one band of a tensor of `shape`; 1 says that every element is its own group."""

    @abstractmethod
    def gather(self, op: np.ufunc, values: Array, shape: tuple[int, ...]) -> Array:
        """Combine the values of each group by `op` (`np.add`, `np.logical_or`).

        Returns one value per group, 1-D, the groups of a band together, bands in order. Each group is
        combined in an order that depends on nothing but the group, so that sums agree for all chunk sizes.
        """

    @abstractmethod
    def spread(self, groups: Array, shape: tuple[int, ...], count: int) -> Array:
        """The inverse: each group's value at each of its elements, 1-D, `count` elements."""

    def remark(self, shape: tuple[int, ...]) -> str:
        """What does not come out even in a tensor of `shape`, for the summary; empty if all does."""
        return ""


class Structure(Granularity, kind="granularity"):
    """Parts of a graph that are removed physically: the model becomes smaller, not sparser."""

    @abstractmethod
    def candidates(self, coupling: Coupling) -> list[Group]:
        """The groups whose units may go."""


class Pattern(Granularity, kind="granularity"):
    """A rule that each small neighbourhood must meet, such as N:M. It fixes the sparsity itself."""

    @abstractmethod
    def unit(self, shape: tuple[int, ...]) -> int:
        """Elements that must be seen together: runs of whole multiples of it are what `keep` gets."""

    @abstractmethod
    def keep(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Which elements stay: 1-D booleans.

        Args:
            keys: 1-D unsigned integers, row-major, that order and tie as the criterion's scores do; zero
                exactly for weights that are zero, the type's largest for those that must stay.
            shape: the whole tensor's.
        """

    def remark(self, shape: tuple[int, ...]) -> str:
        """What does not come out even in a tensor of `shape`, for the summary; empty if all does."""
        return ""
