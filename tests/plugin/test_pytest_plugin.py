"""The fixtures that every project with nnopt installed gets, and what they must not do to it."""

from __future__ import annotations

import subprocess
import sys

from nnopt_cli import load


def test_the_model_has_what_usually_goes_wrong(nnopt_model):
    model = nnopt_model()
    kinds = {weight.dtype.name for weight in model.weights.values()}
    assert {"float16", "bfloat16", "float32", "float64", "int64"} <= kinds
    assert model.weights["embed.weight"] is model.weights["head.weight"]
    assert {(), (0, 4)} <= {weight.shape for weight in model.weights.values()}
    again, other = nnopt_model(), nnopt_model(seed=1)
    assert (again.weights["fc1.weight"].words() == model.weights["fc1.weight"].words()).all()
    assert not (other.weights["fc1.weight"].words() == model.weights["fc1.weight"].words()).all()


def test_the_file_holds_the_model(nnopt_file, nnopt_model):
    for name in ("a.safetensors", "b.pt"):
        model = load(nnopt_file(name))
        for key, weight in nnopt_model().weights.items():
            assert model.weights[key].words().tobytes() == weight.words().tobytes()


def test_the_command_runs_in_this_process(nnopt_command):
    result = nnopt_command("plugins", "--json")
    assert result.code == 0
    assert "prune" in [plugin["name"] for plugin in result.json["plugins"]]
    assert nnopt_command("plgins").code == 2


def test_it_adds_nothing_to_other_projects(tmp_path):
    """With warnings as errors and nothing of ours used, no heavy library comes in."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_light():\n"
        "    assert 'nnopt_cli.plugin.pytest_plugin' in sys.modules\n"
        "    heavy = ('torch', 'numpy', 'pydantic', 'typer', 'rich', 'pluggy._hooks_of_ours')\n"
        "    assert [name for name in heavy if name in sys.modules] == []\n"
        "def test_fixtures(nnopt_run):\n"
        "    assert nnopt_run.seed == 0 and 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    command += ["-p", "no:hypothesispytest", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
