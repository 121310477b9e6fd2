"""`nnopt ensemble` as it is used: what it chooses, what it refuses, what it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nnopt_cli.testing import run_command

SHAPES = {"a.weight": (32, 16), "a.bias": (32,), "b.weight": (4, 32)}


def draw(seed, near=None, spread=0.1):
    made = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(100 * seed + i))
        for i, (name, shape) in enumerate(SHAPES.items())
    }
    return made if near is None else {name: near[name] + spread * value for name, value in made.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`base`, its fine-tunes `a`, `b`, `c`, and `far`, which has nothing to do with them."""
    monkeypatch.chdir(tmp_path)
    base = draw(0)
    for name, tensors in {
        "base": base,
        "far": draw(9),
        **{n: draw(i, base) for i, n in enumerate("abc", 1)},
    }.items():
        save_file(tensors, f"{name}.safetensors")
        torch.save(tensors, f"{name}.pt")
    return tmp_path


def failing(*arguments, code=2):
    done = run_command("ensemble", *arguments)
    assert done.code == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def works(*arguments):
    done = run_command("ensemble", *arguments, "--json")
    assert done.code == 0, done.stderr
    return done.json


def test_the_headline_case_on_bare_state_dicts(folder):
    record = works("a.pt", "b.pt")
    assert (record["asked"], record["method"]) == ("auto", "linear")
    assert "one ancestor" in record["evidence"][0]
    assert all(row["cosine"] > 0.9 for row in record["likeness"])
    made, a, b = (torch.load(name, weights_only=True) for name in ("a.fused.pt", "a.pt", "b.pt"))
    for name in SHAPES:
        torch.testing.assert_close(made[name], (a[name] + b[name]) / 2)


def test_an_unrelated_pair_is_refused_with_what_to_do(folder):
    said = failing("a.pt", "far.pt", code=1)
    assert "trained apart" in said
    for word in ("--arch", "--input", ".pt2", "--align", "--method linear"):
        assert word in said
    assert not (folder / "a.fused.pt").exists()
    assert works("a.pt", "far.pt", "--method", "linear")["method"] == "linear"


def test_the_output_says_what_it_was_made_of(folder):
    record = works(
        "a.safetensors", "b.safetensors", "--base", "base.safetensors", "--method", "ties:density=0.5"
    )
    with safe_open("a.fused.safetensors", "pt") as file:
        kept = json.loads(file.metadata()["nnopt.provenance"])
    assert [entry["path"] for entry in kept["inputs"]] == [
        "a.safetensors",
        "b.safetensors",
        "base.safetensors",
    ]
    for source, entry in zip(record["inputs"], kept["inputs"], strict=True):
        alone = run_command("inspect", entry["path"], "--json").json
        assert entry["blake3"] == source["blake3"] == alone["blake3"]
    assert kept["steps"] == [{"pass": "ensemble", "method": "ties:density=0.5", "base": "base.safetensors"}]
    assert [source["base"] for source in record["inputs"]] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.pt"], ["one model", "two or more"]),
        (["a.pt", "b.pt", "--weights", "0.5,0.6"], ["sums to 1.1", "0.454545,0.545455"]),
        (["a.pt", "b.pt", "--weights", "1"], ["1 numbers", "2 members"]),
        (["a.pt", "b.pt", "--weights", "x,y"], ["not numbers"]),
        (["a.pt", "b.pt", "--weights", "nan,1"], ["not finite"]),
        (["a.pt", "b.pt", "--weights", "q.*=1,0"], ["q.*"]),
        (["a.pt", "b.pt", "--weights", "a.*=1,1", "--method", "linear"], ["a.*=1,1", "sums to 2"]),
        (["a.pt", "b.pt", "--method", "ties"], ["--base"]),
        (["a.pt", "b.pt", "--method", "linear", "--base", "base.pt"], ["no use for --base"]),
        (["a.pt", "b.pt", "c.pt", "--method", "slerp"], ["fuses 2 models", "karcher"]),
        (["a.pt", "b.pt", "--method", "soup"], ["needs data"]),
        (["a.pt", "b.pt", "--method", "swa", "--weights", "0.5,0.5"], ["finds itself"]),
        (["a.pt", "b.pt", "--method", "lineer"], ["linear"]),
        (["a.pt", "b.pt", "--method", "linear", "--share-trunk", "1"], ["--share-trunk"]),
        (["a.pt", "b.pt", "--share-trunk", "some"], ["--share-trunk"]),
        (["a.pt", "b.pt", "c.pt", "--arch", "x:y", "--arch", "x:z"], ["2 times", "3 models"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_requests(folder, arguments, words):
    said = failing(*arguments)
    for word in words:
        assert word in said
    assert not list(folder.glob("*fused*"))


def test_members_that_do_not_fit(folder):
    base = draw(0)
    save_file({**base, "c.weight": torch.zeros(3)}, "more.safetensors")
    save_file({f"net.{name}": value for name, value in base.items()}, "prefixed.safetensors")
    save_file({**base, "a.weight": torch.zeros(32, 20)}, "wide.safetensors")
    save_file({**base, "b.weight": torch.zeros(7, 32)}, "classes.safetensors")
    save_file({name: value.half() for name, value in base.items()}, "half.safetensors")
    (folder / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for other, words in {
        "more": ["only the second has c.weight"],
        "prefixed": ["begin with 'net.'"],
        "wide": ["a.weight 32x16 and 32x20", "--method mean"],
        "classes": ["last layer differs in its outputs", "b.weight 4x32 and 7x32"],
        "half": ["a.bias is float32 and float16"],
    }.items():
        said = failing("a.safetensors", f"{other}.safetensors", "--method", "linear", code=1)
        for word in words:
            assert word in said
    failing("a.safetensors", "broken.safetensors", code=3)
    failing("a.safetensors", "absent.safetensors", code=3)
    assert not list(folder.glob("*fused*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["linear", "slerp", "ties:density=0.5"])
def test_a_member_that_holds_nan(folder, value, method):
    broken = draw(1, draw(0))
    broken["b.weight"][3, 5] = value
    save_file(broken, "nan.safetensors")
    base = ["--base", "base.safetensors"] if "ties" in method else []
    said = failing("a.safetensors", "nan.safetensors", "--method", method, *base, code=1)
    assert "nan.safetensors: b.weight holds NaN or infinity" in said
    assert not list(folder.glob("*fused*"))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_mask_of_infinities_that_all_share_goes_through(folder):
    for name in "ab":
        mask = torch.full((8, 8), float("-inf")).triu(1)
        save_file({**load_file(f"{name}.safetensors"), "mask": mask}, f"{name}m.safetensors")
    works("am.safetensors", "bm.safetensors", "--method", "slerp")
    made = load_file("am.fused.safetensors")
    assert torch.equal(made["mask"], torch.full((8, 8), float("-inf")).triu(1))


def test_the_same_file_twice_is_noted(folder):
    record = works("a.pt", "a.pt")
    assert any("named twice" in note for note in record["notes"])
    assert record["changed"] == 0


@pytest.mark.parametrize(("policy", "want"), [("max", 9), ("first", 4)])
def test_integers_follow_a_policy(folder, policy, want):
    for name, count in (("a", 4), ("b", 9)):
        save_file({**load_file(f"{name}.safetensors"), "n": torch.tensor(count)}, f"{name}n.safetensors")
    record = works("an.safetensors", "bn.safetensors", "--integers", policy)
    assert load_file("an.fused.safetensors")["n"] == want
    assert any("integers" in note for note in record["notes"])
    said = failing("an.safetensors", "bn.safetensors", "--integers", "error", "--force", code=1)
    assert "n: its integers differ" in said


def test_quantised_weights_are_not_averaged(folder):
    for name in "ab":
        save_file({"w": torch.ones(4, 4, dtype=torch.int8)}, f"{name}q.safetensors")
    assert "quantised" in failing("aq.safetensors", "bq.safetensors", "--method", "linear", code=1)


def test_outputs_are_like_those_of_passes(folder):
    works("a.pt", "b.pt", "--dry-run")
    assert not list(folder.glob("*fused*"))
    works("a.pt", "b.pt", "-o", "out.safetensors")
    assert "exists" in failing("a.pt", "b.pt", "-o", "out.safetensors", code=1)
    assert "input" in failing("a.pt", "b.pt", "-o", "b.pt", "--force", code=1)
    shown = run_command("ensemble", "a.pt", "b.pt", "--force", "-o", "out.safetensors").stdout
    assert "one ancestor" in " ".join(shown.split())
    assert "Wrote out.safetensors" in shown


def test_tied_weights_stay_tied_where_all_tie_them(folder):
    for name in "ab":
        tensors = dict(draw(ord(name), draw(0)))
        tensors["tied"] = tensors["b.weight"]
        torch.save(tensors, f"{name}t.pt")
    works("at.pt", "bt.pt", "--method", "linear")
    made = torch.load("at.fused.pt", weights_only=True)
    assert made["tied"].data_ptr() == made["b.weight"].data_ptr()


def test_threads_and_containers_do_not_change_a_bit(folder):
    works("a.pt", "b.safetensors", "--method", "slerp", "-o", "one.safetensors", "--threads", "1")
    works("a.safetensors", "b.pt", "--method", "slerp", "-o", "two.safetensors", "--threads", "2")
    one, two = load_file("one.safetensors"), load_file("two.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in SHAPES)


MEASURED = """
import sys
from nnopt_cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("method", ["slerp", "ties:density=0.5"])
def test_memory_stays_flat_however_large_the_members_are(tmp_path, method):
    """Three files of 168 MB, sparse on disk; nothing is held but chunks."""
    rows, columns = 10240, 8192
    size = rows * columns * 2
    entry = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode()
    header += b" " * (-len(header) % 8)
    for name in ("base", "a", "b"):
        with (tmp_path / f"{name}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.write(np.full(1 << 20, {"base": 0x3F00, "a": 0x3F01, "b": 0x3F03}[name], np.uint16).data)
            file.truncate(8 + len(header) + size)
    base = ["--base", "base.safetensors"] if "ties" in method else []
    arguments = [
        "ensemble",
        "a.safetensors",
        "b.safetensors",
        "--method",
        method,
        *base,
        "--dry-run",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments, "--threads", "2"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["peak_bytes"] < 140e6


def test_every_kind_of_tensor_goes_through(folder):
    """Tied, half-precision, double, integer, scalar and empty ones: exact, or rounded once."""
    from nnopt_cli.testing import small_file

    small_file("one.safetensors", seed=1), small_file("two.safetensors", seed=2)
    works("one.safetensors", "two.safetensors", "--method", "linear")
    one, two, made = (load_file(f"{name}.safetensors") for name in ("one", "two", "one.fused"))
    for name, value in made.items():
        assert value.dtype == one[name].dtype
        if value.is_floating_point():
            want = ((one[name].double() + two[name].double()) / 2).to(value.dtype)
            torch.testing.assert_close(value, want, rtol=0, atol=0 if value.dtype != torch.float32 else 1e-7)
    assert (
        works("one.safetensors", "one.safetensors", "--method", "auto", "-o", "same.safetensors")["changed"]
        == 0
    )


EXAMPLES = Path(__file__).parents[2] / "examples" / "ensemble"


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The example's files, in a folder of their own."""
    pytest.importorskip("sklearn")
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


DATA = ("--arch", "net.py:build", "--data", "digits:part=train", "--val", "digits:part=test")


def test_the_example_pair_fuses_into_something_better(digits):
    record = works("left.pt", "right.pt", *DATA)
    a, b, fused = (score["metrics"]["accuracy"] for score in record["evaluated"]["models"])
    assert record["method"] == "linear"
    assert fused >= max(a, b) + 0.01
    assert {"nll", "ece"} <= record["evaluated"]["models"][0]["metrics"].keys()
    assert record["evaluated"]["disagreement"][0][1] > 0
    assert record["evaluated"]["samples"] == 360


def test_the_example_s_unrelated_pair_teaches_what_to_do(digits):
    said = failing("left.pt", "stranger.pt", code=1)
    assert "--input" in said
    record = works("left.pt", "stranger.pt", *DATA, "--input", "1x8x8", "-o", "both.pt2")
    assert record["asked"] == "auto"
    assert record["method"] in ("mean", "linear")
    assert len(record["evidence"]) >= 2
    a, b, fused = (score["metrics"]["accuracy"] for score in record["evaluated"]["models"])
    assert fused >= max(a, b) - 0.03


def test_a_greedy_soup_is_never_worse_on_the_choosing_data(digits):
    """`stranger` would spoil the average, and is left out; the best member is in."""
    members = ("left.pt", "stranger.pt", "right.pt", "start.pt")
    record = works(*members, *DATA, "--method", "soup", "--dry-run")
    soup = {row["member"]: row for row in record["facts"]["soup"]}
    alone = works("left.pt", "right.pt", "--arch", "net.py:build", "--data", "digits:part=train", "--dry-run")
    assert soup["left.pt"]["alone"] == alone["evaluated"]["models"][0]["metrics"]["accuracy"]
    best = max(soup, key=lambda name: soup[name]["alone"])
    assert soup[best]["taken"]
    assert not all(row["taken"] for row in soup.values())
    note = next(note for note in record["notes"] if note.startswith("The soup is of"))
    assert float(note.split("choosing data ")[1].split(",")[0]) >= soup[best]["alone"] - 1e-4


def test_fisher_weighs_each_element(digits):
    """Every weight lies between those of the members, and is not simply their mean."""
    record = works("left.pt", "right.pt", *DATA, "--input", "1x8x8", "--method", "fisher:samples=64")
    a, b, fused = (score["metrics"]["accuracy"] for score in record["evaluated"]["models"])
    assert fused >= min(a, b) - 0.02
    made = torch.load("left.fused.pt", weights_only=True)
    left, right = (torch.load(name, weights_only=True) for name in ("left.pt", "right.pt"))
    for name, value in made.items():
        low, high = torch.minimum(left[name], right[name]), torch.maximum(left[name], right[name])
        assert (value >= low - 1e-6).all()
        assert (value <= high + 1e-6).all()
    assert not torch.allclose(made["1.weight"], (left["1.weight"] + right["1.weight"]) / 2, atol=1e-4)


def test_graphs_are_averaged_as_weights_are(digits):
    for name in ("left", "right"):
        assert (
            run_command(
                "convert", f"{name}.pt", "--arch", "net.py:build", "--input", "1x8x8", "-o", f"{name}.pt2"
            ).code
            == 0
        )
    works("left.pt2", "right.pt2", "--method", "linear")
    works("left.pt", "right.pt", "--method", "linear")
    program = torch.export.load("left.fused.pt2")
    for name, value in torch.load("left.fused.pt", weights_only=True).items():
        assert torch.equal(program.state_dict[name], value)


def test_the_report_page_holds_choice_and_measures(digits):
    works("left.pt", "right.pt", *DATA, "--report", "page.html")
    page = (digits / "page.html").read_text()
    for words in ("one ancestor", "left.pt", "left.fused.pt", "1.weight", "Disagreement"):
        assert words in page


NORMED = """
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))
"""


def test_batch_norms_are_re_estimated_only_where_that_helps(digits):
    """Averaged weights of strangers have other activations than averaged statistics say."""
    (digits / "normed.py").write_text(NORMED)
    space: dict = {}
    exec(NORMED, space)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.tensor(bunch.target)
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        net = space["build"]()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(3):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
                optimizer.step()
        torch.save(net.state_dict(), f"{name}.pt")
    data = ("--arch", "normed.py:build", "--data", "digits:part=train", "--val", "digits:part=test")
    record = works("one.pt", "two.pt", *data, "--method", "linear")
    said = next(note for note in record["notes"] if note.startswith("Batch-norm statistics"))
    assert "were re-estimated" in said
    one, two, made = (torch.load(f"{name}.pt", weights_only=True) for name in ("one", "two", "one.fused"))
    assert not torch.allclose(made["2.running_var"], (one["2.running_var"] + two["2.running_var"]) / 2)
    torch.testing.assert_close(made["2.weight"], (one["2.weight"] + two["2.weight"]) / 2)
    assert record["evaluated"]["models"][2]["metrics"]["accuracy"] > 0.3
    entry = next(source for source in record["inputs"] if source["path"] == "one.pt")
    assert entry["blake3"] == run_command("inspect", "one.pt", "--json").json["blake3"]
    same = works("one.pt", "one.pt", *data, "--method", "linear", "-o", "same.pt")
    assert any(note.startswith("Batch-norm statistics") for note in same["notes"])


def test_an_architecture_for_each_model(digits):
    (digits / "other.py").write_text((digits / "net.py").read_text())
    done = run_command(
        "evaluate",
        "left.pt",
        "right.pt",
        "--arch",
        "net.py:build",
        "--arch",
        "other.py:build",
        "--data",
        "digits:part=test",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert len(done.json["models"]) == 2


def test_align_with_auto_averages_what_it_aligned(digits):
    """Strangers, naively averaged, lose; with their units in one order much less."""
    record = works("left.pt", "stranger.pt", *DATA, "--input", "1x8x8", "--align", "weights")
    assert record["method"] == "linear"
    assert any("one order" in sentence for sentence in record["evidence"])
    naive = works("left.pt", "stranger.pt", *DATA, "--method", "linear", "-o", "naive.pt")
    aligned, plain = (each["evaluated"]["models"][2]["metrics"]["accuracy"] for each in (record, naive))
    assert aligned > plain + 0.05
    said = failing("left.pt", "right.pt", "--align", "weights", "--method", "mean")
    assert "leaves weights alone" in said
