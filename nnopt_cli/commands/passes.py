"""Every pass as a command: load, run, save, report."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import PASSES, Arg, CommandSpec, Context
from nnopt_cli.errors import GATE_MISSED, NnoptError
from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.kinds import Pass
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, OutputOptions

if TYPE_CHECKING:
    from nnopt_cli.model.io import Saved
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.registry import Registry

_SUFFIX = re.compile(r"(\.[A-Za-z]\w*)?\.tar$|\.[A-Za-z]\w*$")  # also `.pth.tar`; not the `.5` of `net-1.5`


def pass_commands(registry: Registry) -> list[CommandSpec]:
    """A command for each pass, by name."""
    found = [cls for cls in registry.all("pass") if issubclass(cls, Pass)]
    return [_command(cls) for cls in sorted(found, key=lambda cls: cls.name)]


def _command(cls: type[Pass]) -> CommandSpec:
    return CommandSpec(
        name=cls.name,
        help=cls.__dict__.get("__doc__") or f"Run the pass {cls.name}.",
        panel=PASSES,
        arguments=(Arg("model", "The model: a checkpoint, a safetensors file, a folder of shards, a .pt2."),),
        options=(cls, ModelOptions, OutputOptions, ComputeOptions),
        body=partial(run_pass, cls),
    )


def run_pass(cls: type[Pass], context: Context) -> int:
    """Run one pass on one file, and report what it did."""
    from nnopt_cli.model.io import save
    from nnopt_cli.plugin.opening import open_model
    from nnopt_cli.report.build import build
    from nnopt_cli.report.console import render

    start = time.perf_counter()
    method, run, out = context[cls], context.run, context[OutputOptions]
    before = open_model(context.path("model"), context[ModelOptions], context.registry)
    before.require(cls.needs)
    path = out.output or default_output(before.path, cls.suffix or cls.name)
    if not out.dry_run and (out.output or before.rung != "graph"):  # on the graph the suffix may yet change
        check_output(path, out.force)
    if path.suffix.lower() == ".pt2" and before.graph is not None and before.graph.exported:
        # as the file will name tensors
        before = before.with_program(before.program(), structure_changed=False)
    with _blame(cls, context.registry):
        after = method.run(before, run)
        _check(cls, after)
        after, measured = _recorded(after, method, run.seed), None
        if after.structure_changed:
            measured = save(before, None, run=run)  # other tensors than the output's, so counted apart
            after = _made_from(after, before, measured)
            path = out.output or default_output(before.path, cls.suffix or cls.name, ".pt2")
        saved = save(after, None if out.dry_run else path, run=run, force=out.force, results=run.facts)
    record = build(
        command=cls.name,
        options=method.table(),
        settings=_said(method),
        before=before,
        after=after,
        saved=saved,
        run=run,
        seconds=time.perf_counter() - start,
        peak_bytes=peak_memory(),
        dry_run=out.dry_run,
        measured=measured,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, run.verbose))
    return GATE_MISSED if run.gate_missed else 0


def default_output(source: Path, word: str, suffix: str | None = None) -> Path:
    """Beside the input: `model.pt` and `pruned` give `model.pruned.pt`; a folder `X` gives `X.pruned`.

    `suffix` stands in place of the input's own.
    """
    source = source.resolve() if source.name in ("", "..") else source
    found = None if source.is_dir() else _SUFFIX.search(source.name)
    stem, own = (source.name[: found.start()], found[0]) if found else (source.name, "")
    suffix = own if suffix is None else suffix
    return source.with_name(".".join(filter(None, (stem or source.name, word))) + (suffix if stem else ""))


def check_output(path: Path, force: bool) -> None:
    """Refuse an output that exists before the pass works for it; `save` checks the rest."""
    from nnopt_cli.formats.target import exists

    empty = path.is_dir() and not any(path.iterdir())
    if (path.exists() or path.is_symlink()) and not force and not empty:
        raise exists(path)


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    import resource

    status = Path("/proc/self/status")
    if status.exists() and (line := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(line[1]) * 1024  # of this program; getrusage also counts what ran here before exec
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _recorded(model: Model, method: Pass, seed: int) -> Model:
    from dataclasses import replace

    options = {key: value for key, value in method.table().items() if key != "name"}
    step = {"pass": method.name, **options, **({"seed": seed} if seed else {})}
    return replace(model, provenance=model.provenance.then(step))


def _said(method: Pass) -> dict[str, Any]:
    """What the summary says of the options: its components in any case, of the rest what is no default."""
    table = method.table()
    values = {key: getattr(method, key) for key in method.options()}
    return {
        key: value.spec() if isinstance(value, Component) else table[key]
        for key, value in values.items()
        if isinstance(value, Component) or key in table
    }


def _made_from(model: Model, source: Model, measured: Saved) -> Model:
    """Name the input's weights in the record, where the output no longer holds them."""
    from dataclasses import replace

    inputs = source.provenance.inputs or ({"path": source.path.name, "sha256": measured.sha256},)
    return replace(model, provenance=replace(model.provenance, inputs=inputs))


def _check(cls: type[Pass], model: object) -> None:
    from nnopt_cli.model.model import Model

    if not isinstance(model, Model):
        raise NnoptError(f"the pass {cls.name!r} returned {type(model).__name__}, not a Model")


@contextmanager
def _blame(cls: type[Pass], registry: Registry) -> Iterator[None]:
    """Name the plugin in what it raises unexpectedly, so that the report reaches its author."""
    try:
        yield
    except SystemExit as error:
        raise NnoptError(f"the pass {cls.name!r} ended the program (exit {error.code!r})") from error
    except (NnoptError, OSError, MemoryError):
        raise
    except Exception as error:
        error.add_note(f"in the pass {cls.name!r} of plugin {registry.owner(cls)!r}")
        raise
