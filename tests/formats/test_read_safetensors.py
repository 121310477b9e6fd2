"""safetensors files and folders of shards, against the safetensors library."""

from __future__ import annotations

import json
from pathlib import Path

import corpus
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file, save_model
from test_read_torch import agree, same, tensors

from nnopt_cli.errors import UnreadableError, UsageError
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.read import read

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WRITABLE = {name for name, kind in DTYPES.items() if kind.safetensors}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@QUICK
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda n: n != "__metadata__"), tensors(), max_size=5
    )
)
def test_any_file_is_read_as_the_library_reads_it(tmp_path, state):
    state = {n: t.contiguous() for n, t in state.items() if str(t.dtype).removeprefix("torch.") in WRITABLE}
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    if not state:
        with pytest.raises(UnreadableError, match="holds no tensors"):
            read(path)
        return
    weights = read(path).weights
    loaded = load_file(path)
    assert set(weights) == set(loaded)
    assert all(same(weights[name].torch(), tensor) for name, tensor in loaded.items())


def test_metadata_and_our_record(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata={"format": "pt", "nnopt.provenance": "{}", "author": "x"})
    checkpoint = read(path)
    assert checkpoint.provenance == {"nnopt.provenance": "{}"}
    assert checkpoint.container.metadata == {"format": "pt", "author": "x"}
    assert checkpoint.container.format == "safetensors"
    assert checkpoint.container.shards is None


def test_names_that_save_model_left_out_are_tied_again(tmp_path):
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    path = tmp_path / "m.safetensors"
    save_model(model, str(path))
    assert len(load_file(path)) == 3
    weights = read(path).weights
    assert set(weights) == set(model.state_dict())
    assert weights["a.weight"] is weights["b.weight"]


def test_a_prefix_is_stripped(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"module.w": torch.ones(2)}, path)
    assert list(read(path).weights) == ["w"]
    assert read(path).container.prefix == "module."


def test_a_key_makes_no_sense(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(UsageError, match="Leave --key out"):
        read(path, key="model")


PARTS = {
    "1": {"a": torch.arange(3.0), "b": torch.ones(2, 2)},
    "2": {"c": torch.zeros(1, dtype=torch.bfloat16)},
}


@pytest.fixture(params=["safetensors", "bin"])
def folder(request, tmp_path):
    """A model in two shards, as transformers saves it."""
    place = tmp_path / "model"
    place.mkdir()
    weight_map = {}
    stem = {"safetensors": "model", "bin": "pytorch_model"}[request.param]
    for number, part in PARTS.items():
        shard = f"{stem}-0000{number}-of-00002.{request.param}"
        save = save_file if request.param == "safetensors" else torch.save
        save(part, place / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 30}, "weight_map": weight_map}
    (place / f"{stem}.{request.param}.index.json").write_text(json.dumps(index))
    (place / "config.json").write_text("{}")
    (place / "tokenizer.model").write_bytes(b"\0")
    (place / "tf_model.h5").write_bytes(b"\0")
    (place / ".gitattributes").write_bytes(b"\0")
    (place / "secret").symlink_to("/etc/passwd")
    return place


def test_shards(folder):
    expected = PARTS["1"] | PARTS["2"]
    agree(folder, expected)
    container = read(folder).container
    assert container.path == folder
    assert set(container.shards) == set(expected)
    assert len(set(container.shards.values())) == 2
    assert len(container.files) == 3
    assert {path.name for path in container.companions} == {"config.json", "tokenizer.model"}
    assert container.tree is None
    assert not container.rebuilt


def test_the_index_itself_may_be_named(folder):
    index = next(folder.glob("*.index.json"))
    agree(index, PARTS["1"] | PARTS["2"])
    assert read(index).container.path == index


def test_a_folder_with_one_file(tmp_path):
    for name, save in (("model.safetensors", save_file), ("anything.pt", torch.save)):
        place = tmp_path / name.partition(".")[0]
        place.mkdir()
        save({"module.w": torch.ones(2)}, place / name)
        (place / "config.json").write_text("{}")
        container = read(place).container
        assert container.shards == {"module.w": name}
        assert [path.name for path in container.companions] == ["config.json"]


def test_safetensors_are_preferred_to_pickles(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    torch.save({"lr": 0.1}, tmp_path / "training_args.bin")
    assert read(tmp_path).weights["w"].torch().tolist() == [1, 1]


def test_links_within_the_folder_are_followed(tmp_path):
    (tmp_path / "blob").write_bytes(corpus.safetensors({"w": corpus.entry()}))
    (tmp_path / "model.safetensors").symlink_to("blob")
    assert list(read(tmp_path).weights) == ["w"]


def test_nothing_is_read_before_the_index_is_right(folder, monkeypatch):
    """A missing last shard is found before the first one is opened."""
    import nnopt_cli.formats.read as module

    sorted(folder.glob("*-00002-of*"))[0].unlink()
    opened: list[Path] = []
    monkeypatch.setattr(module, "_read_shard", lambda path: opened.append(path))
    with pytest.raises(UnreadableError, match=r"the shard .*00002.* is missing"):
        read(folder)
    assert opened == []


def test_an_index_may_leave_out_the_second_of_tied_names(tmp_path):
    shard = "model-00001-of-00001.safetensors"
    save_file({"a": torch.ones(2)}, tmp_path / shard, metadata={"b": "a"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    weights = read(tmp_path).weights
    assert weights["a"] is weights["b"]
