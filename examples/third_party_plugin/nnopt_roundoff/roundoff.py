"""The pass `roundoff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Model, Pass, Run, TensorFilter, option

if TYPE_CHECKING:
    from nnopt_cli import Array, ChunkEdit  # these two would import numpy

MANTISSA = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}  # stored bits


class Roundoff(TensorFilter, Pass):
    """Round weights to fewer mantissa bits, so that the file compresses better.

    Types and shapes stay; the dropped bits become zeros. Bits and relative error: each weight moves
    by at most 2^-(bits+1) of its size.

    Examples:
      nnopt roundoff model.pt --bits 6
      nnopt roundoff model.pt --bits 3 --exclude 'head.*'
    """

    suffix: ClassVar[str] = "rounded"

    bits: int = option(7, help="Mantissa bits to keep; bfloat16 has 7.", ge=0, le=52)

    def run(self, model: Model, run: Run) -> Model:
        """Put the edit on every chosen tensor; it is computed when the model is saved."""
        run.selection = self.select(model)
        edits: dict[str, ChunkEdit] = {}
        for name in run.selection.names:
            drop = MANTISSA[model.weights[name].dtype.name] - self.bits
            if drop > 0:
                edits[name] = Round(MANTISSA[model.weights[name].dtype.name], drop)
        run.note(f"Rounded {len(edits)} tensors to {self.bits} mantissa bits.")
        return model.edit(edits)


@dataclass(frozen=True)
class Round:
    """The edit of one chunk: round to nearest, ties to even, on the bit patterns.

    Attributes:
        mantissa: stored mantissa bits of the type.
        drop: how many of them become zero.
        unit: any number of elements may be done on their own.
    """

    mantissa: int
    drop: int
    unit: int = 1

    def __call__(self, words: Array, start: int) -> None:
        """Round `words` in place. NaN, infinities and what would round up to infinity keep their bits."""
        import numpy as np

        bits = words.view(f"<u{words.itemsize}")  # the same memory, seen as integers
        one = bits.dtype.type(1)
        low = (one << bits.dtype.type(self.drop)) - one
        even = (bits >> bits.dtype.type(self.drop)) & one
        rounded = (bits + (low >> one) + even) & ~low
        exponent = bits.dtype.type((1 << (8 * words.itemsize - 1)) - (1 << self.mantissa))
        np.copyto(bits, rounded, where=(rounded & exponent) != exponent)
