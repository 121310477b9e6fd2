"""`TensorFilter`: `--include` and `--exclude`, for every component that works on some of the tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from nnopt_cli.plugin.component import option

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.model.naming import Selection


class TensorFilter(BaseModel):
    """Mix this into a pass: `class Clip(TensorFilter, Pass)`. The two flags mean the same everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    include: tuple[str, ...] = option(
        (), help="Only tensors whose name matches this pattern.", metavar="GLOB"
    )
    exclude: tuple[str, ...] = option((), help="Leave out tensors whose name matches.", metavar="GLOB")

    def select(self, model: Model) -> Selection:
        """The tensors of `model` to work on, and why each other one is left out.

        Raises UsageError, with close matches, for a pattern that matches nothing.
        """
        from nnopt_cli.model.naming import select

        return select(model, self.include, self.exclude)
