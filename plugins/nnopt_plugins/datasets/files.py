"""What a path is, by its bytes; and the short form of datasets that are files: the path itself."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from nnopt_cli import Dataset, option

Kind = Literal["parquet", "folder", "arrays", "csv"]

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_ARRAYS = frozenset({".npz", ".npy", ".safetensors", ".pt", ".pth", ".th", ".ckpt"})
_TEXT = frozenset({".csv", ".tsv", ".txt"})
_KNOWN = frozenset({".parquet", ".pq", *_ARRAYS, *_TEXT})


class FileDataset(Dataset, kind="dataset"):
    """A dataset that a path alone can name."""

    form: ClassVar[Kind]

    path: Path = option(help="The file or folder.", metavar="PATH")

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        """A path whose bytes are of this form. Raises ValueError for one that does not exist."""
        path = Path(text).expanduser()
        if not path.exists():
            if cls.form == "parquet" and _like_a_path(text):
                raise ValueError("there is no such file or folder")
            return None
        return cls(path=path) if form_of(path) == cls.form else None

    def spec(self) -> str:
        """The path, where it says everything."""
        short = str(self.path)
        plain = set(self.table()) == {"name", "path"} and self.path.exists()
        return short if plain and self.from_short(short) == self else super().spec()


def _like_a_path(text: str) -> bool:
    """Whether a text was meant as a path, not as a component's name or a reference to code."""
    return (Path(text).suffix.lower() in _KNOWN or "/" in text) and ":" not in text


def form_of(path: Path) -> Kind | None:
    """What is at a path, by its first bytes; a table of text, which has none, by its suffix."""
    if path.is_dir():
        names = [each for each in path.rglob("*.parquet") if not each.name.startswith((".", "_"))]
        return "parquet" if names else "folder"
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    if head[:4] == b"PAR1":
        return "parquet"
    text = path.suffix.lower() in _TEXT
    if head[:2] == b"PK" or head[:6] == b"\x93NUMPY" or (len(head) > 8 and head[8:9] == b"{" and not text):
        return "arrays"
    if text:
        return "csv"
    return (
        "arrays"
        if path.suffix.lower() in _ARRAYS
        else "parquet"
        if path.suffix in (".parquet", ".pq")
        else None
    )
