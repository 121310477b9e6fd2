"""`inspect`'s record and its rendering."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from report_models import in_memory, pruned, shown, state_dict
from rich.cells import cell_len

from nnopt_cli import Model, Run, UsageError
from nnopt_cli.model.naming import select
from nnopt_cli.model.provenance import Provenance
from nnopt_cli.report.inspection import Inspection, inspect_model
from nnopt_cli.report.inspection_console import render


def sample() -> Model:
    tensors = state_dict()
    tensors = pruned(tensors, select(in_memory(tensors)).names)
    tensors["broken.weight"] = torch.tensor([[1.0, float("nan")], [float("-inf"), 0.0]])
    return in_memory(tensors, tied={"lm_head.weight": "embed_tokens.weight"})


def test_totals_are_torchs_with_tied_tensors_counted_once() -> None:
    tensors = state_dict()
    model = in_memory(tensors, tied={"lm_head.weight": "embed_tokens.weight"})
    record = inspect_model(model, Run())
    counted = [t for n, t in tensors.items() if t.is_floating_point() and not n.endswith("running_mean")]
    assert record.parameters == sum(t.numel() for t in counted)
    assert record.nonzeros == sum(int(t.count_nonzero()) for t in counted)
    assert record.prunable == sum(tensors[name].numel() for name in select(model).names)
    assert record.tensors_in_file == len(record.tensors) == len(tensors) + 1
    assert record.tensors[-1].tied_to == "embed_tokens.weight"


def test_headers_only_reads_no_data() -> None:
    model = sample()
    for weight in model.weights.values():
        weight.chunk = None  # type: ignore[method-assign,assignment]
    record = inspect_model(model, Run(), stats=False)
    assert record.nonzeros is record.blake3 is record.nonfinite is None
    assert all(row.zeros is None and row.l2 is None for row in record.tensors)
    text = shown(partial(render, record), 120)
    assert "sparsity" not in text
    with pytest.raises(TypeError):
        inspect_model(model, Run())


def test_globs_restrict_the_list_and_a_wrong_one_is_an_error() -> None:
    model = sample()
    record = inspect_model(model, Run(), include=["*.bias", "embed*"], exclude=["*stages.0*"])
    assert record.tensors
    assert all(row.name.endswith("bias") or row.name.startswith("embed") for row in record.tensors)
    assert not any("stages.0" in row.name for row in record.tensors)
    assert record.blake3 is None
    with pytest.raises(UsageError, match="matches no tensor"):
        inspect_model(model, Run(), include=["embedd_tokens.weight"])


@pytest.mark.parametrize(
    ("order", "figure"), [("size", "elements"), ("sparsity", "sparsity"), ("norm", "l2")]
)
def test_sorting_puts_the_largest_first(order: str, figure: str) -> None:
    rows = inspect_model(sample(), Run(), order=order).tensors  # type: ignore[arg-type]
    values = [getattr(row, figure) or 0 for row in rows]
    assert values == sorted(values, reverse=True)
    assert {row.name for row in rows} == set(sample().weights)


def test_the_hash_ignores_order_and_names_data_dtype_and_shape() -> None:
    tensors = state_dict()
    first = inspect_model(in_memory(tensors), Run()).blake3
    assert inspect_model(in_memory(dict(reversed(tensors.items()))), Run()).blake3 == first
    one = tensors[next(iter(tensors))]
    tied, apart = in_memory({**tensors, "again": one}), in_memory({**tensors, "again": one.clone()})
    tied = replace(tied, weights={**tied.weights, "again": tied.weights[next(iter(tensors))]})
    assert len(tied.unique()) < len(apart.unique())
    assert inspect_model(tied, Run()).blake3 == inspect_model(apart, Run()).blake3 != first
    name = "embed_tokens.weight"
    for other in (tensors[name] + 1, tensors[name].double(), tensors[name].reshape(8, 30)):
        assert inspect_model(in_memory({**tensors, name: other}), Run()).blake3 != first


def test_non_finite_weights_stand_out() -> None:
    record = inspect_model(sample(), Run())
    assert record.nonfinite == 2
    text = shown(partial(render, record), 140, colour=True)
    row = next(line for line in text.splitlines() if "broken.weight" in line)
    assert "\x1b[1;31mbroken.weight" in row
    assert "1 tensor holds NaN or infinite values" in text
    clean = inspect_model(in_memory(state_dict()), Run())
    assert "non-finite" not in shown(partial(render, clean), 140)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = shown(partial(render, inspect_model(sample(), Run())), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_the_json_is_valid_with_non_finite_weights_in_the_file() -> None:
    record = inspect_model(sample(), Run())
    text = json.dumps(record.model_dump(mode="json"), allow_nan=False)
    assert Inspection.model_validate(json.loads(text)) == record


def test_provenance_is_shown_and_a_strange_one_does_no_harm() -> None:
    made = Provenance(
        (
            {"pass": "prune", "sparsity": ["0.5"]},
            "not a step",
            {"pass": "[red]\x1b[2J", "deep": [[{"a": [1]}]]},
        ),  # type: ignore[arg-type]
        ({"path": "model.pt", "blake3": "ab" * 32}, 7),  # type: ignore[arg-type]
        {},
        "0.0.9",
    )
    record = inspect_model(replace(sample(), provenance=made), Run())
    text = shown(partial(render, record), 100)
    assert "nnopt 0.0.9" in text
    assert "prune · sparsity 0.5" in text
    assert r"[red]\x1b[2J" in text
