"""A folder of images, one folder for each class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import NnoptError, Run
from nnopt_plugins.datasets.files import IMAGES, FileDataset, Kind

if TYPE_CHECKING:
    from nnopt_cli.data import Table


class Folder(FileDataset):
    """A folder of images: class/image.jpg, the classes numbered in alphabetical order."""

    name: ClassVar[str] = "folder"
    form: ClassVar[Kind] = "folder"

    def open(self, run: Run) -> Table:
        """Columns `image` and `label`; images are read when they are needed."""
        import numpy as np

        from nnopt_cli.data import Files, Numbers, Table

        classes = sorted(each.name for each in os.scandir(self.path) if each.is_dir() and each.name[0] != ".")
        if not classes:
            raise NnoptError(
                f"{self.path}: has no folders of images",
                "Images lie in one folder for each class: CLASS/IMAGE.jpg; or it should hold .parquet files.",
            )
        found = [_images(self.path / name) for name in classes]
        if empty := [name for name, paths in zip(classes, found, strict=True) if not paths]:
            raise NnoptError(
                f"{self.path}: the class {empty[0]!r} has no images"
                + (f", nor have {len(empty) - 1} others" if len(empty) > 1 else ""),
                "Put images into its folder, or remove it: the numbers of the classes depend on it.",
            )
        paths = [path for group in found for path in group]
        labels = np.repeat(np.arange(len(classes)), [len(group) for group in found])
        return Table(
            {"image": Files(paths), "label": Numbers(labels)}, {"label": tuple(classes)}, str(self.path)
        )


def _images(folder: Path) -> list[Path]:
    """All images below, in alphabetical order."""
    out = []
    for home, _, names in os.walk(folder):
        out += [Path(home, name) for name in names if os.path.splitext(name)[1].lower() in IMAGES]  # noqa: PTH122
    return sorted(out)
