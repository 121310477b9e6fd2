"""Figures of single tensors, against torch's own arithmetic; N:M detection against constructed tensors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from report_models import in_memory, state_dict

from nnopt_cli import MemoryWeight, Run
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.weight import CHUNK_BYTES, Array, Tap, Weight
from nnopt_cli.model.patterns import implies
from nnopt_cli.model.stats import measure, measure_all
from nnopt_cli.model.values import as_numbers, nonzero

FLOAT8 = [name for name, dtype in DTYPES.items() if dtype.kind == "float8"]
FLOATS = ["float64", "float32", "float16", "bfloat16"]


@pytest.mark.parametrize("name", FLOAT8)
def test_every_float8_code_is_worth_what_torch_says(name: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    want = codes.view(getattr(torch, name)).double().numpy()
    np.testing.assert_array_equal(as_numbers(codes.numpy(), DTYPES[name]), want)
    np.testing.assert_array_equal(nonzero(codes.numpy(), DTYPES[name]), want != 0)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_half_is_worth_what_torch_says(name: str) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    want = torch.from_numpy(codes.view(np.int16)).view(getattr(torch, name)).double().numpy()
    words = codes.view(DTYPES[name].word)
    np.testing.assert_array_equal(as_numbers(words, DTYPES[name]), want)
    np.testing.assert_array_equal(nonzero(words, DTYPES[name]), want != 0)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")  # torch's, on making the tensor
@pytest.mark.parametrize("name", [*FLOATS, "complex64", "complex128", "complex32"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (300, 301), (20, 6, 5, 5)])
def test_figures_are_torchs(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    dtype = getattr(torch, name)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    tensor = torch.randn(shape, dtype=wide) * (torch.rand(shape) < 0.7)
    tensor = (tensor.to(torch.complex64) if name == "complex32" else tensor).to(dtype)
    want = tensor.to(wide).abs()
    found = measure(MemoryWeight.of("w", tensor))
    assert found.elements == tensor.numel()
    assert found.zeros == int((want == 0).sum())
    assert found.nonfinite == 0
    assert found.l1 == pytest.approx(float(want.sum()), rel=1e-12)
    assert found.l2 == pytest.approx(float((want * want).sum().sqrt()), rel=1e-12)
    assert found.max_abs == pytest.approx(float(want.max()) if want.numel() else 0.0, rel=1e-15)


@pytest.mark.parametrize("name", FLOATS)
def test_what_is_not_finite_is_counted_and_kept_out_of_the_norms(name: str) -> None:
    tensor = torch.tensor(
        [3.0, float("nan"), -4.0, float("inf"), -float("inf"), -0.0], dtype=getattr(torch, name)
    )
    found = measure(MemoryWeight.of("w", tensor))
    assert (found.nonfinite, found.zeros, found.l1, found.l2, found.max_abs) == (3, 1, 7.0, 5.0, 4.0)


def test_integers_have_zeros_but_no_norms() -> None:
    found = measure(MemoryWeight.of("n", torch.tensor([0, 5, 0, -3])))
    assert (found.zeros, found.l1, found.patterns) == (2, 0.0, ())


def test_the_hash_is_of_the_bytes_in_order() -> None:
    tensor = torch.randn(700, 301)
    assert measure(MemoryWeight.of("w", tensor)).blake3 == blake3(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    model = in_memory(state_dict())
    names = list(model.weights)
    assert measure_all(model, names, Run(threads=threads)) == {n: measure(model.weights[n]) for n in names}


def keep_n_of_m(shape: tuple[int, ...], n: int, m: int) -> torch.Tensor:
    """Random weights with exactly the n largest of each m along dimension 1 kept, by torch's own sort."""
    moved = torch.randn(shape).movedim(1, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, m)
    rank = groups.abs().argsort(-1, descending=True).argsort(-1)
    return torch.where(rank < n, groups, 0).reshape(moved.shape).movedim(-1, 1).contiguous()


@pytest.mark.parametrize(
    ("n", "m"), [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (2, 8), (5, 8), (1, 16), (7, 16)]
)
@pytest.mark.parametrize("shape", [(64, 64), (40, 32, 3, 3), (48, 16, 5)])
def test_constructed_patterns_are_found(n: int, m: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(n * m)
    assert measure(MemoryWeight.of("w", keep_n_of_m(shape, n, m))).patterns == (f"{n}:{m}",)


def test_a_pattern_is_found_across_chunks_and_beside_a_remainder() -> None:
    torch.manual_seed(0)
    big = keep_n_of_m((CHUNK_BYTES // 512, 256), 2, 4)  # two chunks of float32
    assert measure(MemoryWeight.of("w", big)).patterns == ("2:4",)
    left_over = torch.cat([keep_n_of_m((200, 64), 2, 4), torch.randn(200, 3)], 1)
    assert measure(MemoryWeight.of("w", left_over)).patterns == ("2:4",)
    big[-1, 252:] = 1.0  # one group of four, in the last chunk
    assert "2:4" not in measure(MemoryWeight.of("w", big)).patterns


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.75, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("shape", [(64, 64), (256, 128), (32, 16, 3, 3), (8, 8), (4096,)])
def test_unstructured_zeros_show_no_pattern(sparsity: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    tensor = torch.randn(shape) * (torch.rand(shape) >= sparsity)
    assert measure(MemoryWeight.of("w", tensor)).patterns == ()


def test_a_convolutions_groups_lie_along_input_channels_not_along_the_kernel() -> None:
    torch.manual_seed(4)
    along_kernel = keep_n_of_m((64, 4, 16, 2), 2, 4).transpose(1, 2).contiguous()  # groups along dimension 2
    assert measure(MemoryWeight.of("w", along_kernel)).patterns == ()


@given(
    st.sampled_from([(1, 2), (1, 4), (2, 4), (3, 4), (4, 8), (2, 8), (6, 16)]), st.sampled_from([2, 4, 8, 16])
)
@settings(max_examples=30, deadline=None)
def test_implied_patterns_hold(pattern: tuple[int, int], m: int) -> None:
    rows = np.abs(keep_n_of_m((32, 64), *pattern).numpy()) > 0
    most = int(rows.reshape(32, -1, m).sum(-1).max())
    for n in range(1, m):
        if implies(pattern, (n, m)):
            assert most <= n


class Endless(Weight):
    """A tensor of any size that is nowhere: every chunk is made up when it is read."""

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        out[:] = 1.5


def test_memory_does_not_grow_with_the_tensor() -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        measure(Endless("w", DTYPES["float32"], (rows, 1024)))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(64)
    small, large = peak(512), peak(32_768)  # 2 MB and 134 MB
    assert large < 1.2 * small + 100_000
    assert large < 8 << 20
