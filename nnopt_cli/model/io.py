"""Load and save: between files and `Model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UsageError
from nnopt_cli.model.hashing import content_hash, input_hash
from nnopt_cli.model.model import Model
from nnopt_cli.model.provenance import Provenance

if TYPE_CHECKING:
    from nnopt_cli.formats.checkpoint import Checkpoint
    from nnopt_cli.formats.tally import Tally
    from nnopt_cli.formats.write import Record, Written
    from nnopt_cli.model.arch import Architecture
    from nnopt_cli.model.graph_source import GraphSource
    from nnopt_cli.model.inputs import InputSpec
    from nnopt_cli.run import Run


@dataclass(frozen=True)
class Saved:
    """What a save did.

    Attributes:
        path: the file or folder written; None when it was only measured (`path=None`).
        bytes: its size on disk, all files.
        tallies: per-tensor figures by name (the first name of tied ones), counted while streaming.
        blake3: content hash of the *input's* weights (see `content_hash`).
        notes: what the user should know about how it was written (what was dropped, and why).
        provenance: the record that went into the file.
    """

    path: Path | None
    bytes: int
    tallies: Mapping[str, Tally]
    blake3: str
    notes: tuple[str, ...]
    provenance: Provenance


def load(
    path: str | Path,
    *,
    key: str | None = None,
    arch: Architecture | None = None,
    inputs: InputSpec | None = None,
    operators: Sequence[str] = (),
) -> Model:
    """Read a model file or folder lazily and safely; nothing in it is executed.

    Args:
        path: a checkpoint, safetensors file, folder of shards, or `.pt2`.
        key: which entry of a nested checkpoint holds the state dict, e.g. `ema`, where several do.
        arch: how the network is built, which is the user's own code.
        inputs: what it is fed; with `arch` this makes a graph of any weights.
        operators: namespaces of custom operators that the graph in a `.pt2` may call.

    Raises:
        UnreadableError: it is broken, unsafe or not a model; the message says which and where.
        UsageError: several entries fit and `key` is not given, or `key` fits none; `inputs` are of no use.
    """
    from nnopt_cli.formats.read import read

    checkpoint = read(Path(path), key=key)
    return Model(
        checkpoint.weights,
        checkpoint.container,
        Provenance.from_strings(checkpoint.provenance),
        checkpoint.notes,
        arch,
        _graph(checkpoint, arch, inputs, operators),
    )


def _graph(
    checkpoint: Checkpoint, arch: Architecture | None, inputs: InputSpec | None, operators: Sequence[str]
) -> GraphSource | None:
    from nnopt_cli.model.graph_source import FileGraph, ModuleGraph

    path = checkpoint.container.path
    if checkpoint.container.format == "pt2":
        if inputs is not None:
            raise UsageError(f"{path}: a .pt2 says itself what it is fed", "Leave --input out.")
        return FileGraph(path, checkpoint.weights, checkpoint.container.archive.program_text, operators)
    if inputs is None:
        return None
    if arch is None:
        raise UsageError(
            f"{path}: --input is what the network is fed, and the file holds only its weights",
            "Say with --arch how the network is built.",
        )
    return ModuleGraph(arch, inputs)


def save(
    model: Model,
    path: str | Path | None,
    *,
    run: Run | None = None,
    force: bool = False,
    results: Mapping[str, Any] | None = None,
    sources: Callable[[Mapping[str, Tally]], Sequence[Mapping[str, Any]]] | None = None,
    plain: bool = False,
    shard_bytes: int | None = None,
) -> Saved:
    """Write `model` atomically, in the form that the path's suffix names, else as its input was.

    Args:
        model: what to write; pending edits are computed while streaming, at constant memory.
        path: where to; a `.pt2` holds the model's graph too, all others hold weights. None computes and
            counts everything and writes nothing.
        run: threads, progress and device; a default one if left out.
        force: replace an existing output.
        results: figures to put into the file's record.
        plain: leave out all that the input held beside its weights: a bare state dict.
        shard_bytes: cut a folder into shards of at most so many bytes; this implies `plain`.
        sources: where the model was made from several, gives the record of each from the tallies.

    Raises:
        NnoptError: the output exists, is the input itself, or the disk is full; nothing half-written is left.
    """
    from nnopt_cli import __version__
    from nnopt_cli.run import Run as NewRun

    final, digest = model.provenance, ""

    def record(tallies: Mapping[str, Tally]) -> dict[str, str]:
        nonlocal final, digest
        if sources is not None:
            inputs = tuple(sources(tallies))
            digest = str(inputs[0]["blake3"])
        else:
            digest = _input_hash(model, tallies)
            inputs = model.provenance.inputs or ({"path": model.path.name, "blake3": digest},)
        final = replace(model.provenance, inputs=inputs, results=dict(results or {}), version=__version__)
        return final.to_strings()

    if plain or shard_bytes is not None:
        model = _plain(model, shard_bytes)
    target = None if path is None else Path(path)
    write = _write_graph if _has_graph(model, target) else _write_weights
    written = write(model, target, record, run or NewRun(), force)
    notes = (*(model.graph.notes if model.graph else ()), *written.notes)
    return Saved(written.path, written.bytes, written.tallies, digest, notes, final)


def check_place(model: Model, path: Path, *, force: bool) -> None:
    """Raise at once what `save` would raise about `path`, without reading data or writing anything."""
    from nnopt_cli.formats.outputs import form_of
    from nnopt_cli.formats.target import check_target

    folder = not _has_graph(model, path) and form_of(model.container, path) == "folder"
    check_target(path, folder=folder, force=force, inputs=(model.path, *model.container.files))


def _plain(model: Model, shard_bytes: int | None) -> Model:
    """The model as if it had come from a bare state dict, or from a folder with shards of that size."""
    from nnopt_cli.formats.checkpoint import Container
    from nnopt_cli.formats.outputs import cut_shards

    shards = None if shard_bytes is None else cut_shards(model.weights, shard_bytes)
    files = model.container.files
    return replace(model, container=Container(model.path, "safetensors", files, shards=shards))


def _has_graph(model: Model, path: Path | None) -> bool:
    """Whether a program in memory is to be written. One in a file is carried over with the weights."""
    if model.graph is None or model.container.archive is not None:
        return False
    return model.structure_changed if path is None else path.suffix.lower() == ".pt2"


def _write_graph(model: Model, path: Path | None, record: Record, run: Run, force: bool) -> Written:
    from nnopt_cli.formats.pt2_write import write_program

    assert model.graph is not None
    program = model.graph.base(model.weights)
    return write_program(
        program,
        path,
        record=record,
        run=run,
        force=force,
        inputs=(model.path, *model.container.files),
        weights=model.graph.edited(model.weights),
    )


def _write_weights(model: Model, path: Path | None, record: Record, run: Run, force: bool) -> Written:
    from nnopt_cli.formats.checkpoint import Checkpoint
    from nnopt_cli.formats.write import write

    written = write(
        Checkpoint(dict(model.weights), model.container), path, record=record, run=run, force=force
    )
    if not model.structure_changed:
        return written
    lost = "The output holds weights only, in sizes that the model's source does not make; a .pt2 holds both."
    return replace(written, notes=(*written.notes, lost))


def _input_hash(model: Model, tallies: Mapping[str, Tally]) -> str:
    """The hash of the weights as the input has them; tallies have it where they are of the same tensors."""
    if model.graph is not None and model.graph.source_hash:
        return model.graph.source_hash
    return content_hash(model, tallies) if tallies.keys() == model.unique().keys() else input_hash(model)
