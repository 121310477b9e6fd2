"""Write a checkpoint: plan the files, stream every tensor once, complete them, and put them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.atomic import OutputFile, copy_file, new_file, new_folder
from nnopt_cli.formats.checkpoint import Checkpoint
from nnopt_cli.formats.layout import Nowhere, Sink, unique
from nnopt_cli.formats.outputs import Output, form_of, plan
from nnopt_cli.formats.stream import Placed, Streamed, stream
from nnopt_cli.formats.tally import Tally
from nnopt_cli.formats.target import Target, check_space, check_target
from nnopt_cli.formats.weight import Weight
from nnopt_cli.run import Run

Record = Callable[[Mapping[str, Tally]], dict[str, str]]


@dataclass(frozen=True)
class Written:
    """What a write did.

    Attributes:
        path: the file or folder written; None when nothing was.
        bytes: its size on disk, all files; what it would be when nothing was written.
        tallies: per-tensor figures by name, the first name of tied ones.
        notes: what was left out or carried along, one sentence each.
    """

    path: Path | None
    bytes: int
    tallies: Mapping[str, Tally]
    notes: tuple[str, ...]


def write(checkpoint: Checkpoint, path: Path | None, *, record: Record, run: Run, force: bool) -> Written:
    """Write `checkpoint` atomically to `path`, in the form that its suffix names.

    Args:
        checkpoint: what to write; edits on its weights are computed while streaming.
        path: a file, or a folder for shards; a suffix that names no form means the input's own. None
            computes and counts everything and writes nothing.
        record: gives nnopt's metadata strings from the tallies. It is also called once before any
            data is read, with empty tallies, to know how much room the strings take.
        run: threads and progress.
        force: replace an existing output.

    Raises:
        UsageError: the suffix names no form that weights can be written in.
        NnoptError: the output exists, is an input, does not fit on the disk, or cannot hold a tensor.
        UnreadableError: an input ends early. Nothing half-written is left in any of these cases.
    """
    container = checkpoint.container
    form = form_of(container, path)
    target = None
    if path is not None:
        inputs = (container.path, *container.files)
        target = check_target(path, folder=form == "folder", force=force, inputs=inputs)
    output = plan(checkpoint, form, record(blank(checkpoint.weights)))
    return carry_out(output, target, checkpoint.weights, record, run)


def carry_out(
    output: Output, target: Target | None, weights: Mapping[str, Weight], record: Record, run: Run
) -> Written:
    """Write what was planned, to a place that was checked (None: nowhere); `weights` are to be tallied."""
    names = {id(weight): name for name, weight in unique(weights).items()}
    extra = sum(_size_of(source) for source in output.companions)
    size = sum(layout.size for layout in output.layouts.values()) + extra

    with _sinks(target, output, size) as sinks:
        found = _stream(output, sinks, run, target is not None)
        ordered = {name: found[key].tally for key, name in names.items()}
        strings = record(ordered)
        total = extra
        for name, layout in output.layouts.items():
            crcs = [found[id(slot.weight)].crc32 for slot in layout.slots]
            total += layout.finish(sinks[name], crcs, strings)
        if output.index is not None:
            text = output.index_text(strings)
            sinks[output.index].write_at(text, 0)
            total += len(text)
    return Written(target.path if target else None, total, ordered, output.notes)


def _stream(output: Output, sinks: Mapping[str, Sink], run: Run, writing: bool) -> dict[int, Streamed]:
    """Stream every tensor of every file; what was found, by the id of the weight."""
    placed = [
        Placed(slot.weight, sinks[name], slot.offset, layout.crc and writing)
        for name, layout in output.layouts.items()
        for slot in layout.slots
    ]
    total = sum(item.weight.nbytes for item in placed)
    with run.progress("writing" if writing else "computing", total) as tick:
        found = stream(placed, threads=run.threads, tick=tick, helped=run.helped)
    return {id(item.weight): streamed for item, streamed in zip(placed, found, strict=True)}


@contextmanager
def _sinks(target: Target | None, output: Output, size: int) -> Iterator[dict[str, Sink]]:
    """A sink for each file of the output, by name; in place, on disk and whole when the block has ended."""
    names = [*output.layouts, *([output.index] if output.index else [])]
    if target is None:
        yield dict.fromkeys(names, Nowhere())
        return
    check_space(target, size)
    if names == [""]:
        with new_file(target, size) as file:
            yield {"": file}
        return
    with new_folder(target, size) as folder:
        files: dict[str, OutputFile] = {}
        try:
            for name in names:
                room = output.layouts[name].size if name in output.layouts else 0
                files[name] = OutputFile(folder / name, room, target.path / name)
            yield dict(files)
            for file in files.values():
                file.close()
        finally:
            for file in files.values():
                file.close(sync=False)
        for source in output.companions:
            copy_file(source, folder / source.name, target.path / source.name)


def _size_of(source: Path) -> int:
    try:
        return source.stat().st_size
    except OSError as error:
        raise UnreadableError(f"{source}: {error.strerror}") from error


def blank(weights: Mapping[str, Weight]) -> dict[str, Tally]:
    """Tallies of nothing, as long as real ones when printed: to know how much room a record takes."""
    return {
        name: Tally(weight.numel, 0, 0, False, "0" * 64, 0, 0, 0) for name, weight in unique(weights).items()
    }
