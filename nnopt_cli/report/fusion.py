"""What `nnopt ensemble` did, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.report.build import disk_bytes, is_parameter
from nnopt_cli.report.evaluation import Evaluated
from nnopt_cli.report.record import Row
from nnopt_cli.report.text import encodable

if TYPE_CHECKING:
    from nnopt_cli.model.io import Saved
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

EVIDENCE = "evidence"  # the fact by which a fusion that chooses says why: a list of sentences
LIKENESS = "likeness"  # the fact with the cosines of layers: rows like `Likeness`


class Member(Row):
    """One model that went in."""

    path: str
    format: str
    bytes: int  # on disk, all files
    parameters: int  # elements of floating tensors, without running statistics, tied ones once
    blake3: str  # of its weights, the same for every container format
    base: bool = False  # whether it is the ancestor, not a member


class Likeness(Row):
    """How alike the members are in one layer."""

    layer: str
    cosine: float  # of the angle between weights; the least of all pairs


class Fused(Row):
    """One ensemble."""

    command: str = "ensemble"
    method: str  # what was done
    asked: str  # what was asked for; `auto` where it was left to nnopt
    settings: list[str]
    evidence: list[str]  # why that method, where it was chosen
    likeness: list[Likeness]
    inputs: list[Member]
    output: str | None  # None after --dry-run
    dry_run: bool
    parameters: int
    bytes: int
    changed: int  # tensors that differ from the first member's; 0 where the structure changed
    tensors: int
    evaluated: Evaluated | None  # members, then the result, where there is data
    notes: list[str]
    facts: dict[str, Any]
    seconds: float
    peak_bytes: int  # of resident memory, whole process and its helpers
    device: str
    version: str


def fused_record(
    *,
    method: str,
    asked: str,
    settings: list[str],
    models: Sequence[Model],
    base: Model | None,
    fused: Model,
    saved: Saved,
    evaluated: Evaluated | None,
    run: Run,
    seconds: float,
    peak_bytes: int,
    dry_run: bool,
) -> Fused:
    """The record.

    Args:
        method: the fusion that was used, as the command line writes it.
        asked: the one that was asked for.
        settings: other options, as one reads them.
        models: what was read: the members, and the base.
        base: the ancestor, if there was one.
        fused: the result.
        saved: what saving it returned; its record has a hash for each of `models`.
        evaluated: the members and the result on data.
        run: its notes and facts.
        seconds: wall time of the whole command.
        peak_bytes: peak resident memory of the process.
        dry_run: whether nothing was written.
    """
    from nnopt_cli import __version__

    inputs = [
        Member(
            path=encodable(str(model.path)),
            format=model.container.format,
            bytes=disk_bytes(model.container.files),
            parameters=_parameters(model),
            blake3=str(source["blake3"]),
            base=model is base,
        )
        for model, source in zip(models, saved.provenance.inputs, strict=True)
    ]
    facts = dict(run.facts)
    evidence, likeness = facts.pop(EVIDENCE, []), facts.pop(LIKENESS, [])
    return Fused(
        method=method,
        asked=asked,
        settings=settings,
        evidence=evidence,
        likeness=likeness,
        inputs=inputs,
        output=None if dry_run or saved.path is None else str(saved.path),
        dry_run=dry_run,
        parameters=_parameters(fused),
        bytes=saved.bytes,
        changed=sum(tally.changed for tally in saved.tallies.values()),
        tensors=len(fused.unique()),
        evaluated=evaluated,
        notes=list(dict.fromkeys((*(n for m in models for n in m.notes), *run.notes, *saved.notes))),
        facts=facts,
        seconds=seconds,
        peak_bytes=peak_bytes,
        device=run.device,
        version=__version__,
    )


def _parameters(model: Model) -> int:
    return sum(weight.numel for name, weight in model.unique().items() if is_parameter(name, weight))
