"""The options of `finetune`, in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from nnopt_cli import Dataset, Initializer, LearningRateSchedule, Optimizer, Regularizer, option
from nnopt_plugins.finetune.spans import INTERVAL, WARMUP
from nnopt_plugins.optimizers.moments import AdamW
from nnopt_plugins.schedules.curves import Cosine


class Recipe(BaseModel):
    """How weights are changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    epochs: int = option(3, help="Passes over the training data.", ge=1)
    optimizer: Optimizer = option(AdamW(), help="How weights follow their gradients.")
    lr: float | None = option(
        None, help="The learning rate; by default the optimizer's usual one.", gt=0, allow_inf_nan=False
    )
    schedule: LearningRateSchedule = option(
        Cosine(), help="What the learning rate is multiplied by in the course of training."
    )
    warmup: str = option(
        "0",
        help="First steps, in which the learning rate rises from nearly 0: 500, 5% of all, 1e for an epoch.",
        metavar="STEPS|%|EPOCHSe",
        pattern=WARMUP,
    )
    regularizer: tuple[Regularizer, ...] = option((), help="What keeps weights small, sparse or apart.")
    clip: float | None = option(
        None, help="Scale gradients so that their norm is at most this.", gt=0, allow_inf_nan=False
    )
    accumulate: int = option(1, help="Batches whose gradients make one step.", ge=1)
    keep_zeros: bool = option(
        True, help="Weights that are zero (pruned ones) stay exactly zero, whatever their pattern."
    )
    ema: float | None = option(
        None,
        help="Keep a moving average of the weights that forgets by this factor, such as 0.999.",
        gt=0,
        lt=1,
    )


class Teaching(BaseModel):
    """Learning from other models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: tuple[Path, ...] = option(
        (), help="A model whose answers are learnt, too: a .pt2, or weights of the same --arch."
    )
    temperature: float = option(
        4.0, help="Softens the answers of teachers and pupil.", gt=0, allow_inf_nan=False
    )
    teacher_weight: float = option(
        0.5, help="Share of the teachers in the loss; the rest is the targets'.", ge=0, le=1
    )


class Beginning(BaseModel):
    """What training starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    init: Initializer | None = option(
        None, help="Train from scratch: draw all weights anew. With --arch, no model file is needed."
    )
    reinit: tuple[str, ...] = option(
        (), help="Draw some weights anew: 'fc.*=he-normal'.", metavar="GLOB=INITIALIZER"
    )
    rewind: Path | None = option(
        None,
        help="Start from the weights in this checkpoint, with the zeros of the model (lottery tickets).",
    )


class Choice(BaseModel):
    """Which epoch is kept, and when training stops."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    keep: Literal["best", "last"] | None = option(
        None, help="Which epoch is the result; by default the best where there are validation data."
    )
    patience: int | None = option(
        None, help="Stop after so many epochs without a better validation metric.", ge=1
    )
    test: Dataset | None = option(
        None,
        help="Data on which the result is reported. Without them a fifth of the validation rows choose the "
        "epoch, and the others report.",
        metavar="DATA",
    )


class Saving(BaseModel):
    """Checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_every: str = option(
        "10m",
        help="How often a checkpoint is saved: 500 steps, 30s, 10m, 2h; 0 for only when interrupted.",
        metavar="STEPS|TIME",
        pattern=INTERVAL,
    )
    checkpoint: Path | None = option(
        None, help="Where; by default the output's name with .checkpoint, removed at the end."
    )
    resume: Path | None = option(
        None, help="Go on from a checkpoint, with the same model and options, to the same result."
    )


class Computing(BaseModel):
    """How it is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", help="Compute in 16 bits where that is safe; weights stay in 32."
    )
    channels_last: bool | None = option(
        None,
        help="Images with their channels last in memory; by default where the network computes the same so.",
    )
    compile: bool = option(False, help="Compile the network with torch.compile first.")
