"""Two fine-tunes of one network on CIFAR-10 (JPEG images): their soup, beside them and their output ensemble.

A ResNet-20 is tuned twice for two epochs on the first 10,000 training images, with two rates and two seeds.
The soup is chosen on the first 2,000 test images; all are measured on the other 8,000.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from _timing import Report, arguments
from recover import ARCH, CHOOSING, OPTIMIZER, RECIPE, SHARED, command

TUNES = {"a": ("--lr", "0.02", "--seed", "1"), "b": ("--lr", "0.01", "--seed", "2")}


def accuracies(found: dict[str, Any]) -> list[float]:
    """The accuracy of every model of an `evaluate` document."""
    return [model["metrics"]["accuracy"] for model in found["models"]]


def main() -> None:
    given = arguments(__doc__)
    report, limit = Report(given.check), ("--threads", given.threads)
    with TemporaryDirectory() as home:
        folder = Path(home)
        table = pq.read_table(SHARED / "cifar10" / "test.parquet")
        pq.write_table(table.slice(0, CHOOSING), folder / "choosing.parquet")
        pq.write_table(table.slice(CHOOSING), folder / "rest.parquet")
        source, train = SHARED / "checkpoints" / "resnet20-12fca82f.th", SHARED / "cifar10" / "train.parquet"
        members = []
        for name, options in TUNES.items():
            members.append(folder / f"{name}.pt")
            settings = [*RECIPE, *OPTIMIZER, *options, "--arch", ARCH, *limit]
            command(
                "finetune",
                source,
                "--data",
                train,
                "--rows",
                ":10000",
                "--epochs",
                2,
                *settings,
                "-o",
                members[-1],
            )
        both = [*members, "--arch", ARCH, "--input", "3x32x32", "--normalize", "imagenet", *limit]
        choosing = ["--data", folder / "choosing.parquet"]
        command("ensemble", *both, *choosing, "--method", "soup", "-o", folder / "soup.pt")
        command("ensemble", *both, *choosing, "--method", "mean", "-o", folder / "mean.pt2")
        shown = ["--arch", ARCH, "--normalize", "imagenet", "--data", folder / "rest.parquet", *limit]
        *apart, soup = accuracies(command("evaluate", *members, folder / "soup.pt", *shown))
        (mean,) = accuracies(command("evaluate", folder / "mean.pt2", *shown[2:]))
        print(f"members {apart[0]:.4f} and {apart[1]:.4f}, soup {soup:.4f}, output ensemble {mean:.4f}")
        report.bar("soup, less the better member", soup - max(apart), 0.0, least=True, unit="")
        report.bar("output ensemble, less the soup", mean - soup, 0.01, unit="")
    report.finish()


if __name__ == "__main__":
    main()
