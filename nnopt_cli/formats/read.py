"""Read any checkpoint: lazily, without torch, and without running anything that the file holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from nnopt_cli.errors import UnreadableError, UsageError
from nnopt_cli.formats.checkpoint import Checkpoint, Container
from nnopt_cli.formats.inert import Refused, printable
from nnopt_cli.formats.json_read import nnopt_strings
from nnopt_cli.formats.pickle_source import MalformedError
from nnopt_cli.formats.pt2_archive import is_archive
from nnopt_cli.formats.pt2_read import read_weights
from nnopt_cli.formats.safetensors_read import read_safetensors
from nnopt_cli.formats.sharded import read_folder, read_index
from nnopt_cli.formats.sniff import check_path, kind_of, open_file
from nnopt_cli.formats.storage import overlapping
from nnopt_cli.formats.torch_read import Tree, read_archive, read_legacy, read_plain_pickle
from nnopt_cli.formats.tree import Candidate, at_key, candidates, check_nesting
from nnopt_cli.formats.weight import InputFile, Weight
from nnopt_cli.formats.zip_read import members_of

_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_SHOWN = 4


def read(path: Path, *, key: str | None = None) -> Checkpoint:
    """Read a checkpoint's names, shapes and places; no tensor data is read.

    Args:
        path: a file, a folder of shards, or a shard index. What it is follows from its bytes.
        key: which entry of a nested checkpoint holds the state dict, e.g. `ema` or `trainer.model`.

    Raises:
        UnreadableError: missing, broken, unsafe, or not a model; the message says which.
        UsageError: several entries fit and `key` is not given, or `key` fits none.
    """
    if check_path(path) == "folder":
        _no_key(path, key)
        return _finished(read_folder(path, _read_shard))
    file = open_file(path)
    kind = kind_of(file)
    if kind == "index":
        _no_key(path, key)
        return _finished(read_index(path, path.parent, _read_shard))
    if kind == "safetensors":
        _no_key(path, key)
        header = read_safetensors(file)
        metadata = {k: v for k, v in header.metadata.items() if not k.startswith("nnopt.")}
        container = Container(path, "safetensors", (path,), metadata=metadata)
        checkpoint = Checkpoint(dict(header.weights), container, nnopt_strings(header.metadata))
        return _finished(checkpoint)
    tree = _tree(file, kind)
    if tree is None:
        _no_key(path, key)
        return read_weights(file)
    return _finished(_from_tree(path, tree, key))


def _read_shard(path: Path) -> tuple[str, dict[str, Weight], Mapping[str, str], tuple[str, ...]]:
    """Format, weights, metadata and notes of one file of a sharded checkpoint."""
    file = open_file(path)
    kind = kind_of(file)
    if kind == "safetensors":
        header = read_safetensors(file)
        return "safetensors", header.weights, header.metadata, ()
    if kind == "index":
        raise UnreadableError(f"{path}: is an index where a shard is expected")
    if (tree := _tree(file, kind)) is None:
        raise UnreadableError(f"{path}: is an exported program where a shard is expected")
    found = _from_tree(path, tree, None)
    return found.container.format, found.weights, found.provenance, found.notes


def _tree(file: InputFile, kind: str) -> Tree | None:
    """What a pickled file holds; None for an exported program."""
    if kind != "zip":
        return read_legacy(file) if kind == "legacy" else read_plain_pickle(file)
    members = members_of(file)
    return None if is_archive(members) else read_archive(file, members)


def _from_tree(path: Path, tree: Tree, key: str | None) -> Checkpoint:
    """The model in a pickled file, under the names that the file gives."""
    try:
        check_nesting(tree.root)
        chosen = _choose(path, tree, key)
    except MalformedError as error:
        raise UnreadableError(
            f"{path}: its objects cannot be followed: {error}",
            "The file is damaged, or made to do harm. Nothing in it was run.",
        ) from error
    weights = _weights(path, chosen)
    rebuilt = not chosen.plain or tree.format in ("torchscript", "pickle")
    container = Container(path, tree.format, (path,), chosen.key, tree=tree.root, rebuilt=rebuilt)
    notes = _notes(tree, chosen, rebuilt)
    return Checkpoint(weights, container, tree.provenance, notes)


def _choose(path: Path, tree: Tree, key: str | None) -> Candidate:
    found = candidates(tree.root, tree.format == "torchscript")
    if key is not None:
        chosen = next((c for c in found if c.key and c.name == key), None) or at_key(tree.root, key)
        if chosen is None:
            names = [c.name for c in found if c.key]
            close = get_close_matches(key, names, n=1, cutoff=0.4)
            raise UsageError(
                f"{path}: has no entry {key!r} that holds tensors",
                f"Did you mean {close[0]!r}?"
                if close
                else _listing(found) or "Leave --key out: the file is one model.",
            )
        return chosen
    if not found:
        raise UnreadableError(
            f"{path}: holds no model: no entry is a dict of named tensors, or a module",
            "Save the model's state_dict() and give that.",
        )
    if len(found) > 1:
        raise UsageError(f"{path}: {len(found)} of its entries may be the model", _listing(found))
    return found[0]


def _listing(found: Iterable[Candidate]) -> str:
    rows = [f"--key {printable(c.name)} ({len(c.tensors)} tensors)" for c in found if c.key]
    more = f", or one of {len(rows) - 20} more" if len(rows) > 20 else ""
    return f"Choose one: {', '.join(rows[:20])}{more}" if rows else ""


def _weights(path: Path, chosen: Candidate) -> dict[str, Weight]:
    """The chosen tensors; one that cannot be read is an error with its name."""
    out: dict[str, Weight] = {}
    for name, tensor in chosen.tensors.items():
        if isinstance(tensor, Refused):
            raise UnreadableError(f"{path}: the tensor {name!r:.200} {tensor.reason}")
        out[name] = tensor.weight
    return out


def _finished(checkpoint: Checkpoint) -> Checkpoint:
    """With prefixes stripped, weights named, and overlapping ones noted."""
    path = checkpoint.container.path
    if not checkpoint.weights:
        raise UnreadableError(f"{path}: holds no tensors")
    for name in checkpoint.weights:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UnreadableError(
                f"{path}: the tensor name {printable(name)!r} is no text (half a character)"
            )
    prefix = _prefix(list(checkpoint.weights))
    weights = {name.removeprefix(prefix): weight for name, weight in checkpoint.weights.items()}
    for name, weight in reversed(weights.items()):  # tied ones keep the first of their names
        weight.name = name
    notes = checkpoint.notes
    if pair := overlapping(weights):
        notes += (
            f"Some tensors share memory without being the same, e.g. {printable(pair[0])} and "
            f"{printable(pair[1])}; "
            "they are treated, and written, as separate tensors.",
        )
    container = replace(checkpoint.container, prefix=prefix)
    return Checkpoint(weights, container, checkpoint.provenance, notes)


def _prefix(names: list[str]) -> str:
    """What all names begin with that a wrapper put there."""
    prefix = ""
    while step := next((p for p in _PREFIXES if all(n.startswith(prefix + p) for n in names)), ""):
        if any(len(name) == len(prefix + step) for name in names):
            break
        prefix += step
    return prefix


def _notes(tree: Tree, chosen: Candidate, rebuilt: bool) -> tuple[str, ...]:
    """What the user should know about how a pickled file was read."""
    if tree.format == "torchscript":
        return (
            "The file is a TorchScript archive: its tensors were read without running its code, "
            "and the output is a plain state dict.",
        )
    if chosen.what:
        return (
            f"The file holds a pickled object ({chosen.what}): its tensors were read without running its "
            "code, and the output is a plain state dict.",
        )
    notes = []
    if tree.foreign:
        names = sorted(tree.foreign)
        shown = ", ".join(names[:_SHOWN]) + (
            f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        )
        notes.append(
            f"The file holds objects of {'classes' if len(names) > 1 else 'the class'} {shown}: they were "
            "not rebuilt, nothing of theirs was run, and the output cannot carry them."
        )
    if rebuilt:
        notes.append("Only the tensors of the file were read; the output is a plain state dict.")
    return tuple(notes)


def _no_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise UsageError(
            f"{path}: has no entry {key!r}: tensors lie in it side by side, not in nested entries",
            "Leave --key out.",
        )
