"""Options that many commands share. Each is one model, composed into commands and never repeated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import option


class Options(BaseModel):
    """A group of flags. Fields are declared with `option(...)`; a trailing `_` in a name is dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    panel: ClassVar[str] = "Options"  # the box of `--help` that they stand in


class ReadOptions(Options):
    """How the model file is read."""

    panel = "Files"

    key: str | None = option(
        None, help="Which entry of a nested checkpoint holds the weights, where several do.", metavar="NAME"
    )


class ModelOptions(ReadOptions):
    """How the model file is read, and what its weights are computed with."""

    panel = "Model"

    arch: str | None = option(
        None,
        help="How the network is built: PATH.py:NAME or package.module:NAME (your code, which is run), "
        "timm:NAME, torchvision:NAME or hf:FOLDER.",
        metavar="SPEC",
    )
    arch_arg: tuple[str, ...] = option((), help="An argument of what --arch names.", metavar="NAME=VALUE")
    input: tuple[str, ...] = option(
        (),
        help="What the network is fed: 3x224x224 (a batch of images), float32[N,128], ids=int64[N,16]<30522. "
        "Names in the shape are sizes that may vary.",
        metavar="SHAPE",
    )
    operators: tuple[str, ...] = option(
        (),
        help="The graph in a .pt2 may call custom operators of this namespace; a package of that name is "
        "imported, if --arch does not define them.",
        metavar="NAMESPACE",
    )


class MemberOptions(ModelOptions):
    """The same for several models."""

    arch: tuple[str, ...] = option(  # type: ignore[assignment]
        (),
        help="How the networks are built: PATH.py:NAME or package.module:NAME (your code, which is run), "
        "timm:NAME, torchvision:NAME or hf:FOLDER. Once for all models, or once for each in their order.",
        metavar="SPEC",
    )

    def of(self, place: int, count: int) -> ModelOptions:
        """The options of the model at `place` of `count`. Raises UsageError for another number of --arch."""
        if len(self.arch) not in (0, 1, count):
            raise UsageError(
                f"--arch is given {len(self.arch)} times, and there are {count} models",
                "Give it once for all, or once for each in their order.",
            )
        shared = {name: getattr(self, name) for name in ModelOptions.model_fields if name != "arch"}
        arch = self.arch[place % len(self.arch)] if self.arch else None
        return ModelOptions(arch=arch, **shared)


class OutputOptions(Options):
    """What is written, and where."""

    panel = "Files"

    output: Path | None = option(
        None,
        help="Where to write; the suffix picks the format. By default beside the input.",
        short="-o",
        metavar="PATH",
    )
    force: bool = option(False, help="Replace the output if it exists.")
    dry_run: bool = option(False, help="Compute and report everything, write nothing.")


class RecipeOptions(Options):
    """The recipe that repeats what was typed."""

    panel = "Files"

    save_recipe: Path | None = option(
        None,
        help="Also write what was typed as a recipe for `nnopt run`: .yaml, .toml or .json.",
        metavar="FILE",
    )


class ReportOptions(Options):
    """The result as a page."""

    panel = "Files"

    report: Path | None = option(
        None,
        help="Also write the result as one HTML page with charts; an earlier report is replaced.",
        metavar="FILE.html",
    )


class ComputeOptions(Options):
    """What it is computed with."""

    panel = "General"

    device: str = option(
        "auto",
        help="auto, cpu, cuda, cuda:N or mps. On bare weights auto is the CPU: reading is what takes time.",
        metavar="DEVICE",
    )
    seed: int = option(0, help="Seed of everything random.", ge=0)
    threads: int | None = option(None, help="Threads on the CPU; by default one per core, at most 8.", ge=1)

    @field_validator("device")
    @classmethod
    def _known(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
            raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
        return device

    @field_validator("seed")
    @classmethod
    def _fits(cls, seed: int) -> int:
        if seed >= 2**63:
            raise ValueError("must be below 2**63")
        return seed


class CommonOptions(Options):
    """What every command understands."""

    panel = "General"

    json_: bool = option(False, help="Print one JSON document instead of a summary.")
    verbose: int = Field(
        0,
        description="Say more; -vv also shows the traceback of an error.",
        json_schema_extra={"short": "-v", "count": True},
    )
    quiet: bool = option(False, help="Say nothing but the result and errors.", short="-q")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.verbose and self.quiet:
            raise ValueError("-v and -q contradict each other")
        return self


SHARED: tuple[type[Options], ...] = (
    ModelOptions,
    OutputOptions,
    RecipeOptions,
    ReportOptions,
    ComputeOptions,
    CommonOptions,
)
