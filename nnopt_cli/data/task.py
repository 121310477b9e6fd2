"""What is to be learnt: classes, labels or values. Found from targets and outputs, and held against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnopt_cli.errors import NnoptError

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli.data.table import Array

Kind = Literal["classification", "regression", "multi-label"]
KINDS: tuple[Kind, ...] = ("classification", "regression", "multi-label")
IGNORED = -100  # a class number that losses leave out, PyTorch's own


@dataclass(frozen=True)
class Task:
    """What is to be learnt.

    Attributes:
        kind: one class of several; values; or labels, each of which is there or not.
        classes: how many classes, labels or values the model gives for a sample.
        names: of the classes, where the data have them.
        counts: samples of every class, where that is known.
        one_hot: whether the data give a class as a row of zeros with a single one.
    """

    kind: Kind
    classes: int
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    one_hot: bool = False

    def name_of(self, number: int) -> str:
        """The name of a class, or its number."""
        return self.names[number] if number < len(self.names) else str(number)


def find_task(outputs: Tensor, targets: Array, kind: Kind | None, origin: str) -> Kind:
    """What kind of task it is.

    Args:
        outputs: of the model, batch first.
        targets: of the data, batch first; all of them, or some.
        kind: what was asked for; then it is only checked.
        origin: where the data came from, for messages.

    Raises NnoptError where outputs and targets fit no task, or not the one asked for.
    """
    whole = targets.dtype.kind in "iub" or bool((targets == np.round(targets)).all())
    binary = bool(((targets == 0) | (targets == 1)).all())
    same = _without_ones(outputs.shape[1:]) == _without_ones(targets.shape[1:])
    classed = outputs.dim() >= 2 and whole and _positions(outputs, targets)
    several = int(np.prod(targets.shape[1:], dtype=np.int64)) > 1
    hot = same and several and is_one_hot(targets)
    fits: dict[Kind, bool] = {
        "classification": classed or hot,
        "multi-label": same and binary,
        "regression": same,
    }
    if kind is not None:
        if not fits[kind]:
            raise _unfit(outputs, targets, origin, f" for {kind}")
        return kind
    if hot:
        return "classification"
    if targets.dtype.kind in "iub":
        if classed and outputs.shape[1] > 1:
            return "classification"
        if fits["multi-label"]:
            return "multi-label"
    elif same:
        return "multi-label" if binary and several else "regression"
    if same:
        return "regression"
    if classed and targets.dtype.kind == "f" and outputs.shape[1] > 1:
        return "classification"  # class numbers in a file that knows only floating numbers
    raise _unfit(outputs, targets, origin, "")


def is_one_hot(targets: Array) -> bool:
    """Whether every target is a row of zeros with a single one."""
    if targets.ndim != 2 or targets.shape[1] < 2:
        return False
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(1) == 1).all())


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape if size != 1)


def _positions(outputs: Tensor, targets: Array) -> bool:
    """Whether the outputs are classes at every position of the targets."""
    rest = tuple(targets.shape[1:])
    return tuple(outputs.shape[2:]) == rest or tuple(outputs.shape[1:-1]) == rest


def class_count(outputs: Tensor, targets: Array) -> int:
    """How many classes the outputs hold."""
    last = outputs.dim() > 2 and tuple(outputs.shape[2:]) != tuple(targets.shape[1:])
    return int(outputs.shape[-1 if last else 1])


def check_labels(targets: Array, classes: int, names: tuple[str, ...], origin: str) -> tuple[int, ...]:
    """Samples of every class. Raises NnoptError for class numbers that the model has no output for."""
    numbers = targets.reshape(-1)
    numbers = numbers[numbers != IGNORED].astype(np.int64)
    if not len(numbers):
        raise NnoptError(f"{origin}: no sample has a label")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0:
        raise NnoptError(
            f"{origin}: a label is {low}, and labels count from 0",
            f"Only {IGNORED} stands for no label.",
        )
    if high >= classes:
        count = len(names) or high + 1
        shift = " They seem to count from 1: subtract 1." if low == 1 and high == classes else ""
        raise NnoptError(
            f"{origin}: labels go up to {high} ({count} classes), and the model tells {classes} classes "
            f"apart (0 to {classes - 1})",
            f"Give data with these classes, or a model with a head for {high + 1}.{shift}",
        )
    return tuple(int(count) for count in np.bincount(numbers, minlength=classes))


def empty_classes(task: Task) -> str:
    """A sentence on classes without a sample; empty where all have some."""
    empty = [task.name_of(number) for number, count in enumerate(task.counts) if not count]
    if not empty:
        return ""
    shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
    return f"No sample is of class {shown}." if len(empty) == 1 else f"No sample is of the classes {shown}."


def _unfit(outputs: Tensor, targets: Array, origin: str, kind: str) -> NnoptError:
    got = f"{list(outputs.shape[1:])} for a sample" if outputs.dim() > 1 else "one number for a sample"
    shape = f"{targets.dtype} {list(targets.shape[1:])}" if targets.ndim > 1 else f"one {targets.dtype}"
    return NnoptError(
        f"the model's output does not fit the targets of {origin}{kind}: it gives {got}, a target is {shape}",
        "Classes need one output each and whole numbers as targets; labels and values as many outputs as "
        "targets. --y names the target, --task the task.",
    )
