"""Arrays in a file: .npz, .safetensors, .pt; their names are the columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import NnoptError, Run, UnreadableError, load
from nnopt_plugins.datasets.files import FileDataset, Kind

if TYPE_CHECKING:
    from nnopt_cli import Weight
    from nnopt_cli.data import Column, Table

HELD = 1 << 30  # bytes of a tensor that is read whole; of a larger one, rows are read when they are needed


class Arrays(FileDataset):
    """Tensors in a .npz, .safetensors or .pt file, called x and y, or what --x and --y say."""

    form: ClassVar[Kind] = "arrays"

    def open(self, run: Run) -> Table:
        """A column for every array; nothing that the file holds is run."""
        from nnopt_cli.data import Table

        with self.path.open("rb") as file:
            head = file.read(6)
        if head == b"\x93NUMPY":
            raise NnoptError(
                f"{self.path}: holds one array, and inputs and targets are two",
                "Write both into one file: numpy.savez(PATH, x=…, y=…).",
            )
        columns = self._numpy() if head[:2] == b"PK" and self._is_numpy() else self._tensors()
        single = [name for name, column in columns.items() if column is None]
        kept = {name: column for name, column in columns.items() if column is not None}
        if not kept:
            raise NnoptError(f"{self.path}: holds no arrays, only single numbers: {', '.join(single)}")
        return Table(kept, origin=str(self.path))

    def _is_numpy(self) -> bool:
        import zipfile

        try:
            with zipfile.ZipFile(self.path) as archive:
                return all(name.endswith(".npy") for name in archive.namelist())
        except zipfile.BadZipFile as error:
            raise UnreadableError(
                f"{self.path}: is a broken zip file: {error}", "It may be cut short."
            ) from error

    def _numpy(self) -> Mapping[str, Column | None]:
        import zipfile
        import zlib

        import numpy as np

        from nnopt_cli.data import Numbers, Texts

        out: dict[str, Column | None] = {}
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                for name in archive.files:
                    values = archive[name]
                    if values.ndim == 0:
                        out[name] = None
                    elif values.dtype.kind in "US":
                        out[name] = Texts([str(each) for each in values])
                    else:
                        out[name] = Numbers(values)
        except (
            ValueError,
            OSError,
            EOFError,
            KeyError,
            MemoryError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            hint = (
                "Objects in arrays are pickles, which are not read: save numbers."
                if "pickle" in str(error)
                else None
            )
            raise UnreadableError(f"{self.path}: cannot be read: {error}", hint) from error
        return out

    def _tensors(self) -> Mapping[str, Column | None]:
        try:
            model = load(self.path)
        except UnreadableError as error:
            why = error.message.removeprefix(f"{self.path}: ")
            hint = "Save a dict of tensors: torch.save({'x': …, 'y': …}, PATH)."
            raise UnreadableError(f"{self.path}: cannot be read as data: {why}", hint) from error
        return {name: _column(weight) if weight.shape else None for name, weight in model.weights.items()}


def _column(weight: Weight) -> Column:
    import numpy as np

    from nnopt_cli.data import Numbers

    if weight.dtype.name == "bfloat16" or weight.dtype.kind in ("float8", "complex"):
        if weight.dtype.kind == "complex":
            raise NnoptError(f"the tensor {weight.name!r} holds complex numbers, which no model here takes")
        return Numbers(weight.torch().float().numpy())
    if weight.nbytes <= HELD:
        words = weight.words()
        return Numbers(words.astype(bool) if weight.dtype.kind == "bool" else words)
    return _rows(weight, np.dtype(weight.dtype.word))


def _rows(weight: Weight, dtype: Any) -> Column:
    import numpy as np

    from nnopt_cli.data import Numbers

    class Rows(Numbers):
        """Numbers in a file: rows are read when they are taken."""

        def __init__(self) -> None:
            self.shape_ = weight.shape

        def __len__(self) -> int:
            return int(weight.shape[0])

        @property
        def shape(self) -> tuple[int, ...]:
            return tuple(weight.shape[1:])

        @property
        def dtype(self) -> Any:
            return dtype

        def take(self, rows: Any) -> Any:
            each = weight.numel // max(1, weight.shape[0])
            out = np.empty((len(rows), each), dtype)
            for place, row in enumerate(rows):
                weight.read_into(out[place], int(row) * each)
            return out.reshape(len(rows), *weight.shape[1:])

    return Rows()
