"""`Exporter`: writes a model in a form that is deployed, and proves that it computes the same there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nnopt_cli.plugin.component import Component

if TYPE_CHECKING:
    from nnopt_cli.data import Data
    from nnopt_cli.graph import Parity
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run


@dataclass(frozen=True)
class Job:
    """What an exporter works with, beside the model.

    Attributes:
        run: threads, seed; `run.note(...)` says what the user should know.
        data: what `--data` names, opened for the model; None without.
        samples: how many samples of it calibration may see.
        tolerance: for the largest difference over the largest output; None for the exporter's own.
        strings: metadata that the file should carry: the model's record.
    """

    run: Run
    data: Data | None = None
    samples: int = 512
    tolerance: float | None = None
    strings: Mapping[str, str] = field(default_factory=dict)


class Exporter(Component, kind="exporter"):
    """Maps a model to an artifact; `nnopt export` runs the one that the output's suffix names.

    Its options become flags of `nnopt export`.

    Class attributes:
        suffixes: of the files that it writes, with the dot; an empty one stands for a folder.
        needs: the lowest rung that it works on.
        runs_in: what runs the artifact, for the summary: `PyTorch`, `ONNX Runtime`; empty if nothing does.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[Literal["weights", "module", "graph"]] = "weights"
    runs_in: ClassVar[str] = ""

    @property
    def needs_data(self) -> bool:
        """Whether it cannot work without `--data`."""
        return False

    @abstractmethod
    def export(self, model: Model, path: Path, job: Job) -> None:
        """Write `model` to `path`, a new file or folder; files beside it begin with its name.

        Raise `nnopt_cli.NnoptError` with what has no counterpart in this form.
        """

    @abstractmethod
    def verify(self, model: Model, path: Path, job: Job) -> Parity:
        """Read what `export` wrote, run it, and hold it against `model`. A `fault` in it rejects the file."""

    def opened(self, path: Path, job: Job) -> Callable[..., Any] | None:
        """What `export` wrote as something that is called like the model's module, to take metrics of it.

        None, the default, where nothing runs it.
        """
        return None
