"""Killed at any moment, the old output or the new one is there, whole; the next write tidies up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY_DISK = Path(
    "/dev/shm"
)  # a killed process, unlike a power cut, loses nothing: no need to wait for a disk
DRIVER = Path(__file__).with_name("kill_driver.py")


@pytest.fixture
def place(tmp_path) -> Iterator[Path]:
    if os.access(MEMORY_DISK, os.W_OK):
        with tempfile.TemporaryDirectory(dir=MEMORY_DISK) as folder:
            yield Path(folder)
    else:
        yield tmp_path


def kill(place: Path, name: str, mode: str, count: int) -> dict:
    command = [sys.executable, DRIVER, place / name, mode, str(count)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    if mode != "naive":
        assert seen["broken"] == 0, seen
    assert seen["leftovers"] == []
    assert seen["last"]
    return seen


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "folder"])
def test_killed_at_every_system_call(place, name):
    seen = kill(place, name, "steps", 200)
    assert seen["finished"] == 1  # so every call there is was tried
    assert seen["old"] >= 5
    assert seen["new"] >= 2  # after the rename, and the one that finished
    if sys.platform in ("linux", "darwin"):
        assert seen["aside"] == 0  # the swap of a folder is one step


def test_where_folders_cannot_be_swapped_the_old_one_comes_back(place):
    seen = kill(place, "folder", "fallback", 200)
    assert seen["finished"] == 1
    assert seen["aside"] <= 2  # between two renames
    assert seen["new"] >= 2


def test_a_writer_in_place_would_be_caught(place):
    assert kill(place, "model.pt", "naive", 200)["broken"] > 0


@pytest.mark.parametrize("name", ["model.pt", "folder"])
def test_killed_at_random_moments(place, name):
    seen = kill(place, name, "moments", 30)
    assert seen["old"] + seen["new"] == 30
    assert min(seen["old"], seen["new"]) > 0  # writes were finishing, so the kills fell among them
