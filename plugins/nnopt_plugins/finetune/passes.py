"""The pass `finetune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import DataOptions, Pass
from nnopt_plugins.finetune.options import Beginning, Choice, Computing, Recipe, Saving, Teaching

if TYPE_CHECKING:
    from nnopt_cli import Model, Run

PASSING = ("checkpoint_every", "checkpoint", "resume")  # what the result does not follow from


class Finetune(Recipe, Teaching, Beginning, Choice, Saving, Computing, DataOptions, Pass):
    """Train a model on data: to recover what pruning took, for a new task, or from scratch.

    Works on any network that --arch builds, and on a bare .pt2 without its source: norms and dropouts
    train, and the result is an inference graph again. Pruned weights stay zero. Ctrl-C saves, --resume
    goes on to the very same result.

    Examples:
      nnopt finetune pruned.pt2 --data train.parquet --val val.parquet --normalize imagenet --epochs 5
      nnopt finetune pruned.pt --arch net.py:build --data images/ --val-split 0.1 --teacher dense.pt2
      nnopt finetune --arch net.py:build --init he-normal --data digits -o fresh.pt
    """

    suffix: ClassVar[str] = "finetuned"
    needs: ClassVar[Any] = "module"
    reshapes: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = True
    on_gpu: ClassVar[bool] = True

    def run(self, model: Model, run: Run) -> Model:
        """See `Pass`."""
        from nnopt_plugins.finetune.session import train

        return train(self, model, run)

    def table(self) -> dict[str, Any]:
        """As a recipe writes it, without what only says how to get there."""
        return {key: value for key, value in super().table().items() if key not in PASSING}
