"""Folders as Hugging Face lays them out: shards with an index, or one file, beside a configuration.

An index names files. A name counts only if it is a plain one of a regular file in the model's own
folder, and everything is compared before any tensor is read: each name of the index must be in its shard, and
each name of a shard in the index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.checkpoint import Checkpoint, Container, Format
from nnopt_cli.formats.json_read import nnopt_strings, parse_object
from nnopt_cli.formats.sniff import check_path, open_file
from nnopt_cli.formats.weight import Weight

ReadShard = Callable[[Path], tuple[str, dict[str, Weight], Mapping[str, str], tuple[str, ...]]]

_INDEX_BYTES = 64 << 20
_COMPANION_BYTES = 64 << 20
_INDEX = ".index.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_USUAL = (  # in the order in which transformers and diffusers look for them
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".th", ".ckpt", ".pkl", ".pickle")
_OTHERS = (".h5", ".msgpack", ".onnx", ".gguf", ".ggml", ".pt2", ".tflite", ".npz", ".ot", ".pb")


def read_folder(folder: Path, read_shard: ReadShard) -> Checkpoint:
    """Read the model in `folder`: by its index, or its only model file. Raises UnreadableError."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise UnreadableError(f"{folder}: the folder cannot be listed: {error.strerror}") from error
    indexes = [name for name in names if name.endswith(_INDEX)]
    files = [name for name in names if name.endswith(_WEIGHTS) and (folder / name).is_file()]
    chosen = next((name for name in _USUAL if name in names), None)
    if chosen is None and len(indexes) == 1:
        chosen = indexes[0]
    if chosen is None and not indexes and len(files) == 1:
        chosen = files[0]
    if chosen is None:
        raise _undecided(folder, indexes or files)
    if chosen.endswith(_INDEX):
        return read_index(folder / chosen, folder, read_shard, folder)
    return _joined(folder, folder, {chosen: None}, (), read_shard)


def read_index(index: Path, folder: Path, read_shard: ReadShard, named: Path | None = None) -> Checkpoint:
    """Read the shards that `index` names, all of them in `folder`; `named` is what the user gave."""
    _check_inside(folder, index.name, index)
    file = open_file(index)
    if file.size > _INDEX_BYTES:
        raise UnreadableError(f"{index}: an index of {file.size} bytes is larger than any real one")
    try:
        table = parse_object(file.read(0, file.size))
        wanted = _by_shard(table.get("weight_map"))
    except ValueError as error:
        raise UnreadableError(f"{index}: the index {error}", "Download it again.") from error
    for shard in wanted:
        _check_inside(folder, shard, index)
    read = _joined(named or index, folder, wanted, (index,), read_shard)
    said = table.get("metadata")
    kept = {key: said[key] for key in said if not key.startswith("nnopt.")} if isinstance(said, dict) else {}
    return replace(read, container=replace(read.container, index=kept))


def _by_shard(table: Any) -> dict[str, list[str] | None]:
    """Tensor names by shard, both in the order of the index."""
    if not isinstance(table, dict) or not table:
        raise ValueError("has no weight_map, or an empty one")
    out: dict[str, list[str] | None] = {}
    for name, shard in table.items():
        if not isinstance(shard, str):
            raise ValueError(f"gives {name!r:.120} no file name")
        cast(list[str], out.setdefault(shard, [])).append(name)
    return out


def _check_inside(folder: Path, name: str, index: Path) -> None:
    """Refuse a name that leads anywhere but to a regular file in the folder itself."""
    shown = f"{name!r:.120}"
    if not name or name in (".", "..") or {"/", "\\", "\0"} & set(name):
        raise UnreadableError(
            f"{index}: the index names the file {shown}, which is not a plain name in its own folder",
            "nnopt follows no paths out of a model's folder.",
        )
    path = folder / name
    if not os.path.lexists(path):
        raise UnreadableError(
            f"{index}: the shard {shown} is missing from {folder}", "Download it, or all of the model, again."
        )
    if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(folder)):
        raise UnreadableError(
            f"{path}: is a link that leads out of the model's folder",
            "Copy the folder with the files themselves (`cp -rL`), or download with `--local-dir`.",
        )
    if check_path(path) == "folder":
        raise UnreadableError(f"{path}: is a folder where a shard is expected")


def _joined(
    named: Path,
    folder: Path,
    wanted: Mapping[str, list[str] | None],
    index: tuple[Path, ...],
    read_shard: ReadShard,
) -> Checkpoint:
    """All shards as one checkpoint. `wanted` gives the names in each; None for whatever it holds."""
    weights: dict[str, Weight] = {}
    shards: dict[str, str] = {}
    metadata: dict[str, str] = {}
    notes: list[str] = []
    formats: set[str] = set()
    for shard, names in wanted.items():
        _check_inside(folder, shard, index[0] if index else folder)
        kind, found, strings, said = read_shard(folder / shard)
        if names is not None:
            _compare(folder / shard, names, found)
        formats.add(kind)
        weights.update(found)
        shards.update(dict.fromkeys(found, shard))
        metadata = {**strings, **metadata}
        notes += [note for note in said if note not in notes]
    if len(formats) > 1:
        raise UnreadableError(f"{named}: its shards are of different formats: {', '.join(sorted(formats))}")
    plain = {key: value for key, value in metadata.items() if not key.startswith("nnopt.")}
    container = Container(
        named,
        cast(Format, formats.pop()),
        (*index, *(folder / shard for shard in wanted)),
        metadata=plain,
        shards=shards,
        companions=_companions(folder, {*wanted, *(path.name for path in index)}),
    )
    return Checkpoint(weights, container, nnopt_strings(metadata), tuple(notes))


def _compare(shard: Path, names: list[str], found: Mapping[str, Weight]) -> None:
    if lacking := [name for name in names if name not in found]:
        raise UnreadableError(
            f"{shard}: lacks the tensor {lacking[0]!r:.120}, which the index says is in it",
            "Index and shards do not belong together: download the model again.",
        )
    listed = {id(found[name]) for name in names}  # by tensor: an index may leave out tied names
    if extra := [name for name, weight in found.items() if id(weight) not in listed]:
        raise UnreadableError(
            f"{shard}: holds the tensor {extra[0]!r:.120}, which the index does not list there",
            "Index and shards do not belong together: download the model again.",
        )


def _companions(folder: Path, used: set[str]) -> tuple[Path, ...]:
    """Small regular files that belong to the model and hold no weights: configuration, tokenizer, card."""
    out = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        skip = entry.name.endswith((*_WEIGHTS, *_OTHERS, _INDEX)) or entry.name.startswith(".")
        if entry.name in used or skip or not entry.is_file(follow_symlinks=False):
            continue
        if entry.stat(follow_symlinks=False).st_size <= _COMPANION_BYTES:
            out.append(folder / entry.name)
    return tuple(out)


def _undecided(folder: Path, found: list[str]) -> UnreadableError:
    if not found:
        return UnreadableError(
            f"{folder}: no model in this folder: no index, and no .safetensors, .bin, .pt or .pth file",
            "Give the model file itself if it has another name.",
        )
    if len({name for name in found if _SHARD.search(name)}) > 1:
        return UnreadableError(
            f"{folder}: holds {len(found)} shards, and not the index that says what is in which",
            "Download the file that ends in .index.json, too, into the same folder.",
        )
    names = ", ".join(found[:8]) + (", …" if len(found) > 8 else "")
    return UnreadableError(
        f"{folder}: {len(found)} files in this folder may be the model: {names}", "Give one of them by name."
    )
