"""docs/training.md says what the components say, and its code runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.testing import check_component

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text()
REGISTRY = load_plugins(Wanted(allowed=frozenset()))
GENERATOR = runpy.run_path(str(ROOT / "docs" / "generate_training.py"))
KINDS = tuple(GENERATOR["KINDS"])


def test_the_tables_are_up_to_date():
    assert GENERATOR["renewed"](TEXT) == TEXT, "run: python docs/generate_training.py"


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_has_a_row_whose_options_build_it(kind):
    table = re.search(rf"<!-- {kind} -->\n(.*?)<!-- -->", TEXT, re.S)[1]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    assert [row[0].strip(" `") for row in rows] == list(REGISTRY.names(kind))
    for name, what, formula, options, source in rows:
        spec = name.strip(" `")
        given = ",".join(re.findall(r"`([^`]+)`", options))
        assert REGISTRY.build(kind, f"{spec}:{given}" if given else spec) == REGISTRY.build(kind, spec)
        assert what.strip().endswith(".")
        assert formula.strip(" `")
        assert re.search(r"\d{4}|PyTorch", source), f"{spec}: no source"


@pytest.mark.parametrize("spec", re.findall(r"--optimizer ([a-z][\w:.,=-]*)", TEXT))
def test_optimizers_of_the_examples_can_be_built(spec):
    if "my_" not in spec:
        REGISTRY.build("optimizer", spec, allow_code=True)


def test_the_code_runs():
    made = set()
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        space: dict[str, object] = {"__name__": "test_docs_example"}
        exec(compile(code, "docs/training.md", "exec"), space)
        for value in space.values():
            if isinstance(value, type) and issubclass(value, Component) and value.name:
                check_component(value)
                made.add(value.kind)
    assert made == {"optimizer", "learning-rate-schedule", "regularizer", "initializer"}
