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
    blake3: str  # of its weights, the same for every container format


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


class Histogram(Row):
    """How the values of one tensor are spread, before and after on the same equal bins; zeros are in none."""

    name: str
    low: float  # edges of the first and the last bin, which also hold what is farther out
    high: float
    before: list[int]  # counts; empty where there is no such side
    after: list[int]
    zeros_before: float | None  # fraction of the elements that were looked at
    zeros_after: float | None
    sampled: bool  # whether that was an even sample of them


class LayerMacs(Row):
    """Multiply-accumulates of one layer for one sample; None where a side does not have it."""

    layer: str
    before: int | None
    after: int | None


class EpochRow(Row):
    """One epoch of a training."""

    epoch: int
    steps: int  # optimizer steps so far
    loss: float  # mean over the training samples as they came, penalties included
    lr: float  # of the epoch's last step
    val_loss: float | None = None  # on the data that are watched
    metric: float | None = None


class GradientRow(Row):
    """The gradient of one weight: root mean square over its elements and the steps that were looked at."""

    name: str
    rms: float
    verdict: str = ""  # `vanishing`, `exploding`, `none` where no gradient arrives


class Trained(Row):
    """What a training came to; pairs are before and after."""

    epochs: list[EpochRow]
    losses: list[float]  # means of equal stretches of steps, the last one perhaps shorter
    steps: int
    samples: int
    metric_name: str
    larger_is_better: bool
    dense: float | None = None  # the metric before pruning, as the input's own record has it
    before: float
    after: float
    train: float  # the same metric on training rows, not augmented
    loss: tuple[float, float]  # on the reported data
    reported_on: str  # what these data are
    reported_samples: int
    chosen_on: int = 0  # samples that chose the epoch; 0 where nothing was chosen
    best_epoch: int | None = None  # 0 is before training
    kept: str  # `best` or `last`
    stopped: str = ""  # why before the last epoch
    zeros_kept: int = 0
    gradients: list[GradientRow] = []
    samples_per_second: float | None = None

    @property
    def gap(self) -> float:
        """How much better the metric is on training rows than on the reported ones."""
        return self.train - self.after if self.larger_is_better else self.after - self.train


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
    training: Trained | None = None
    histograms: list[Histogram] = []  # for a report only
    layer_macs: list[LayerMacs] = []  # for a report only, of models with a graph
    seconds: float
    peak_bytes: int  # of resident memory, whole process and its helpers
    device: str
    version: str
