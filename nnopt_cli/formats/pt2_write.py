"""Write `.pt2` files that `torch.export.load` reads, with no pickle in them.

Every tensor is a record of raw bytes, tied ones once; the record of sample inputs, which PyTorch's
loader insists on, is there and empty; nnopt's own strings are an extra file. Equal programs give equal files.
Source of the layout: `torch/export/pt2_archive/_package.py` of PyTorch 2.10 to 2.13.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from nnopt_cli.formats.layout import Layout, Sink, Slot
from nnopt_cli.formats.pt2_archive import RECORD
from nnopt_cli.formats.pt2_parts import Parts, Tensor, parts_of_program
from nnopt_cli.formats.weight import Weight
from nnopt_cli.formats.zip_write import Member, directory, place

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.formats.write import Record, Written
    from nnopt_cli.run import Run

_ROOT = "archive"
_SLACK = 4096  # bytes that the record may grow by without the free space having been checked for them


class Pt2Layout(Layout):
    """One `.pt2` file: a record for each tensor, then tables, the program, and text."""

    crc = True

    def __init__(self, parts: Parts, expected: Mapping[str, str]) -> None:
        """Plan a file of `parts`; `expected` is about what `finish` will be given."""
        self._small: list[tuple[Member, bytes]] = []
        self._data: list[Member] = []
        self._end = 0
        slots: list[Slot] = []
        for kind, stem, tensors in (
            ("weights", "weight", parts.weights),
            ("constants", "tensor", parts.constants),
        ):
            config = self._records(f"data/{kind}", stem, tensors, slots)
            self._add(f"data/{kind}/model_{kind}_config.json", json.dumps({"config": config}).encode())
        self._program = parts.program
        self._add("models/model.json", parts.program)
        self._add("data/sample_inputs/model.pt", b"")
        for name, content in sorted(parts.extra.items()):
            self._add(f"extra/{name}", content.encode())
        for name, mark in _MARKS.items():
            self._add(name, mark)
        self.slots = slots
        tail = (
            200 * (len(self._data) + len(self._small) + 4) + _SLACK
        )  # the directory and the record's header
        self.size = self._end + len(_strings(expected)) + tail

    def _records(
        self, folder: str, stem: str, tensors: Mapping[str, Tensor], slots: list[Slot]
    ) -> dict[str, dict[str, Any]]:
        """Place a record for each tensor, tied ones once; the table of them."""
        homes: dict[int, str] = {}
        config = {}
        for name, tensor in tensors.items():
            weight = tensor.weight
            if id(weight) not in homes:
                homes[id(weight)] = f"{stem}_{len(homes)}"
                member = place(f"{_ROOT}/{folder}/{homes[id(weight)]}", weight.nbytes, self._end)
                self._data.append(member)
                self._end = member.end
                slots.append(Slot(weight, member.data))
            config[name] = {
                "path_name": homes[id(weight)],
                "is_param": tensor.parameter,
                "use_pickle": False,
                "tensor_meta": tensor.meta,
            }
        return config

    def _add(self, name: str, content: bytes) -> None:
        member = place(f"{_ROOT}/{name}", len(content), self._end)
        self._small.append((member, content))
        self._end = member.end

    def finish(self, sink: Sink, crcs: Sequence[int], strings: Mapping[str, str]) -> int:
        self._add(".data/serialization_id", _identity(self._program, crcs))
        if strings:
            self._add(f"extra/{RECORD}", _strings(strings))
        for member, content in self._small:
            sink.write_at(member.local_header() + content + member.descriptor(crc32(content)), member.header)
        for member, crc in zip(self._data, crcs, strict=True):
            sink.write_at(member.local_header(), member.header)
            sink.write_at(member.descriptor(crc), member.data + member.size)
        checks = {member: crc32(content) for member, content in self._small}
        checks.update(zip(self._data, crcs, strict=True))
        members = sorted(checks, key=lambda member: member.header)
        closing = directory(members, [checks[member] for member in members], self._end)
        sink.write_at(closing, self._end)
        sink.cut(self._end + len(closing))
        return self._end + len(closing)


def write_program(
    program: ExportedProgram,
    path: Path | None,
    *,
    record: Record = lambda tallies: {},
    run: Run | None = None,
    force: bool = False,
    inputs: Sequence[Path] = (),
    extra: Mapping[str, str] | None = None,
    weights: Mapping[str, Weight] | None = None,
) -> Written:
    """Write `program` atomically to `path`; nothing of it is changed.

    Stack traces, the exporter's source paths, guards and example inputs are not written.

    Args:
        program: its tensors may be on any device, and share memory.
        path: a `.pt2` file; None computes and counts everything and writes nothing.
        record: gives nnopt's metadata strings from the tallies (see `formats.write.write`).
        run: threads and progress; a default one if left out.
        force: replace an existing output.
        inputs: files that must not be overwritten.
        extra: text files to carry along, by name.
        weights: what to write in place of the program's own tensors, by their names, in the same shapes
            and dtypes; edits on them are computed, and tallied, while streaming.

    Raises:
        NnoptError: the program holds what only a pickle could, the output exists or is an input, or
            does not fit on the disk; nothing half-written is left.
    """
    from nnopt_cli.formats.outputs import Output
    from nnopt_cli.formats.target import check_target
    from nnopt_cli.formats.write import blank, carry_out
    from nnopt_cli.run import Run as NewRun

    target = None if path is None else check_target(path, folder=False, force=force, inputs=inputs)
    parts = parts_of_program(program, extra or {}).with_weights(weights or {})
    written = {name: tensor.weight for name, tensor in parts.weights.items()}
    layout = Pt2Layout(parts, record(blank(written)))
    return carry_out(Output({"": layout}, notes=parts.notes), target, written, record, run or NewRun())


_MARKS = {"archive_format": b"pt2", "archive_version": b"0", ".data/version": b"6\n", "byteorder": b"little"}


def _strings(strings: Mapping[str, str]) -> bytes:
    return json.dumps(dict(strings), sort_keys=True).encode()


def _identity(program: bytes, crcs: Sequence[int]) -> bytes:
    """40 digits that tell contents apart, as torch writes: 20 for the structure and 20 for the data."""
    sums = b"".join(crc.to_bytes(4, "little") for crc in crcs)
    return b"".join(
        b"%020d" % (int.from_bytes(sha256(part).digest()[:8], "little")) for part in (program, sums)
    )
