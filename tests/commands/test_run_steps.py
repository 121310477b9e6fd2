"""Recipes with commands before and behind their passes: sweeps, interruptions, reports of steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from nnopt_cli import load
from nnopt_cli.testing import run_command

torch.set_num_threads(1)
EXAMPLES = Path(__file__).parents[2] / "examples" / "ensemble"
GRAPH = ("--arch", f"{EXAMPLES}/net.py:build", "--input", "1x8x8")
FUSE = {"command": "ensemble", "with": ["right.pt"], "output": "fused.pt"}
HALF = {"pass": "prune", "sparsity": 0.5}
BARE = {"command": "export", "output": "small.safetensors"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("left", "right", "stranger"):
        shutil.copy(EXAMPLES / f"{name}.pt", tmp_path)
    return tmp_path


def recipe(path: Path, *steps: object, **table: object) -> Path:
    whole = {"model": "left.pt", "output": "small.pt", **table, "steps": list(steps)}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def ok(*args: object):
    done = run_command(*args)
    assert done.code == 0, done.stderr
    return done


def bits(path: Path) -> dict[str, bytes]:
    return {name: weight.words().tobytes() for name, weight in load(path).weights.items()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_models_are_fused_and_then_pruned_and_exported(home):
    done = ok("run", recipe(home / "r.yaml", FUSE, HALF, BARE))
    assert done.stdout.index("Wrote fused.pt") < done.stdout.index("Wrote small.pt")
    ok("ensemble", "left.pt", "right.pt", "-o", "one.pt")
    ok("prune", "one.pt", "-s", "0.5", "-o", "two.pt")
    assert bits(home / "two.pt") == bits(home / "small.pt") == bits(home / "small.safetensors")
    assert [step["pass"] for step in load("small.pt").provenance.steps] == ["ensemble", "prune"]
    assert "Identical" in ok("run", "small.pt").stdout
    ok("recipe", "show", "small.pt", "--save", "shown.yaml")
    ok("run", "shown.yaml", "-o", "again.pt")
    assert bits(home / "again.pt") == bits(home / "small.pt")


def test_only_what_writes_a_model_stands_before_passes(home):
    for command in ({"command": "inspect"}, BARE):
        done = run_command("recipe", "validate", recipe(home / "r.yaml", command, HALF))
        assert done.code == 2
        assert "ensemble" in done.stderr
    assert run_command("recipe", "validate", recipe(home / "r.yaml", HALF, FUSE, HALF)).code == 2
    assert (
        "ensemble, prune, export"
        in ok("recipe", "validate", recipe(home / "r.yaml", FUSE, HALF, BARE)).stdout
    )


def test_an_interruption_behind_the_passes_costs_only_what_was_not_done(home, monkeypatch):
    from nnopt_cli.commands import export

    path = recipe(home / "r.yaml", FUSE, HALF, BARE)
    ok("run", path, "--force")
    want = bits(home / "small.pt")
    for name in ("fused.pt", "small.pt", "small.safetensors"):
        (home / name).unlink()

    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, "_written", stop)
        assert run_command("run", path).code == 130
    assert names(home) == [
        ".small.pt.run.json",
        *("fused.pt", "left.pt", "r.yaml", "right.pt", "small.pt", "stranger.pt"),
    ]
    times = [(home / name).stat().st_mtime_ns for name in ("fused.pt", "small.pt")]
    done = ok("run", path, "--json", "--report", "page.html").json
    assert [step["resumed"] for step in done["runs"][0]["steps"]] == [True, True, False]
    assert [(home / name).stat().st_mtime_ns for name in ("fused.pt", "small.pt")] == times
    assert bits(home / "small.pt") == bits(home / "small.safetensors") == want
    assert done["runs"][0]["record"]["output"] == "small.pt"
    assert not (home / ".small.pt.run.json").exists(), "nothing is left when it is done"
    assert "small.safetensors" in (home / "page.html").read_text()


@pytest.mark.parametrize("change", ["input", "member", "step", "output", "journal"])
def test_what_changed_since_is_done_again(home, monkeypatch, change):
    from nnopt_cli.commands import export

    path = recipe(home / "r.yaml", FUSE, HALF, BARE)

    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, "_written", stop)
        assert run_command("run", path).code == 130
    if change == "input":
        shutil.copy("right.pt", "left.pt")
    elif change == "member":
        shutil.copy("left.pt", "right.pt")
    elif change == "step":
        recipe(path, FUSE, {**HALF, "sparsity": 0.6}, BARE)
    elif change == "output":
        shutil.copy("stranger.pt", "small.pt")
    else:
        (home / ".small.pt.run.json").write_text("{")
    done = run_command("run", path)
    assert done.code == 1, "what is there is not what this recipe would have written"
    assert "already exists" in done.stderr
    ok("run", path, "--force")
    fresh = home / "fresh"
    fresh.mkdir()
    for name in ("left.pt", "right.pt", "r.yaml"):
        shutil.copy(name, fresh)
    monkeypatch.chdir(fresh)
    ok("run", "r.yaml")
    assert bits(fresh / "small.safetensors") == bits(home / "small.safetensors")


def test_outputs_are_refused_before_any_work(home):
    (home / "small.safetensors").write_text("somebody's")
    done = run_command("run", recipe(home / "r.yaml", FUSE, HALF, BARE))
    assert done.code == 1
    assert "small.safetensors: already exists" in done.stderr
    assert names(home) == ["left.pt", "r.yaml", "right.pt", "small.safetensors", "stranger.pt"]


def test_a_dry_run_writes_nothing(home):
    before = names(home)
    ok("run", recipe(home / "r.yaml", FUSE, BARE), "--dry-run")
    ok("run", recipe(home / "r.yaml", FUSE, HALF, BARE), "--dry-run")
    ok("run", recipe(home / "r.yaml", HALF, BARE), "--dry-run")
    assert names(home) == [*before[:1], "r.yaml", *before[1:]]


def test_each_run_of_a_sweep_has_files_of_its_own(home):
    path = recipe(home / "r.yaml", {**HALF, "sparsity": "${s}"}, BARE, vars={"s": [0.25, 0.75]})
    ok("run", path, "--report", "sweep.html")
    for share in (0.25, 0.75):
        assert bits(home / f"small.s-{share}.pt") == bits(home / f"small.s-{share}.safetensors")
    assert bits(home / "small.s-0.25.pt") != bits(home / "small.s-0.75.pt")
    page = (home / "sweep.html").read_text()
    assert page.count("Export: small.s-0.25.pt") == 1, "what each command gave is in its run"


def test_a_step_has_a_report_of_its_own(home):
    path = recipe(home / "r.yaml", HALF, {**BARE, "report": "export.html"})
    ok("run", path)
    assert "How it was verified" in (home / "export.html").read_text()
    path = recipe(home / "r.yaml", HALF, {**BARE, "report": "left.pt"})
    done = run_command("run", path, "--force")
    assert done.code == 2
    assert "a report is a page" in done.stderr


def test_a_note_that_cannot_be_written_costs_nothing(home):
    (home / ".small.pt.run.json").mkdir()
    ok("run", recipe(home / "r.yaml", FUSE, HALF, BARE))
    assert bits(home / "small.pt") == bits(home / "small.safetensors")


def test_a_work_folder_keeps_what_was_written(home):
    path = recipe(home / "r.yaml", FUSE, HALF, BARE)
    ok("run", path, "--work", "w")
    assert (home / "w" / "commands.json").is_file()
    done = ok("run", path, "--work", "w", "--json").json
    assert all(step["resumed"] for step in done["runs"][0]["steps"])
    (home / "small.safetensors").unlink()
    done = ok("run", path, "--work", "w", "--json").json
    assert [step["resumed"] for step in done["runs"][0]["steps"]] == [True, True, False]
    assert json.loads((home / "w" / "commands.json").read_text())
