"""Reading and decoding a Parquet file of JPEG images into batches, against a bare Pillow loop.

Both sides read the file and decode the same rows with the same number of threads. nnopt's side goes on to
what a model is fed: batches of floats, normalised; the bare loop stops at arrays of bytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from _timing import Report, arguments, interleaved
from nnopt_plugins.datasets.parquet import Parquet
from PIL import Image

from nnopt_cli import Run
from nnopt_cli.data.augment import Normalize
from nnopt_cli.data.opening import Wanted, opened

BATCH = 128
CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10" / "train.parquet"


def nnopt(path: Path, rows: int, workers: int) -> int:
    """Batches as a model gets them."""
    wanted = Wanted(rows=f":{rows}", batch_size=BATCH, workers=workers, normalize=Normalize.parse("imagenet"))
    return sum(batch.size for batch in opened(Parquet(path=path).open(Run()), wanted=wanted))


def bare(path: Path, rows: int, workers: int) -> int:
    """Pillow in a loop, or in a pool of threads, a batch at a time."""
    table = pq.read_table(path, columns=["image", "label"])
    images = [cell["bytes"] for cell in table["image"].to_pylist()]
    labels = table["label"].to_numpy()

    def decode(start: int) -> int:
        part = images[start : min(rows, start + BATCH)]
        pixels = np.stack([np.asarray(Image.open(BytesIO(each)).convert("RGB")) for each in part])
        return len(pixels) if len(labels[start : start + BATCH]) else 0

    starts = range(0, rows, BATCH)
    if not workers:
        return sum(map(decode, starts))
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(decode, starts))


if __name__ == "__main__":
    given = arguments(__doc__, rows=10_000, file=str(CIFAR))
    torch.set_num_threads(1)
    report, path = Report(given.check), Path(given.file)
    for workers in (0, given.threads):
        sides = {
            "nnopt": partial(nnopt, path, given.rows, workers),
            "bare": partial(bare, path, given.rows, workers),
        }
        assert all(side() == given.rows for side in sides.values())
        seconds = {name: min(times) for name, times in interleaved(sides, given.repeat).items()}
        per = {name: given.rows / time for name, time in seconds.items()}
        what = f"{workers} threads: {per['nnopt']:,.0f} images/s, Pillow alone {per['bare']:,.0f}"
        report.bar(what, seconds["bare"] / seconds["nnopt"], 0.9, least=True)
    report.finish()
