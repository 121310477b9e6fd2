"""The same masks as torch's own pruning, and the same on every torch device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnopt_plugins.prune.bracket import Finder
from nnopt_plugins.prune.device import DeviceFinder, apply
from nnopt_plugins.prune.granularities import Block
from nnopt_plugins.prune.passes import Prune
from prune_models import FLOATS, check, edited, memory_model, naive, quiet, random_tensors, source_of
from torch.nn.utils import prune as torch_prune


def modules() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {"conv": torch.nn.Conv2d(8, 16, 3), "fc": torch.nn.Linear(40, 30)}


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9])
def test_global_unstructured(amount: float) -> None:
    ours, theirs = modules(), modules()
    model = memory_model({f"{name}.weight": m.weight.detach().numpy() for name, m in ours.items()})
    after = Prune(sparsity=amount).run(model, quiet())
    chosen = [(module, "weight") for module in theirs.values()]
    torch_prune.global_unstructured(chosen, torch_prune.L1Unstructured, amount=amount)
    for name, module in theirs.items():
        assert torch.equal(after.weights[f"{name}.weight"].torch(), module.weight.detach())


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9])
def test_l1_unstructured_is_layer_scope(amount: float) -> None:
    ours, theirs = modules(), modules()
    model = memory_model({f"{name}.weight": m.weight.detach().numpy() for name, m in ours.items()})
    after = Prune(sparsity=amount, scope="layer").run(model, quiet())
    for name, module in theirs.items():
        torch_prune.l1_unstructured(module, "weight", amount=amount)
        assert torch.equal(after.weights[f"{name}.weight"].torch(), module.weight.detach())


def on_device(source, k: int, device: str, small: int, room: int | None = None):  # type: ignore[no-untyped-def]
    finder = DeviceFinder(source, device, small=small)
    if room is not None:
        finder._room = room
    cut = finder.find(k)
    out = []
    for place, item in enumerate(source.items):
        tensor = item.weight.torch().to(device).reshape(-1)
        apply(tensor, cut, source.scorer.key, place)
        words = tensor.cpu().view(getattr(torch, f"int{8 * item.weight.dtype.itemsize}")).numpy()
        out.append(words.view(item.weight.dtype.word).reshape(item.weight.shape))
    return cut, out


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_torch_finds_the_same_cut(data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(FLOATS), min_size=1, max_size=3))
    palette, zeros = data.draw(st.sampled_from([0, 2])), data.draw(st.sampled_from([0.0, 0.6]))
    tensors = random_tensors(data.draw(st.integers(0, 999)), [(5, 30)] * len(dtypes), dtypes, palette, zeros)
    n = sum(tensor.size for tensor in tensors)
    k = data.draw(st.integers(0, n))
    source = source_of(tensors, dtypes)
    small, room = data.draw(st.sampled_from([(1 << 18, None), (1 << 18, 4), (0, None)]))
    cut, after = on_device(source, k, "cpu", small, room)
    assert cut == Finder(source).find(k)
    check(tensors, after, naive(tensors, dtypes, k))


def masks_agree(device: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    tensors = random_tensors(1, [(300, 500), (100, 1000)], [dtype] * 2)
    tensors[0].reshape(-1)[rng.integers(0, 150_000, 30_000)] = 0
    source = source_of(tensors, [dtype] * 2)
    for k in (1, 20_000, 100_000, 250_000):
        cut, after = on_device(source, k, device, 1 << 10)
        assert cut == Finder(source, threads=2).find(k)
        check(tensors, after, naive(tensors, [dtype] * 2, k))
        check(tensors, edited(source, cut), naive(tensors, [dtype] * 2, k))


@pytest.mark.parametrize("dtype", FLOATS)
def test_torch_on_the_cpu_gives_the_same_mask_on_more_than_a_sample(dtype: str) -> None:
    masks_agree("cpu", dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS)
def test_cuda_gives_the_same_mask(dtype: str) -> None:
    masks_agree("cuda", dtype)


@pytest.mark.gpu
def test_the_pass_on_cuda() -> None:
    words = random_tensors(1, [(50, 70)], ["float32"])[0]
    model = memory_model({"a.weight": words})
    here = Prune(sparsity=0.5).run(model, quiet()).weights["a.weight"].words()
    run = quiet(device="cuda")
    there = Prune(sparsity=0.5).run(model, run).weights["a.weight"].words()
    assert np.array_equal(here, there)
    assert not run.notes


def test_what_only_the_cpu_can_do_is_said() -> None:
    model = memory_model({"a.weight": random_tensors(1, [(50, 70)], ["float32"])[0]})
    run = quiet(device="cuda")
    Prune(sparsity=0.5, granularity=Block()).run(model, run)
    assert any("on the CPU" in note for note in run.notes)
