"""`nnopt plugins new`: the package installs, its own tests pass, its pass is a command."""

from __future__ import annotations

import pytest
from packages import Site, install

from nnopt_cli import load
from nnopt_cli.testing import run_command, small_file


def test_from_nothing_to_a_command(tmp_path, monkeypatch):
    name, command = "nnopt-soft_clip", "soft-clip"
    folder = tmp_path / "made"
    made = run_command("plugins", "new", name, "--dir", folder, "--json")
    assert made.code == 0, made.stderr
    assert made.json["pass"] == command
    assert {"pyproject.toml", "README.md"} < set(made.json["files"])
    assert all((folder / file).is_file() for file in made.json["files"])

    install(tmp_path / "site", [folder])
    site = Site(tmp_path / "site")
    listed = {p["name"]: p for p in site.nnopt("plugins", "--json").json["plugins"]}
    assert (listed[command]["state"], listed[command]["slow"]) == ("loaded", [])

    own = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder)
    assert own.code == 0, own.stdout + own.stderr
    assert "4 passed" in own.stdout

    model = small_file(tmp_path / "model.pt")
    monkeypatch.syspath_prepend(site.path)
    result = run_command(command, model, "--limit", "0.25")
    assert result.code == 0, result.stderr
    output = tmp_path / f"model.{command}.pt"
    assert output.name in "".join(result.stdout.split())
    assert load(output).weights["fc1.weight"].torch().abs().max() == 0.25


def test_the_generated_code_is_clean(tmp_path):
    assert run_command("plugins", "new", "nnopt-x", "--dir", tmp_path / "x").code == 0
    text = "".join(path.read_text() for path in (tmp_path / "x").rglob("*") if path.is_file())
    assert "$" not in text
    for path in (tmp_path / "x").rglob("*.py"):
        compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "cannot be a package's name"),
        ("2fast", "cannot be a package's name"),
        ("a b", "cannot be a package's name"),
        ("../up", "cannot be a package's name"),
        ("a--b", "cannot be a package's name"),
        ("nnopt", "is taken"),
        ("class", "is taken"),
        ("json", "is taken"),
        ("pytest", "is installed here"),
        ("nnopt-prune", "nnopt has a command 'prune' already"),
        ("nnopt-inspect", "nnopt has a command 'inspect' already"),
        ("nnopt-none", "cannot be a class called 'None'"),
    ],
)
def test_names_that_cannot_be(tmp_path, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)
    result = run_command("plugins", "new", name)
    assert result.code == 2
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    result = run_command("plugins", "new", "nnopt-x", "--dir", tmp_path / "x")
    assert result.code == 1
    assert "not an empty folder" in result.stderr
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["mine.txt"]
