"""From a source to batches: columns, rows, what is done to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nnopt_cli.data.assembly import Assembly
from nnopt_cli.data.augment import Augment, Normalize
from nnopt_cli.data.batching import Batches
from nnopt_cli.data.expected import Expected
from nnopt_cli.data.fields import choose, encoded, target_values
from nnopt_cli.data.images import Skipped
from nnopt_cli.data.order import limited, row_range, split
from nnopt_cli.data.source import Source, Stream
from nnopt_cli.data.table import Array, Table
from nnopt_cli.errors import NnoptError, UsageError

_LOOK = 4096  # targets that are looked at where all of them would take long


@dataclass(frozen=True)
class Wanted:
    """What was asked for, parsed (see `DataOptions` for what each means)."""

    x: tuple[str, ...] = ()
    y: str | None = None
    resize: tuple[int, ...] = ()
    crop: tuple[int, int] | None = None
    normalize: Normalize | None = None
    augment: Augment = field(default_factory=Augment)
    rows: str | None = None
    limit: int | None = None
    seed: int = 0
    split_seed: int = 0
    batch_size: int = 128
    workers: int = 0
    strict: bool = False


def opened(
    source: Source,
    expected: Expected | None = None,
    wanted: Wanted | None = None,
    notes: list[str] | None = None,
    classes: Sequence[str] = (),
) -> Batches:
    """Batches over all the rows that were asked for, in order, not augmented.

    Args:
        source: the data.
        expected: what the model takes.
        wanted: what was asked for.
        notes: sentences on what was decided are added to it.
        classes: the classes of other data, whose numbers these shall have.

    Raises UsageError where an option does not fit.
    """
    expected, wanted = expected or Expected(), wanted or Wanted()
    notes = [] if notes is None else notes
    assembly = Assembly(
        expected=expected,
        target=wanted.y or "",
        resize=wanted.resize,
        crop=wanted.crop,
        normalize=wanted.normalize,
        augment=wanted.augment,
        skipped=Skipped(wanted.strict),
    )
    made = Batches(source, assembly, batch_size=wanted.batch_size, seed=wanted.seed, workers=wanted.workers)
    if isinstance(source, Stream):
        if wanted.rows:
            raise UsageError("--rows: the data come as a stream, which has no row numbers", "Use --limit.")
        return replace(made, limit=wanted.limit)
    if not len(source):
        raise NnoptError(f"{source.origin}: there is no data", "It has no rows.")
    if isinstance(source, Table):
        fields, said = choose(source, expected, wanted.x, wanted.y)
        source, more = encoded(source, fields.target, classes)
        notes += [*said, *more]
        made = replace(made, source=source, assembly=replace(assembly, fields=fields, target=""))
    rows = np.arange(len(source), dtype=np.int64)
    if wanted.rows:
        rows = row_range(wanted.rows, len(source))
    return replace(made, rows=limited(rows, wanted.limit, wanted.split_seed))


def held_out(made: Batches, share: float, seed: int, labels: Array | None) -> tuple[Batches, Batches]:
    """The batches without `share` of their rows, and those rows; see `order.split`."""
    if made.rows is None:
        raise UsageError("--val-split: the data come as a stream, which cannot be split", "Give --val.")
    train, val = split(made.rows, labels, share, seed)
    return replace(made, rows=train, pixels={}), replace(made, rows=val, pixels={})


def targets_of(made: Batches) -> tuple[Array | None, bool]:
    """Targets of a table's rows, and whether these are all of them; None where code makes the samples."""
    if not isinstance(made.source, Table) or made.rows is None or made.assembly.fields is None:
        return None, False
    target = made.assembly.fields.target
    first = target_values(made.source, target, made.rows[:1])
    small = first.size <= 64
    rows = made.rows if small else made.rows[:_LOOK]
    return target_values(made.source, target, rows), small


def class_names(made: Batches) -> tuple[str, ...]:
    """The names of the classes, where the data know them."""
    if isinstance(made.source, Table) and made.assembly.fields is not None:
        columns: Sequence[str] = made.assembly.fields.target.columns
        return made.source.classes.get(columns[0], ()) if len(columns) == 1 else tuple(columns)
    return ()
