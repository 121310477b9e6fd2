"""`nnopt export` and `nnopt verify` from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nnopt_cli import load
from nnopt_cli.graph.onnx_export import to_onnx
from nnopt_cli.report.numbers import duration, number, size
from nnopt_cli.testing import run_command

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.pt"
ARCH = ("--arch", f"{ROOT}/examples/digits/net.py:build")
GRAPH = (*ARCH, "--input", "1x8x8")
TEST = ("--data", "digits:part=test")

NET = '''
import torch
from torch import nn

class Net(nn.Module):
    """A small transformer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 2)
        self.head = nn.Linear(32, 50)

    def forward(self, ids):
        return {"logits": self.head(self.blocks(self.table(ids)))}

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)  # equal weights, which ONNX shares
        self.head = nn.Linear(32, 7)

    def forward(self, ids):
        return self.head(self.blocks(self.table(ids)).mean(1))

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.mT + self.weight @ self.weight.mT)

class Dead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x))

class Masked(nn.Module):
    """A mask of the least float32 and of -1e9, and a product of a value with itself."""

    def __init__(self):
        super().__init__()
        self.map, self.head = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        x = self.map(x)
        x = (x * x).mT @ x
        seen = torch.ones(16, 16, dtype=torch.bool).tril()
        x = torch.where(seen, x, torch.finfo(torch.float32).min).softmax(-1)
        return self.head(x.masked_fill(~seen, -1e9).softmax(-1))

class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 16)

    def forward(self, x):
        return self.head(x)
'''


def export(*args: object):
    return run_command("export", *args)


def made(folder: Path, name: str, change=lambda net: None) -> tuple[object, ...]:
    """Weights of a network of `NET`, and how the command line names both."""
    (folder / "net.py").write_text(NET)
    scope: dict[str, object] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    net = scope[name]()
    with torch.no_grad():
        change(net)
    torch.save(net.state_dict(), folder / "net.pt")
    return (folder / "net.pt", "--arch", f"{folder}/net.py:{name}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    report = ("--report", folder / "net.html")
    done = export(DIGITS, *GRAPH, "-o", folder / "net.onnx", "--card", "--json", *report)
    assert done.code == 0, done.stderr
    (folder / "net.json").write_text(done.stdout)
    assert export(DIGITS, *GRAPH, "-o", folder / "net.pt2", "-q").code == 0
    return folder


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    given = made(folder, "Net")
    return (*given, "--input", "ids=int64[N,T]<50")


def test_the_record(home):
    found = json.loads((home / "net.json").read_text())
    assert found["format"] == "onnx"
    assert found["files"] == ["net.onnx", "README.md"]
    assert found["bytes"] == (home / "net.onnx").stat().st_size
    assert found["parity"]["fault"] is None
    assert found["parity"]["difference"] <= 1e-5
    assert {trial["sizes"]["batch"] for trial in found["parity"]["trials"]} == {1, 2, 3}
    assert found["speed"]["after"] > 0
    assert found["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 1, 8, 8]}]


def test_the_report(home):
    record, shown = json.loads((home / "net.json").read_text()), (home / "net.html").read_text()
    for trial in record["parity"]["trials"]:
        assert number(trial["difference"]) in shown
    for said in ("73,002", size(record["bytes"]), duration(record["speed"]["after"]), record["blake3"]):
        assert said in shown


def test_the_record_in_the_file(home):
    strings = {each.key: each.value for each in onnx.load(home / "net.onnx").metadata_props}
    body = json.loads(strings["nnopt.provenance"])
    assert body["inputs"][0]["path"] == "digits.pt"
    assert body["results"]["export"] == {"name": "onnx"}


def test_it_computes_what_pytorch_does(home):
    session = onnxruntime.InferenceSession(home / "net.onnx")
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        want = torch.export.load(home / "net.pt2").module()(torch.from_numpy(x)).numpy()
    (got,) = session.run(None, {"images": x})
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_the_code_of_the_card_runs(home):
    text = (home / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "(2, 10)" in done.stdout
    assert "73,002" in text


@pytest.mark.slow
def test_a_fresh_environment_runs_the_card(home, tmp_path):
    """Only onnxruntime and numpy are there."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "numpy"], capture_output=True)
    if got.returncode:
        pytest.skip("no package index can be reached")
    block = re.findall(r"```python\n(.*?)```", (home / "README.md").read_text(), re.S)[0]
    done = subprocess.run([python, "-c", block], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(2, 10)" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pt2", "folder"])
def test_the_cards_of_pytorchs_own_files_run(name, tmp_path):
    done = export(DIGITS, *GRAPH, "-o", tmp_path / name, "--card", "-q")
    assert done.code == 0, done.stderr
    home = tmp_path / name if name == "folder" else tmp_path
    (block,) = re.findall(r"```python\n(.*?)```", (home / "README.md").read_text(), re.S)
    ran = subprocess.run([sys.executable, "-c", block], cwd=home, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_weights_are_the_same_bits(tmp_path):
    want = torch.load(DIGITS, weights_only=True)
    want = want.get("state_dict", want)
    for name in ("w.safetensors", "w.pt"):
        assert export(DIGITS, "-o", tmp_path / name, "-q").code == 0
    assert all(torch.equal(want[key], value) for key, value in load_file(tmp_path / "w.safetensors").items())
    got = torch.load(tmp_path / "w.pt", weights_only=True)
    assert list(got) == list(want)
    assert all(torch.equal(want[key], value) for key, value in got.items())


def test_shards(tmp_path):
    done = export(DIGITS, "-o", tmp_path / "shards", "--shard-size", "100kB", "--json")
    assert done.code == 0, done.stderr
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) == 3
    sizes = [[t.nbytes for t in load_file(tmp_path / "shards" / file).values()] for file in files]
    assert all(sum(each) <= 100_000 or len(each) == 1 for each in sizes)


def test_external_data(tmp_path, home):
    done = export(home / "net.pt2", "-o", tmp_path / "m.onnx", "--external-data", "1kB", "--json")
    assert done.code == 0, done.stderr
    assert done.json["files"] == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 20_000 < (tmp_path / "m.onnx.data").stat().st_size
    (tmp_path / "elsewhere").mkdir()
    for file in tmp_path.glob("m.onnx*"):
        file.rename(tmp_path / "elsewhere" / file.name)
    onnxruntime.InferenceSession(tmp_path / "elsewhere" / "m.onnx")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_sixteen_bits(dtype, tmp_path, home):
    done = export(home / "net.pt2", "-o", tmp_path / "m.onnx", "--dtype", dtype, "--json")
    assert done.code == 0, done.stderr
    assert 1e-6 < done.json["parity"]["difference"] < 0.05
    assert done.json["bytes"] < 0.55 * (home / "net.onnx").stat().st_size
    assert "fp32" in " ".join(done.json["notes"])
    kinds = {each.type.tensor_type.elem_type for each in onnx.load(tmp_path / "m.onnx").graph.input}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_islands_of_a_transformer(transformer, tmp_path):
    done = export(*transformer, "-o", tmp_path / "m.onnx", "--dtype", "fp16", "--json")
    assert done.code == 0, done.stderr
    assert "Softmax" in " ".join(done.json["notes"])
    model = onnx.load(tmp_path / "m.onnx")
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    fed = [node.input[0] for node in model.graph.node if node.op_type == "Softmax"]
    assert fed
    assert all(casts[name].attribute[0].i == onnx.TensorProto.FLOAT for name in fed)


def test_state_dict_in_sixteen_bits(tmp_path):
    done = export(DIGITS, "-o", tmp_path / "w.safetensors", "--dtype", "bf16", "--json")
    assert done.code == 0, done.stderr
    for name, value in load_file(tmp_path / "w.safetensors").items():
        floating = value.is_floating_point()
        assert not floating or value.dtype == (torch.float32 if "running" in name else torch.bfloat16)


def test_a_weight_too_large_for_fp16(tmp_path):
    given = made(tmp_path, "Large", lambda net: net.head.weight.fill_(1e6))
    for name in ("m.onnx", "m.safetensors"):
        done = export(*given, "--input", "float32[N,16]", "-o", tmp_path / name, "--dtype", "fp16")
        assert done.code == 1
        assert "65504" in done.stderr
        assert "bf16" in done.stderr
        assert not (tmp_path / name).exists()


def test_masks_fit_in_fp16(tmp_path):
    """What is added to logits to mask them is no weight: it may be less than the least of fp16."""
    given = made(tmp_path, "Masked")
    done = export(
        *given, "--input", "float32[N,16,16]", "-o", tmp_path / "m.onnx", "--dtype", "fp16", "--json"
    )
    assert done.code == 0, done.stderr
    assert done.json["parity"]["difference"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("how", ["weights", "dynamic"])
def test_eight_bits_without_data(how, transformer, tmp_path):
    done = export(*transformer, "-o", tmp_path / "m.onnx", "--quantize", how, "--json")
    assert done.code == 0, done.stderr
    parity = done.json["parity"]
    assert parity["measure"] == "noise"
    assert 15 < parity["snr"] < 80
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    strings = {each.key for each in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert "nnopt.provenance" in strings


def test_the_trap_of_leftover_shapes(tmp_path):
    """The quantizer turns weights around, and then stops at the shapes that the exporter noted for them."""
    from onnxruntime.quantization import quantize_dynamic

    weights, *arch = made(tmp_path, "Pooled")
    shape = ("--input", "ids=int64[N,T]<50")
    assert run_command("convert", weights, *arch, *shape, "-o", tmp_path / "m.pt2", "-q").code == 0
    to_onnx(load(tmp_path / "m.pt2").program(), tmp_path / "plain.onnx")
    with pytest.raises(Exception, match="existing shape differ"):
        quantize_dynamic(onnx.load(tmp_path / "plain.onnx"), tmp_path / "x.onnx")
    done = export(tmp_path / "m.pt2", "-o", tmp_path / "m.onnx", "--quantize", "dynamic", "--json")
    assert done.code == 0, done.stderr
    assert done.json["parity"]["snr"] > 20


def test_static_eight_bits(tmp_path, home):
    done = export(
        home / "net.pt2", *TEST, "-o", tmp_path / "m.onnx", "--quantize", "static", "--samples", 100, "--json"
    )
    assert done.code == 0, done.stderr
    metric, parity = done.json["metric"], done.json["parity"]
    assert metric["name"] == "accuracy"
    assert abs(metric["before"] - metric["after"]) < 0.02
    assert parity["trials"][0]["inputs"] == "data"
    assert parity["top1"] > 0.95
    assert done.json["bytes"] < (home / "net.onnx").stat().st_size / 3
    assert "100 samples" in " ".join(done.json["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_other_calibrations(calibration, tmp_path, home):
    done = export(
        *(home / "net.pt2", *TEST, "-o", tmp_path / "m.onnx", "--quantize", "static", "--samples", 64),
        *("--calibration", calibration, "--no-per-channel", "--json"),
    )
    assert done.code == 0, done.stderr
    assert done.json["metric"]["after"] > 0.95


def test_a_gate(tmp_path, monkeypatch, home):
    from nnopt_plugins.export import quantize

    whole = quantize.static

    def careless(path, target, feeds, *rest):
        whole(path, target, [{name: value * 0.02 for name, value in feed.items()} for feed in feeds], *rest)

    monkeypatch.setattr(quantize, "static", careless)
    monkeypatch.setattr("nnopt_cli.graph.parity.SNR", -100.0)
    monkeypatch.setattr("nnopt_cli.graph.parity.TOP1", 0.0)
    done = export(
        *(home / "net.pt2", *TEST, "-o", tmp_path / "m.onnx", "--quantize", "static", "--samples", 64),
        *("--max-drop", "0.1%"),
    )
    assert done.code == 4, done.stdout
    assert "accuracy goes from" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch, home):
    from nnopt_plugins.export import onnx_file

    whole = onnx_file.Onnx.export

    def broken(self, model, path, job):
        whole(self, model, path, job)
        wrong = onnx.load(path)
        weight = next(t for t in wrong.graph.initializer if len(t.dims) == 4)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.01, weight.name))
        onnx.save(wrong, path)

    monkeypatch.setattr(onnx_file.Onnx, "export", broken)
    done = export(home / "net.pt2", "-o", tmp_path / "m.onnx", "--card")
    assert done.code == 1
    assert "differs by" in done.stderr
    assert "--tolerance" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_respond_is_unproven(tmp_path):
    given = made(tmp_path, "Dead", lambda net: net.head.weight.zero_())
    done = export(*given, "--input", "float32[N,4]", "-o", tmp_path / "m.onnx")
    assert done.code == 1
    assert "unproven" in done.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_dry_run_and_force(tmp_path):
    out = tmp_path / "m.safetensors"
    assert export(DIGITS, "-o", out, "--dry-run").code == 0
    assert list(tmp_path.iterdir()) == []
    assert export(DIGITS, "-o", out, "-q").code == 0
    first = out.read_bytes()
    done = export(DIGITS, "-o", out)
    assert done.code == 1
    assert "already exists" in done.stderr
    assert export(DIGITS, "-o", out, "--force", "-q").code == 0
    assert out.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == ["m.safetensors"]


def test_bad_input(tmp_path, transformer, home):
    def fails(code: int, *args: object) -> str:
        done = export(*args)
        assert done.code == code, done.stdout + done.stderr
        return done.stderr

    odd = made(tmp_path, "Odd")
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    said = fails(1, *odd, "--input", "float32[N,4,4]", "-o", out)
    assert "eigh" in said
    assert "ONNX" in said
    assert "takes other arguments" in fails(1, *transformer[:3], "--input", "nope=int64[N,5]<50", "-o", out)
    assert "too old" in fails(2, home / "net.pt2", "-o", out, "--opset", 7)
    assert "needs the model's graph" in fails(1, DIGITS, "-o", out)
    assert "no exporter writes .tflite" in fails(2, DIGITS, "-o", out.with_suffix(".tflite"))
    assert "Add --data" in fails(2, home / "net.pt2", "-o", out, "--quantize", "static")
    assert "contradict" in fails(2, home / "net.pt2", "-o", out, "--quantize", "weights", "--dtype", "fp16")
    assert "--opset is for" in fails(2, DIGITS, "-o", tmp_path / "x.safetensors", "--opset", 18)
    assert "must be a size" in fails(2, DIGITS, "-o", tmp_path / "y", "--shard-size", "big")
    (tmp_path / "file").write_text("x")
    assert "is a file" in fails(1, DIGITS, "-o", tmp_path / "file", "--force")
    assert "does not exist" in fails(1, DIGITS, "-o", tmp_path / "no" / "m.safetensors")
    assert (tmp_path / "file").read_text() == "x"
    assert list(out.parent.iterdir()) == []


def test_calibration_data_of_the_wrong_shape(tmp_path, home):
    np.savez(tmp_path / "wrong.npz", x=np.zeros((20, 1, 9, 9), np.float32), y=np.arange(20) % 10)
    done = export(
        *(home / "net.pt2", "-o", tmp_path / "m.onnx", "--quantize", "static"),
        *("--data", tmp_path / "wrong.npz"),
    )
    assert done.code == 1
    assert "instead of 8" in done.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_without_onnxruntime(tmp_path, monkeypatch, home):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = export(home / "net.pt2", "-o", tmp_path / "m.onnx")
    assert done.code == 1
    assert "pip install onnxruntime" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path, monkeypatch, home):
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.onnx.ONNXProgram.save", full)
    done = export(home / "net.pt2", "-o", tmp_path / "m.onnx")
    assert done.code == 1
    assert "space" in done.stderr or "free" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors", "m.pt2", "folder"])
def test_a_file_size_limit(name, tmp_path, home):
    """The system refuses in the middle of a file: it is named as the user named it, and nothing stays."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "sys.dont_write_bytecode = True; "  # Python would leave half of it, and read that the next time
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "from nnopt_cli.testing import run_command; done = run_command(*sys.argv[1:]); "
        "print(done.stderr); sys.exit(done.code)"
    )
    given = ["export", str(home / "net.pt2"), "-o", str(tmp_path / name), "--shard-size", "100kB"]
    given = given if name == "folder" else given[:4]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{tmp_path / name}" in done.stdout
    assert "more than one file may hold" in done.stdout
    assert "tmp/" not in done.stdout.replace(str(tmp_path), "")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, home):
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx.checker.check_model", stop)
    assert export(home / "net.pt2", "-o", tmp_path / "m.onnx").code == 130
    assert list(tmp_path.iterdir()) == []


def test_verify_two_files(home, tmp_path):
    done = run_command("verify", home / "net.pt2", home / "net.onnx", "--json")
    assert done.code == 0, done.stderr
    assert done.json["same"]
    assert done.json["parity"]["difference"] <= 1e-5
    page = tmp_path / "page.html"
    assert run_command("verify", home / "net.onnx", home / "net.pt2", "--report", page).code == 0
    assert "The same, as far as these inputs tell." in page.read_text()
    assert run_command("verify", DIGITS, home / "net.onnx", *GRAPH, *TEST).code == 0
    done = run_command("verify", home / "net.pt2", home / "net.onnx", "--tolerance", "1e-12")
    assert done.code == 1
    assert "Not the same" in done.stdout


@pytest.mark.slow
def test_verify_a_pruned_model(home, tmp_path):
    pruned = tmp_path / "pruned.pt2"
    assert run_command("prune", home / "net.pt2", "--sparsity", "0.3", "-o", pruned, "-q").code == 0
    done = run_command("verify", home / "net.pt2", pruned)
    assert done.code == 1
    assert "differs by" in " ".join(done.stdout.split())


def test_verify_what_is_not_there(tmp_path, home):
    assert run_command("verify", home / "net.pt2", tmp_path / "none.onnx").code in (2, 3)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    done = run_command("verify", home / "net.pt2", tmp_path / "bad.onnx")
    assert done.code == 1
    assert "bad.onnx" in done.stderr


@pytest.mark.slow
def test_recurrent_nets_in_both_directions(tmp_path):
    """Their length is fixed by PyTorch's exporter: asked to let it vary, the export says so and names it."""
    (tmp_path / "rnn.py").write_text(
        "from torch import nn\nclass R(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.r = nn.LSTM(4, 6, batch_first=True, bidirectional=True)\n"
        "    def forward(self, x):\n        return self.r(x)[0]\n"
    )
    holder = nn.Module()
    holder.r = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
    torch.save(holder.state_dict(), tmp_path / "r.pt")
    given = (tmp_path / "r.pt", "--arch", f"{tmp_path}/rnn.py:R", "-o", tmp_path / "r.onnx")
    done = export(*given, "--input", "float32[N,T,4]")
    assert done.code == 1
    assert "fix" in done.stderr
    assert not (tmp_path / "r.onnx").exists()
    assert export(*given, "--input", "float32[N,7,4]", "-q").code == 0


def test_inspect_an_onnx_file(home, tmp_path):
    found = run_command("inspect", home / "net.onnx", "--json").json
    assert found["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 1, 8, 8]}]
    assert found["bytes"] == (home / "net.onnx").stat().st_size
    assert found["provenance"]["results"]["export"] == {"name": "onnx"}
    assert found["weights"][0]["dtype"] == "float32"
    assert 70_000 < found["weights"][0]["elements"] < 75_000
    shown = run_command("inspect", home / "net.onnx").stdout
    assert f"opset   {found['opset']} " in shown
    (tmp_path / "bad.onnx").write_bytes(b"\x00\x01 no model")
    assert run_command("inspect", tmp_path / "bad.onnx").code == 3
    assert run_command("inspect", tmp_path / "none.onnx").code == 3


def test_the_exporter_of_the_docs(tmp_path):
    from nnopt_cli import Job, Run
    from nnopt_cli.testing import small_model

    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    scope: dict[str, object] = {"__name__": "names"}
    exec(block, scope)
    exporter, model, job = scope["Names"](upper=True), small_model(), Job(Run())
    exporter.export(model, tmp_path / "m.names", job)
    assert exporter.verify(model, tmp_path / "m.names", job).passed
    assert (tmp_path / "m.names").read_text().splitlines()[0] == next(iter(model.weights)).upper()
    (tmp_path / "m.names").write_text("one")
    assert not exporter.verify(model, tmp_path / "m.names", job).passed
