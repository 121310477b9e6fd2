"""`compare`: properties that hold for any two models, and verdicts for known ones."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from report_models import in_memory, pruned, shown, state_dict
from rich.cells import cell_len

from nnopt_cli import MemoryWeight, Run
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.weight import Array, Tap, Weight
from nnopt_cli.model.compare import difference
from nnopt_cli.model.naming import select
from nnopt_cli.report.comparison import Comparison, compare_models
from nnopt_cli.report.comparison_console import render

Tensors = dict[str, torch.Tensor]
LAYER = "backbone.stages.0.blocks.0.residual_branch.convolution_0.weight"


def compared(a: Tensors, b: Tensors) -> Comparison:
    return compare_models(in_memory(a), in_memory(b), Run())


def halved(tensors: Tensors, share: float = 0.5) -> Tensors:
    return pruned(tensors, select(in_memory(tensors)).names, share)


def test_a_model_is_identical_to_itself() -> None:
    record = compared(state_dict(), state_dict())
    assert record.verdict == "A and B hold the same weights, bit for bit."
    assert not record.differ
    assert {row.status for row in record.tensors} == {"identical"}
    assert all(row.max_abs == 0 and row.changed == 0 for row in record.tensors)


def test_nan_is_itself() -> None:
    tensors = {"w": torch.tensor([[1.0, float("nan")], [float("inf"), 0.0]])}
    assert not compared(tensors, {"w": tensors["w"].clone()}).differ
    wider = compared(tensors, {"w": tensors["w"].double()})
    assert wider.tensors[0].status == "equal"


def test_a_pruned_model_is_recognised_from_both_sides() -> None:
    tensors = state_dict()
    there, back = compared(tensors, halved(tensors)), compared(halved(tensors), tensors)
    rest = "of its prunable weights set to zero; every other weight is bit-identical."
    assert there.verdict == f"B is A with 50.0% {rest}"
    assert back.verdict == f"A is B with 50.0% {rest}"
    again = compared(halved(tensors), halved(tensors, 0.8))
    assert "sparsity of the prunable weights 50.0%, now 80.0%" in again.verdict


def test_zeroing_a_bias_as_well_is_not_called_pruning_of_the_prunable_weights() -> None:
    tensors = state_dict()
    less = halved(tensors)
    less[LAYER.replace("weight", "bias")] = torch.zeros(8)
    verdict = compared(tensors, less).verdict
    assert "of its prunable weights" not in verdict
    assert verdict.endswith("weights set to zero; every other weight is bit-identical.")


def test_one_changed_survivor_spoils_the_verdict() -> None:
    tensors = state_dict()
    less = halved(tensors)
    place = int(less[LAYER].flatten().nonzero()[0])
    less[LAYER] = less[LAYER].clone()
    less[LAYER].view(-1)[place] += 1e-3
    record = compared(tensors, less)
    assert "set to zero" not in record.verdict
    row = next(row for row in record.tensors if row.name == LAYER)
    assert row.survivors_changed == 1


def test_a_fine_tuned_model_keeps_its_zeros_or_does_not() -> None:
    sparse = halved(state_dict())
    names = select(in_memory(sparse)).names
    kept = {n: t + 0.01 * (t != 0) if n in names else t for n, t in sparse.items()}
    zeros = sum(int((sparse[n] == 0).sum()) for n in names)
    assert f"All {zeros:,} zeros among A's prunable weights are zero in B." in compared(sparse, kept).verdict
    lost = {n: t + 0.01 if n in names else t for n, t in sparse.items()}
    assert "are not zero in B" in compared(sparse, lost).verdict


def test_the_sign_of_zeros_and_the_dtype_are_told_from_the_values() -> None:
    a = {"w": torch.tensor([[0.0, 1.0], [2.0, 0.0]])}
    for b in ({"w": torch.tensor([[-0.0, 1.0], [2.0, 0.0]])}, {"w": a["w"].to(torch.bfloat16)}):
        record = compared(a, b)
        assert "same values" in record.verdict
        assert record.differ


def test_names_with_a_prefix_are_paired() -> None:
    tensors = state_dict()
    longer = {f"model.{name}": tensor for name, tensor in halved(tensors).items()}
    there, back = compared(tensors, longer), compared(longer, tensors)
    assert there.verdict == compared(tensors, halved(tensors)).verdict
    assert any("B's names have 'model.' in front" in note for note in there.notes)
    assert any("A's names have 'model.' in front" in note for note in back.notes)


def test_missing_extra_renamed_and_reshaped_tensors() -> None:
    a, b = state_dict(), state_dict()
    b["embed_token.weight"] = b.pop("embed_tokens.weight")
    b["new.weight"] = torch.ones(2, 2)
    b[LAYER] = torch.ones(3, 3)
    record = compared(a, b)
    status = {row.name: row for row in record.tensors if row.status != "identical"}
    assert status["embed_tokens.weight"].close == ("embed_token.weight",)
    assert status["embed_token.weight"].close == ("embed_tokens.weight",)
    assert (status["new.weight"].status, status[LAYER].status) == ("only_b", "shape")
    assert "1 tensor only in A, 2 only in B, 1 of another shape" in record.verdict
    text = shown(partial(render, record), 100)
    assert "renamed to embed_token.weight?" in text
    assert "8×4×3×3" in text  # noqa: RUF001


def test_ties_are_compared_once_and_a_lost_tie_is_noted() -> None:
    tensors = {"embed.weight": torch.randn(9, 4), "fc.weight": torch.randn(5, 4)}
    tied = in_memory(tensors, tied={"head.weight": "embed.weight"})
    loose = in_memory({**tensors, "head.weight": tensors["embed.weight"].clone()})
    assert [row.repeated for row in compare_models(tied, tied, Run()).tensors] == [False, False, True]
    record = compare_models(tied, loose, Run())
    assert not record.differ
    assert "Tied in A only: embed.weight, head.weight." in record.notes


values = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-3, 7.0, float("nan"), float("inf")])
vectors = st.integers(1, 12).flatmap(lambda n: st.tuples(*[st.lists(values, min_size=n, max_size=n)] * 2))


@given(vectors, st.sampled_from(["float64", "float32", "float16", "bfloat16"]))
@settings(max_examples=150, deadline=None)
def test_counts_are_torchs_and_swap_with_the_sides(pair: tuple[list[float], list[float]], name: str) -> None:
    x, y = (torch.tensor(side, dtype=getattr(torch, name)) for side in pair)
    there = difference(MemoryWeight.of("x", x), MemoryWeight.of("x", y))
    back = difference(MemoryWeight.of("x", y), MemoryWeight.of("x", x))
    assert (there.zeros_a, there.zeros_b) == (back.zeros_b, back.zeros_a)
    assert (there.zeros_added, there.zeros_revived) == (back.zeros_revived, back.zeros_added)
    for field in ("changed", "unequal", "max_abs", "survivors_changed", "nonfinite", "cosine"):
        assert getattr(there, field) == getattr(back, field)
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()]
    differs = x.view(bits) != y.view(bits)
    assert there.changed == int(differs.sum())
    assert there.unequal == int(((x != y) & ~(x.isnan() & y.isnan())).sum())
    assert there.zeros_added == int(((x != 0) & (y == 0)).sum())
    assert there.survivors_changed == int((differs & (x != 0) & (y != 0)).sum())
    finite = x.isfinite() & y.isfinite()
    assert there.nonfinite == int((~finite).sum())
    if finite.any():
        assert there.max_abs == float((y.double() - x.double())[finite].abs().max())
    else:
        assert there.max_abs is None


@pytest.mark.parametrize("other", ["float32", "bfloat16", "float64"])
def test_distances_are_torchs(other: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 301)
    y = (x + 0.1 * torch.randn_like(x)).to(getattr(torch, other))
    found = difference(MemoryWeight.of("x", x), MemoryWeight.of("x", y))
    a, b = x.double().flatten(), y.double().flatten()
    assert found.relative == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-12)
    assert found.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(a, b, 0)), rel=1e-12)
    assert found.max_abs == float((b - a).abs().max())


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    a, b = state_dict(), halved(state_dict())
    b["new"] = b.pop("embed_tokens.weight").half()
    text = shown(partial(render, compared(a, b), verbose=1), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_the_json_is_valid_and_reads_back() -> None:
    b = halved(state_dict())
    b[LAYER] = torch.full_like(b[LAYER], float("nan"))
    record = compared(state_dict(), b)
    text = json.dumps(record.model_dump(mode="json"), allow_nan=False)
    assert Comparison.model_validate(json.loads(text)) == record


class Endless(Weight):
    """A tensor of any size that is nowhere: every chunk is made up when it is read."""

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        out[:] = len(self.name)


def test_memory_does_not_grow_with_the_tensors() -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        difference(*(Endless(name, DTYPES["float32"], (rows, 1024)) for name in ("a", "bb")))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(64)
    small, large = peak(512), peak(16_384)
    assert large < 1.2 * small + 100_000
    assert large < 8 << 20
