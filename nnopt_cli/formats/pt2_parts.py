"""What goes into a `.pt2` file: a program, its tensors, and text; from a program, or from another file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import NnoptError, UnreadableError
from nnopt_cli.formats.checkpoint import Checkpoint
from nnopt_cli.formats.pt2_archive import Archive, refusal
from nnopt_cli.formats.pt2_graph import Rules
from nnopt_cli.formats.pt2_program import clean
from nnopt_cli.formats.pt2_records import RefusedError
from nnopt_cli.formats.pt2_schema import SCALAR_TYPES, STRIDED
from nnopt_cli.formats.storage import Storage, normal
from nnopt_cli.formats.tree_write import listed
from nnopt_cli.formats.weight import MemoryWeight, Weight

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_NUMBERS = {name: number for number, name in SCALAR_TYPES.items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file.

    Attributes:
        weight: its elements; tied names share one.
        parameter: whether it is a parameter.
        requires_grad: whether it is trained.
    """

    weight: Weight
    parameter: bool = False
    requires_grad: bool = False

    @property
    def meta(self) -> dict[str, Any]:
        """Its record, as the schema has it: row-major, alone in its record, on the CPU."""
        strides, step = [], 1
        for size in reversed(self.weight.shape):
            strides.append(step)
            step *= max(1, size)
        return {
            "dtype": _NUMBERS[self.weight.dtype.name],
            "sizes": [{"as_int": size} for size in self.weight.shape],
            "requires_grad": self.requires_grad,
            "device": {"type": "cpu", "index": None},
            "strides": [{"as_int": step} for step in reversed(strides)],
            "storage_offset": {"as_int": 0},
            "layout": STRIDED,
        }


@dataclass(frozen=True)
class Parts:
    """The contents of a `.pt2` file.

    Attributes:
        program: as JSON.
        weights: the state dict.
        constants: the other tensors.
        extra: extra files, by name.
        notes: what is different from the source.
    """

    program: bytes
    weights: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    extra: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_weights(self, new: Mapping[str, Weight]) -> Parts:
        """The same with other elements in the tensors that `new` names; names of one tensor stay one.

        Raises NnoptError for another shape or dtype than the program was made for.
        """
        swap: dict[int, Weight] = {}
        for name, weight in new.items():
            old = self.weights[name].weight
            if (weight.dtype, weight.shape) != (old.dtype, old.shape):
                raise NnoptError(
                    f"{name} became {weight.dtype} {list(weight.shape)}, and its program was made for "
                    f"{old.dtype} {list(old.shape)}"
                )
            swap.setdefault(id(old), weight)
        weights = {
            name: replace(tensor, weight=swap.get(id(tensor.weight), tensor.weight))
            for name, tensor in self.weights.items()
        }
        return replace(self, weights=weights)


def parts_of_checkpoint(checkpoint: Checkpoint) -> Parts:
    """A file's own program with the weights of `checkpoint`, which was read from it.

    Raises:
        UnreadableError: the program in the file may not be passed on.
        NnoptError: names, shapes or element types are no longer those of the program.
    """
    archive: Archive = checkpoint.container.archive
    path = checkpoint.container.path
    if checkpoint.weights.keys() != archive.weights.keys():
        raise NnoptError(f"{path}: the weights are no longer those that its program was made for")
    weights = {}
    for name, item in archive.weights.items():
        weight = checkpoint.weights[name]
        if (weight.dtype, weight.shape) != (item.dtype, item.sizes):
            raise NnoptError(
                f"{path}: {name} became {weight.dtype} {list(weight.shape)}, and its program was made for "
                f"{item.dtype} {list(item.sizes)}"
            )
        weights[name] = Tensor(weight, item.parameter, item.requires_grad)
    constants = {}
    storages: dict[str, Storage] = {}
    for name, item in archive.constants.items():
        member, width = item.member, item.dtype.itemsize
        storage = storages.setdefault(member.name, Storage(archive.file, member.size, width, member.start))
        weight = storage.weight(item.dtype, item.offset * width, item.sizes, normal(item.sizes, item.strides))
        constants[name] = Tensor(weight, item.parameter, item.requires_grad)
    try:
        found = clean(archive.program_text(), archive.metas(), Rules(custom=None))
    except RefusedError as problem:
        error = refusal(archive.file, f"models/{archive.model}.json", problem)
        alone = "The weights alone can still be written, with -o NAME.safetensors."
        raise UnreadableError(error.message, f"{error.hint} {alone}" if error.hint else alone) from None
    notes = (
        ["Sample inputs were left out, since a .pt2 file keeps them as a pickle."] if archive.samples else []
    )
    program = _with_strides(found.tree, {**constants, **weights})
    return Parts(program, weights, constants, archive.extra, (*notes, *found.notes))


def parts_of_program(program: ExportedProgram, extra: Mapping[str, str]) -> Parts:
    """A program with its tensors; the tensors share its memory where they can.

    Raises NnoptError for what a `.pt2` file without pickles cannot hold.
    """
    made: dict[object, Weight] = {}
    weights = {name: _tensor(name, value, made) for name, value in program.state_dict.items()}
    constants = {name: _tensor(name, value, made) for name, value in program.constants.items()}
    metas = {name: tensor.meta for name, tensor in {**constants, **weights}.items()}
    try:
        found = clean(_serialized(program), metas, Rules(custom=None))
    except RefusedError as problem:
        raise NnoptError(
            f"the program cannot be written to a .pt2 file that nnopt would read again: {problem.where}: "
            f"{problem.what}",
            problem.hint,
        ) from None
    text = _with_strides(found.tree, {**constants, **weights})
    notes = (*found.notes, *_memory_notes({**program.constants, **program.state_dict}))
    return Parts(text, weights, constants, extra, notes)


def _memory_notes(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """What is lost of how tensors lay in memory: the file holds each one row-major, and on its own."""
    notes = []
    if turned := [(name,) for name, tensor in tensors.items() if not tensor.is_contiguous()]:
        notes.append(f"Stored row-major, which they were not in memory: {listed(turned)}.")
    spans = []
    for name, tensor in tensors.items():
        if tensor.numel():
            last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            start, what = tensor.data_ptr(), (tuple(tensor.shape), tensor.stride(), tensor.dtype)
            spans.append((str(tensor.device), start, start + (last + 1) * tensor.element_size(), what, name))
    for left, right in pairwise(sorted(spans, key=lambda span: span[:3])):
        if left[0] == right[0] and right[1] < left[2] and left[1:4] != right[1:4]:
            notes.append(
                f"Some tensors shared memory without being the same, e.g. {left[4]} and {right[4]}; they are "
                "separate in the file."
            )
            break
    return notes


def _serialized(program: ExportedProgram) -> bytes:
    """The program as PyTorch's serializer writes it, without its tensors and example inputs."""
    import torch
    from torch._export.serde import schema, serialize

    as_dict: Callable[[Any], Any] = serialize._dataclass_to_dict
    try:
        program.validate()  # type: ignore[no-untyped-call]
        writer = serialize.GraphModuleSerializer(program.graph_signature, program.module_call_graph)
        tree = {
            "graph_module": as_dict(writer.serialize(program.graph_module)),
            "opset_version": {"aten": torch._C._get_max_operator_version()},
            "range_constraints": as_dict(serialize.serialize_range_constraints(program.range_constraints)),
            "schema_version": dict(zip(("major", "minor"), schema.SCHEMA_VERSION, strict=True)),
            "verifiers": [verifier.dialect for verifier in program.verifiers],
            "torch_version": torch.__version__,
        }
        return json.dumps(tree, cls=serialize.EnumEncoder, allow_nan=False).encode()
    except Exception as error:  # PyTorch's own complaints about a program are of every kind
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise NnoptError(
            f"PyTorch {torch.__version__} cannot write this program: {lines[-1]:.300}"
        ) from error


def _tensor(name: str, value: Any, made: dict[object, Weight]) -> Tensor:
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if not isinstance(value, torch.Tensor):
        raise NnoptError(
            f"{name}: is a {type(value).__name__}, which a .pt2 file could only hold as a pickle",
            "Export the model without custom objects.",
        )
    if isinstance(value, FakeTensor) or value.is_meta:
        raise NnoptError(f"{name}: has no data", "Export the model with real weights.")
    if type(value.data) is not torch.Tensor or value.layout != torch.strided or value.is_quantized:
        raise NnoptError(
            f"{name}: is a {type(value.data).__name__} of layout {value.layout}, which a .pt2 file "
            "could only hold as a pickle",
            "Convert it to a plain dense tensor before the export.",
        )
    flat = value.detach().resolve_conj().resolve_neg()
    place = (flat.device, flat.dtype, flat.data_ptr(), tuple(flat.shape), flat.stride())
    if not flat.numel() or place not in made:  # empty tensors lie nowhere, so none is tied to another
        made[place] = MemoryWeight.of(name, flat)
    return Tensor(made[place], isinstance(value, torch.nn.Parameter), value.requires_grad)


def _with_strides(tree: dict[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The program as JSON, with the strides that its tensors have in the file."""
    module = tree["graph_module"]
    values = module["graph"]["tensor_values"]
    for spec in module["signature"]["input_specs"]:
        ((_, item),) = spec.items()
        target = item.get("parameter_name") or item.get("buffer_name") or item.get("tensor_constant_name")
        if target is not None:
            meta = values[item["arg"]["name"]]
            meta["strides"] = tensors[target].meta["strides"]
            meta["storage_offset"] = {"as_int": 0}
    return json.dumps(tree, separators=(",", ":")).encode()
