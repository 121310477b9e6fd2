"""The weights of a `.pt2` file: read lazily without torch, and written back by streaming."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import hostile_pt2
import numpy as np
import pytest
import torch
from torch import nn

from nnopt_cli.errors import NnoptError, UnreadableError, UsageError
from nnopt_cli.formats.checkpoint import Checkpoint
from nnopt_cli.formats.pt2_read import read_program
from nnopt_cli.formats.read import read
from nnopt_cli.formats.weight import Array, MemoryWeight
from nnopt_cli.formats.write import Written, write
from nnopt_cli.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # PyTorch 2.10's loader


class Negate:
    """An edit that can be told from any other."""

    unit = 1

    def __call__(self, words: Array, start: int) -> None:
        np.negative(words, out=words)


def save(checkpoint: Checkpoint, path: Path | None, *, threads: int = 2, **strings: str) -> Written:
    run = Run(threads=threads)
    return write(checkpoint, path, record=lambda tallies: strings, run=run, force=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.pt2"
    torch.export.save(hostile_pt2.net_program(), path, extra_files={"labels.txt": "cat\ndog"})
    return path


@pytest.fixture(scope="module")
def program(saved):
    return torch.export.load(saved)


def edited(checkpoint: Checkpoint, *names: str) -> Checkpoint:
    weights = {k: w.edited(Negate()) if k in names else w for k, w in checkpoint.weights.items()}
    return Checkpoint(weights, checkpoint.container, checkpoint.provenance, checkpoint.notes)


def test_the_state_dict_is_read(saved, program):
    checkpoint = read(saved)
    assert list(checkpoint.weights) == list(program.state_dict)
    for name, tensor in program.state_dict.items():
        assert torch.equal(checkpoint.weights[name].torch(), tensor)
    assert checkpoint.container.format == "pt2"
    assert checkpoint.container.metadata == {"labels.txt": "cat\ndog"}


def test_there_is_no_key_in_it(saved):
    with pytest.raises(UsageError, match="Leave --key out"):
        read(saved, key="ema")


def test_reading_and_writing_import_no_torch(saved, tmp_path):
    code = f"""
import sys
from pathlib import Path
from nnopt_cli.formats.read import read
from nnopt_cli.formats.write import write
from nnopt_cli.run import Run
out = Path({str(tmp_path / "out.pt2")!r})
write(read(Path({str(saved)!r})), out, record=lambda tallies: {{}}, run=Run(), force=False)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert read_program(tmp_path / "out.pt2").program is not None


@pytest.mark.parametrize("threads", [1, 3])
def test_edited_weights_take_their_places(saved, program, tmp_path, threads):
    done = save(
        edited(read(saved), "a.weight", "b.bias"), tmp_path / "out.pt2", threads=threads, **{"nnopt.x": "1"}
    )
    extra = {"labels.txt": "", "nnopt.json": ""}
    theirs = torch.export.load(tmp_path / "out.pt2", extra_files=extra)
    for name, tensor in program.state_dict.items():
        sign = -1 if name in ("a.weight", "b.bias") else 1
        assert torch.equal(theirs.state_dict[name], sign * tensor)
    for name, tensor in program.constants.items():
        assert torch.equal(theirs.constants[name], tensor)
    assert str(theirs.graph) == str(program.graph)
    assert extra == {"labels.txt": "cat\ndog", "nnopt.json": json.dumps({"nnopt.x": "1"})}
    assert read(tmp_path / "out.pt2").provenance == {"nnopt.x": "1"}
    assert done.tallies["a.weight"].changed
    assert not done.tallies["a.bias"].changed
    assert done.bytes == (tmp_path / "out.pt2").stat().st_size


def test_what_is_written_is_a_sound_archive_without_pickles(saved, tmp_path):
    save(edited(read(saved), "a.weight"), tmp_path / "out.pt2")
    with zipfile.ZipFile(tmp_path / "out.pt2") as archive:
        assert archive.testzip() is None
        assert archive.read("archive/data/sample_inputs/model.pt") == b""


def test_a_dry_run_counts_the_same(saved, tmp_path):
    wet = save(edited(read(saved), "a.weight"), tmp_path / "out.pt2")
    dry = save(edited(read(saved), "a.weight"), None)
    assert (dry.path, dry.tallies, dry.bytes) == (None, wet.tallies, wet.bytes)


def test_unedited_is_the_same_file_again(saved, tmp_path):
    save(read(saved), tmp_path / "once.pt2")
    save(read(tmp_path / "once.pt2"), tmp_path / "twice.pt2")
    assert (tmp_path / "once.pt2").read_bytes() == (tmp_path / "twice.pt2").read_bytes()


def test_the_weights_alone_go_to_other_formats(saved, program, tmp_path):
    from safetensors.torch import load_file

    done = save(read(saved), tmp_path / "out.safetensors")
    assert any("program was left out" in note for note in done.notes)
    assert all(
        torch.equal(t, program.state_dict[k]) for k, t in load_file(tmp_path / "out.safetensors").items()
    )
    save(read(saved), tmp_path / "out.pt")
    assert torch.load(tmp_path / "out.pt", weights_only=True).keys() == program.state_dict.keys()


def test_weights_alone_make_no_program(saved, tmp_path):
    save(read(saved), tmp_path / "out.pt")
    with pytest.raises(UsageError, match="needs the model's graph"):
        save(read(tmp_path / "out.pt"), tmp_path / "back.pt2")


def test_other_shapes_are_refused(saved, tmp_path):
    checkpoint = read(saved)
    weights = {**checkpoint.weights, "a.bias": MemoryWeight.of("a.bias", np.zeros(5, np.float32))}
    with pytest.raises(NnoptError, match=r"a\.bias became float32 \[5\], and its program was made for"):
        save(Checkpoint(weights, checkpoint.container), tmp_path / "out.pt2")
    with pytest.raises(NnoptError, match="no longer those"):
        save(Checkpoint({}, checkpoint.container), tmp_path / "out.pt2")
    assert not list(tmp_path.iterdir())


class Sharing(nn.Module):
    """Tied, turned, overlapping, empty and scalar weights."""

    def __init__(self) -> None:
        super().__init__()
        base = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        self.first = nn.Parameter(base)
        self.tied = self.first
        self.turned = nn.Parameter(base.t())
        self.part = nn.Parameter(base[2:4])
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("empty", torch.zeros(0, 3))

    def forward(self, x):
        return x @ self.turned @ self.tied * self.scalar + self.part.sum() + self.empty.sum()


def test_weights_that_share_memory(tmp_path):
    program = torch.export.export(Sharing(), (torch.randn(2, 4),))
    torch.export.save(program, tmp_path / "in.pt2")
    checkpoint = read(tmp_path / "in.pt2")
    weights = checkpoint.weights
    assert weights["tied"] is weights["first"]
    assert weights["turned"] is not weights["first"]
    assert any("share memory without being the same" in note for note in checkpoint.notes)
    for name, tensor in program.state_dict.items():
        assert torch.equal(weights[name].torch(), tensor)
    save(edited(checkpoint, "turned"), tmp_path / "out.pt2")
    state = torch.export.load(tmp_path / "out.pt2").state_dict
    assert torch.equal(state["turned"], -program.state_dict["turned"])
    assert torch.equal(state["first"], program.state_dict["first"])
    assert state["first"].data_ptr() == state["tied"].data_ptr()
    assert state["empty"].shape == (0, 3)
    x = torch.randn(2, 4)
    expected = x @ state["turned"] @ state["first"] * 2 + state["part"].sum()
    assert torch.allclose(torch.export.load(tmp_path / "out.pt2").module()(x), expected)


def test_a_harmful_program_is_not_passed_on(saved, tmp_path):
    archive = hostile_pt2.Pt2(saved.read_bytes())
    hostile_pt2.CASES["expression"][0](archive, str(tmp_path / "canary"))
    (tmp_path / "in.pt2").write_bytes(archive.bytes())
    checkpoint = read(tmp_path / "in.pt2")
    with pytest.raises(UnreadableError, match="PyTorch would run it as Python code") as caught:
        save(checkpoint, tmp_path / "out.pt2")
    assert "-o NAME.safetensors" in caught.value.hint
    save(checkpoint, tmp_path / "out.safetensors")
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out.pt2").exists()


def test_custom_operators_are_passed_on(saved, tmp_path):
    """Weights are edited without calling them."""
    archive = hostile_pt2.Pt2(saved.read_bytes())
    tree = archive.program()
    hostile_pt2.node(tree, "relu")["target"] = "torch.ops.acme.relu.default"
    archive.set_program(tree)
    (tmp_path / "in.pt2").write_bytes(archive.bytes())
    save(edited(read(tmp_path / "in.pt2"), "a.weight"), tmp_path / "out.pt2")
    kept = json.loads(zipfile.ZipFile(tmp_path / "out.pt2").read("archive/models/model.json"))
    assert hostile_pt2.node(kept, "acme")["target"] == "torch.ops.acme.relu.default"
