"""Metrics for classes, labels and values, from torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.metrics import classes, labels, values

    return [
        *(classes.Accuracy, classes.Top5, classes.F1, classes.NLL, classes.ECE),
        *(classes.Precision, classes.Recall, classes.ClassF1, classes.Confusion),
        *(
            labels.LabelF1,
            labels.LabelAccuracy,
            labels.ExactMatch,
            labels.AveragePrecision,
            labels.EachLabelF1,
        ),
        *(values.R2, values.MSE, values.MAE),
    ]
