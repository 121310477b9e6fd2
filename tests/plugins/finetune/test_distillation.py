"""The example of distillation: two teachers, one small student, as its README says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnopt_cli import load
from nnopt_cli.testing import run_command

ROOT = Path(__file__).parents[3]


@pytest.fixture
def example(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(ROOT)
    return "examples/distill"


def recipe(path: str, output: Path, *settings: str) -> list[dict]:
    """The runs of a recipe, each with its variables and the figures of its training."""
    given = [part for setting in settings for part in ("--set", setting)]
    done = run_command("run", path, "-o", output, "--json", "--threads", 1, *given)
    assert done.code == 0, done.stderr
    return done.json["runs"]


def test_teachers_are_trained_fused_and_learnt_from(tmp_path, example):
    recipe(f"{example}/teachers.yaml", tmp_path / "teacher.pt2", "epochs=2")
    pair = [tmp_path / f"teacher.seed-{seed}.pt2" for seed in (1, 2)]
    both = tmp_path / "both.pt2"
    assert run_command("ensemble", *pair, "-o", both, "-q").code == 0

    def student(name: str, teachers: list[Path], *settings: str) -> torch.Tensor:
        named = "teachers=[[" + ", ".join(map(str, teachers)) + "]]"
        out = tmp_path / f"{name}.pt2"
        recipe(f"{example}/recipe.yaml", out, named, "epochs=1", *settings)
        return load(out).weights["0.weight"].torch()

    two, one, alone = student("two", pair), student("one", pair[:1]), student("alone", pair, "share=0")
    fused = student("fused", [both], "seed=1")
    assert not two.equal(one)
    assert not two.equal(alone)
    assert not fused.equal(alone)


@pytest.mark.slow
def test_the_student_gains_what_the_readme_says(tmp_path, example):
    """On the mean of five seeds, which no single one promises."""
    recipe(f"{example}/teachers.yaml", tmp_path / "teacher.pt2")
    named = f"teachers=[[{tmp_path}/teacher.seed-1.pt2, {tmp_path}/teacher.seed-2.pt2]]"
    runs = recipe(f"{example}/recipe.yaml", tmp_path / "s.pt2", named, "share=0,0.9", "seed=1,2,3,4,5")
    found: dict[float, list[float]] = {0.0: [], 0.9: []}
    for run in runs:
        found[run["variables"]["share"]].append(run["record"]["training"]["after"])
    alone, taught = (sum(found[share]) / 5 for share in (0.0, 0.9))
    assert taught > alone + 0.005
    assert alone > 0.8
