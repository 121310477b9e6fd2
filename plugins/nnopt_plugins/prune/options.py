"""The options of `prune` that only graphs understand."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from nnopt_cli import UsageError, option


class StructureBudget(BaseModel):
    """How much of a graph goes, other than by `--sparsity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: float | None = option(
        None, help="On a graph: the fraction of parameters to keep.", metavar="FRACTION", gt=0, le=1
    )
    macs: float | None = option(
        None, help="On a graph: the fraction of multiply-accumulates to keep.", metavar="FRACTION", gt=0, le=1
    )
    speedup: str | None = option(
        None,
        help="On a graph: how many times faster to become, measured on this machine, such as 2x.",
        metavar="FACTOR",
        pattern=r"^\d+(\.\d+)?x?$",
    )
    max_drop: str | None = option(
        None,
        help="On a graph, with --data: remove as much as lowers the metric by no more than this: 1%, 0.01.",
        metavar="DROP",
        pattern=r"^(\d+(\.\d+)?%|0?\.\d+|0)$",
    )
    keep_best: bool = option(
        False,
        help="Where --max-drop cannot be met: write what comes nearest to it (exit code 4 all the same).",
    )
    allocate: Literal["even", "sensitivity"] = option(
        "even",
        help="How what goes is spread over the layers: the same share of each, or, with --data, so that each "
        "pruned alone would lower the metric equally.",
    )
    latency: bool = option(
        False, help="On a graph: measure latency before and after, one sample on one thread in ONNX Runtime."
    )
    round_to: int = option(1, help="On a graph: keep multiples of this many channels.", ge=1)
    steps: int = option(
        1, help="On a graph: reach the budget in this many cuts, scored anew each time.", ge=1
    )

    def allowed_drop(self) -> float:
        """`--max-drop` as a number."""
        text = self.max_drop or "0"
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)

    def check_unused(self, granularity: str) -> None:
        """Raise UsageError where one of these is given for a granularity that is not a graph's."""
        given = [name for name in StructureBudget.model_fields if name in self.model_fields_set]
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise UsageError(
                f"{flag} does not go with --granularity {granularity}",
                f"{flag} is for --granularity channel, head or layer.",
            )
