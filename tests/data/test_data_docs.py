"""docs/data.md names what there is, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnopt_cli import DataOptions, Dataset, Loss, Metric
from nnopt_cli.plugin.fields import key_of
from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.testing import check_component, run_command

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "data.md").read_text()
REGISTRY = load_plugins(Wanted(allowed=frozenset()))
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("kind", ["loss", "metric"])
def test_every_component_is_in_a_table(kind):
    for name in REGISTRY.names(kind):
        assert f"`{name}`" in TEXT, f"{kind} {name}"


def test_every_flag_is_explained():
    for name in DataOptions.model_fields:
        if name not in ("strict",):
            assert f"--{key_of(name)}" in TEXT, name


def test_losses_and_metrics_of_the_tables_exist():
    rows = re.findall(
        r"^\| (?:classification|multi-label|regression|) ?\| ((?:`[\w-]+`(?:, )?)+) \|", TEXT, re.M
    )
    for row in rows:
        for name in re.findall(r"`([\w-]+)`", row):
            assert name in REGISTRY.names("metric")
    assert len(rows) > 10


@pytest.mark.parametrize("code", CODE, ids=lambda code: code.split("class ")[-1].split("(")[0][:20])
def test_the_code_runs(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    space: dict[str, object] = {"__name__": "test_docs_example"}
    exec(compile(code, "docs/data.md", "exec"), space)
    made = [
        v for v in space.values() if isinstance(v, type) and issubclass(v, Dataset | Loss | Metric) and v.name
    ]
    for component in made:
        check_component(component)


def test_the_first_command_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    command = re.findall(r"^nnopt (evaluate examples.*)$", TEXT, re.M)[0]
    done = run_command(*command.split())
    assert done.code == 0, done.stderr
    assert "accuracy" in done.stdout
