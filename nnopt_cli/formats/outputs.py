"""What an output will consist of: which form, which files, and which tensor in which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nnopt_cli.errors import UsageError
from nnopt_cli.formats.checkpoint import Checkpoint, Container, Leaf
from nnopt_cli.formats.inert import Ordered
from nnopt_cli.formats.layout import Layout, unique
from nnopt_cli.formats.pt2_parts import parts_of_checkpoint
from nnopt_cli.formats.pt2_write import Pt2Layout
from nnopt_cli.formats.safetensors_write import SafetensorsLayout
from nnopt_cli.formats.torch_write import TorchLayout
from nnopt_cli.formats.tree_write import entries_beside, listed, output_tree
from nnopt_cli.formats.weight import Weight

Form = Literal["safetensors", "torch", "folder", "pt2"]

SHARD_BYTES = 5_000_000_000  # of tensors in a shard at most, as Hugging Face's libraries cut them
_TORCH = {".pt", ".pth", ".th", ".bin", ".ckpt"}
_WORKS = "Use .pt, .pth, .th, .bin, .ckpt or .safetensors, or a name without a suffix for a folder of shards."
_OTHERS = {".gguf", ".h5", ".json", ".mlmodel", ".msgpack", ".npy", ".npz", ".tflite", ".zip"}


@dataclass(frozen=True)
class Output:
    """The plan of a whole output.

    Attributes:
        layouts: the files with tensors, by name; a single file's name is empty.
        index: name of the shard index, if there is one.
        metadata: what the index says of the model, other than what is written anew.
        shard_of: stored tensor name -> file name, for the index.
        companions: files to copy along.
        notes: what the user should know about what was left out.
    """

    layouts: Mapping[str, Layout]
    index: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    shard_of: Mapping[str, str] = field(default_factory=dict)
    companions: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def index_text(self, strings: Mapping[str, str]) -> bytes:
        """The index file: which tensor is in which shard, and the record."""
        total = sum(slot.weight.nbytes for layout in self.layouts.values() for slot in layout.slots)
        said = {**self.metadata, "total_size": total, **strings}
        table = {"metadata": said, "weight_map": dict(self.shard_of)}
        return (json.dumps(table, indent=2) + "\n").encode()


def form_of(container: Container, path: Path | None) -> Form:
    """The form of an output at `path` (None: the input's own).

    Raises UsageError for a suffix that names no form, or one that needs a graph.
    """
    own: Form = "safetensors" if container.format == "safetensors" else "torch"
    if container.shards is not None:
        own = "folder"
    if container.archive is not None:
        own = "pt2"
    suffix = path.suffix.lower() if path else ""
    if path is None:
        return own
    if suffix == ".safetensors":
        return "safetensors"
    if suffix in _TORCH:
        return "torch"
    if suffix == ".pt2" and own == "pt2":
        return "pt2"
    if suffix in (".pt2", ".onnx"):
        raise UsageError(f"{path}: a {suffix} file needs the model's graph, and this is weights only", _WORKS)
    if suffix in _OTHERS:
        raise UsageError(f"{path}: nnopt does not write {suffix} files", _WORKS)
    source = container.path.suffix.lower()
    if own == "folder" or suffix == source:
        return own
    if not suffix:
        return "folder"
    if source not in _TORCH | {".safetensors"}:  # the input's name says nothing about its form either
        return own
    raise UsageError(f"{path}: nnopt does not write {suffix} files", _WORKS)


def plan(checkpoint: Checkpoint, form: Form, expected: Mapping[str, str]) -> Output:
    """Plan an output of `form`; `expected` is about what the record will be.

    Raises NnoptError for a tensor that the form cannot hold.
    """
    container = checkpoint.container
    if form == "pt2":
        parts = parts_of_checkpoint(checkpoint)
        return Output({"": Pt2Layout(parts, expected)}, notes=parts.notes)
    lost_program = ["The program was left out: the output holds weights only."] if container.archive else []
    if form == "torch":
        tree, notes = output_tree(checkpoint)
        return Output({"": TorchLayout(tree, expected)}, notes=(*lost_program, *notes))
    weights = {container.prefix + name: weight for name, weight in checkpoint.weights.items()}
    beside = entries_beside(checkpoint)
    lost = f"Left out, since safetensors holds tensors only: {listed(beside)}."
    notes = lost_program + ([lost] if beside else [])
    if form == "safetensors":
        return Output({"": SafetensorsLayout(weights, container.metadata, expected)}, notes=tuple(notes))
    shard_of = _input_shards(container, weights) if container.shards else cut_shards(weights)
    return _sharded(container, weights, shard_of, expected, tuple(notes))


def _sharded(
    container: Container,
    weights: Mapping[str, Weight],
    shard_of: Mapping[str, str],
    expected: Mapping[str, str],
    notes: tuple[str, ...],
) -> Output:
    torch = bool(container.shards) and container.format != "safetensors"
    layouts: dict[str, Layout] = {}
    for shard in sorted(set(shard_of.values())):
        part = {name: weight for name, weight in weights.items() if shard_of[name] == shard}
        if torch:
            layouts[shard] = TorchLayout(Ordered((n, Leaf(w)) for n, w in part.items()), expected)
        else:
            layouts[shard] = SafetensorsLayout(part, container.metadata, expected)
    stored = weights if torch else unique(weights)
    index = _index_name(container, torch) if len(layouts) > 1 or "-of-" in next(iter(layouts), "") else None
    taken = {*layouts, index}
    companions = tuple(path for path in container.companions if path.name not in taken)
    placed = {name: shard_of[name] for name in stored}
    return Output(layouts, index, container.index, placed, companions, notes)


def _index_name(container: Container, torch: bool) -> str:
    given = [path.name for path in container.files if path.name.endswith(".index.json")]
    return given[0] if given else "pytorch_model.bin.index.json" if torch else "model.safetensors.index.json"


def _input_shards(container: Container, weights: Mapping[str, Weight]) -> dict[str, str]:
    """The input's shards; a tied name goes where the first of its names is, a new one into the last shard."""
    given = dict(container.shards or {})
    last = max(given.values())
    home: dict[int, str] = {}
    out = {}
    for name, weight in weights.items():
        known = given.get(name) or given.get(name.removeprefix(container.prefix)) or last
        out[name] = home.setdefault(id(weight), known)
    return out


def cut_shards(weights: Mapping[str, Weight], limit: int = SHARD_BYTES) -> dict[str, str]:
    """Shards of at most `limit` bytes, or a single larger tensor, in the model's order."""
    numbers: dict[int, int] = {}
    number, filled = 1, 0
    for weight in unique(weights).values():
        if filled and filled + weight.nbytes > limit:
            number, filled = number + 1, 0
        filled += weight.nbytes
        numbers[id(weight)] = number
    names = [f"model-{i:05d}-of-{number:05d}.safetensors" for i in range(1, number + 1)]
    if number == 1:
        names = ["model.safetensors"]
    return {name: names[numbers[id(weight)] - 1] for name, weight in weights.items()}
