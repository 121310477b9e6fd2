"""Read `.pt2` files: their weights lazily and without torch, and their program once it passed every check.

PyTorch's own loader runs code from a file by many routes (`docs/formats.md` lists them). Here the file is
never given to it. The archive is read by nnopt, the program's JSON is rebuilt from what was understood of
it (`pt2_program.py`), the tensors are made here, and only these go into PyTorch's deserializer.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.checkpoint import Checkpoint, Container
from nnopt_cli.formats.pt2_archive import check_crc, open_archive, refusal
from nnopt_cli.formats.pt2_graph import Rules
from nnopt_cli.formats.pt2_operators import custom_namespace, is_higher_order
from nnopt_cli.formats.pt2_payload import Payload
from nnopt_cli.formats.pt2_program import Clean, clean
from nnopt_cli.formats.pt2_records import RefusedError
from nnopt_cli.formats.storage import Storage, normal, overlapping
from nnopt_cli.formats.weight import InputFile, Weight
from nnopt_cli.formats.zip_read import Member

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_CHUNK = 1 << 22
_STATEFUL = {"_native_batch_norm_legit", "rrelu_with_noise"}  # running statistics


@dataclass(frozen=True)
class Program:
    """A program as read.

    Attributes:
        program: ready to run and to train, on the CPU; it has no example inputs.
        provenance: nnopt's own record, if the file carries one (`nnopt.*` keys, JSON strings).
        extra: the file's other extra files.
        torch_version: of the PyTorch that wrote it.
        schema: major and minor version of the schema that it is written in.
        notes: what is different from the file, one sentence each.
    """

    program: ExportedProgram
    provenance: Mapping[str, str]
    extra: Mapping[str, str]
    torch_version: str
    schema: tuple[int, int]
    notes: tuple[str, ...]


def read_weights(file: InputFile) -> Checkpoint:
    """The state dict of a `.pt2` file: nothing of the data is read, and torch is not imported.

    Raises UnreadableError for an archive that is broken, unsafe, or not an exported program.
    """
    archive = open_archive(file)
    storages: dict[str, Storage] = {}
    weights: dict[str, Weight] = {}
    for name, item in archive.weights.items():
        member = item.member
        storage = storages.setdefault(
            member.name, Storage(archive.file, member.size, item.dtype.itemsize, member.start)
        )
        weights[name] = storage.weight(
            item.dtype, item.offset * item.dtype.itemsize, item.sizes, normal(item.sizes, item.strides)
        )
    for name, weight in reversed(weights.items()):  # tied ones keep the first of their names
        weight.name = name
    container = Container(file.path, "pt2", (file.path,), metadata=archive.extra, archive=archive)
    notes = archive.notes
    if pair := overlapping(weights):
        notes += (
            f"Some tensors share memory without being the same, e.g. {pair[0]} and {pair[1]}; "
            "they are treated, and written, as separate tensors.",
        )
    return Checkpoint(weights, container, archive.record, notes)


def read_program(path: Path, *, custom: Collection[str] = ()) -> Program:
    """The program in a `.pt2` file. Nothing that the file says is executed.

    Args:
        path: the file.
        custom: namespaces of operators other than PyTorch's that the program may call; they must be
            registered in this process, by importing the library that defines them.

    Raises:
        UnreadableError: it is broken, unsafe, of another version, or calls an operator that may not be
            called; the message says which node, and what to do.
    """
    archive = open_archive(InputFile(path))
    try:
        found = clean(archive.program_text(), archive.metas(), Rules(frozenset(custom)))
        check_operators(found.tree["graph_module"]["graph"])
    except RefusedError as problem:
        raise refusal(archive.file, f"models/{archive.model}.json", problem) from None
    tensors = _Tensors(archive.file)
    state = {name: tensors.made(payload) for name, payload in archive.weights.items()}
    constants = {name: tensors.made(payload) for name, payload in archive.constants.items()}
    program = _deserialized(path, found, state, constants)
    notes = (*archive.notes, *found.notes)
    return Program(program, archive.record, archive.extra, found.torch_version, found.schema, notes)


class _Tensors:
    """Reads records into memory, each once; names of one tensor get one tensor."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._records: dict[str, torch.Tensor] = {}
        self._made: dict[tuple[object, ...], torch.Tensor] = {}

    def made(self, item: Payload) -> torch.Tensor:
        import torch

        dtype = getattr(torch, item.dtype.name)
        if 0 in item.sizes:
            seen = torch.empty(item.sizes, dtype=dtype)
            return torch.nn.Parameter(seen, item.requires_grad) if item.parameter else seen
        key = (item.member.name, item.offset, item.sizes, normal(item.sizes, item.strides), item.parameter)
        if key not in self._made:
            flat = self._record(item.member).view(dtype)
            seen = flat.as_strided(item.sizes, item.strides, item.offset)
            self._made[key] = torch.nn.Parameter(seen, item.requires_grad) if item.parameter else seen
        return self._made[key]

    def _record(self, member: Member) -> torch.Tensor:
        import torch

        if member.name not in self._records:
            raw = torch.empty(member.size, dtype=torch.uint8)
            view, crc = raw.numpy().data, 0
            for start in range(0, member.size, _CHUNK):
                part = view[start : start + _CHUNK]
                self._file.read_into(part, member.start + start)
                crc = zlib.crc32(part, crc)
            check_crc(self._file, member, crc)
            self._records[member.name] = raw
        return self._records[member.name]


def check_operators(graph: Mapping[str, Any]) -> None:
    """Look up every operator in this process: it exists, takes what it is given, and writes to no argument
    unless its name says so. Raises RefusedError."""
    for index, node in enumerate(graph["nodes"]):
        try:
            _check_operator(node)
            for argument in node["inputs"]:
                if "as_graph" in argument["arg"]:
                    check_operators(argument["arg"]["as_graph"]["graph"])
        except RefusedError as problem:
            raise problem.under(f".nodes[{index}]") from None


def _check_operator(node: Mapping[str, Any]) -> None:
    import torch

    target = node["target"]
    if not target.startswith("torch.ops.") or is_higher_order(target):
        return
    _, _, space, word, overload = target.split(".")
    try:
        schema = getattr(getattr(getattr(torch.ops, space), word), overload)._schema
    except (AttributeError, RuntimeError):
        if custom_namespace(target):
            raise RefusedError(
                f"it calls {target}, a custom operator that this process does not have",
                "Import the library that defines it first.",
            ) from None
        raise RefusedError(f"it calls {target}, which PyTorch {torch.__version__} does not have") from None
    full = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    if space == "aten" and not torch._C._dispatch_has_kernel(full):
        raise RefusedError(f"it calls {target}, which only TorchScript has")
    known = {argument.name for argument in schema.arguments}
    for argument in node["inputs"]:
        if argument["name"] not in known:
            raise RefusedError(f"{target} has no argument {argument['name']!r}")
    writes = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if writes and space == "aten" and not word.endswith("_") and word not in _STATEFUL:
        raise RefusedError(f"{target} writes to its argument {writes[0]!r}, as exported programs never do")


def _deserialized(
    path: Path, found: Clean, state: dict[str, torch.Tensor], constants: dict[str, torch.Tensor]
) -> ExportedProgram:
    import torch

    with _quietly():
        try:
            from torch._export.serde import schema, serialize

            record = serialize._dict_to_dataclass(schema.ExportedProgram, found.tree)  # type: ignore[no-untyped-call]
            return serialize.ExportedProgramDeserializer().deserialize(record, state, constants, None)
        except Exception as error:  # PyTorch's own complaints about a program are of every kind
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise UnreadableError(
                f"{path}: PyTorch {torch.__version__} cannot read this program, which PyTorch "
                f"{found.torch_version} wrote (schema {found.schema[0]}.{found.schema[1]}): {lines[-1]:.300}",
                "If the versions differ, export the model again with this one.",
            ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """PyTorch logs and warns about how it reads; what matters is in the notes."""
    log = logging.getLogger("torch._export.serde.serialize")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
