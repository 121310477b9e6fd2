"""Small models, images and files for the tests of data."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

from nnopt_cli import DataOptions, Model, Run, load
from nnopt_cli.plugin.manager import Wanted, load_plugins

torch.set_num_threads(1)


class Small(nn.Module):
    """A convolution and a head: images of any size to classes."""

    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.head = nn.Linear(6, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(images)).mean((2, 3)))


class Viewed(Small):
    """The same with a `view` that needs channels first in memory."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.conv(images))
        return self.head(out.view(out.shape[0], -1).view(out.shape[0], 6, -1).mean(2))


class Both(nn.Module):
    """An image and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.head = nn.Linear(5, 2)

    def forward(self, image: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.conv(image).mean((2, 3)), extra], 1))


class Tokens(nn.Module):
    """Tokens and which of them count, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        found = self.table(ids)
        weight = torch.ones_like(ids) if mask is None else mask
        mean = (found * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1)
        return {"hidden": found, "logits": self.head(mean)}


def model_of(folder: Path, build: Any, inputs: str | None = None, name: str = "model.pt") -> Model:
    """A model with seeded random weights, from a file."""
    torch.manual_seed(0)
    torch.save(build().state_dict(), folder / name)
    return load(folder / name, build, inputs=inputs)


def options(**given: Any) -> DataOptions:
    """What the flags give, with the built-in components."""
    registry = load_plugins(Wanted(allowed=frozenset()))
    return DataOptions.model_validate(given, context={"registry": registry, "allow_code": True})


def run(**given: Any) -> Run:
    """A quiet run."""
    return Run(**{"threads": 2, **given})


def jpeg(pixels: np.ndarray, form: str = "JPEG") -> bytes:
    """Pixels (height x width or height x width x 3) as a file's bytes."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def pictures(count: int, size: tuple[int, int] = (9, 7), seed: int = 0) -> np.ndarray:
    """Random smooth RGB images, uint8."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 3, 3, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize(size[::-1])) for each in coarse])


def image_file(
    path: Path, encoded: list[bytes | None], labels: list[int], names: list[str] | None = None
) -> Path:
    """A Parquet file in the layout of `datasets`."""
    cells = [{"bytes": each, "path": f"{i}.jpg"} for i, each in enumerate(encoded)]
    table = pa.table({"image": pa.array(cells), "label": pa.array(labels, pa.int64())})
    if names:
        import json

        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=4)
    return path
