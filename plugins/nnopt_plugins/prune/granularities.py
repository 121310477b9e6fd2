"""Granularities: what is removed at once."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from nnopt_cli import Grouping, Pattern, option

if TYPE_CHECKING:
    import numpy as np

    from nnopt_cli import Array


class WeightGranularity(Grouping):
    """Each weight on its own."""

    name: ClassVar[str] = "weight"

    def unit(self, shape: tuple[int, ...]) -> int:
        return 1

    def gather(self, op: np.ufunc, values: Array, shape: tuple[int, ...]) -> Array:
        return values

    def spread(self, groups: Array, shape: tuple[int, ...], count: int) -> Array:
        return groups


class Block(Grouping):
    """Blocks of rows x columns of the matrix [out, in * kernel], short `4x4`.

    A block's score is the mean of its weights' scores, summed in float64 down each column, then along
    the row. Blocks at the right and bottom edges may be smaller; they compete by their mean like the others.
    """

    rows: int = option(4, help="Rows (outputs) of a block.", ge=1)
    columns: int = option(4, help="Columns (inputs) of a block.", ge=1)

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        found = re.fullmatch(r"(\d{1,40})x(\d{1,40})", text)
        return cls(rows=int(found[1]), columns=int(found[2])) if found else None

    def spec(self) -> str:
        return f"{self.rows}x{self.columns}"

    def table(self) -> dict[str, Any]:
        return {"name": self.name, "rows": self.rows, "columns": self.columns}  # a record names them always

    def unit(self, shape: tuple[int, ...]) -> int:
        return self._size(shape)[0] * math.prod(shape[1:])

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of a block, cut down to the matrix where it is larger."""
        return min(self.rows, max(1, shape[0])), min(self.columns, max(1, math.prod(shape[1:])))

    def gather(self, op: np.ufunc, values: Array, shape: tuple[int, ...]) -> Array:
        from nnopt_plugins.prune.blocks import fold

        return fold(op, values, math.prod(shape[1:]), *self._size(shape))

    def spread(self, groups: Array, shape: tuple[int, ...], count: int) -> Array:
        from nnopt_plugins.prune.blocks import unfold

        return unfold(groups, count, math.prod(shape[1:]), *self._size(shape))

    def remark(self, shape: tuple[int, ...]) -> str:
        rows, columns = (
            n % k for n, k in zip((shape[0], math.prod(shape[1:])), self._size(shape), strict=True)
        )
        return "smaller blocks at its edges" if rows or columns else ""


class NM(Pattern):
    """Keep N of every M consecutive weights along the input dimension, short `2:4`.

    That is dimension 1: along the rows of a linear map; of a convolution along its input channels, at
    each kernel position. This is the layout that sparse tensor cores take (2:4; Mishra et al.,
    arXiv:2104.08378). What M leaves over at the end of the dimension stays dense.
    """

    name: ClassVar[str] = "nm"
    n: int = option(2, help="Weights kept of every M.", ge=1)
    m: int = option(4, help="Consecutive weights in a group.", ge=2, le=1 << 15)

    @model_validator(mode="after")
    def _keeps_some(self) -> Self:
        if self.n >= self.m:
            raise ValueError("N:M keeps N of every M consecutive weights, so N must be less than M")
        return self

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        found = re.fullmatch(r"(\d{1,40}):(\d{1,40})", text)
        return cls(n=int(found[1]), m=int(found[2])) if found else None

    def spec(self) -> str:
        return f"{self.n}:{self.m}"

    def table(self) -> dict[str, Any]:
        return {"name": self.name, "n": self.n, "m": self.m}  # a record names them always

    def unit(self, shape: tuple[int, ...]) -> int:
        kernel, inputs = math.prod(shape[2:]), shape[1]
        return self.m if kernel == 1 and inputs % self.m == 0 else inputs * kernel

    def keep(self, keys: Array, shape: tuple[int, ...]) -> Array:
        from nnopt_plugins.prune.nm import keep_along_inputs

        return keep_along_inputs(keys, self.n, self.m, shape[1], math.prod(shape[2:]))

    def remark(self, shape: tuple[int, ...]) -> str:
        rest = shape[1] % self.m
        return f"{rest} of {shape[1]} inputs left dense" if rest else ""
