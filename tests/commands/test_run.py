"""`nnopt run`, `nnopt recipe` and `--save-recipe` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from nnopt_cli import load, save
from nnopt_cli.commands import work
from nnopt_cli.model.provenance import Provenance
from nnopt_cli.testing import run_command

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
ARCH = f"{DIGITS}/net.py:build"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS / "digits.pt", tmp_path / "digits.pt")
    return tmp_path


def recipe(path: Path, **table: object) -> Path:
    path.write_text(yaml.safe_dump({"model": "digits.pt", **table}, sort_keys=False))
    return path


def prune(**options: object) -> dict[str, object]:
    return {"pass": "prune", **options}


def same(one: str | Path, other: str | Path) -> bool:
    a, b = load(one).weights, load(other).weights
    return list(a) == list(b) and all(a[n].words().tobytes() == b[n].words().tobytes() for n in a)


def ok(*args: object):
    done = run_command(*args)
    assert done.code == 0, done.stderr
    return done


@pytest.mark.parametrize("suffix", ["yaml", "yml", "toml", "json"])
@pytest.mark.parametrize(
    "options",
    [
        ["--sparsity", "0.5"],
        ["--granularity", "2:4", "--include", "head.*", "--include", "features.3.*"],
        ["--sparsity", "0.4", "--sparsity", "head.*=0.8", "--criterion", "random", "--seed", "7"],
    ],
    ids=["share", "pattern", "random"],
)
def test_a_saved_recipe_gives_the_same_bits(home, suffix, options):
    ok("prune", "digits.pt", *options, "-o", "a.pt", "--save-recipe", f"r.{suffix}")
    done = run_command("run", f"r.{suffix}")
    assert done.code == 1
    assert "already exists" in done.stderr, "the recipe names the same output"
    ok("run", f"r.{suffix}", "-o", "b.pt")
    assert same("a.pt", "b.pt")
    assert not same("a.pt", "digits.pt")
    a, b = load("a.pt").provenance, load("b.pt").provenance
    assert (a.steps, a.inputs) == (b.steps, b.inputs)


def test_passes_in_a_row_are_the_passes_one_by_one(home):
    steps = [prune(sparsity=0.5), prune(granularity="2:4", include="head.*"), prune(sparsity=0.7)]
    ok("run", recipe(home / "r.yaml", steps=steps))
    ok("prune", "digits.pt", "-s", "0.5", "-o", "1.pt")
    ok("prune", "1.pt", "--granularity", "2:4", "--include", "head.*", "-o", "2.pt")
    ok("prune", "2.pt", "-s", "0.7", "-o", "3.pt")
    assert same("digits.pruned.pruned.pruned.pt", "3.pt")
    once, thrice = load("digits.pruned.pruned.pruned.pt").provenance, load("3.pt").provenance
    assert once.steps == thrice.steps
    assert once.inputs == thrice.inputs


def test_they_share_one_load_and_one_save(home, monkeypatch):
    from nnopt_cli.formats import read
    from nnopt_cli.model import io

    loads, saves = [], []
    reader, saver = read.read, io.save
    monkeypatch.setattr(read, "read", lambda *a, **k: loads.append(a) or reader(*a, **k))
    monkeypatch.setattr(io, "save", lambda *a, **k: saves.append(a) or saver(*a, **k))
    ok("run", recipe(home / "r.yaml", steps=[prune(sparsity=0.5), prune(sparsity=0.6)]))
    assert (len(loads), len(saves)) == (1, 1)


def test_a_graph_is_cut_pruned_and_measured(home):
    ok("convert", "digits.pt", "--arch", ARCH, "--input", "1x8x8", "-o", "digits.pt2")
    steps = [
        prune(granularity="channel", sparsity=0.5),
        prune(granularity="channel", sparsity=0.5),
        prune(sparsity=0.5),
        {"command": "evaluate", "data": "digits:part=test"},
    ]
    path = recipe(home / "r.yaml", steps=steps)
    done = ok("run", path, "--model", "digits.pt2", "-o", "out.pt2", "--json").json
    record = done["runs"][0]["record"]
    first, second = (record["shrunk"]["widths"][0][key] for key in ("before", "after"))
    assert (first, second) == (32, 8), "two cuts are one change"
    assert record["shrunk"]["macs"][0] > 9 * record["shrunk"]["macs"][1]
    assert record["after"]["prunable_zeros"] * 2 == record["after"]["prunable"]
    assert done["runs"][0]["steps"][-1]["result"]["samples"] == 360
    assert done["metric"] == "accuracy"
    ok("prune", "digits.pt2", "--granularity", "channel", "-s", "0.5", "-o", "1.pt2")
    ok("prune", "1.pt2", "--granularity", "channel", "-s", "0.5", "-o", "2.pt2")
    ok("prune", "2.pt2", "-s", "0.5", "-o", "3.pt2")
    assert same("3.pt2", "out.pt2")
    again = ok("run", "out.pt2", "--json").json
    assert again["identical"] is True


def test_a_sweep_runs_every_combination(home):
    steps = [prune(sparsity="${s}"), prune(granularity="${g}", include="head.*")]
    path = recipe(home / "r.yaml", vars={"s": 0.5, "g": "2:4"}, steps=steps)
    done = ok("run", path, "--set", "s=0.3,0.7", "--set", "g=[2:4, 1:4]", "--report", "sweep.html")
    assert "4 runs" in done.stdout
    for s in ("0.3", "0.7"):
        for g, name in (("2:4", "2_4"), ("1:4", "1_4")):
            out = home / f"digits.pruned.pruned.s-{s}.g-{name}.pt"
            assert out.exists(), sorted(p.name for p in home.iterdir())
            assert out.name in done.stdout
            assert load(out).provenance.steps[0]["sparsity"] == float(s)
            assert load(out).provenance.steps[1]["granularity"]["name"] or g
    assert "s 0.3, g 2:4" in (home / "sweep.html").read_text()


def test_a_failing_run_of_a_sweep_is_a_row(home):
    path = recipe(home / "r.yaml", vars={"i": "head.*"}, steps=[prune(sparsity=0.5, include="${i}")])
    done = run_command("run", path, "--set", "i=[head.*, haed.*]", "--json")
    assert done.code == 2
    good, bad = done.json["runs"]
    assert good["record"] is not None
    assert bad["record"] is None
    assert "matches no tensor" in bad["error"]


def test_outputs_of_a_sweep_may_name_the_variable(home):
    path = recipe(home / "r.yaml", vars={"s": [0.3, 0.6]}, output="o-${s}.pt", steps=[prune(sparsity="${s}")])
    ok("run", path)
    assert sorted(p.name for p in home.glob("o-*")) == ["o-0.3.pt", "o-0.6.pt"]


def test_an_interrupted_run_goes_on_behind_the_last_finished_step(home, monkeypatch):
    (home / "mine.py").write_text(
        "from pathlib import Path\nfrom nnopt_cli import Pass, NnoptError\n"
        "class Slow(Pass):\n"
        "    '''Note each call.'''\n"
        "    def run(self, model, run):\n"
        "        with Path('calls').open('a') as f: f.write('x')\n"
        "        run.facts['seen'] = 1\n"
        "        return model.map(lambda name, t: t * 2)\n"
        "class Stop(Pass):\n"
        "    '''Fail while a file is there.'''\n"
        "    def run(self, model, run):\n"
        "        if Path('fail').exists(): raise KeyboardInterrupt\n"
        "        return model\n"
    )
    steps = [{"pass": "code:mine.py:Slow"}, prune(sparsity=0.5), {"pass": "code:mine.py:Stop"}]
    path = recipe(home / "r.yaml", steps=steps, output="out.pt")
    monkeypatch.setattr(work, "LONG", 0.0)
    ok("run", path, "-o", "want.pt")
    (home / "fail").touch()
    assert run_command("run", path).code == 130
    assert not (home / "out.pt").exists()
    kept = sorted(p.suffix for p in (home / ".out.pt.work").iterdir())
    assert kept == [".json", ".json", ".pt", ".pt"], "both finished steps are kept"
    (home / "fail").unlink()
    done = ok("run", path, "--json").json
    assert (home / "calls").read_text() == "xx", "the finished step was not done a third time"
    assert [step["resumed"] for step in done["runs"][0]["steps"]] == [True, True, False]
    assert same("out.pt", "want.pt")
    assert load("out.pt").provenance.inputs == load("want.pt").provenance.inputs
    assert load("out.pt").container.key == load("want.pt").container.key
    assert not (home / ".out.pt.work").exists(), "nothing is left when it is done"


def test_a_work_folder_is_shared_and_follows_changes(home):
    path = recipe(home / "r.yaml", vars={"s": 0.6}, steps=[prune(sparsity=0.5), prune(sparsity="${s}")])

    def resumed(*args: object) -> list[bool]:
        done = ok("run", path, "--work", "w", "--force", "--json", *args).json
        return [step["resumed"] for step in done["runs"][0]["steps"]]

    assert resumed("-o", "a.pt") == [False, False]
    assert resumed("-o", "b.pt") == [True, True]
    assert resumed("-o", "c.pt", "--set", "s=0.8") == [True, False]
    assert resumed("-o", "d.pt", "--seed", "3") == [False, False]
    assert same("a.pt", "b.pt")
    state = torch.load("digits.pt", weights_only=True)
    state["state_dict"]["head.3.bias"] += 1
    torch.save(state, "digits.pt")
    assert resumed("-o", "e.pt") == [False, False], "another input"
    for note in (home / "w").glob("*.json"):
        note.write_text("{")
    assert resumed("-o", "f.pt") == [False, False], "what cannot be read is done again"
    assert same("e.pt", "f.pt")


def test_a_work_folder_that_is_a_file(home):
    path = recipe(home / "r.yaml", steps=[prune(sparsity=0.5)])
    done = run_command("run", path, "--work", "digits.pt")
    assert done.code == 1
    assert "digits.pt: is a file" in done.stderr
    assert sorted(p.name for p in home.iterdir()) == ["digits.pt", "r.yaml"]


def test_a_record_is_repeated_and_compared(home):
    ok("prune", "digits.pt", "-s", "0.5", "-o", "a.pt")
    done = ok("run", "a.pt")
    assert "Identical" in done.stdout
    assert not list(home.glob("*.pruned*")), "nothing is written unless -o asks for it"
    ok("run", "a.pt", "-o", "again.pt")
    assert same("a.pt", "again.pt")
    model = load("a.pt")
    changed = model.map(lambda name, tensor: tensor + 1, ["head.3.bias"])
    save(changed, "b.pt")
    done = run_command("run", "b.pt")
    assert done.code == 1
    assert "Not identical" in done.stdout


def test_a_record_needs_its_own_input(home):
    ok("prune", "digits.pt", "-s", "0.5", "-o", "a.pt")
    (home / "sub").mkdir()
    shutil.move("a.pt", "sub/a.pt")
    ok("run", "sub/a.pt")  # the input is in the current folder
    shutil.move("digits.pt", "input.pt")
    done = run_command("run", "sub/a.pt")
    assert done.code == 1
    assert "--model PATH" in done.stderr
    ok("run", "sub/a.pt", "--model", "input.pt")
    ok("prune", "input.pt", "-s", "0.1", "-o", "other.pt")
    assert "other weights" in run_command("run", "sub/a.pt", "--model", "other.pt").stderr
    done = run_command("run", "input.pt")
    assert done.code == 1
    assert "no record" in done.stderr


@pytest.mark.parametrize(
    "step",
    [
        {"pass": "code:evil.py:Evil"},
        {"pass": "prune", "sparsity": 0.5, "criterion": "code:evil.py:Evil"},
        {"pass": "prune", "sparsity": 0.5, "criterion": {"name": "code:evil.py:Evil"}},
        {"pass": "prune", "granularity": "channel", "sparsity": 0.5, "data": "evil.py:make"},
        {
            "pass": "prune",
            "granularity": "channel",
            "sparsity": 0.5,
            "data": {"name": "python", "reference": "evil.py:make"},
        },
        {"pass": "finetune", "data": "digits", "loss": "code:evil.py:Evil"},
        {"pass": "finetune", "data": "digits", "checkpoint": "evil"},
        {"pass": "finetune", "data": "digits", "teacher": ["../../secret.pt"]},
        {"command": "convert", "output": "evil.pt"},
        {"pass": "prune", "sparsity": "${s}"},
        {"pass": ["prune"]},
        {"pass": "prune", "seed": "x"},
        {"pass": "prune", "sparsity": 0.5, "extra": 1},
        ["prune"],
        "prune",
        None,
        {},
    ],
    ids=str,
)
def test_a_hostile_record_runs_nothing(home, step):
    (home / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    from dataclasses import replace

    source = load("digits.pt")
    inputs = ({"path": "digits.pt", "blake3": "0" * 64},)
    save(replace(source, provenance=Provenance((step,), inputs, {}, "0.1.0")), "made.pt")
    before = sorted(p.name for p in home.iterdir())
    done = run_command("run", "made.pt", "--arch", ARCH, "--input", "1x8x8")
    assert done.code in (1, 2), done.stdout
    assert "internal error" not in done.stderr
    assert "its record: step" in done.stderr
    assert not (home / "ran").exists()
    assert sorted(p.name for p in home.iterdir()) == before


def test_a_record_does_not_lead_to_other_folders(home):
    from dataclasses import replace

    inputs = ({"path": "/etc/../etc/passwd", "blake3": "0" * 64},)
    save(replace(load("digits.pt"), provenance=Provenance((prune(sparsity=0.5),), inputs, {}, "0")), "m.pt")
    done = run_command("run", "m.pt")
    assert done.code == 1
    assert "passwd is neither beside it" in done.stderr


def test_code_in_a_recipe_of_ones_own_runs(home):
    (home / "mine.py").write_text(
        "import numpy as np\nfrom nnopt_cli import Criterion\n"
        "class Last(Criterion):\n    '''Later is better.'''\n"
        "    def score(self, values, where):\n"
        "        return np.arange(where.start, where.start + len(values), dtype='float64')\n"
    )
    ok("run", recipe(home / "r.yaml", steps=[prune(sparsity=0.5, criterion="code:mine.py:Last")]))
    assert run_command("run", "digits.pruned.pt").code == 2, "and from the record it is not followed"
    ok("recipe", "show", "digits.pruned.pt", "--save", "again.yaml")
    ok("run", "again.yaml", "-o", "again.pt")
    assert same("again.pt", "digits.pruned.pt")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"steps": [prune(sparsit=0.5)]}, "step 1 (prune): there is no option 'sparsit'"),
        ({"steps": [prune(sparsity=0.5), {"pass": "prun"}]}, "step 2 (prun): there is no pass 'prun'"),
        ({"steps": [prune(scope="al")]}, "step 1 (prune): scope 'al': must be one of"),
        ({"steps": [{"command": "evalute"}]}, "'evalute' does not follow passes"),
        ({"steps": [{"pass": "evaluate"}]}, "'evaluate' is a command, not a pass"),
        ({"steps": [{"command": "prune"}]}, "'prune' is a pass, not a command"),
        ({"steps": [{"command": "inspect"}, prune()]}, "a pass cannot follow the command 'inspect'"),
        ({"steps": [{"sparsity": 1}]}, "says neither pass nor command"),
        ({"steps": []}, "steps: there are none"),
        ({"stps": []}, "there is no key 'stps'"),
        ({"steps": [prune(sparsity="${x}")]}, "there is no variable 'x'"),
        ({"steps": [prune(seed=-1)]}, "seed: -1"),
        ({"steps": [prune(name="x")]}, "there is no option 'name'"),
        ({"steps": [prune()], "device": "tpu"}, "device 'tpu'"),
        ({"steps": [{"command": "evaluate", "dta": 1}]}, "step 1 (evaluate): there is no option 'dta'"),
        ({"steps": "prune"}, "steps: there are none"),
        ({"steps": ["prune"]}, "step 1: is not a table"),
    ],
)
def test_mistakes_are_named_with_file_step_and_key(home, table, said):
    path = recipe(home / "bad.yaml", **table)
    for command in (["run"], ["recipe", "validate"]):
        done = run_command(*command, path)
        assert done.code == 2, done.stderr
        assert f"{path}: " in done.stderr
        assert said in done.stderr
    assert sorted(p.name for p in home.iterdir()) == ["bad.yaml", "digits.pt"]


def test_unknown_variables_are_close_matches(home):
    path = recipe(home / "r.yaml", vars={"sparsity": 0.5}, steps=[prune(sparsity="${sparsity}")])
    done = run_command("run", path, "--set", "sparsty=0.7")
    assert done.code == 2
    assert "Did you mean 'sparsity'?" in done.stderr


def test_show_and_validate(home):
    path = recipe(home / "r.yaml", vars={"s": [0.3, 0.6]}, steps=[prune(sparsity="${s}", granularity="2:4")])
    found = ok("recipe", "validate", path, "--json").json
    assert (found["runs"], found["steps"]) == (2, ["prune"])
    shown = ok("recipe", "show", path, "--set", "s=0.4").stdout
    assert yaml.safe_load(shown)["steps"] == [prune(sparsity=0.4, granularity="2:4")]
    assert shown.count("granularity: '2:4'") == 1, "quoted, as YAML 1.1 would make 124 of it"
    ok("recipe", "show", path, "--set", "s=0.4", "--save", "one.toml")
    assert ok("recipe", "show", "one.toml", "--json").json["steps"] == [
        prune(sparsity=0.4, granularity="2:4")
    ]
    assert run_command("recipe", "show", path, "--save", "two.toml").code == 2
    assert run_command("recipe").code == 2


def test_a_dry_run_writes_nothing(home):
    steps = [prune(sparsity=0.5), {"command": "inspect"}]
    done = ok("run", recipe(home / "r.yaml", steps=steps), "--dry-run")
    assert "inspect was left out" in done.stdout + done.stderr or "Nothing was written" in done.stdout
    assert sorted(p.name for p in home.iterdir()) == ["digits.pt", "r.yaml"]


@pytest.mark.parametrize("name", ["r.txt", "missing/r.yaml", "digits.pt"])
def test_a_recipe_that_cannot_be_written_is_refused_before_the_work(home, name):
    done = run_command("prune", "digits.pt", "-s", "0.5", "--save-recipe", name)
    assert done.code in (1, 2)
    assert sorted(p.name for p in home.iterdir()) == ["digits.pt"]


def test_the_example_recipe(home, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = ("--set", "epochs=1", "-o", home / "small.pt2", "--report", home / "small.html", "--json")
    done = ok("run", "examples/digits/recipe.yaml", *args).json
    (run,) = done["runs"]
    assert run["figures"]["accuracy"] > 0.9
    assert run["figures"]["MACs"] < 500_000
    assert done["dense"]["accuracy"] > 0.99
    page = (home / "small.html").read_text()
    assert f"{run['figures']['accuracy']:.4f}" in page
    assert json.dumps(done, allow_nan=False)


@pytest.mark.parametrize(("name", "runs"), [("overfit", 3), ("slim", 15), ("control", 3)])
def test_the_recipes_of_the_case_study(home, monkeypatch, name, runs):
    monkeypatch.chdir(ROOT)
    found = ok("recipe", "validate", f"examples/case_study/{name}.yaml", "--json").json
    assert found["runs"] == runs
