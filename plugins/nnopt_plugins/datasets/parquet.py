"""Parquet files, as the `datasets` library writes them: images as bytes, or plain columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import NnoptError, Run, UnreadableError
from nnopt_plugins.datasets.files import FileDataset, Kind

if TYPE_CHECKING:
    from nnopt_cli.data import Table

HELD = 2 << 30  # bytes of columns that are held in memory, encoded; beyond that row groups come and go


class Parquet(FileDataset):
    """A Parquet file, or a folder of them: images as {bytes, path} or plain columns."""

    form: ClassVar[Kind] = "parquet"

    def open(self, run: Run) -> Table:
        """The table; images stay encoded."""
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            from nnopt_cli.data import missing_extra

            raise missing_extra(f"{self.path}: reading Parquet", "pyarrow") from error
        from nnopt_plugins.datasets.parquet_columns import table_of

        return table_of(self.path, parquet_files(self.path), HELD)


def parquet_files(path: Path) -> list[Path]:
    """The file, or the files of a folder in alphabetical order."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*.parquet") if not each.name.startswith((".", "_")))
    splits = {each.name.split("-")[0].split(".")[0] for each in found}
    if {"train", "test"} <= splits or {"train", "validation"} <= splits:
        raise NnoptError(
            f"{path}: holds several splits: {', '.join(sorted(splits))}",
            "Name the files of one: give its file, or a folder of its own.",
        )
    return found


def class_names(metadata: Sequence[Any]) -> dict[str, tuple[str, ...]]:
    """Names of classes by column, from what `datasets` notes in a file (untrusted: odd ones are left out)."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in metadata:
        try:
            features = json.loads((entry or {})[b"huggingface"])["info"]["features"]
            for name, feature in features.items():
                names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
                if isinstance(names, list) and all(isinstance(each, str) for each in names):
                    found[str(name)] = tuple(names)
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    return found


def unreadable(path: Path, error: Exception) -> UnreadableError:
    """The error for a file that pyarrow cannot read."""
    said = " ".join(str(error).split())
    return UnreadableError(f"{path}: cannot be read as Parquet: {said}", "It may be damaged or cut short.")
