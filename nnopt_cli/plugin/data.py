"""`DataOptions`: which data, how they are read, and what is measured on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.kinds import Dataset, Loss, Metric

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli.data import Data, Task
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.registry import Registry
    from nnopt_cli.run import Run


class DataOptions(BaseModel):
    """Mix this into a pass that takes data: `class Tune(DataOptions, Pass)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    panel: ClassVar[str] = "Data"

    data: Dataset | None = option(
        None,
        help="The data: a Parquet file or folder, a folder of class/image.jpg, .npz, .safetensors, .pt or "
        ".csv, PATH.py:NAME or package.module:NAME (your code, which is run), or digits.",
        metavar="DATA",
    )
    val: Dataset | None = option(
        None, help="Other data, on which metrics are taken; nothing is learnt from them.", metavar="DATA"
    )
    val_split: float | None = option(
        None, help="Hold out this share of --data instead of --val; classes keep their shares.", gt=0, lt=1
    )
    split_seed: int = option(0, help="What --val-split and --limit draw by.", ge=0)
    rows: str | None = option(None, help="Only these rows of --data: 0:2000, 2000:.", metavar="A:B")
    limit: int | None = option(None, help="At most so many rows of --data, drawn at random.", ge=1)
    x: tuple[str, ...] = option(
        (),
        help="Which column is the model's input; NAME=COLUMN passes it by name, COLUMN,COLUMN makes a vector "
        "of several. Once for each input.",
        metavar="COLUMN",
    )
    y: str | None = option(
        None, help="Which column is the target; COLUMN,COLUMN for several.", metavar="COLUMN"
    )
    resize: str | None = option(
        None,
        help="Resize images: the shorter side, or HEIGHTxWIDTH.",
        metavar="SIZE",
    )
    crop: str | None = option(None, help="Cut this out of the middle of images.", metavar="SIZE")
    normalize: str | None = option(
        None,
        help="Mean and standard deviation of the channels, after division by 255: imagenet, cifar10, "
        "or MEAN/STD such as 0.5/0.25.",
        metavar="STATISTICS",
    )
    augment: str = option(
        "", help="Change training images at random: flip, crop[=PIXELS], mixup[=ALPHA].", metavar="LIST"
    )
    batch_size: int | None = option(
        None, help="Samples in a batch; by default 128, or what the model was made for.", ge=1
    )
    workers: int | None = option(
        None, help="Threads that read ahead (processes, where your code makes the samples).", ge=0
    )
    strict: bool = option(
        False, help="Stop at the first image that cannot be read, instead of leaving it out."
    )
    task: Literal["auto", "classification", "regression", "multi-label"] = option(
        "auto", help="What is to be learnt; by default it follows from targets and outputs."
    )
    loss: Loss | None = option(None, help="The loss; by default the usual one for the task.")
    metric: Metric | None = option(
        None, help="The metric that decides; by default the usual one for the task."
    )

    @field_validator("data", "val", mode="before")
    @classmethod
    def _code(cls, value: object) -> object:
        """`code:` may stand before a function that makes data, too, which is no component."""
        return value.removeprefix("code:") if isinstance(value, str) and value.count(":") == 2 else value

    @field_validator("resize", "crop")
    @classmethod
    def _size(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", text):
            raise ValueError("must be a number of pixels, or HEIGHTxWIDTH")
        return text

    @field_validator("normalize")
    @classmethod
    def _statistics(cls, text: str | None) -> str | None:
        from nnopt_cli.data.augment import Normalize

        if text is not None:
            _as_value_error(Normalize.parse, text)
        return text

    @field_validator("augment")
    @classmethod
    def _changes(cls, text: str) -> str:
        from nnopt_cli.data.augment import Augment

        _as_value_error(Augment.parse, text)
        return text

    def open(
        self, run: Run, model: Model, *, module: nn.Module | None = None, training: bool = False
    ) -> Data:
        """Open the data for `model`, and check on a first batch that they fit it.

        Args:
            run: device, seed, components; what was decided is noted there.
            model: on the module or graph rung; a first batch goes through it.
            module: what `model.module()` gave, where that was asked for already.
            training: whether the model will learn from the data, so that every class should have samples.

        Raises:
            NnoptError: there is no data, or data and model do not fit, with what the model expects.
            UsageError: no `--data`, or an option that does not fit the data.
        """
        from nnopt_cli.plugin.data_opening import open_data

        return open_data(self, run, model, module, training)


def _as_value_error(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        parse(text)
    except UsageError as error:
        said = re.sub(r"^--\w+ '.*?': ", "", error.message)
        raise ValueError(f"{said}. {error.hint}" if error.hint else said) from None


def installed(run: Run) -> Registry:
    """The components of this run, else those that are installed."""
    if run.registry is not None:
        return run.registry
    import os

    from nnopt_cli.plugin.manager import Wanted, load_plugins

    return load_plugins(Wanted.read(os.environ))


def losses(registry: Registry, task: str) -> Loss:
    """The usual loss for a task. Raises NnoptError where no plugin provides one."""
    for cls in registry.all("loss"):
        if issubclass(cls, Loss) and task in cls.default_for:
            return cls()
    raise NnoptError(f"no plugin provides a loss for {task}", "Give one with --loss.")


def metrics(registry: Registry, task: Task) -> list[Metric]:
    """All metrics for a task that need no options, the usual one first."""
    found = [cls for cls in registry.all("metric") if issubclass(cls, Metric)]
    ready = [cls() for cls in found if not any(info.is_required() for info in cls.model_fields.values())]
    fitting = [metric for metric in ready if metric.fits(task)]
    return sorted(fitting, key=lambda metric: task.kind not in metric.default_for)
