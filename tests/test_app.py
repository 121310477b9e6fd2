"""The command line as a whole: exit codes, messages, one JSON document, signals, broken pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from nnopt_cli import load
from nnopt_cli.commands.passes import default_output
from nnopt_cli.early import Early
from nnopt_cli.testing import run_command, run_process

PLUGIN = '''
import time
from pathlib import Path
from nnopt_cli import NnoptError, Pass, UsageError, hookimpl, option

class Act(Pass):
    """Do something on purpose.

    More about it, over
    two lines.

    Examples:
      nnopt act model.pt --what ok
      nnopt act model.pt --what "w[/x]"
    """
    suffix = "acted"
    what: str = option("ok", help="What to do.")
    flag: Path | None = option(None, help="A file to make once it runs.")

    def run(self, model, run):
        if self.flag:
            self.flag.write_text("running")
        return getattr(self, "_" + self.what)(model, run)

    def _ok(self, model, run):
        run.note("A note about w[/x] and [bold].")
        run.facts["level"] = float("inf")
        return model.map(lambda name, tensor: tensor * 2, ["fc1.weight"])

    def _bug(self, model, run): raise ValueError("it broke\\nin two lines")
    def _late(self, model, run): return model.map(lambda name, tensor: 1 / 0, ["fc1.weight"])
    def _refuse(self, model, run): raise NnoptError("refused \\x1b[31mw[/x]", "Do something else.")
    def _usage(self, model, run): raise UsageError("bad mix")
    def _leave(self, model, run): raise SystemExit(0)
    def _nothing(self, model, run): return None
    def _key(self, model, run):
        run.facts[3] = "x"
        return model
    def _fact(self, model, run):
        run.facts["x"] = {1, 2}
        return model
    def _none(self, model, run): return model.map(lambda name, tensor: None)
    def _unnamed(self, model, run): return model.map(lambda name, tensor: tensor, ["fc1.wieght"])
    def _memory(self, model, run): raise MemoryError
    def _full(self, model, run): raise OSError(28, "No space left on device", "/some/file")
    def _denied(self, model, run): raise PermissionError(13, "Permission denied", "/some/file")
    def _talk(self, model, run):
        print("noise from the pass")
        return model
    def _sleep(self, model, run):
        return model.edit({"fc1.weight": Slow(self.flag)})

class Slow:
    unit = 1
    def __init__(self, flag): self.flag = flag
    def __call__(self, words, start):
        self.flag.write_text("computing")
        time.sleep(60)

@hookimpl
def nnopt_components():
    return [Act]
'''
METADATA = "Metadata-Version: 2.1\nName: act-plugin\nVersion: 1.0\n"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A site-packages with the plugin above in it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "act_plugin.py").write_text(dedent(PLUGIN))
    info = folder / "act_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[nnopt]\nact = act_plugin\n")
    return folder


@pytest.fixture
def act(site, monkeypatch, nnopt_file):
    """`act("bug", …)` runs `nnopt act FILE --what bug …` in this process."""
    monkeypatch.syspath_prepend(site)
    path = nnopt_file("model.pt")
    return lambda what, *args: run_command("act", path, "--what", what, *args)


def test_done(act, tmp_path):
    result = act("ok")
    assert result.code == 0, result.stderr
    assert "model.acted.pt" in result.stdout.replace("\n", "")
    before, after = load(tmp_path / "model.pt"), load(tmp_path / "model.acted.pt")
    assert after.weights["fc1.weight"].torch().equal(before.weights["fc1.weight"].torch() * 2)
    assert after.weights["conv1.weight"].torch().equal(before.weights["conv1.weight"].torch())
    assert "A note about w[/x] and [bold]." in " ".join(result.stdout.split())


def test_the_pass_is_recorded_with_its_options_and_seed(act, tmp_path):
    assert act("ok", "--seed", "3").code == 0
    assert run_command("act", tmp_path / "model.acted.pt", "-o", tmp_path / "twice.pt").code == 0
    once, twice = load(tmp_path / "model.acted.pt").provenance, load(tmp_path / "twice.pt").provenance
    assert [dict(step) for step in twice.steps] == [{"pass": "act", "seed": 3}, {"pass": "act"}]
    assert once.inputs == twice.inputs != ()


@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        (
            "bug",
            1,
            "error: the pass 'act' of plugin 'act' (act-plugin 1.0) failed: "
            "ValueError: it broke in two lines (act_plugin.py, line ",
        ),
        ("late", 1, "error: the pass 'act' of plugin 'act' (act-plugin 1.0) failed: ZeroDivisionError"),
        ("refuse", 1, "error: refused \\x1b[31mw[/x]"),
        ("usage", 2, "error: bad mix"),
        ("leave", 1, "error: the pass 'act' of plugin 'act' (act-plugin 1.0) ended the program (exit 0)"),
        (
            "nothing",
            1,
            "error: the pass 'act' of plugin 'act' (act-plugin 1.0) returned NoneType, not a Model",
        ),
        ("key", 1, "(act-plugin 1.0) gave run.facts the key 3, which is not text"),
        ("fact", 1, "gave run.facts['x'] what JSON cannot hold: Object of type set is not JSON serializable"),
        ("none", 1, "error: conv1.weight: the pass made NoneType out of it, not a tensor"),
        ("unnamed", 1, "model.pt: has no tensor 'fc1.wieght'\n       Did you mean 'fc1.weight'"),
        ("memory", 1, "error: not enough memory"),
        ("full", 1, "error: /some/file: the disk is full"),
        ("denied", 1, "error: /some/file: Permission denied"),
    ],
)
def test_every_failure_has_its_message_and_code(act, tmp_path, what, code, told):
    result = act(what)
    assert result.code == code
    assert told in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_traceback_only_with_vv(act):
    assert "Run it again with -vv" in act("bug").stderr
    assert "Traceback" in act("bug", "-vv").stderr
    assert "Traceback" in act("refuse", "-v", "-v").stderr
    assert "Traceback" not in act("refuse", "-v").stderr


@pytest.mark.parametrize("what", ["bug", "refuse", "usage", "leave", "memory"])
def test_with_json_a_failure_is_one_document_too(act, what):
    plain, result = act(what), act(what, "--json")
    assert result.code == plain.code
    assert result.json["error"]["exit_code"] == plain.code
    assert result.json["error"]["message"].split("\n")[0][:20] in result.stderr.replace("\\x1b", "\x1b")


@pytest.mark.parametrize("args", [["nope"], ["act"], ["act", "x", "--nope"], ["act", "x", "--seed", "-1"]])
def test_usage_errors_are_documents_too(site, monkeypatch, args):
    monkeypatch.syspath_prepend(site)
    result = run_command(*args, "--json")
    assert result.code == 2
    assert result.json["error"]["exit_code"] == 2


def test_stdout_is_the_document_whatever_a_pass_prints(act):
    result = act("talk", "--json")
    assert result.code == 0, result.stderr
    assert result.json["command"] == "act"
    assert result.json["output"].endswith("model.acted.pt")
    assert "noise from the pass" in result.stderr


def test_a_document_holds_no_nan(act):
    result = act("ok", "--json")
    json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert result.json["facts"]["level"] is None


def test_an_existing_output_is_refused_before_the_work(act, tmp_path):
    (tmp_path / "model.acted.pt").write_bytes(b"mine")
    flag = tmp_path / "flag"
    result = act("ok", "--flag", flag)
    assert result.code == 1
    assert "--force" in result.stderr
    assert not flag.exists()
    assert (tmp_path / "model.acted.pt").read_bytes() == b"mine"
    assert act("ok", "--force").code == 0
    assert load(tmp_path / "model.acted.pt").weights


def test_the_input_is_never_changed(act, tmp_path):
    before = (tmp_path / "model.pt").read_bytes()
    result = act("ok", "-o", tmp_path / "model.pt", "--force")
    assert result.code in (1, 2)
    assert (tmp_path / "model.pt").read_bytes() == before


def test_dry_run_writes_nothing_and_reports_all(act, tmp_path):
    result = act("ok", "--dry-run", "--json")
    assert result.code == 0, result.stderr
    assert result.json["dry_run"] is True
    assert result.json["output"] is None
    assert [row["name"] for row in result.json["tensors"] if row["changed"]] == ["fc1.weight"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_quiet_leaves_the_path(act, tmp_path):
    result = act("ok", "-q")
    assert "".join(result.stdout.split("\n")) == str(tmp_path / "model.acted.pt")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.pt", "model.pruned.pt"),
        ("model_best.pth.tar", "model_best.pruned.pth.tar"),
        ("resnet20-12fca82f.th", "resnet20-12fca82f.pruned.th"),
        ("net-1.5", "net-1.5.pruned"),
        ("weights", "weights.pruned"),
        ("a.b.safetensors", "a.b.pruned.safetensors"),
        (".hidden", ".hidden.pruned"),
        ("model.pruned.pt", "model.pruned.pruned.pt"),
    ],
)
def test_the_name_of_the_output(tmp_path, name, expected):
    assert default_output(tmp_path / name, "pruned") == tmp_path / expected


def test_the_name_of_an_output_folder(tmp_path, monkeypatch):
    (tmp_path / "llama-3.2").mkdir()
    assert default_output(tmp_path / "llama-3.2", "pruned") == tmp_path / "llama-3.2.pruned"
    monkeypatch.chdir(tmp_path / "llama-3.2")
    assert default_output(Path(), "pruned") == tmp_path / "llama-3.2.pruned"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["insepct", "x"], "Did you mean 'inspect'"),
        (["inspect"], "MODEL"),
        (["prune", "x", "--sparsty", "1"], "--sparsity"),
        (["prune", "x", "--device", "tpu"], "--device 'tpu': must be auto, cpu, cuda, cuda:N or mps"),
        (["prune", "x", "--threads", "0"], "--threads '0': must be at least 1"),
        (["prune", "x", "--seed", str(2**64)], "--seed"),
        (["prune", "x", "-v", "-q"], "contradict"),
        (["prune", "x", "--criterion", "magntude"], "Did you mean 'magnitude'"),
    ],
)
def test_usage_errors(args, told):
    result = run_command(*args)
    assert result.code == 2
    assert told in result.stderr
    assert result.stdout == ""


def test_a_model_that_cannot_be_read(tmp_path):
    (tmp_path / "x.pt").write_text("<!doctype html><title>404</title>")
    for path in (tmp_path / "none.pt", tmp_path / "x.pt"):
        result = run_command("prune", path, "--sparsity", "0.5")
        assert result.code == 3
        assert path.name in result.stderr


def test_nothing_typed_shows_the_help():
    result = run_command()
    assert result.code == 0
    for word in ("Passes", "prune", "Look at a model", "inspect", "Project", "plugins"):
        assert word in result.stdout


def test_the_help_of_a_pass_comes_from_its_docstring(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("COLUMNS", "100")
    shown = run_command("act", "--help").stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert "Do something on purpose." in lines
    assert "More about it, over two lines." in lines
    assert lines[lines.index("Examples:") + 1] == "nnopt act model.pt --what ok"
    assert 'nnopt act model.pt --what "w[/x]"' in lines
    assert "Do something on purpose." in run_command("--help").stdout
    assert "More about it" not in run_command("--help").stdout


def test_early_looks_at_the_command_line():
    seen = Early.read(
        ["prune", "--no-plugin", "a", "x", "-vv", "--json", "--no-plugin=b", "-v", "--", "--json"]
    )
    assert seen == Early(["prune", "x", "-vv", "--json", "-v", "--", "--json"], ("a", "b"), True, 3)
    assert Early.read(["--", "--json", "--no-plugin", "x"]).json is False
    assert Early.read(["--json", "--help"]).json is False
    assert Early.read(["--no-plugin"]).blocked == (None,)


class TestProcess:
    def test_as_a_module(self):
        result = run_process("--version")
        assert (result.code, result.stdout.split()[0]) == (0, "nnopt")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_leaves_nothing_behind(self, site, nnopt_file, tmp_path, number):
        path, flag = nnopt_file("model.pt"), tmp_path / "flag"
        (tmp_path / "out").mkdir()
        command = [sys.executable, "-m", "nnopt_cli", "act", path, "--what", "sleep", "--flag", flag]
        command += ["-o", tmp_path / "out" / "new.pt", "--threads", "1"]
        env = {**os.environ, "PYTHONPATH": str(site)}
        process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whoever runs the tests may ignore it
        )
        while not (flag.exists() and flag.read_text() == "computing"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert out == ""
        assert err.splitlines()[-1] == "error: interrupted"
        assert "Traceback" not in err
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_reader_that_goes_away(self):
        command = f"{sys.executable} -m nnopt_cli plugins --json | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.stdout.strip() in ("0", "1")
        assert done.stderr == ""

    @pytest.mark.parametrize("args", ["--version", "plugins", "plugins --json", "nope", "nope --json"])
    def test_stdout_may_be_closed(self, args):
        command = f"{sys.executable} -m nnopt_cli {args} >&-"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == (2 if "nope" in args else 0)
        assert "Traceback" not in done.stderr

    def test_a_poor_encoding_ends_nothing(self):
        result = run_process("--help", env={"PYTHONIOENCODING": "ascii"})
        assert result.code == 0, result.stderr

    def test_colour_only_where_it_is_wanted(self):
        assert "\x1b[" not in run_process("nope").stderr
        coloured = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
        assert "\x1b[31m" in run_process("nope", env={**coloured, "NO_COLOR": ""}).stderr.replace(
            "1;31", "31"
        )
        assert "\x1b[31m" not in run_process("nope", env={**coloured, "NO_COLOR": "1"}).stderr

    def test_a_shell_can_complete_commands(self):
        env = {"_NNOPT_COMPLETE": "complete_bash", "COMP_WORDS": "nnopt pr", "COMP_CWORD": "1"}
        assert run_process(env=env).stdout.split() == ["prune"]


@pytest.mark.slow
def test_help_is_quick():
    """CPU time of `nnopt --help` against that of `import torch`, the best of five each, interleaved."""

    def cpu(*args: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *args], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    pairs = [(cpu("-m", "nnopt_cli", "--help"), cpu("-c", "import torch")) for _ in range(5)]
    ours, torch = (min(column) for column in zip(*pairs, strict=True))
    assert ours <= 0.4 * torch, (ours, torch)
