"""The result record: what a command did, as data. The renderings (terminal, JSON) show nothing else."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict


class Row(BaseModel):
    """A table of a record: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Totals(Row):
    """A model's size on the weights rung; tied tensors are counted once."""

    parameters: int  # elements of floating tensors, without the running statistics of batch norms
    nonzeros: int  # of those
    prunable: int = 0  # of those, what the pass's rule lets it prune
    prunable_zeros: int = 0
    bytes: int  # on disk, all files
    compressed: int | None = None  # bytes of the tensors' data after deflate, estimated from a sample


class Input(Row):
    """One model that was read."""

    path: str
    format: str
    bytes: int  # on disk, all files
    sha256: str  # of its weights, the same for every container format


class TensorRow(Row):
    """One tensor before and after."""

    name: str
    dtype: str
    shape: list[int]
    prunable: bool
    reason: str = ""  # why it is not prunable
    zeros_before: int
    zeros_after: int
    changed: bool = False
    tied_to: str | None = None  # the first of its names, if this is a later one

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Fraction of its elements that are zero after the pass."""
        return self.zeros_after / self.numel if self.numel else 0.0


class Width(Row):
    """One group of coupled channels, heads or layers."""

    layer: str  # the first parameter whose rows they are
    before: int
    after: int


class Shrunk(Row):
    """What a change of structure did to the graph; pairs are before and after."""

    macs: tuple[int, int]  # multiply-accumulates of one sample
    activation_bytes: tuple[int, int]  # the most that results take at once, one sample
    latency: tuple[float, float] | None = None  # median seconds of one sample, where that was measured
    timed_in: str = ""  # what it was measured in
    metric: tuple[float, float] | None = None  # on --data
    metric_name: str = ""
    widths: list[Width] = []
    what: str = "channels"
    difference: float  # from the dense graph with the removed units masked out, over the largest output
    dtype: str = "float64"  # what that was computed in


class Record(Row):
    """One command's result."""

    command: str  # the pass's name
    options: dict[str, Any]  # the pass as a recipe table
    settings: list[str]  # the same as one reads it: `sparsity 0.5`, `granularity 2:4`
    inputs: list[Input]
    output: str | None  # None after --dry-run
    dry_run: bool = False
    before: Totals
    after: Totals
    rule: str  # how it was decided which weights are prunable
    tensors: list[TensorRow]
    notes: list[str]
    facts: dict[str, Any] = {}
    shrunk: Shrunk | None = None  # where the structure changed
    seconds: float
    peak_bytes: int  # of resident memory, whole process
    device: str
    version: str
