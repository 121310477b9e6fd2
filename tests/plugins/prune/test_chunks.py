"""Tensors of several chunks, pruned from file to file: what happens at the borders between chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nnopt_cli.formats.weight import CHUNK_BYTES
from nnopt_cli.testing import run_command

SHAPES = {"a.weight": (1201, 1021), "b.weight": (331, 24, 3, 67)}  # of neither a chunk divides a row


def smallest(scores: np.ndarray, share: float) -> np.ndarray:
    """Where the `share` smallest are, the first of equal ones before the others."""
    gone = np.zeros(scores.size, bool)
    gone[np.argsort(scores.reshape(-1), kind="stable")[: round(share * scores.size)]] = True
    return gone.reshape(scores.shape)


def by_weight(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    flat = smallest(np.concatenate([abs(tensor).reshape(-1) for tensor in tensors.values()]), 0.6)
    cut = np.split(flat, np.cumsum([tensor.size for tensor in tensors.values()])[:-1])
    return {name: part.reshape(tensors[name].shape) for name, part in zip(tensors, cut, strict=True)}


def by_pattern(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """2:4 along dimension 1; the rest of a row that 4 does not divide stays."""
    out = {}
    for name, tensor in tensors.items():
        rows = np.moveaxis(abs(tensor), 1, -1)
        whole = rows.shape[-1] // 4 * 4
        order = np.argsort(rows[..., :whole].reshape(-1, 4), axis=1, kind="stable")
        gone = np.zeros((len(order), 4), bool)
        np.put_along_axis(gone, order[:, :2], True, axis=1)
        full = np.zeros(rows.shape, bool)
        full[..., :whole] = gone.reshape(*rows.shape[:-1], whole)
        out[name] = np.moveaxis(full, -1, 1)
    return out


def by_block(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Blocks of 5x7 within each tensor, by their mean."""
    out = {}
    for name, tensor in tensors.items():
        matrix = abs(tensor.reshape(tensor.shape[0], -1)).astype("f8")
        rows, columns = (np.arange(0, size, step) for size, step in zip(matrix.shape, (5, 7), strict=True))
        ones = np.ones_like(matrix)
        sums, sizes = (np.add.reduceat(np.add.reduceat(m, rows, 0), columns, 1) for m in (matrix, ones))
        gone = smallest(sums / sizes, 0.6)
        wide = gone.repeat(5, 0)[: matrix.shape[0]].repeat(7, 1)[:, : matrix.shape[1]]
        out[name] = wide.reshape(tensor.shape)
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    tensors = {name: rng.integers(1, 1 << 20, shape).astype("f4") for name, shape in SHAPES.items()}
    assert all(tensor.nbytes > 2 * CHUNK_BYTES for tensor in tensors.values())
    path = tmp_path_factory.mktemp("chunks") / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        (("-s", "0.6"), by_weight),
        (("--granularity", "2:4"), by_pattern),
        (("--granularity", "5x7", "--scope", "layer", "-s", "0.6"), by_block),
    ],
)
@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_border_of_a_chunk_is_no_border(tmp_path, model, options, reference, threads):
    done = run_command("prune", model, *options, "--threads", threads, "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.stderr
    before, after = load_file(model), load_file(tmp_path / "out.safetensors")
    for name, gone in reference({name: before[name] for name in SHAPES}).items():
        assert np.array_equal(after[name] == 0, gone), name
        assert np.array_equal(after[name][~gone], before[name][~gone])
