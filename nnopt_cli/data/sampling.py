"""A few samples of data as a model is fed them: to calibrate on, to compare on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli.data.batching import Batch
    from nnopt_cli.data.bundle import Data
    from nnopt_cli.model.inputs import InputSpec

HELD = 1 << 28  # bytes of inputs that are given at most


def spread(data: Data, samples: int, size: int = 32) -> Iterator[Batch]:
    """Rows of `--data` in small batches, as they are and evenly spread over all of them.

    Data that are sorted by class so still give all classes.

    Args:
        data: what was opened.
        samples: the most.
        size: of a batch, where the model does not fix it.
    """
    plain = data.plain
    expected = plain.assembly.expected
    if plain.rows is not None and len(plain.rows) > samples:
        places = np.linspace(0, len(plain.rows) - 1, samples).round().astype(np.int64)
        plain = replace(plain, rows=np.asarray(plain.rows)[places], pixels={})
    size = expected.batch or min(size, plain.batch_size)
    seen = held = 0
    for batch in replace(plain, batch_size=size, drop_last=expected.batch is not None, keep=False):
        held += sum(value.nbytes for value in (*batch.args, *batch.kwargs.values()))
        if seen >= samples or (seen and held > HELD):
            return
        seen += batch.size
        yield expected.fed(batch)


def named_inputs(batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
    """A batch's inputs by the names of a graph's; those passed by position come first, in order."""
    rest = [name for name in names if name not in batch.kwargs]
    return {**dict(zip(rest, batch.args, strict=False)), **batch.kwargs}


def real_inputs(data: Data, spec: InputSpec) -> list[list[Any]]:
    """Two different groups of real inputs of one size, in the order of `spec`; none of too few."""
    names = [each.name for each in spec.inputs]
    fixed = data.plain.assembly.expected.batch
    found = [named_inputs(b, names) for b in spread(data, 2 * (fixed or 64), fixed or 64)]
    if len(found) == 1 and fixed is None and len(found[0][names[0]]) > 1:
        half = len(found[0][names[0]]) // 2
        found = [{n: v[i * half : (i + 1) * half] for n, v in found[0].items()} for i in (0, 1)]
    if len(found) < 2:
        return []
    least = min(len(each[names[0]]) for each in found[:2])
    return [[each[name][:least].contiguous() for name in names] for each in found[:2]]
