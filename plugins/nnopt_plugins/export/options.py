"""Options that several exporters share, and sizes as people write them: `500MB`, `2GB`, `1048576`."""

from __future__ import annotations

import re
from typing import Literal

from nnopt_cli import Exporter, option

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class SixteenBit(Exporter, kind="exporter"):
    """An exporter that can store weights in 16 bits."""

    dtype: Literal["fp16", "bf16"] | None = option(
        None,
        help="Store weights in 16 bits. An ONNX file of fp16 computes in them, but for norms, softmax and "
        "large sums; one of bf16 computes in fp32.",
    )


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError that says how to write a size."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError("must be a size such as 500MB, 2GB or a number of bytes")
    size = round(float(found[1]) * _UNITS[found[2].lower()])
    if size < 1:
        raise ValueError("must be at least one byte")
    return size
