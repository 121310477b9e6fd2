"""The torch zip writer, read back by torch itself, Python's zipfile and unzip."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from write_helpers import NOTE, Keep, checkpoint, same, save, weight

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.inert import Call, Global, Ordered, Placeholder
from nnopt_cli.formats.pickle_write import dump
from nnopt_cli.formats.zip_write import directory, place

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 90), 1 << 90)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 300), inner, max_size=4)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
    ),
    max_leaves=12,
)


def load(path: Path, **options: Any) -> Any:
    return torch.load(path, weights_only=True, **options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.dictionaries(
        st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(list(DTYPES)), SHAPES), max_size=8
    ),
    others=st.dictionaries(st.text(max_size=6).filter(lambda s: s != "net"), PLAIN, max_size=4),
)
def test_any_checkpoint_comes_back_and_is_a_sound_zip(tmp_path, items, others):
    weights = {name: weight(name, dtype, shape) for name, (dtype, shape) in items.items()}
    tree = {**others, "net": Ordered((name, Leaf(w)) for name, w in weights.items())}
    out = tmp_path / "out.pt"
    written = save(checkpoint(weights, tree=tree, key=("net",)), out, force=True)
    for options in ({}, {"mmap": True}):
        loaded = load(out, **options)
        state = loaded.pop("net")
        assert loaded == others
        assert [type(value) for value in loaded.values()] == [type(value) for value in others.values()]
        assert type(state) is OrderedDict
        assert list(state) == list(weights)
        assert all(same(state[name], w.torch()) for name, w in weights.items())
        assert all(tensor.is_contiguous() for tensor in state.values())
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("archive/nnopt.json")) == NOTE
    assert written.bytes == out.stat().st_size
    assert list(written.tallies) == list(weights)


def test_torch_finds_every_storage_where_it_computes_it_to_be(tmp_path, monkeypatch):
    weights = {f"w{i}": weight(f"w{i}", d, (i, 3)) for i, d in enumerate(DTYPES)}
    save(checkpoint(weights), tmp_path / "out.pt")
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")  # torch then checks its own computation
    with torch.utils.serialization.config.patch("load.calculate_storage_offsets", True):
        for options in ({}, {"mmap": True}):
            loaded = load(tmp_path / "out.pt", **options)
            assert all(same(loaded[name], w.torch()) for name, w in weights.items())
    reader = torch._C.PyTorchFileReader(str(tmp_path / "out.pt"))
    for name, tensor in load(tmp_path / "out.pt", map_location="meta").items():
        key = list(weights).index(name)
        offset = tensor.untyped_storage()._checkpoint_offset
        assert offset == reader.get_record_offset(f"data/{key}")
        assert offset % 64 == 0


def test_the_archive_has_the_members_that_torch_writes(tmp_path):
    save(checkpoint({"w": weight("w")}), tmp_path / "ours.pt")
    torch.save({"w": torch.zeros(3)}, tmp_path / "theirs.pt")
    ours, theirs = (zipfile.ZipFile(tmp_path / name) for name in ("ours.pt", "theirs.pt"))
    with ours, theirs:
        names = [[n.partition("/")[2] for n in z.namelist()] for z in (ours, theirs)]
        assert names[0] == [*names[1], "nnopt.json"]
        for name in (".format_version", ".storage_alignment", "byteorder", "version"):
            assert ours.read(f"archive/{name}") == theirs.read(f"theirs/{name}")
        assert len(ours.read("archive/.data/serialization_id")) == 40
        assert ours.read("archive/.data/serialization_id").isdigit()


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip_agrees(tmp_path):
    save(checkpoint({"w": weight("w"), "empty": weight("empty", shape=(0,))}), tmp_path / "out.pt")
    result = subprocess.run(["unzip", "-t", tmp_path / "out.pt"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_nested_checkpoint_comes_back_nested_and_edited_only_where_it_should(tmp_path):
    w, ema = weight("fc.weight"), weight("fc.weight", seed=1)
    model = Ordered({"module.fc.weight": Leaf(w, parameter=True, requires_grad=True), "extra": "kept"})
    model.attributes = {"_metadata": Ordered({"": {"version": 1}})}
    tree = {
        "epoch": 7,
        "nested": {"state_dict": model},
        "ema": {"fc.weight": Leaf(ema)},
        "size": Call(Global("torch", "Size"), ((2, 3),)),
        "device": Call(Global("torch", "device"), ("cuda", 1)),
        "dtype": Global("torch", "bfloat16"),
    }
    source = checkpoint(
        {"fc.weight": w.edited(Keep(2))}, tree=tree, key=("nested", "state_dict"), prefix="module."
    )
    written = save(source, tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt")
    assert list(loaded) == list(tree)
    assert loaded["epoch"] == 7
    assert loaded["size"] == torch.Size([2, 3])
    assert loaded["device"] == torch.device("cuda:1")
    assert loaded["dtype"] is torch.bfloat16
    state = loaded["nested"]["state_dict"]
    assert list(state) == ["module.fc.weight", "extra"]
    assert isinstance(state["module.fc.weight"], torch.nn.Parameter)
    assert state["module.fc.weight"].requires_grad
    assert same(state["module.fc.weight"], w.edited(Keep(2)).torch())
    assert state._metadata == {"": {"version": 1}}
    assert same(loaded["ema"]["fc.weight"], ema.torch())
    assert len(written.notes) == 1
    assert (
        "1 tensor outside the chosen weights was carried over unchanged (ema.fc.weight)" in written.notes[0]
    )


def test_tied_and_shared_stay_tied_and_shared(tmp_path):
    w = weight("a")
    shared = [1, 2]
    tree = {
        "net": {"a": Leaf(w), "b": Leaf(w), "p": Leaf(w, True, True)},
        "x": shared,
        "y": shared,
        "c": Leaf(w),
    }
    edited = w.edited(Keep(2))
    source = checkpoint({"a": edited, "b": edited, "p": edited}, tree=tree, key=("net",))
    written = save(source, tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt")
    net = loaded["net"]
    assert net["a"] is net["b"]
    assert net["a"].data_ptr() == net["p"].data_ptr() == loaded["c"].data_ptr()
    assert same(loaded["c"], edited.torch())  # the same storage in the input, so the same in the output
    assert loaded["x"] is loaded["y"]
    assert list(written.tallies) == ["a"]
    assert written.notes == ()
    assert (tmp_path / "out.pt").stat().st_size < 4000


def test_optimizer_state_and_objects_are_left_out_and_named(tmp_path):
    w = weight("w")
    state = {"state": {0: {"momentum_buffer": Leaf(weight("m"))}}, "param_groups": [{"lr": 0.1}]}
    tree = {
        "state_dict": {"w": Leaf(w), "_extra": Placeholder("some.Class")},
        "optimizer": state,
        "optimizer_states": [state],
        "optim_name": {"name": "adam"},
        "args": Placeholder("argparse.Namespace"),
        "history": [1, (2, Placeholder("x.Y"))],
        "format": Global("torch", "contiguous_format"),
        "frozen": frozenset({1}),
        "config": {"lr": 0.1, "callback": Placeholder("a.B")},
    }
    written = save(checkpoint({"w": w}, tree=tree, key=("state_dict",)), tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt")
    assert list(loaded) == ["state_dict", "optim_name", "config"]
    assert list(loaded["state_dict"]) == ["w"]
    assert loaded["config"] == {"lr": 0.1}
    notes = " ".join(written.notes)
    assert "(optimizer, optimizer_states)" in notes
    assert "momentum would revive pruned weights" in notes
    assert "state_dict._extra, args, history, format, frozen and 1 more" in notes
    assert len(zipfile.ZipFile(tmp_path / "out.pt").namelist()) == 8  # one storage: the momentum is gone


def test_the_models_word_about_names_counts(tmp_path):
    a, b, new = weight("a"), weight("b"), weight("new", seed=3)
    tree = Ordered({"m.a": Leaf(a), "m.b": Leaf(b)})
    save(checkpoint({"b": new, "c": b}, tree=tree, prefix="m."), tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt")
    assert list(loaded) == ["m.b", "m.c"]
    assert same(loaded["m.b"], new.torch())
    assert same(loaded["m.c"], b.torch())


def test_rebuilt_objects_become_a_plain_state_dict(tmp_path):
    w = weight("fc.weight")
    source = checkpoint({"fc.weight": w}, tree=Placeholder("my.Net"), rebuilt=True, prefix="module.")
    save(source, tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt")
    assert type(loaded) is OrderedDict
    assert list(loaded) == ["module.fc.weight"]


def test_a_tree_that_contains_itself_is_written_and_one_nested_too_deeply_refused(tmp_path):
    w = weight("w")
    tree: dict[str, Any] = {"net": {"w": Leaf(w)}, "list": []}
    tree["self"] = tree
    tree["list"].append(tree["list"])
    save(checkpoint({"w": w}, tree=tree, key=("net",)), tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt")
    assert loaded["self"] is loaded
    assert loaded["list"][0] is loaded["list"]
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NnoptError, match="nested too deeply"):
        save(
            checkpoint({"w": w}, tree={"net": {"w": Leaf(w)}, "deep": deep}, key=("net",)), tmp_path / "d.pt"
        )
    with pytest.raises(NnoptError, match="nested too deeply"):
        dump(deep)


def test_values_that_a_pickle_cannot_say_are_refused_by_name():
    with pytest.raises(NnoptError, match="of type Placeholder"):
        dump({"x": Placeholder("a.B")})
    with pytest.raises(NnoptError, match="integer of 300 bytes"):
        dump(1 << 2398)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    weights = {f"w{i}": weight(f"w{i}", "float32", (50 * i, 33)).edited(Keep(5)) for i in range(9)}
    tree = {"net": {n: Leaf(w.origin) for n, w in weights.items()}, "words": {"b", "a", "c"}}
    for threads in (1, 4):
        source = checkpoint(weights, tree=tree, key=("net",))
        save(source, tmp_path / f"{threads}.pt", threads=threads)
    assert (tmp_path / "1.pt").read_bytes() == (tmp_path / "4.pt").read_bytes()


GIB4 = 1 << 32


def test_members_past_4_gib_are_laid_out_as_torch_does(tmp_path):
    """The structures alone, in a sparse file; torch and zipfile then find every member."""
    sizes = [100, GIB4 + 8, 5, 0xFFFFFFFF, 0, 64]
    members, at = [place("archive/version", 2, 0)], 0
    at = members[0].end
    for key, size in enumerate(sizes):
        members.append(place(f"archive/data/{key}", size, at))
        at = members[-1].end
    path = tmp_path / "big.pt"
    with path.open("wb") as file:
        for member in members:
            file.seek(member.header)
            file.write(member.local_header())
            assert file.tell() == member.data
            file.seek(member.data + member.size)
            file.write(member.descriptor(0))
        file.seek(members[0].data)
        file.write(b"3\n")
        file.seek(at)
        file.write(directory(members, [0] * len(members), at))
    with zipfile.ZipFile(path) as archive:
        assert [(i.file_size, i.header_offset) for i in archive.infolist()] == [
            (m.size, m.header) for m in members
        ]
    reader = torch._C.PyTorchFileReader(str(path))
    for member in members:
        record = member.name.decode().partition("/")[2]
        assert reader.get_record_offset(record) == member.data
        assert reader.get_record_offset_no_read(member.header, record, member.size, 64) == member.data
        assert math.gcd(member.data, 64) == 64


@pytest.mark.slow
def test_a_checkpoint_of_more_than_4_gib_loads(tmp_path):
    import numpy as np

    from nnopt_cli.formats.weight import Weight

    class Ramp(Weight):
        """Zeros, but for the flat index at every millionth element."""

        def read_into(self, out, start, tap=None):
            out[:] = 0
            first = -start % 1_000_000
            out[first::1_000_000] = np.arange(start + first, start + len(out), 1_000_000)
            if tap is not None:
                tap(out)

    if shutil.disk_usage(tmp_path).free < 12 << 30:
        pytest.skip("needs 12 GB of disk")
    sizes = {"a": 5 << 27, "b": 1000}  # 5 GiB, then one whose header lies past 4 GiB
    weights = {name: Ramp(name, DTYPES["int64"], (count,)) for name, count in sizes.items()}
    save(checkpoint(weights), tmp_path / "out.pt")
    loaded = load(tmp_path / "out.pt", mmap=True)
    for name, w in weights.items():
        assert loaded[name].shape == w.shape
        last = (len(loaded[name]) - 1) // 1_000_000 * 1_000_000
        assert int(loaded[name][last]) == last
    os.truncate(tmp_path / "out.pt", 0)
