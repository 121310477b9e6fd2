"""Columns of Parquet files: held in memory while they are small, else read row group by row group."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nnopt_cli import NnoptError
from nnopt_cli.data import Column, Images, Lists, Numbers, Table, Texts
from nnopt_plugins.datasets.parquet import class_names, unreadable

GROUPS = 8  # row groups that are held at once where the whole is too large


def table_of(path: Path, files: list[Path], held: int) -> Table:
    """The table of some files of one schema.

    Raises UnreadableError for a broken file, NnoptError where schemas differ or a column has missing values.
    """
    parts = [_opened(file) for file in files]
    schema = parts[0].schema_arrow
    for file, part in zip(files, parts, strict=True):
        if not part.schema_arrow.equals(schema):
            raise NnoptError(f"{file}: its columns differ from those of {files[0]}")
    names = class_names([schema.metadata])
    size = sum(_bytes(part) for part in parts)
    usable = [field.name for field in schema if _form(field.type)]
    if not usable:
        raise NnoptError(
            f"{path}: has no column of images, numbers or text", f"It has: {', '.join(schema.names)}."
        )
    groups = _Groups(files, parts, usable)
    if size <= held:
        whole = groups.whole()
        columns = {name: column_of(whole[name], f"{path}: column {name!r}") for name in usable}
        return Table(columns, names, str(path))
    lazy = {name: _lazy(schema.field(name).type, groups, name, path) for name in usable}
    return Table(lazy, names, str(path), tuple(int(start) for start in groups.starts[:-1]))


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def _bytes(part: pq.ParquetFile) -> int:
    metadata = part.metadata
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _form(kind: pa.DataType) -> str:
    """What a column of a type is: images, numbers, lists, texts, or nothing that a model can use."""
    if pa.types.is_struct(kind):
        return "images" if kind.get_field_index("bytes") >= 0 else ""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "images"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "texts"
    if pa.types.is_dictionary(kind):
        return _form(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        return "lists" if _number(inner) or _form(inner) == "lists" else ""
    return "numbers" if _number(kind) else ""


def _number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def column_of(values: pa.ChunkedArray, what: str) -> Column:
    """A column in memory. Raises NnoptError for missing values."""
    form = _form(values.type)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if form == "images":
        return _images(values, what)
    if values.null_count:
        raise NnoptError(
            f"{what}: {values.null_count} of its values are missing", "Fill them in, or leave it out."
        )
    if form == "texts":
        return Texts(values.to_pylist())
    if form == "numbers":
        plain = values.cast(pa.float64()) if pa.types.is_decimal(values.type) else values
        return Numbers(np.ascontiguousarray(plain.to_numpy()))
    return _lists(values)


def _images(values: pa.ChunkedArray, what: str) -> Images:
    names = None
    if pa.types.is_struct(values.type):
        if values.type.get_field_index("path") >= 0:
            names = [path or "" for path in pc.struct_field(values, "path").to_pylist()]
        values = pc.struct_field(values, "bytes")
    missing = values.null_count
    if missing == len(values) and missing:
        raise NnoptError(
            f"{what}: holds paths of images and not the images themselves",
            "Give the folder of images instead.",
        )
    whole = values.cast(pa.large_binary()).combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    _, offsets, data = whole.buffers()
    starts = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return Images(memoryview(data) if data is not None else memoryview(b""), starts, names)


def _lists(values: pa.ChunkedArray) -> Column:
    """Rows of one length and any depth are arrays; others are lists."""
    whole = values.combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    lengths = pc.list_value_length(whole).to_numpy(zero_copy_only=False)
    inner = whole.flatten()
    if len(lengths) and (lengths == lengths[0]).all():
        flat = column_of(pa.chunked_array([inner]), "a list") if len(inner) else None
        if isinstance(flat, Numbers):
            return Numbers(flat.values.reshape(len(whole), int(lengths[0]), *flat.shape))
    if _number(inner.type):
        return Lists(inner.to_numpy(zero_copy_only=False), np.concatenate([[0], np.cumsum(lengths)]))
    raise NnoptError("a column holds lists of lists of different lengths, which no tensor can hold")


class _Groups:
    """Row groups of several files, the last few of them in memory."""

    def __init__(self, files: list[Path], parts: list[pq.ParquetFile], columns: list[str]) -> None:
        self.files, self._parts, self._columns = files, parts, columns
        self._places = [
            (part, number)
            for part in range(len(parts))
            for number in range(parts[part].metadata.num_row_groups)
        ]
        sizes = [parts[part].metadata.row_group(number).num_rows for part, number in self._places]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._held: OrderedDict[int, pa.Table] = OrderedDict()
        self._made: dict[tuple[int, str], Column] = {}
        self._lock = Lock()

    def whole(self) -> pa.Table:
        """All rows."""
        tables = []
        for file, part in zip(self.files, self._parts, strict=True):
            try:
                tables.append(part.read(columns=self._columns))
            except (pa.ArrowException, OSError) as error:
                raise unreadable(file, error) from error
        return pa.concat_tables(tables)

    def column(self, group: int, name: str, what: str) -> Column:
        """A column of one row group."""
        with self._lock:
            if (group, name) in self._made:
                self._held.move_to_end(group)
                return self._made[group, name]
            if group not in self._held:
                part, number = self._places[group]
                try:
                    self._held[group] = self._parts[part].read_row_group(number, columns=self._columns)
                except (pa.ArrowException, OSError) as error:
                    raise unreadable(self.files[part], error) from error
            if len(self._held) > GROUPS:
                gone, _ = self._held.popitem(last=False)
                self._made = {key: value for key, value in self._made.items() if key[0] != gone}
            made = self._made[group, name] = column_of(self._held[group][name], what)
            return made

    def take(self, name: str, rows: Any, what: str) -> list[tuple[Any, Column, Any]]:
        """For every row group of `rows`: their places among them, its column, and their rows in it."""
        home = np.searchsorted(self.starts, rows, side="right") - 1
        return [
            (
                np.flatnonzero(home == group),
                self.column(int(group), name, what),
                rows[home == group] - self.starts[group],
            )
            for group in np.unique(home)
        ]


def _lazy(kind: pa.DataType, groups: _Groups, name: str, path: Path) -> Column:
    form = _form(kind)
    what = f"{path}: column {name!r}"
    if form == "images":
        return _LazyImages(groups, name, what)
    if form == "numbers":  # labels and the like: small beside what made the file large
        return column_of(_read_alone(groups, name), what)
    return _LazyRows(groups, name, what, form)


def _read_alone(groups: _Groups, name: str) -> pa.ChunkedArray:
    return pa.concat_tables([pq.read_table(file, columns=[name]) for file in groups.files])[name]


class _LazyImages(Images):
    def __init__(self, groups: _Groups, name: str, what: str) -> None:
        self._groups, self._name, self._what = groups, name, what

    def __len__(self) -> int:
        return int(self._groups.starts[-1])

    def take(self, rows: Any) -> list[bytes | memoryview]:
        out: list[bytes | memoryview] = [b""] * len(rows)
        for places, column, inside in self._groups.take(self._name, rows, self._what):
            for place, value in zip(places, column.take(inside), strict=True):
                out[place] = value
        return out

    @property
    def typical_bytes(self) -> int:
        first = self.take(np.zeros(1, np.int64))
        return len(first[0])

    def named(self, row: int) -> str:
        return f"row {row}"


class _LazyRows(Column):
    def __init__(self, groups: _Groups, name: str, what: str, form: str) -> None:
        self._groups, self._name, self._what = groups, name, what
        self.kind = form  # type: ignore[assignment,misc]

    def __len__(self) -> int:
        return int(self._groups.starts[-1])

    def take(self, rows: Any) -> Any:
        out: list[Any] = [None] * len(rows)
        for places, column, inside in self._groups.take(self._name, rows, self._what):
            for place, value in zip(places, column.take(inside), strict=True):
                out[place] = value
        return out
