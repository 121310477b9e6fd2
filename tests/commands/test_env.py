"""`nnopt env`."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from nnopt_cli import __version__
from nnopt_cli.testing import run_command


def test_what_it_says_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNOPT_STRICT_PLUGINS", "0")
    monkeypatch.setenv("SECRET_TOKEN", "do not show")
    result = run_command("env", "--json")
    assert result.code == 0, result.stderr
    found = result.json
    assert found["nnopt"] == __version__
    assert platform.python_version() in found["python"]
    assert found["libraries"]["numpy"] == version("numpy")
    assert found["variables"]["NNOPT_STRICT_PLUGINS"] == "0"
    assert "SECRET_TOKEN" not in result.stdout
    (prune,) = (plugin for plugin in found["plugins"] if plugin["name"] == "prune")
    assert prune["state"] == "loaded"
    assert 1 <= found["cores"] <= found["cores_total"]


def test_its_text_is_fit_for_a_bug_report() -> None:
    text = run_command("env").stdout
    for word in (f"nnopt {__version__}", "python", "torch", "onnxruntime", "prune", platform.machine()):
        assert word in text
    assert "\x1b" not in text


def test_a_broken_torch_is_reported_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)  # `import torch` raises ImportError
    result = run_command("env")
    assert result.code == 0
    assert "cannot be imported" in result.stdout
