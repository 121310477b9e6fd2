"""Which columns are the model's inputs and which is the target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nnopt_cli.data.table import Array, Column, Images, Lists, Numbers, Rows, Table, Texts
from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.model.naming import suggest

if TYPE_CHECKING:
    from nnopt_cli.data.expected import Expected

TARGETS = ("y", "label", "labels", "target", "targets", "class")
_FORM = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<columns>.+)")


@dataclass(frozen=True)
class Feature:
    """One input of the model.

    Attributes:
        columns: what it is made of; several columns of numbers stand side by side as one vector.
        name: the argument of `forward` that it is passed as; empty for one passed by position.
    """

    columns: tuple[str, ...]
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Feature:
        """Read `COLUMN`, `COLUMN,COLUMN` or `NAME=COLUMN`."""
        found = _FORM.fullmatch(text.strip())
        columns = tuple(part.strip() for part in found["columns"].split(",")) if found else ()
        if not found or not all(columns):
            raise UsageError(f"--x {text!r}: is neither COLUMN, COLUMN,COLUMN nor NAME=COLUMN")
        return cls(columns, found["name"] or "")


@dataclass(frozen=True)
class Fields:
    """The model's inputs, in order, and the target."""

    inputs: tuple[Feature, ...]
    target: Feature


def choose(table: Table, expected: Expected, x: Sequence[str], y: str | None) -> tuple[Fields, list[str]]:
    """Find inputs and target among the columns; also sentences on what was not certain.

    Args:
        table: the data.
        expected: what the model takes.
        x: `--x`, as written; empty to find them.
        y: `--y`, as written; None to find it.

    Raises UsageError: a column is not there, or which one is meant cannot be known.
    """
    notes: list[str] = []
    target = _given(table, Feature.parse(y), "--y") if y else _target(table, notes)
    if x:
        inputs = tuple(_given(table, Feature.parse(text), "--x") for text in x)
        return Fields(inputs, target), notes
    rest = {name: column for name, column in table.columns.items() if name not in target.columns}
    return Fields(_inputs(table, rest, expected, notes), target), notes


def _given(table: Table, feature: Feature, flag: str) -> Feature:
    for name in feature.columns:
        if name not in table.columns:
            raise UsageError(
                f"{flag}: {table.origin} has no column {name!r}",
                suggest(name, list(table.columns)) or _listed(table.columns),
            )
    return feature


def _target(table: Table, notes: list[str]) -> Feature:
    named = {name.lower(): name for name in reversed(list(table.columns))}
    found = next((named[name] for name in TARGETS if name in named), None)
    if found is None:
        plain = [n for n, column in table.columns.items() if not isinstance(column, Images | Lists)]
        others = [name for name in table.columns if name not in plain]
        if others and len(plain) == 1:
            found = plain[0]
        elif not others and len(plain) > 1 and all(_scalar(table.columns[name]) for name in plain):
            found = plain[-1]
            notes.append(f"The last column, {found!r}, was taken as the target; --y names another.")
    if found is None:
        raise UsageError(
            f"{table.origin}: which column is the target is not clear",
            f"Name it with --y. {_listed(table.columns)}",
        )
    return Feature((found,))


def _inputs(
    table: Table, rest: Mapping[str, Column], expected: Expected, notes: list[str]
) -> tuple[Feature, ...]:
    if not rest:
        raise UsageError(f"{table.origin}: has a target and no other column", "The model needs an input.")
    named = expected.by_name(list(rest))
    if named:
        return tuple(Feature((name,), name) for name in named)
    images = [name for name, column in rest.items() if isinstance(column, Images)]
    if expected.count and expected.count > 1:
        chosen = list(rest)
        if len(chosen) == expected.count:
            return tuple(Feature((name,)) for name in chosen)
        raise UsageError(
            f"the model takes {expected.count} inputs ({expected}), and which columns they are is not clear",
            f"Give --x for each, in order. {_listed(rest)}",
        )
    for choice in (images, [name for name in rest if name.lower() == "x"], list(rest)):
        if len(choice) == 1:
            return (Feature((choice[0],)),)
    numbers = [name for name, column in rest.items() if _scalar(column) and isinstance(column, Numbers)]
    if numbers and not images and all(_scalar(column) for column in rest.values()):
        if left := [name for name in rest if name not in numbers]:
            notes.append(f"Columns of text were left out: {', '.join(left)}.")
        return (Feature(tuple(numbers)),)
    raise UsageError(
        f"{table.origin}: which column is the model's input is not clear",
        f"Name it with --x. {_listed(rest)}",
    )


def _scalar(column: Column) -> bool:
    return isinstance(column, Texts) or (isinstance(column, Numbers) and not column.shape)


def _listed(columns: Mapping[str, Column]) -> str:
    return f"There are: {', '.join(f'{name} ({column.kind})' for name, column in columns.items())}."


def encoded(table: Table, target: Feature, known: Sequence[str] = ()) -> tuple[Table, list[str]]:
    """The table with class names in the target column turned into numbers.

    Args:
        table: the data.
        target: one column, or several, which stay as they are.
        known: names of the classes of other data, whose numbers these shall have.

    Raises NnoptError: a class is not among the known ones, or there are too many.
    """
    if len(target.columns) > 1:
        return table, []
    name = target.columns[0]
    column = table.columns[name]
    own = table.classes.get(name, ())
    if isinstance(column, Numbers) and known and own and tuple(known) != own:
        return _renumbered(table, name, column, known, own), []
    if not isinstance(column, Texts):
        return table, []
    names = list(known) or sorted(set(column.values))
    if len(names) > max(1000, len(column) // 2):
        raise NnoptError(
            f"{table.origin}: the target {name!r} is text with {len(names):,} different values, which are no "
            "classes",
            "Name the target with --y.",
        )
    number = {text: index for index, text in enumerate(names)}
    _check_known(table, set(column.values), number)
    values = np.fromiter((number[text] for text in column.values), np.int64, len(column))
    columns = {**table.columns, name: Numbers(values)}
    note = f"The classes of {name!r} are numbered in alphabetical order, from {names[0]!r} to {names[-1]!r}."
    made = replace(table, columns=columns, classes={**table.classes, name: tuple(names)})
    return made, [] if known else [note]


def _renumbered(table: Table, name: str, column: Numbers, known: Sequence[str], own: Sequence[str]) -> Table:
    number = {text: index for index, text in enumerate(known)}
    values = np.asarray(column.take(np.arange(len(column))))
    _check_known(table, {own[value] for value in np.unique(values) if 0 <= value < len(own)}, number)
    numbers = np.array([number.get(text, -1) for text in own])[values]
    classes = {**table.classes, name: tuple(known)}
    return replace(table, columns={**table.columns, name: Numbers(numbers)}, classes=classes)


def _check_known(table: Table, found: set[str], number: Mapping[str, int]) -> None:
    if strange := sorted(found - set(number)):
        raise NnoptError(
            f"{table.origin}: has the class {strange[0]!r}, which the other data do not have",
            suggest(strange[0], list(number)) or f"They have: {', '.join(list(number)[:10])}.",
        )


def target_values(table: Table, target: Feature, rows: Rows) -> Array:
    """The targets of `rows`: one number each, or one array each."""
    parts = []
    for name in target.columns:
        column = table.columns[name]
        if not isinstance(column, Numbers):
            raise UsageError(
                f"--y: the column {name!r} holds {column.kind}, and a target is numbers or class names",
                _listed(table.columns),
            )
        parts.append(np.asarray(column.take(rows)))
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)
