"""Passes in a row over one model: one load, one save, one record."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.errors import ComponentError, UsageError
from nnopt_cli.plugin.blame import blaming
from nnopt_cli.plugin.kinds import Pass

if TYPE_CHECKING:
    from nnopt_cli.commands.work import Workshop
    from nnopt_cli.model.io import Saved
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.options import ModelOptions
    from nnopt_cli.plugin.registry import Registry
    from nnopt_cli.run import Run

_SUFFIX = re.compile(r"(\.[A-Za-z]\w*)?\.tar$|\.[A-Za-z]\w*$")  # also `.pth.tar`; not the `.5` of `net-1.5`


@dataclass(frozen=True)
class Link:
    """One pass of a chain, and the seed of what is random in it."""

    method: Pass
    seed: int


@dataclass(frozen=True)
class Order:
    """What is to be done.

    Attributes:
        source: the model's file; None for a new one, as `reading.arch` builds it.
        reading: how it is read.
        links: the passes, in order.
        output: where the result goes; None for the usual place beside the input.
        force: replace an output that exists.
        dry_run: write nothing.
        tag: a word at the end of the usual output's name.
        like: the file whose kind the result takes, where that is not the output's.
        nowhere: with `dry_run`, that there is no place for the result that would have to be free.
        model: the model itself, where it is in no file.
    """

    source: Path | None
    reading: ModelOptions
    links: Sequence[Link]
    output: Path | None = None
    force: bool = False
    dry_run: bool = False
    tag: str = ""
    like: Path | None = None
    nowhere: bool = False
    model: Model | None = None

    @property
    def words(self) -> str:
        """What the output's name says: as if the passes had been run one by one."""
        names = [link.method.suffix or link.method.name for link in self.links]
        return ".".join([*names, self.tag] if self.tag else names)


@dataclass
class Step:
    """What one pass left behind."""

    link: Link
    seconds: float
    notes: list[str]
    facts: dict[str, object]
    gate_missed: bool = False
    resumed: bool = False


@dataclass
class Chained:
    """What a chain came to: the model before and after it, what was saved, and each step."""

    before: Model
    after: Model
    saved: Saved
    measured: Saved | None
    steps: list[Step] = field(default_factory=list)


def run_chain(order: Order, run: Run, registry: Registry, work: Workshop | None = None) -> Chained:
    """Load, run every pass, save once. Notes and facts of the passes end up in `run`.

    Raises NnoptError: the input, the output or a pass; nothing half-written is left.
    """
    from nnopt_cli.model.io import check_place, save

    before = _opened(order, registry)
    path = order.output or default_output(before.path, order.words)
    reshapes = any(link.method.reshapes for link in order.links)
    order.links[0].method.check(before)
    fixed = order.output or before.rung != "graph" or not reshapes  # else the suffix may yet change
    if fixed and not order.nowhere:
        check_place(before, path, force=order.force)
    run.output = None if order.dry_run else path
    kind = (order.like or path).suffix.lower()
    if kind == ".pt2" and before.graph is not None and before.graph.exported:
        # as the file will name tensors
        before = before.with_program(before.program(), structure_changed=False)
    after, steps = _passes(before, order, run, registry, work)
    run.gate_missed = run.gate_missed or any(step.gate_missed for step in steps)
    measured = None
    with blaming(registry, [link.method for link in order.links]):
        if after.structure_changed or _foreign(before, after):
            measured = save(before, None, run=run)  # other tensors than the output's, so counted apart
            after = _made_from(after, before, measured)
        if after.structure_changed or after.container.format == "pt2":
            path = order.output or default_output(before.path, order.words, ".pt2")
        if order.dry_run and not order.nowhere:
            check_place(after, path, force=order.force)
        target = None if order.dry_run else path
        saved = save(after, target, run=run, force=order.force, results=steps[-1].facts)
    for act in run.after:
        act()
    return Chained(before, after, saved, measured, steps)


def _opened(order: Order, registry: Registry) -> Model:
    """The model that the chain begins with. Raises NnoptError where it is not enough for a pass."""
    from nnopt_cli.model.training import untrained
    from nnopt_cli.plugin.opening import new_model, open_model

    if order.model is not None:
        model = order.model
    elif order.source is not None:
        model = open_model(order.source, order.reading, registry)
    elif order.output is None and not order.dry_run:
        raise UsageError("without a model file, -o has to say where the result goes", "Give -o, or a model.")
    else:
        model = untrained(*new_model(order.reading, registry))
    for link in order.links:
        model.require(link.method.needs)
    return model


def _passes(
    before: Model, order: Order, run: Run, registry: Registry, work: Workshop | None
) -> tuple[Model, list[Step]]:
    done, model = work.resume(before, order) if work else ([], before)
    for step in done:
        _gather(run, step)
    for number in range(len(done), len(order.links)):
        link = order.links[number]
        own = replace(run, seed=link.seed, notes=[], facts={}, selection=None, gate_missed=False)
        start = time.perf_counter()
        with blaming(registry, [link.method]):
            model = link.method.run(model, own)
            _check(link.method, model, own)
        model = _recorded(model, link)
        step = Step(link, time.perf_counter() - start, own.notes, own.facts, own.gate_missed)
        _gather(run, step)
        if len(order.links) == 1:
            run.selection = own.selection  # of several passes, each may work on other tensors
        done.append(step)
        if work:
            work.keep(number, model, step, run)
    return model, done


def _gather(run: Run, step: Step) -> None:
    """Put what a pass said into the state of the whole run."""
    from nnopt_cli.report.build import SHRUNK, shrunk_twice

    for note in step.notes:
        run.note(note)
    facts = dict(step.facts)
    if SHRUNK in facts and SHRUNK in run.facts:
        facts[SHRUNK] = shrunk_twice(run.facts[SHRUNK], facts[SHRUNK])
    run.facts.update(facts)


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


def _recorded(model: Model, link: Link) -> Model:
    options = {key: value for key, value in link.method.table().items() if key != "name"}
    step = {"pass": link.method.name, **options, **({"seed": link.seed} if link.seed else {})}
    return replace(model, provenance=model.provenance.then(step))


def _foreign(before: Model, after: Model) -> bool:
    """Whether `after` has tensors that are no edits of the input's, so that the writer cannot count both."""
    origins = {id(weight.origin) for weight in before.weights.values()}
    return any(id(weight.origin) not in origins for weight in after.weights.values())


def _made_from(model: Model, source: Model, measured: Saved) -> Model:
    """Name the input's weights in the record, where the output no longer holds them."""
    inputs = source.provenance.inputs or ({"path": source.path.name, "blake3": measured.blake3},)
    return replace(model, provenance=replace(model.provenance, inputs=inputs))


def _check(method: Pass, model: object, run: Run) -> None:
    """Refuse what a pass may not leave behind. Raises ComponentError."""
    from nnopt_cli.model.model import Model

    if not isinstance(model, Model):
        raise ComponentError(method, f"returned {type(model).__name__}, not a Model")
    for name, fact in run.facts.items():
        if not isinstance(name, str):
            raise ComponentError(method, f"gave run.facts the key {name!r}, which is not text")
        try:
            json.dumps(fact)
        except (TypeError, ValueError) as error:
            raise ComponentError(
                method,
                f"gave run.facts[{name!r}] what JSON cannot hold: {error}",
                "Use plain numbers and text.",
            ) from None
