"""Small models and saves made by hand, so that rendering is tested apart from files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.console import Console

from nnopt_cli import MemoryWeight, Model, Run
from nnopt_cli.formats.checkpoint import Container
from nnopt_cli.formats.tally import Tally
from nnopt_cli.model.io import Saved
from nnopt_cli.model.naming import select
from nnopt_cli.model.provenance import Provenance
from nnopt_cli.report.build import build
from nnopt_cli.report.record import Record

HOSTILE = (
    "block[/bold].w[/x]\x1b[2J\n\u202eevil.weight"  # markup, an escape sequence, a newline, a bidi override
)


def state_dict() -> dict[str, torch.Tensor]:
    """A network of 14 prunable layers with very long names, norms, statistics, and a hostile name."""
    torch.manual_seed(0)
    out = {}
    for i in range(13):
        stem = f"backbone.stages.{i % 3}.blocks.{i}.residual_branch.convolution_{i}"
        out[f"{stem}.weight"] = torch.randn(8, 4 + i, 3, 3)
        out[f"{stem}.bias"] = torch.randn(8)
        out[f"backbone.stages.{i % 3}.bn{i}.weight"] = torch.ones(8)
        out[f"backbone.stages.{i % 3}.bn{i}.running_mean"] = torch.randn(8)
        out[f"backbone.stages.{i % 3}.bn{i}.num_batches_tracked"] = torch.tensor(5)
    out[HOSTILE] = torch.randn(6, 6)
    out["embed_tokens.weight"] = torch.randn(30, 8)
    return out


def in_memory(tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str] | None = None) -> Model:
    """A model on the weights rung; `tied` maps further names to first ones."""
    weights = {name: MemoryWeight.of(name, tensor) for name, tensor in tensors.items()}
    weights |= {name: weights[first] for name, first in (tied or {}).items()}
    return Model(weights, Container(Path("nowhere.pt"), "torch", ()))


def pruned(tensors: Mapping[str, torch.Tensor], names: object, share: float = 0.5) -> dict[str, torch.Tensor]:
    """Each named tensor with its smallest weights set to zero, `share` of them, on average, in all."""
    assert isinstance(names, tuple)
    scores = torch.cat([tensors[name].double().abs().flatten() for name in names])
    bar = scores.sort().values[int(share * len(scores)) - 1]
    return {n: torch.where(t.double().abs() <= bar, 0, t) if n in names else t for n, t in tensors.items()}


def tallies(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> dict[str, Tally]:
    """What a writer would count, counted by torch."""
    out = {}
    for name, old in before.items():
        new = after[name]
        zeros = int((old == 0).sum()), int((new == 0).sum())
        size = old.numel() * old.element_size()
        out[name] = Tally(
            old.numel(), *zeros, not torch.equal(old, new), "00", size // 2, size // 4, size // 8
        )
    return out


def make_record(*, dry_run: bool = False, output: str = "out/nowhere.pruned.pt") -> Record:
    """The record of pruning half of `state_dict`."""
    tensors = state_dict()
    model = in_memory(tensors)
    run = Run(selection=select(model))
    run.note("Left the optimizer's state out: " + "its momentum would revive pruned weights. " * 3)
    run.facts["threshold"] = 0.67
    saved = Saved(
        None if dry_run else Path(output),
        1234,
        tallies(tensors, pruned(tensors, run.selection.names)),
        "ab",
        (),
        Provenance(),
    )
    return build(
        command="prune",
        options={"name": "prune", "sparsity": ["0.5", "backbone.*=0.8"], "scope": "global"},
        before=model,
        after=model,
        saved=saved,
        run=run,
        seconds=0.31,
        peak_bytes=57_000_000,
        dry_run=dry_run,
    )


def shown(
    render: Callable[[Console], None],
    width: int = 80,
    *,
    terminal: bool = True,
    colour: bool | None = None,
    encoding: str = "utf-8",
) -> str:
    """What `render` prints on a console of `width` cells.

    `colour`: True for a terminal with colours, False for one where NO_COLOR is set, None for plain text.
    """
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    system = None if colour is None or not terminal else "standard"
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal,
        color_system=system,
        no_color=colour is False,
        highlight=False,
        _environ={},
    )
    render(console)
    return raw.getvalue().decode(encoding)
