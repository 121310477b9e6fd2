"""Which form an output takes, and folders of shards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from write_helpers import NOTE, Keep, checkpoint, same, save, weight

from nnopt_cli.errors import UnreadableError, UsageError
from nnopt_cli.formats import outputs
from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.inert import Ordered, Placeholder
from nnopt_cli.formats.outputs import form_of
from nnopt_cli.formats.read import read


def container(path: str, kind: str = "torch", **more):
    return checkpoint({}, path=Path(path), format=kind, **more).container


SHARDS = {"shards": {"w": "model.safetensors"}}


@pytest.mark.parametrize(
    ("source", "kind", "more", "out", "form"),
    [
        ("in.pt", "torch", {}, None, "torch"),
        ("in.pt", "torch", {}, "out.pt", "torch"),
        ("in.th", "torch-legacy", {}, "out.th", "torch"),
        ("in.pkl", "pickle", {}, "out.pkl", "torch"),
        ("in.PT", "torch", {}, "out.PT", "torch"),
        ("in.pt", "torch", {}, "out.safetensors", "safetensors"),
        ("in.pt", "torch", {}, "out", "folder"),
        ("in.safetensors", "safetensors", {}, None, "safetensors"),
        ("in.safetensors", "safetensors", {}, "out.bin", "torch"),
        ("in.safetensors", "safetensors", {}, "out.ckpt", "torch"),
        ("in", "safetensors", {}, "out", "safetensors"),  # as the input
        ("in", "torch", {}, "in.pruned", "torch"),
        ("epoch.9", "torch", {}, "epoch.9.pruned", "torch"),
        ("in", "safetensors", SHARDS, None, "folder"),
        ("llama-3.1", "safetensors", SHARDS, "llama-3.1.pruned", "folder"),
        ("in", "torch", SHARDS, "out", "folder"),
        ("in", "torch", SHARDS, "out.safetensors", "safetensors"),
        ("in", "safetensors", SHARDS, "out.pt", "torch"),
    ],
)
def test_the_suffix_picks_the_form(source, kind, more, out, form):
    assert form_of(container(source, kind, **more), None if out is None else Path(out)) == form


@pytest.mark.parametrize(
    ("source", "more", "out", "words"),
    [
        ("in.pt", {}, "out.pt2", "needs the model's graph"),
        ("in.pt", {}, "out.onnx", "needs the model's graph"),
        ("in.pt", {}, "out.gguf", "does not write .gguf"),
        ("in.pt", {}, "out.v2", "does not write .v2"),
        ("in", SHARDS, "out.json", "does not write .json"),
        ("in", SHARDS, "out.pt2", "needs the model's graph"),
    ],
)
def test_a_suffix_that_names_no_form_is_a_usage_error_that_lists_those_that_do(source, more, out, words):
    with pytest.raises(UsageError, match=words) as caught:
        form_of(container(source, **more), Path(out))
    assert ".pt, .pth, .th, .bin, .ckpt or .safetensors" in caught.value.hint


def test_what_only_a_pickle_can_hold_is_named_when_safetensors_is_written(tmp_path):
    w = weight("w")
    tree = {"epoch": 3, "net": {"deep": {"w": Leaf(w), "extra": 1}, "lr": 0.1}, "args": Placeholder("a.B")}
    source = checkpoint({"w": w}, tree=tree, key=("net", "deep"))
    for out in ("out.safetensors", "out"):
        written = save(source, tmp_path / out)
        assert written.notes == (
            "Left out, since safetensors holds tensors only: epoch, args, net.lr, net.deep.extra.",
        )


def test_a_dry_run_counts_the_same_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    w = weight("w", shape=(300, 41))
    for kind, more, name in [
        ("torch", {}, "out.pt"),
        ("safetensors", {}, "out.safetensors"),
        ("safetensors", {"shards": {"w": "x-00001-of-00001.safetensors"}}, "folder"),
    ]:
        source = checkpoint({"w": w.edited(Keep(3)), "v": w}, format=kind, **more)
        real, dry = save(source, Path(name)), save(source, None)
        assert dry.path is None
        assert (dry.bytes, dry.tallies, dry.notes) == (real.bytes, real.tallies, real.notes)
        files = [p for p in Path(name).rglob("*") if p.is_file()] or [Path(name)]
        assert real.bytes == sum(p.stat().st_size for p in files)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failing_record_leaves_nothing(tmp_path):
    from nnopt_cli.formats.write import write
    from nnopt_cli.run import Run

    def record(tallies):
        if tallies["w"].blake3 != "0" * 64:
            raise ZeroDivisionError
        return NOTE

    with pytest.raises(ZeroDivisionError):
        write(checkpoint({"w": weight("w")}), tmp_path / "out", record=record, run=Run(), force=False)
    assert list(tmp_path.iterdir()) == []


def sharded(folder: Path, kind: str, names: tuple[str, str], index: str, **more):
    """A checkpoint as if read from a folder of two shards, with a companion."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / index).write_text("the input's index")
    tied = weight("embed", shape=(8, 4)).edited(Keep(2))
    weights = {"embed": tied, "fc": weight("fc", "bfloat16", seed=1), "head": tied}
    shards = {"embed": names[0], "fc": names[1], "head": names[0]}
    return checkpoint(
        weights,
        path=folder,
        format=kind,
        files=(folder / index,),
        shards=shards,
        companions=(folder / "config.json", folder / index),
        **more,
    )


def test_safetensors_shards_come_back_as_they_were(tmp_path):
    names = ("diffusion-00001-of-00002.safetensors", "diffusion-00002-of-00002.safetensors")
    index = "diffusion.safetensors.index.json"
    source = sharded(tmp_path / "in", "safetensors", names, index, metadata={"title": "x"})
    out = tmp_path / "in.pruned"
    written = save(source, out)
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, index, "config.json"])
    assert (out / "config.json").read_text() == '{"model_type": "tiny"}'
    table = json.loads((out / index).read_text())
    assert table["weight_map"] == {"embed": names[0], "fc": names[1]}
    assert table["metadata"] == {"total_size": 8 * 4 * 4 + 3 * 4 * 2, **NOTE}
    for shard, stored in zip(names, ("embed", "fc"), strict=True):
        loaded = load_file(out / shard)
        assert list(loaded) == [stored]
        assert same(loaded[stored], source.weights[stored].torch())
        with safe_open(out / shard, "pt") as file:
            assert {"title": "x", "format": "pt", **NOTE}.items() <= file.metadata().items()
            assert file.metadata().get("head") == ("embed" if stored == "embed" else None)
    assert written.bytes == sum(p.stat().st_size for p in out.iterdir())
    assert list(written.tallies) == ["embed", "fc"]


def test_bin_shards_stay_bin_shards(tmp_path):
    names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    index = "pytorch_model.bin.index.json"
    source = sharded(tmp_path / "in", "torch", names, index, prefix="module.")
    out = tmp_path / "out"
    save(source, out)
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, index, "config.json"])
    first = torch.load(out / names[0], weights_only=True)
    assert list(first) == ["module.embed", "module.head"]
    assert first["module.embed"] is first["module.head"]
    assert json.loads((out / index).read_text())["weight_map"] == {
        "module.embed": names[0],
        "module.fc": names[1],
        "module.head": names[0],
    }
    single = tmp_path / "single.pt"
    save(source, single)
    assert list(torch.load(single, weights_only=True)) == ["module.embed", "module.fc", "module.head"]


def test_a_new_tensor_goes_into_the_last_shard_and_tied_ones_stay_together(tmp_path):
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    source = sharded(tmp_path / "in", "safetensors", names, "model.safetensors.index.json")
    source.weights["new"] = weight("new", seed=9)
    source.weights["again"] = source.weights["embed"]
    save(source, tmp_path / "out")
    assert list(load_file(tmp_path / "out" / names[1])) == ["fc", "new"]
    assert list(load_file(tmp_path / "out" / names[0])) == ["embed"]


def test_one_shard_needs_no_index(tmp_path):
    save(checkpoint({"w": weight("w")}, tree=Ordered(), files=()), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_a_large_model_is_cut_into_shards_of_bounded_size(tmp_path, monkeypatch):
    sizes = {"a": 10, "b": 30, "c": 25, "huge": 90, "d": 5}
    weights = {name: weight(name, "uint8", (size,)) for name, size in sizes.items()}
    weights["tied"] = weights["a"]
    monkeypatch.setattr(outputs.cut_shards, "__defaults__", (60,))
    save(checkpoint(weights), tmp_path / "out")
    held = {p.name: list(load_file(p)) for p in sorted((tmp_path / "out").glob("*.safetensors"))}
    assert held == {
        "model-00001-of-00004.safetensors": ["a", "b"],
        "model-00002-of-00004.safetensors": ["c"],
        "model-00003-of-00004.safetensors": ["huge"],
        "model-00004-of-00004.safetensors": ["d"],
    }
    table = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert table["weight_map"] == {name: shard for shard, names in held.items() for name in names}


def test_a_companion_that_is_gone_is_said_and_leaves_nothing(tmp_path):
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    source = sharded(tmp_path / "in", "safetensors", names, "model.safetensors.index.json")
    (tmp_path / "in" / "config.json").unlink()
    with pytest.raises(UnreadableError, match=r"config\.json: No such file"):
        save(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


MEASURE = """
import sys
from pathlib import Path
from nnopt_cli.formats.syscalls import peak_memory
from nnopt_cli.formats.checkpoint import Checkpoint, Container
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.weight import FileWeight, InputFile
from nnopt_cli.formats.write import write
from nnopt_cli.run import Run

class Nothing:
    unit = 1
    def __call__(self, words, start): words *= 1

count, path = int(sys.argv[1]), Path(sys.argv[2])
file = InputFile(path)
size = 1 << 24
weights = {}
for i in range(count):
    w = FileWeight(f"w{i}", DTYPES["float32"], (size // 4,), file, i * size)
    weights[w.name] = w.edited(Nothing())
source = Checkpoint(weights, Container(path, sys.argv[3], (path,)))
out = None if len(sys.argv) < 5 else Path(sys.argv[4])
base = peak_memory()
write(source, out, record=lambda t: {}, run=Run(threads=2), force=False)
print(peak_memory() - base)
"""


def extra_memory(tmp_path: Path, count: int, *arguments: str) -> int:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(count << 24)
    command = [sys.executable, "-c", MEASURE, str(count), str(path), *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_memory_does_not_grow_with_the_model(tmp_path):
    small, large = (extra_memory(tmp_path, count, "safetensors") for count in (2, 32))  # 512 MB
    assert large < 20e6  # two threads, each with two chunks of 2 MB and flags
    assert large < small + 4e6


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("safetensors", "out.safetensors"), ("torch", "out.pt")])
def test_memory_does_not_grow_with_the_model_when_it_is_written(tmp_path, kind, name):
    assert extra_memory(tmp_path, 128, kind, str(tmp_path / name)) < 20e6  # of 2 GB
    (tmp_path / name).unlink()


def test_what_an_index_says_beside_its_map_stays(tmp_path):
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    save(sharded(tmp_path / "in", "safetensors", names, "model.safetensors.index.json"), tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors.index.json"
    table = json.loads(path.read_text())
    table["metadata"] = {"total_size": 1, "origin": "somewhere", "notes": [1, None], "nnopt.old": "x"}
    path.write_text(json.dumps(table))
    save(read(tmp_path / "a"), tmp_path / "out")
    said = json.loads((tmp_path / "out" / path.name).read_text())["metadata"]
    assert said["total_size"] > 1
    assert {key: said[key] for key in ("origin", "notes")} == {"origin": "somewhere", "notes": [1, None]}
    assert "nnopt.old" not in said
