"""docs/cli.md is what its generator writes, and says what the command line really has."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from nnopt_cli.testing import run_command

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(DOCS / "generate_cli.py"))


def test_it_is_up_to_date(generator):
    assert (DOCS / "cli.md").read_text() == generator["reference"](), "run: python docs/generate_cli.py"


def test_every_command_of_the_help_is_in_it():
    shown = run_command("--help").stdout
    text = (DOCS / "cli.md").read_text()
    for spec in ("inspect", "compare", "env", "plugins", "prune"):
        assert spec in shown
        assert f"### nnopt {spec}\n" in text
    assert "`--sparsity`" in text


def test_examples_become_code(generator):
    text = generator["prose"]("A pass.\n\nExamples:\n  nnopt a b\n  nnopt c\n\nMore.")
    assert text == "A pass.\n\n```sh\nnnopt a b\nnnopt c\n```\n\nMore."
