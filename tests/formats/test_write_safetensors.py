"""The safetensors writer, read back by the safetensors library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from write_helpers import NOTE, Keep, checkpoint, same, save, weight

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.dtypes import DTYPES

STORABLE = [name for name, kind in DTYPES.items() if kind.safetensors]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
SOURCE = {"path": Path("input.safetensors"), "files": (Path("input.safetensors"),), "format": "safetensors"}


def header_of(path: Path) -> tuple[dict, int]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), 8 + length


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda s: s != "__metadata__" and s.isprintable()),
        st.tuples(st.sampled_from(STORABLE), SHAPES),
        min_size=1,
        max_size=8,
    )
)
def test_any_state_dict_comes_back(tmp_path, items):
    weights = {name: weight(name, dtype, shape) for name, (dtype, shape) in items.items()}
    out = tmp_path / "out.safetensors"
    written = save(checkpoint(weights, **SOURCE), out, force=True)
    loaded = load_file(out)
    assert loaded.keys() == weights.keys()
    assert all(same(loaded[name], w.torch()) for name, w in weights.items())
    header, start = header_of(out)
    assert list(header)[1:] == list(weights)  # the model's order
    assert start % 64 == 0
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % weights[name].dtype.itemsize == 0
    assert written.bytes == out.stat().st_size
    assert header["__metadata__"] == {"format": "pt", **NOTE}


def test_aligned_data_lies_in_the_models_order(tmp_path):
    weights = {f"w{i}": weight(f"w{i}", "float32", (i + 1,)) for i in (3, 1, 2)}
    save(checkpoint(weights), tmp_path / "out.safetensors")
    header, _ = header_of(tmp_path / "out.safetensors")
    assert [header[name]["data_offsets"] for name in weights] == [[0, 16], [16, 24], [24, 36]]


def test_metadata_stays_and_nnopts_own_is_added(tmp_path):
    given_metadata = {"format": "mlx", "modelspec.title": "a \u2713 title"}
    source = checkpoint({"w": weight("w")}, metadata=given_metadata, **SOURCE)
    save(source, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {**given_metadata, **NOTE}


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(4, 3)
        self.head = torch.nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


def test_tied_weights_are_stored_once_and_load_model_accepts_them(tmp_path):
    w = weight("embed.weight", "float32", (4, 3)).edited(Keep(2))
    out = tmp_path / "out.safetensors"
    written = save(checkpoint({"embed.weight": w, "head.weight": w}), out)
    assert list(load_file(out)) == ["embed.weight"]
    assert list(written.tallies) == ["embed.weight"]
    header, _ = header_of(out)
    assert header["__metadata__"]["head.weight"] == "embed.weight"
    model = Tied()
    assert load_model(model, out) == (set(), [])
    assert same(model.head.weight, w.torch())


def test_a_name_that_is_no_longer_tied_loses_its_note(tmp_path):
    weights = {"a": weight("a"), "b": weight("b", seed=1)}
    save(checkpoint(weights, metadata={"b": "a"}, **SOURCE), tmp_path / "out.safetensors")
    header, _ = header_of(tmp_path / "out.safetensors")
    assert "b" not in header["__metadata__"]


def test_the_prefix_stays(tmp_path):
    save(checkpoint({"fc.weight": weight("fc.weight")}, prefix="module."), tmp_path / "out.safetensors")
    assert list(load_file(tmp_path / "out.safetensors")) == ["module.fc.weight"]


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        ("layer.w", "complex128", "layer.w: safetensors has no element type for complex128"),
        ("__metadata__", "float32", "cannot hold a tensor called"),
        ("\ud800", "float32", "not valid Unicode"),
    ],
)
def test_what_safetensors_cannot_hold_is_said_with_the_name(tmp_path, name, dtype, words):
    with pytest.raises(NnoptError, match=words):
        save(checkpoint({name: weight(name, dtype)}), tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_outgrows_its_room_is_an_error_and_leaves_nothing(tmp_path):
    from nnopt_cli.formats.write import write
    from nnopt_cli.run import Run

    sizes = iter([10, 100_000])
    with pytest.raises(NnoptError, match="set aside"):
        write(
            checkpoint({"w": weight("w")}),
            tmp_path / "out.safetensors",
            record=lambda tallies: {"nnopt.x": "x" * next(sizes)},
            run=Run(),
            force=False,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_readers_would_refuse_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nnopt_cli.formats.safetensors_write._MAX_HEADER", 2000)
    weights = {f"w{i}": weight(f"w{i}", shape=(1,)) for i in range(40)}
    with pytest.raises(NnoptError, match="40 tensors need a safetensors header of"):
        save(checkpoint(weights), tmp_path / "out.safetensors")
