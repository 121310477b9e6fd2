"""Finished steps of a recipe, kept so that an interrupted run goes on behind the last of them.

A step's place is named by a hash of all that its result follows from: the input's weights, how they are
computed with, every step up to it, their seeds, the device, the files that they name, nnopt's version.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.chain import Step
from nnopt_cli.commands.saving import write_text
from nnopt_cli.errors import NnoptError
from nnopt_cli.plugin.component import plain

if TYPE_CHECKING:
    from nnopt_cli.commands.chain import Order
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.registry import Registry
    from nnopt_cli.run import Run

LONG = 10.0  # seconds; what takes less is done again rather than kept


class Workshop:
    """A folder of finished steps.

    Attributes:
        folder: where they are.
        kept: whether the user asked for it; then every step is kept, and none is removed at the end.
    """

    def __init__(self, folder: Path, run: Run, registry: Registry, *, kept: bool) -> None:
        if folder.exists() and not folder.is_dir():
            raise NnoptError(f"{folder}: is a file, and finished steps are kept in a folder")
        self.folder = folder
        self.kept = kept
        self._run = run
        self._registry = registry
        self._keys: list[str] = []
        self._resumed: list[Step] = []
        self._done: list[Step] = []  # of this process
        self._source_hash = ""

    def resume(self, before: Model, order: Order) -> tuple[list[Step], Model]:
        """The steps that are finished already, and the model as the last of them left it."""
        self._before, self._order = before, order
        if not self.folder.is_dir():
            return [], before
        keys = self._key_list()
        for number in range(len(keys) - 1, -1, -1):
            note, found = self.folder / f"{keys[number]}.json", self._file(keys[number])
            if found is None or not note.is_file():
                continue
            try:
                steps = self._steps(json.loads(note.read_text("utf-8")), number + 1)
                model = self._open(found)
            except (NnoptError, ValueError, KeyError, TypeError, OSError):
                continue  # half-written or of another version: the step is done again
            names = ", ".join(step.link.method.name for step in steps)
            self._run.note(f"Finished before, and taken from {self.folder}: {names}.")
            return steps, model
        return [], before

    def keep(self, number: int, model: Model, step: Step, run: Run) -> None:
        """Keep the model after a step, where doing it again would take long."""
        self._done.append(step)
        last = number == len(self._order.links) - 1
        if not self.kept and (step.seconds < LONG or last):
            return
        from nnopt_cli.model.io import save

        key = self._key_list()[number]
        self.folder.mkdir(parents=True, exist_ok=True)
        suffix = ".pt2" if model.structure_changed or model.container.format == "pt2" else ".pt"
        if model.provenance.inputs == ():
            source = {"path": self._before.path.name, "blake3": self._source_hash}
            model = replace(model, provenance=replace(model.provenance, inputs=(source,)))
        save(model, self.folder / f"{key}{suffix}", run=run, force=True)
        said = [
            {
                "pass": done.link.method.name,
                "seconds": done.seconds,
                "notes": done.notes,
                "facts": plain(done.facts),
                "gate_missed": done.gate_missed,
            }
            for done in (*self._resumed, *self._done)
        ]
        write_text(json.dumps(said), self.folder / f"{key}.json", force=True)

    def finished(self) -> None:
        """Remove what was kept only against an interruption."""
        if not self.kept and self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, key: str) -> Path | None:
        return next((p for end in (".pt2", ".pt") if (p := self.folder / f"{key}{end}").is_file()), None)

    def _steps(self, said: list[dict[str, Any]], count: int) -> list[Step]:
        if len(said) != count:
            raise ValueError("another number of steps")
        links = self._order.links
        self._resumed = [
            Step(
                link=links[number],
                seconds=float(each["seconds"]),
                notes=list(each["notes"]),
                facts=dict(each["facts"]),
                gate_missed=bool(each["gate_missed"]),
                resumed=True,
            )
            for number, each in enumerate(said)
        ]
        return list(self._resumed)

    def _open(self, path: Path) -> Model:
        """The kept model, in the input's container where it still fits it."""
        from nnopt_cli.plugin.opening import open_model

        whole = path.suffix == ".pt2"
        reading = self._order.reading.model_copy(update={"key": None} | ({"input": ()} if whole else {}))
        model, before = open_model(path, reading, self._registry), self._before
        if whole:
            return replace(model, container=replace(model.container, path=before.path))
        if model.weights.keys() != before.weights.keys():
            raise ValueError("other tensors")
        weights = {name: model.weights[name] for name in before.weights}
        return replace(before, weights=weights, provenance=model.provenance)

    def _key_list(self) -> list[str]:
        """One key for each step; the first call reads the input's weights."""
        if not self._keys:
            from nnopt_cli import __version__
            from nnopt_cli.model.hashing import input_hash

            before, order = self._before, self._order
            held = before.graph.source_hash if before.graph else ""
            self._source_hash = held or input_hash(before)
            reading = plain(order.reading)
            key = digest("", [__version__, self._source_hash, reading, self._run.device, stamps(reading)])
            for link in order.links:
                table = link.method.table()
                key = digest(key, [table, link.seed, stamps(table)])
                self._keys.append(key)
        return self._keys


def digest(before: str, value: object) -> str:
    """A key that follows from the key `before` and from `value`."""
    text = json.dumps([before, value], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def stamps(value: object) -> list[str]:
    """Size and time of every file that is named somewhere in `value`."""
    found = []
    for text in _texts(value):
        for part in dict.fromkeys((text, text.rpartition(":")[0], text.partition(":")[2].rpartition(":")[0])):
            try:
                seen = Path(part).stat() if part else None
            except (OSError, ValueError):
                continue
            if seen is not None:
                found.append(f"{part} {seen.st_size} {seen.st_mtime_ns}")
    return found


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
