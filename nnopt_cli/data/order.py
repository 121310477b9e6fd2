"""In which order rows come, and which rows are used: ranges, limits, splits, shards."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from nnopt_cli.data.table import Array, Rows
from nnopt_cli.errors import NnoptError, UsageError

WINDOW = 20_000  # rows of neighbouring blocks that are mixed with each other


def ordered(rows: Rows, blocks: Sequence[int] = (), seeds: tuple[int, ...] | None = None) -> Rows:
    """The rows in the order of one epoch.

    Args:
        rows: row numbers.
        blocks: first row of every block that should be read together; then whole blocks are shuffled, and
            rows within groups of blocks, so that only few blocks are in use at a time.
        seeds: what the order follows from; None leaves the rows as they are.
    """
    if seeds is None:
        return rows
    draw = np.random.default_rng(seeds)
    if len(blocks) < 2:
        return rows[draw.permutation(len(rows))]
    inside = np.split(np.sort(rows), np.searchsorted(np.sort(rows), np.asarray(blocks[1:])))
    parts = [inside[i] for i in draw.permutation(len(inside)) if len(inside[i])]
    out, group, held = [], [], 0
    for part in parts:
        group.append(part)
        held += len(part)
        if held >= WINDOW:
            out.append(draw.permutation(np.concatenate(group)))
            group, held = [], 0
    if group:
        out.append(draw.permutation(np.concatenate(group)))
    return np.concatenate(out) if out else rows


def row_range(text: str, count: int) -> Rows:
    """The rows of `A:B`, counted from 0, B not among them; negative ones count from the end.

    Raises UsageError: it is not of that form, or names no row.
    """
    found = re.fullmatch(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*", text)
    if not found:
        raise UsageError(
            f"--rows {text!r}: is not A:B", "For example :2000 for the first, 2000: for the rest."
        )
    start, stop = (int(part) if part else None for part in found.groups())
    rows = np.arange(count, dtype=np.int64)[start:stop]
    if not len(rows):
        raise UsageError(f"--rows {text!r}: the data has {count:,} rows, and none of them is in that range")
    return rows


def limited(rows: Rows, limit: int | None, seed: int) -> Rows:
    """At most `limit` of the rows, drawn at random and left in their order."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(np.random.default_rng([seed, 2]).choice(rows, limit, replace=False))


def split(rows: Rows, labels: Array | None, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two parts of the rows, the second `share` of them, drawn at random; classes keep their shares.

    Args:
        rows: row numbers.
        labels: the class of each of the rows, or None where there are no classes.
        share: between 0 and 1.
        seed: what the draw follows from.

    Raises NnoptError: a part would be empty, or lack a class.
    """
    try:
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
    except ImportError as error:
        from nnopt_cli.data.images import missing_extra

        raise missing_extra("--val-split", "scikit-learn") from error
    held = round(share * len(rows))
    if not 0 < held < len(rows):
        raise NnoptError(
            f"--val-split {share}: of {len(rows)} rows that leaves {len(rows) - held} and {held}",
            "Use a larger share, more data, or give --val.",
        )
    if labels is not None:
        numbers, counts = np.unique(labels, return_counts=True)
        if counts.min() < 2:
            raise NnoptError(
                f"--val-split: class {numbers[counts.argmin()]} has one sample, which cannot be in both",
                "Leave that class out, add samples, or give --val.",
            )
        if min(held, len(rows) - held) < len(numbers):
            raise NnoptError(
                f"--val-split {share}: a part of {min(held, len(rows) - held)} rows cannot hold "
                f"{len(numbers)} classes",
                "Use a larger share, more data, or give --val.",
            )
    train, val = train_test_split(rows, test_size=held, random_state=seed % 2**32, stratify=labels)
    return np.sort(train), np.sort(val)
