"""What a reader returns and a writer takes: the weights, and how the file held them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nnopt_cli.formats.weight import Weight

Format = Literal["safetensors", "torch", "torch-legacy", "torchscript", "pickle", "pt2"]


@dataclass(frozen=True)
class Leaf:
    """A tensor inside the tree of a pickled checkpoint."""

    weight: Weight
    parameter: bool = False  # saved as nn.Parameter rather than as a plain tensor
    requires_grad: bool = False


@dataclass(frozen=True)
class Container:
    """How a file held its weights, so that an output can hold them the same way.

    Attributes:
        path: the file or folder that was named.
        format: what its bytes are.
        files: every file whose bytes were used.
        key: where in the tree the state dict lies, e.g. `("state_dict",)`; empty for a bare one.
        prefix: what all names began with and the model's names do not, e.g. `module.`.
        tree: for pickled formats, the inert object tree (dicts, lists, numbers, strings, `Leaf`s).
        metadata: string metadata of the file other than nnopt's own.
        shards: for a sharded checkpoint, tensor name -> the shard's file name.
        index: what the shard index says of the model beside that, as JSON holds it.
        companions: for a folder, other files that belong to the model (configuration, tokenizer).
        rebuilt: True where the file held objects and only their tensors were taken; the output is then
            a plain state dict.
        archive: for a `.pt2`, its program and all else beside the weights (`formats/pt2_archive.py`).
    """

    path: Path
    format: Format
    files: tuple[Path, ...]
    key: tuple[str, ...] = ()
    prefix: str = ""
    tree: Any = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    shards: Mapping[str, str] | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    companions: tuple[Path, ...] = ()
    rebuilt: bool = False
    archive: Any = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: nothing of the tensors' data is in memory yet.

    Attributes:
        weights: the state dict, in the file's order; tied names share one `Weight`.
        container: how the file held them.
        provenance: nnopt's own record, if the file carries one (`nnopt.*` keys, JSON strings).
        notes: what the user should know about how it was read, one sentence each.
    """

    weights: dict[str, Weight]
    container: Container
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
