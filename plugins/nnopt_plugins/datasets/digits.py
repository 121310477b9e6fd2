"""The handwritten digits that scikit-learn brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from nnopt_cli import Dataset, Run, option

if TYPE_CHECKING:
    from nnopt_cli.data import Table

_TEST = 360  # images of the last fifth, shuffled with a fixed seed


class Digits(Dataset):
    """1,797 images of handwritten digits, 8x8, grey, that come with scikit-learn (needs no file)."""

    name: ClassVar[str] = "digits"

    part: Literal["all", "train", "test"] = option(
        "all", help="All images, or a fixed split: 1,437 to learn from, 360 to test on."
    )
    flat: bool = option(False, help="Give 64 numbers instead of an image.")

    def open(self, run: Run) -> Table:
        """Columns `x` (float32, 1 x 8 x 8 or 64, values 0 to 1) and `y` (0 to 9), in a fixed random order."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            from nnopt_cli.data import missing_extra

            raise missing_extra("the dataset digits", "scikit-learn") from error
        import numpy as np
        import torch

        from nnopt_cli.data import Numbers, Table

        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0)).numpy()
        order = {"all": order, "train": order[:-_TEST], "test": order[-_TEST:]}[self.part]
        images = (digits.images[order] / 16).astype(np.float32)
        shaped = images.reshape(len(order), -1) if self.flat else images[:, None]
        names = tuple(str(number) for number in range(10))
        return Table({"x": Numbers(shaped), "y": Numbers(digits.target[order])}, {"y": names}, "digits")
