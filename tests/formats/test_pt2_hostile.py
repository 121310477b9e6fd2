"""`.pt2` files that do harm, or lie: each gives its own message, quickly, and nothing in it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import hostile_pt2
import pytest

from nnopt_cli.errors import UNREADABLE, UnreadableError
from nnopt_cli.formats.pt2_read import read_program, read_weights
from nnopt_cli.formats.sniff import open_file

SECONDS = 2.0


@pytest.fixture(scope="module")
def honest() -> hostile_pt2.Pt2:
    return hostile_pt2.Pt2.of(hostile_pt2.net_program())


def spoilt(honest: hostile_pt2.Pt2, name: str, folder: Path) -> tuple[Path, Path]:
    """The file of a case, and its canary."""
    archive, path, canary = honest.copy(), folder / f"{name}.pt2", folder / f"{name}.canary"
    hostile_pt2.CASES[name][0](archive, str(canary))
    path.write_bytes(archive.bytes())
    return path, canary


def complaint(path: Path) -> str:
    """What reading the weights says; empty if they are read."""
    try:
        read_weights(open_file(path))
    except UnreadableError as error:
        return error.message
    return ""


def test_the_honest_file_is_read(honest, tmp_path):
    """Negative control: what the cases spoil is fine before they do."""
    path = tmp_path / "honest.pt2"
    path.write_bytes(honest.bytes())
    assert not read_program(path).notes
    assert len(read_weights(open_file(path)).weights) == 9


@pytest.mark.parametrize("name", hostile_pt2.CASES)
def test_each_has_its_own_message_and_runs_nothing(honest, tmp_path, name, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # where some cases put a module that would be imported
    path, canary = spoilt(honest, name, tmp_path)
    began = time.perf_counter()
    with pytest.raises(UnreadableError) as caught:
        read_program(path)
    assert time.perf_counter() - began < SECONDS
    assert hostile_pt2.CASES[name][1] in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.exit_code == UNREADABLE
    assert not canary.exists()


@pytest.mark.parametrize("name", hostile_pt2.CASES)
def test_the_weights_alone_are_as_safe(honest, tmp_path, name, monkeypatch):
    """They are read where only the program is wrong; where anything else is, the message is the same."""
    monkeypatch.syspath_prepend(tmp_path)
    path, canary = spoilt(honest, name, tmp_path)
    with pytest.raises(UnreadableError) as caught:
        read_program(path)
    alone = complaint(path)
    assert alone == caught.value.message or (not alone and "models/model.json" in caught.value.message)
    assert not canary.exists()


LOAD = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import torch
for path in json.load(sys.stdin):
    sys.path.insert(0, path.rpartition("/")[0])
    try:
        torch.export.load(path)
    except BaseException:
        pass
"""


def test_the_harmful_ones_do_harm_in_pytorch(honest, tmp_path):
    """Negative control: these routes are real, so that refusing them means something."""
    files = {"sample_inputs": sampled(honest, tmp_path)}
    for name in hostile_pt2.BITES:
        (folder := tmp_path / name).mkdir()
        files[name] = spoilt(honest, name, folder)
    given = json.dumps([str(path) for path, _ in files.values()])
    subprocess.run([sys.executable, "-c", LOAD], input=given, text=True, timeout=300, check=True)
    spared = {name for name, (_, canary) in files.items() if not canary.exists()}
    assert spared <= {"opaque_object"}, "PyTorch 2.10 had none of those yet"


def sampled(honest: hostile_pt2.Pt2, folder: Path) -> tuple[Path, Path]:
    """A file whose sample inputs are a harmful pickle, and its canary."""
    archive, path, canary = honest.copy(), folder / "samples.pt2", folder / "samples.canary"
    archive.members["data/sample_inputs/model.pt"] = hostile_pt2.bomb(str(canary))
    path.write_bytes(archive.bytes())
    return path, canary


def test_sample_inputs_are_never_opened(honest, tmp_path):
    path, canary = sampled(honest, tmp_path)
    assert read_program(path).program.example_inputs is None
    assert not canary.exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated(honest, tmp_path, share):
    path, data = tmp_path / "short.pt2", honest.bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableError, match=r"cut short|broken"):
        read_program(path)


def test_damaged_weights_are_noticed(honest, tmp_path):
    path, data = tmp_path / "damaged.pt2", honest.bytes()
    weight = honest.members["data/weights/weight_0"]
    at = data.index(weight)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(UnreadableError, match="does not match its checksum"):
        read_program(path)


def test_custom_operators_need_to_be_allowed_and_there(honest, tmp_path):
    path, _ = spoilt(honest, "custom_operator", tmp_path)
    with pytest.raises(UnreadableError, match="needs the library that defines it") as caught:
        read_program(path)
    assert "allow its namespace 'evil'" in caught.value.hint
    assert "nodes[3] relu" in caught.value.message
    with pytest.raises(UnreadableError, match="that this process does not have"):
        read_program(path, custom=["evil"])
