"""Somebody else's criterion or granularity that goes wrong is named, with its package."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nnopt_cli.testing import run_command

PLUGIN = '''
import numpy as np
from nnopt_cli import Criterion, Pattern, hookimpl


def helper(values):
    return values / values.nothing


class Breaks(Criterion):
    """Fails."""

    def score(self, values, where):
        return helper(values)


class Complex(Criterion):
    """Scores that have no order."""

    def score(self, values, where):
        return values * 1j


class Words(Criterion):
    """Scores that are text."""

    def score(self, values, where):
        return np.full(len(values), "many")


class Leaves(Criterion):
    """Ends the program."""

    def score(self, values, where):
        raise SystemExit(3)


class Picky(Criterion):
    """Lets only a few weights go."""

    def score(self, values, where):
        return np.where(np.arange(where.start, where.start + len(values)) < 10, abs(values), np.nan)


class Numbers(Pattern):
    """Keeps numbers in place of booleans."""

    def unit(self, shape):
        return 1

    def keep(self, keys, shape):
        return keys


@hookimpl
def nnopt_components():
    return [Breaks, Complex, Words, Leaves, Picky, Numbers]
'''
OF = "of plugin 'faulty' (faulty-things 2.1)"


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    site = tmp_path / "site"
    info = site / "faulty_things-2.1.dist-info"
    info.mkdir(parents=True)
    (site / "faulty_things.py").write_text(dedent(PLUGIN))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-things\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[nnopt]\nfaulty = faulty_things\n")
    monkeypatch.syspath_prepend(site)
    path = tmp_path / "model.safetensors"
    weight = np.random.default_rng(0).normal(size=(8, 12)).astype("f4")
    weight[0, 0] = np.nan
    save_file({"a.weight": weight[1:], "b.weight": weight[:1]}, path)
    return path


def prune(model: Path, *options: str):  # type: ignore[no-untyped-def]
    return run_command(
        "prune", model, "--include", "a.weight", "-o", model.parent / "out.safetensors", *options
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "breaks",
            "failed: AttributeError: 'numpy.ndarray' object has no attribute 'nothing' "
            "(faulty_things.py, line 7)",
        ),
        ("complex", "gave complex64 scores of shape [84] for 84 weights of a.weight"),
        ("words", "gave <U4 scores of shape [84] for 84 weights of a.weight"),
        ("leaves", "ended the program (exit 3)"),
    ],
)
def test_a_criterion_is_blamed_for_what_it_does(model, name, told):
    done = prune(model, "-s", "0.5", "--criterion", name)
    assert done.code == 1
    assert f"error: the criterion '{name}' {OF} {told}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (model.parent / "out.safetensors").exists()


def test_a_pattern_is_blamed_too(model):
    done = prune(model, "--granularity", "numbers")
    assert done.code == 1
    assert (
        f"the granularity 'numbers' {OF} gave uint32 of shape [84] from keep() for 84 weights" in done.stderr
    )


def test_fewer_than_asked_for_is_said_with_the_reason(model):
    done = prune(model, "-s", "0.5", "--criterion", "picky", "--json")
    assert done.code == 0, done.stderr
    assert done.json["facts"]["achieved"] == 10
    assert (
        "--sparsity was not reached: 32 weights fewer are zero than it asks for; the others that are "
        "not zero must stay, because the criterion 'picky' scores them NaN."
    ) in done.json["notes"]


def test_what_is_not_finite_is_the_reason_where_it_is(model):
    done = run_command(
        "prune", model, "-s", "1", "--non-finite", "keep", "--json", "-o", model.parent / "o.pt"
    )
    assert done.code == 0, done.stderr
    (note,) = [note for note in done.json["notes"] if note.startswith("--sparsity was not reached")]
    assert "1 weights fewer" in note
    assert note.endswith("because they are not finite.")


def test_no_such_note_where_it_was_reached(model):
    done = prune(model, "-s", "0.5", "--json")
    assert not [note for note in done.json["notes"] if "not reached" in note]
    assert np.count_nonzero(load_file(model.parent / "out.safetensors")["a.weight"]) == 42


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--granularity", "2:4", "--scope", "layer"], "--scope does not go with --granularity 2:4"),
        (["-s", "0.5", "--exclude", "*"], "there is nothing to prune"),
        (["-s", "n.weight=0.5"], "there is nothing to prune: nothing that --sparsity names is prunable"),
        (["-s", "nope=0.5"], "'nope' matches no tensor"),
        ([], "--sparsity is missing"),
    ],
)
def test_usage_is_looked_at_before_the_output(model, options, told):
    """A wrong option is the user's first concern, whether or not the output exists."""
    save_file({**load_file(model), "n.weight": np.ones(3, "f4")}, model)
    for _ in range(2):
        done = run_command("prune", model, *options)
        assert done.code == 2, done.stdout
        assert told in done.stderr
        model.with_name("model.pruned.safetensors").write_text("in the way")


def test_a_dry_run_says_what_the_run_would_say(model):
    taken = model.parent / "taken.safetensors"
    taken.write_text("x")
    wrong = [
        taken,
        model.parent / "nowhere" / "out.pt",
        model,
        model.parent / "out.gguf",
        model.parent / "site",
    ]
    for output in wrong:
        real, dry = (
            run_command("prune", model, "-s", "0.5", "-o", output, "--non-finite", "keep", *more)
            for more in ([], ["--dry-run"])
        )
        assert real.code == dry.code != 0, output
        assert real.stderr == dry.stderr
    assert taken.read_text() == "x"
