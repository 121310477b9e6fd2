"""What people read when something is wrong: in their words, harmless, and fitted to the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from nnopt_cli import MemoryWeight, Model, NnoptError
from nnopt_cli.formats.checkpoint import Container
from nnopt_cli.testing import run_command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "Model.safetensors"
    save_file({"a.weight": np.ones((8, 12), "f4")}, path)
    return path


def on_a_terminal(width: int, *command: str | Path) -> str:
    """What the command prints on a terminal of `width` columns, as it is."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE")}
    line = [sys.executable, "-m", "nnopt_cli", *map(str, command)]
    child = subprocess.Popen(
        line, stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm", "NO_COLOR": "1"}
    )
    os.close(theirs)
    out = b""
    try:
        while got := os.read(ours, 65536):
            out += got
    except OSError:  # the other side is closed
        pass
    child.wait()
    os.close(ours)
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.decode().replace("\r\n", "\n"))


@pytest.mark.parametrize("width", [50, 80])
def test_an_error_fits_the_terminal_and_is_not_cut_in_words(model, width):
    said = on_a_terminal(width, "prune", model, "-s", "0.5", "--exclude", "*", "--dry-run")
    lines = said.rstrip("\n").split("\n")
    assert len(lines) > 3
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("error: there is nothing to prune")
    assert all(line.startswith("       ") and line[7] != " " for line in lines[1:])
    assert "`nnopt inspect FILE` shows each tensor and why it is left out." in " ".join(said.split())


def test_elsewhere_an_error_is_one_line_and_its_hint_another(model):
    done = run_command("prune", model, "-s", "0.5", "--exclude", "*", "--dry-run")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("name", ["two\nlines.pt", "red\x1b[31m.pt", "\u202etp.pt", "bell\x07.pt"])
def test_no_name_reaches_the_terminal_raw(tmp_path, name):
    odd = {"w\n\x1b[2J": torch.ones(4, 4)}
    torch.save(odd, tmp_path / name)
    for command in (
        ["inspect", tmp_path / name],
        ["prune", tmp_path / name, "-s", "0.5"],
        ["compare", tmp_path / name, tmp_path / name, "-v"],
        ["prune", tmp_path / name, "-s", "x"],
        ["inspect", str(tmp_path / name) + "x"],
        ["prune", tmp_path / name, "-s", "0.5"],
        ["prune", tmp_path / name, "-s", "0.5", "--include", "\x1b[31m\nnope"],
    ):
        done = run_command(*command)
        said = done.stdout + done.stderr
        assert said
        assert all(char == "\n" or char.isprintable() for char in said), command
        assert name.replace(".pt", "") not in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-s", "1.5"], "error: --sparsity '1.5': 1.5 is not between 0 and 1; write 0.5 or 50%"),
        (["-s", "0.5", "-s", "0.7"], "error: --sparsity '0.5', '0.7': two sparsities without a pattern"),
        (["-s", "0.5", "--threads", "0"], "error: --threads '0': must be at least 1\n"),
        (["-s", "0.5", "--threads", "two"], "error: --threads 'two': must be a whole number, at least 1\n"),
        (["-s", "0.5", "--seed", "9" * 5000], "…: must be a number of fewer digits, at least 0\n"),
        (["--granularity", "channel", "--macs", "0"], "error: --macs '0': must be above 0, at most 1\n"),
        (["--granularity", "9" * 5000 + ":4"], "'4' is not key=value"),
        (["--granularity", "0x4", "-s", "1"], "error: granularity '0x4': rows 0: must be at least 1\n"),
        (["-s", "0.5", "--criterion", "MAGNITUDE"], "Did you mean 'magnitude'?"),
        (["-s", "0.5", "--include", "A.WEIGHT"], "Did you mean 'a.weight'?"),
        (["-s", "0.5", "--criterion", "code:nope.py:Foo"], "there is no file"),
    ],
)
def test_a_wrong_option_in_the_words_of_the_command_line(model, options, told):
    done = run_command("prune", model, *options)
    assert done.code == 2
    assert told in done.stderr
    assert ".py, line" not in done.stderr
    assert "set_int_max_str_digits" not in done.stderr


def test_a_wrong_input(model, tmp_path):
    for given, code, told in [
        ("", 2, "MODEL is empty"),
        ("https://example.org/model.pt", 3, "is an address, and nnopt reads files of this machine"),
        ("microsoft/resnet-50", 3, "`hf download microsoft/resnet-50 --local-dir resnet-50`"),
        (tmp_path / "mODEL.SAFETENSORS", 3, "Did you mean Model.safetensors?"),
    ]:
        done = run_command("prune", given, "-s", "0.5")
        assert (done.code, told in done.stderr) == (code, True), done.stderr


def test_shards_without_their_index(tmp_path):
    for number in (1, 2):
        save_file(
            {f"w{number}": np.ones((2, 2), "f4")}, tmp_path / f"model-0000{number}-of-00002.safetensors"
        )
    done = run_command("inspect", tmp_path)
    assert done.code == 3
    assert "holds 2 shards, and not the index" in done.stderr
    assert "Download the file that ends in .index.json" in done.stderr


def test_the_summary_names_the_command_that_shrinks(model):
    said = " ".join(run_command("prune", model, "-s", "0.5").stdout.split())
    assert "`nnopt prune --granularity channel` makes a model smaller and faster" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.map(lambda name, tensor: tensor, ["a.wieght"]), "has no tensor 'a.wieght'"),
        (lambda m: m.edit({"b": None}), "has no tensor 'b'"),
        (lambda m: m.map(lambda name, tensor: None).weights["a.weight"].words(), "made NoneType out of it"),
    ],
)
def test_a_wrong_use_of_a_model_is_a_message(change, told):
    weight = MemoryWeight.of("a.weight", np.ones((2, 2), "f4"))
    model = Model({"a.weight": weight}, Container(Path("model.pt"), "torch", ()))
    with pytest.raises(NnoptError, match=told):
        change(model)


def test_an_end_of_file_somewhere_is_no_interruption(model, monkeypatch):
    """Typer makes the same of it as of Ctrl-C; a compiled module that was cut short ends in one."""
    from nnopt_cli.formats import read

    def cut(*args, **options):
        raise EOFError("marshal data too short")

    monkeypatch.setattr(read, "_finished", cut)
    done = run_command("inspect", model)
    assert done.code == 1
    assert "internal error: EOFError: marshal data too short" in " ".join(done.stderr.split())
