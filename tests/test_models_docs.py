"""docs/models.md: what it shows works, as it is written there."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from nnopt_cli.model.inputs import InputSpec
from nnopt_cli.testing import run_command

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "models.md").read_text()


def test_the_commands_and_the_code_work(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "examples" / "digits", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    commands = [
        line for block in re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines()
    ]
    assert len(commands) == 3
    for line in commands:
        done = run_command(*shlex.split(line)[1:])
        assert done.code == 0, f"{line}: {done.stderr}"
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    monkeypatch.syspath_prepend(folder)
    try:
        exec(compile(code, "docs/models.md", "exec"), {})
    finally:
        sys.modules.pop("net", None)
    kept, of = map(int, re.fullmatch(r"(\d+) of (\d+)\n", capsys.readouterr().out).groups())
    assert kept < 0.5 * of


@pytest.mark.parametrize("text", re.findall(r"^\| `([^`]*)` \|", TEXT.split("## `--input`")[1], re.M))
def test_the_inputs_are_understood(text):
    assert InputSpec.parse(text).tensors()
