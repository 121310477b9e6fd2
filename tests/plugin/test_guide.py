"""Every code block of docs/plugins.md, run: its files make a package that is installed, tested and used."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from packages import Site, install

from nnopt_cli.plugin.hookspecs import Hooks
from nnopt_cli.plugin.options import SHARED
from nnopt_cli.testing import run_command, small_file

GUIDE = Path(__file__).parents[2] / "docs" / "plugins.md"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def blocks():
    return BLOCK.findall(GUIDE.read_text())


@pytest.fixture(scope="module")
def project(blocks, tmp_path_factory):
    """The guide's files, installed; returns the folder and the environment."""
    folder = tmp_path_factory.mktemp("guide") / "project"
    for language, name, text in blocks:
        assert name or language == "sh", f"a block that nothing runs: {text}"
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    install(folder.parent / "site", [folder])
    return folder, Site(folder.parent / "site")


def test_its_tests_pass(project):
    folder, site = project
    done = site.python("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", folder / "tests")
    assert done.code == 0, done.stdout + done.stderr


def test_its_commands_work(project, blocks, monkeypatch):
    folder, site = project
    monkeypatch.syspath_prepend(site.path)
    monkeypatch.chdir(folder)
    small_file("model.safetensors")
    lines = [line for language, _, text in blocks if language == "sh" for line in text.splitlines()]
    assert len(lines) > 6
    for line in lines:
        for old in folder.glob("model.*.safetensors"):
            old.unlink()
        program, *args = shlex.split(line)
        assert program == "nnopt"
        result = run_command(*args)
        assert result.code == 0, (line, result.stderr)
        assert result.stderr == "", line
    assert (folder / "nnopt-trim" / "pyproject.toml").exists()


def test_every_hook_is_in_it():
    for name in vars(Hooks):
        if name.startswith("nnopt_"):
            assert f"| `{name}()` |" in GUIDE.read_text()


def test_every_shared_flag_is_in_it():
    text = GUIDE.read_text()
    for model in SHARED:
        for name in model.model_fields:
            assert f"--{name.rstrip('_').replace('_', '-')}" in text
