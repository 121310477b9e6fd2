"""`nnopt finetune` from the command line: both rungs, what it keeps, and what it reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_models import (
    ARCH,
    finetune,
    same,
    small,
    tuned,
    weights_of,
    write_data,
    write_model,
    write_program,
)

from nnopt_cli import load
from nnopt_cli.testing import run_command

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path)


def test_a_bare_program_learns_and_is_an_inference_graph_again(tmp_path, data):
    made, out = write_program(tmp_path), tmp_path / "out.pt2"
    record = tuned(made, "--data", data, "--val-split", "0.4", "--epochs", 8, "--lr", 0.05, "-o", out)
    found = record["training"]
    assert found["after"] > 0.8 > found["before"]
    before, after = weights_of(made), weights_of(out)
    assert not before["norm.running_mean"].equal(after["norm.running_mean"])
    assert not before["conv.weight"].equal(after["conv.weight"])
    program = load(out).program()
    flags = [node.args[5] for node in program.graph.nodes if "batch_norm" in str(node.target)]
    drops = [node.args[2] for node in program.graph.nodes if "dropout" in str(node.target)]
    assert (flags, drops) == ([False], [False])
    module = small().eval()
    module.load_state_dict(after)
    image = torch.randn(5, 1, 6, 6)
    torch.testing.assert_close(program.module()(image), module(image))


def test_both_rungs_train_the_same(tmp_path, data):
    """Dropout draws from one generator, so the graph and the module see the very same noise."""
    made = write_program(tmp_path)
    args = ("--data", data, "--epochs", 2, "--optimizer", "sgd:momentum=0.9", "--lr", 0.05)
    tuned(made, *args, "-o", tmp_path / "graph.pt2")
    tuned(tmp_path / "model.pt", "--arch", ARCH, *args, "-o", tmp_path / "module.pt")
    one, other = weights_of(tmp_path / "graph.pt2"), weights_of(tmp_path / "module.pt")
    for name in one:
        if name != "norm.num_batches_tracked":
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_it_is_a_plain_loop(tmp_path, data):
    """Two epochs of SGD against the same written by hand, without dropout and in the data's order."""
    found = np.load(data)
    images, labels = torch.from_numpy(found["x"]), torch.from_numpy(found["y"])
    write_model(tmp_path)
    code = tmp_path / "own.py"
    code.write_text(
        "import numpy as np, torch\n"
        f"found = np.load({str(data)!r})\n"
        "class Stream(torch.utils.data.IterableDataset):\n"
        "    def __iter__(self):\n"
        "        return zip(torch.from_numpy(found['x']), torch.from_numpy(found['y']))\n"
    )
    rate = "dropout:rate=0"
    tuned(
        tmp_path / "model.pt",
        *("--arch", ARCH, "--data", f"{code}:Stream", "--limit", 60, "--epochs", 2, "--regularizer", rate),
        *("--optimizer", "momentum", "--lr", 0.1, "--schedule", "constant", "-o", tmp_path / "out.pt"),
    )
    module = small().train()
    module.drop.p = 0.0
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        for x, y in zip(images.split(16), labels.split(16), strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    after = weights_of(tmp_path / "out.pt")
    for name, value in module.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5)


def test_accumulation_is_a_larger_batch(tmp_path, data):
    model = write_model(tmp_path)
    args = ("--arch", ARCH, "--data", data, "--rows", "0:32", "--epochs", 1, "--optimizer", "gd", "--lr", 0.1)
    tuned(model, *args, "-o", tmp_path / "whole.pt", "--regularizer", "dropout:rate=0")
    sgd = ("--optimizer", "sgd", "--accumulate", 2, "--regularizer", "dropout:rate=0")
    tuned(model, *args, *sgd, "-o", tmp_path / "two.pt")
    one, two = weights_of(tmp_path / "whole.pt"), weights_of(tmp_path / "two.pt")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_pruned_weights_stay_exactly_zero(tmp_path, data, granularity):
    model = write_model(tmp_path)
    sparse = tmp_path / "sparse.pt"
    share = ["-s", "0.6"] if granularity == "weight" else ["--granularity", granularity]
    done = run_command("prune", model, *share, "-o", sparse, "-q", "--arch", ARCH)
    assert done.code == 0, done.stderr
    args = ("--arch", ARCH, "--data", data, "--epochs", 2, "--ema", 0.9, "--lr", 0.05)
    tuned(sparse, *args, "-o", tmp_path / "kept.pt")
    tuned(sparse, *args, "--no-keep-zeros", "-o", tmp_path / "free.pt")
    zeros = {name: value == 0 for name, value in weights_of(sparse).items() if value.dim() > 1}
    kept, free = weights_of(tmp_path / "kept.pt"), weights_of(tmp_path / "free.pt")
    assert sum(int(mask.sum()) for mask in zeros.values()) >= 12
    for name, mask in zeros.items():
        assert (kept[name] == 0).equal(mask), name
        assert not torch.signbit(kept[name][mask]).any()
    assert any(not (free[name] == 0).equal(mask) for name, mask in zeros.items())


def test_a_run_repeats_bit_for_bit_and_a_seed_matters(tmp_path, data):
    made = write_program(tmp_path)
    args = ("--data", data, "--val-split", "0.4", "--epochs", 2, "--ema", 0.9, "--keep", "last")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        tuned(made, *args, "--seed", seed, "-o", tmp_path / f"{name}.pt2")
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()
    assert not same(tmp_path / "a.pt2", tmp_path / "c.pt2")


def test_what_chooses_does_not_report(tmp_path, data):
    made = write_program(tmp_path)
    found = tuned(made, "--data", data, "--val-split", "0.5", "--epochs", 3, "--dry-run")["training"]
    assert (found["chosen_on"], found["reported_samples"]) == (6, 24)
    assert found["kept"] == "best"
    last = tuned(made, "--data", data, "--val-split", "0.5", "--epochs", 3, "--keep", "last", "--dry-run")
    assert (last["training"]["chosen_on"], last["training"]["reported_samples"]) == (0, 30)
    test = write_data(tmp_path, 40, 9, "test.npz")
    apart = tuned(made, "--data", data, "--val-split", "0.5", "--test", test, "--epochs", 1, "--dry-run")
    assert (apart["training"]["chosen_on"], apart["training"]["reported_samples"]) == (30, 40)
    assert apart["training"]["reported_on"] == "test rows"


def test_the_best_epoch_is_what_is_written(tmp_path, data):
    """A rate so high that the last epochs are worse: what is written is the best one's weights."""
    made, out = write_program(tmp_path), tmp_path / "out.pt2"
    test = write_data(tmp_path, 50, 9, "test.npz")
    args = ("--data", data, "--val", test, "--test", test, "--epochs", 6, "--schedule", "constant")
    found = tuned(made, *args, "--optimizer", "sgd", "--lr", 2.0, "-o", out)["training"]
    metrics = [row["metric"] for row in found["epochs"]]
    best = max([found["before"], *metrics])
    assert [found["before"], *metrics][found["best_epoch"]] == best == pytest.approx(found["after"])
    assert found["best_epoch"] == [found["before"], *metrics].index(best)
    measured = run_command("evaluate", out, "--data", test, "--json").json["models"][0]
    assert measured["metrics"]["accuracy"] == pytest.approx(best)


def test_patience_ends_a_training_that_gets_no_better(tmp_path, data):
    made = write_program(tmp_path)
    args = ("--data", data, "--val-split", "0.4", "--epochs", 50, "--patience", 2, "--lr", 1e-9)
    found = tuned(made, *args, "--optimizer", "sgd", "--dry-run")["training"]
    assert len(found["epochs"]) == 2
    assert "for 2 epochs" in found["stopped"]


def test_a_teacher_is_followed(tmp_path, data):
    """With nothing but the teacher in the loss, and labels that are wrong, its answers are learnt."""
    made = write_program(tmp_path)
    good = tmp_path / "good.pt2"
    tuned(made, "--data", data, "--epochs", 12, "--lr", 0.05, "-o", good)
    wrong = dict(np.load(data))
    np.savez(tmp_path / "wrong.npz", x=wrong["x"], y=(wrong["y"] + 1) % 3)
    args = ("--data", tmp_path / "wrong.npz", "--val", data, "--keep", "last", "--epochs", 12, "--lr", 0.05)
    taught = tuned(made, *args, "--teacher", good, "--teacher-weight", 1, "--dry-run")["training"]
    alone = tuned(made, *args, "--dry-run")["training"]
    assert taught["after"] > 0.8 > 0.3 > alone["after"]


def test_from_scratch_and_chosen_layers_anew(tmp_path, data):
    out = tmp_path / "fresh.pt"
    args = ("--data", data, "--val-split", "0.4", "--epochs", 20, "--lr", 0.05)
    done = finetune(None, "--arch", ARCH, "--init", "he-normal", *args, "-o", out, "--json")
    assert done.code == 0, done.stderr
    assert done.json["training"]["after"] > 0.8
    model = write_model(tmp_path)
    tuned(model, "--arch", ARCH, "--data", data, "--epochs", 1, "--lr", 1e-12, "--optimizer", "sgd",
          "--reinit", "head.*=uniform:a=0.5", "-o", tmp_path / "anew.pt")  # fmt: skip
    before, after = weights_of(model), weights_of(tmp_path / "anew.pt")
    torch.testing.assert_close(before["conv.weight"], after["conv.weight"])
    assert after["head.weight"].abs().max() <= 0.5
    assert not before["head.weight"].allclose(after["head.weight"], atol=1e-3)
    assert (after["head.bias"].abs() < 1e-6).all()


def test_rewinding_takes_old_weights_and_new_zeros(tmp_path, data):
    early = write_model(tmp_path, "early.pt")
    args = ("--arch", ARCH, "--data", data)
    tuned(early, *args, "--epochs", 3, "--lr", 0.05, "-o", tmp_path / "late.pt")
    run_command("prune", tmp_path / "late.pt", "-s", "0.5", "-o", tmp_path / "ticket.pt", "-q")
    still = ("--epochs", 1, "--lr", 1e-12, "--optimizer", "sgd")
    tuned(tmp_path / "ticket.pt", *args, *still, "--rewind", early, "-o", tmp_path / "out.pt")
    zeros, old = weights_of(tmp_path / "ticket.pt"), weights_of(early)
    for name, value in weights_of(tmp_path / "out.pt").items():
        if value.dim() > 1:
            torch.testing.assert_close(value, old[name] * (zeros[name] != 0))


def test_a_line_through_five_points():
    """The smallest case: y = x from scratch, within 0.01 at 6, 7 and 8."""
    folder = ROOT / "examples" / "line"
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "line.pt"
        scratch = ("--arch", f"{folder}/line.py:build", "--init", "uniform:a=0.5", "--epochs", 400)
        learn = ("--loss", "mse", "--optimizer", "adam", "--lr", 0.1, "--schedule", "constant")
        done = finetune(None, *scratch, *learn, "--data", folder / "line.csv", "-o", out, "-q")
        assert done.code == 0, done.stderr
        found = weights_of(out)
    for x in (6.0, 7.0, 8.0):
        assert float(found["weight"] * x + found["bias"]) == pytest.approx(x, abs=0.01)


@pytest.mark.parametrize("optimizer", ["gd", "lbfgs", "rmsprop", "nesterov"])
def test_every_way_of_stepping_learns(tmp_path, data, optimizer):
    made = write_program(tmp_path)
    found = tuned(made, "--data", data, "--epochs", 6, "--optimizer", optimizer, "--dry-run")["training"]
    assert found["epochs"][-1]["loss"] < found["epochs"][0]["loss"]
    assert found["steps"] == (6 if optimizer in ("gd", "lbfgs") else 24)


def test_regularizers_add_up_and_are_seen_in_the_loss(tmp_path, data):
    made = write_program(tmp_path)
    args = ("--data", data, "--epochs", 1, "--lr", 1e-12, "--optimizer", "sgd", "--dry-run")
    plain = tuned(made, *args)["training"]["losses"][0]
    both = tuned(made, *args, "--regularizer", "l1:weight=0.01", "--regularizer", "l2:weight=0.1")
    only = tuned(made, *args, "--regularizer", "l1:weight=0.01")
    assert plain < only["training"]["losses"][0] < both["training"]["losses"][0]
    group = tuned(made, *args, "--regularizer", "group-lasso:weight=0.1")
    assert group["training"]["losses"][0] > plain


def test_gradients_that_vanish_and_explode_are_named(tmp_path, data):
    code = tmp_path / "deep.py"
    code.write_text(
        "import torch\n"
        "class Deep(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.parts = torch.nn.ModuleList([torch.nn.Linear(36, 36) for _ in range(4)])\n"
        "        self.unused = torch.nn.Linear(3, 3)\n"
        "        self.head = torch.nn.Linear(36, 3)\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1)\n"
        "        for part in self.parts: x = torch.sigmoid(part(x) * 0.01)\n"
        "        return self.head(x)\n"
    )
    done = finetune(None, "--arch", f"{code}:Deep", "--init", "he-normal", "--data", data, "--epochs", 1,
                    "--dry-run", "--json")  # fmt: skip
    assert done.code == 0, done.stderr
    verdicts = {row["name"]: row["verdict"] for row in done.json["training"]["gradients"]}
    assert verdicts["unused.weight"] == "none"
    assert verdicts["parts.0.weight"] == "vanishing"
    assert any("Gradients vanish in parts.0.weight" in note for note in done.json["notes"])


def test_the_record_of_pruning_is_remembered(tmp_path, data):
    made, cut, out = write_program(tmp_path), tmp_path / "cut.pt2", tmp_path / "out.pt2"
    done = run_command(
        "prune", made, "--granularity", "channel", "-s", "0.5", "--data", data, "-o", cut, "--json"
    )
    assert done.code == 0, done.stderr
    found = tuned(cut, "--data", data, "--epochs", 1, "-o", out)["training"]
    assert found["dense"] == pytest.approx(done.json["shrunk"]["metric"][0])
    assert "before pruning" in finetune(out, "--data", data, "--epochs", 1, "--dry-run").stdout
    stored = load(out).provenance
    assert [step["pass"] for step in stored.steps] == ["prune", "finetune"]
    assert json.dumps(dict(stored.results))


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_summary_fits(tmp_path, data, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    made = write_program(tmp_path)
    shown = finetune(made, "--data", data, "--val-split", "0.4", "--epochs", 2, "--dry-run").stdout
    assert "accuracy after each epoch" in shown
    assert "chose nothing" in " ".join(shown.split())


def test_a_metric_that_never_moves_is_said_and_not_drawn(tmp_path, data):
    made = write_program(tmp_path)
    args = ("--val-split", "0.4", "--epochs", 3, "--optimizer", "sgd", "--lr", 1e-12, "--dry-run")
    shown = finetune(made, "--data", data, *args).stdout
    assert "accuracy after each epoch" in shown
    assert "throughout" in shown


def test_sixteen_bit_weights_stay_sixteen_bit(tmp_path, data):
    half = tmp_path / "half.pt"
    torch.save({name: value.bfloat16() if value.is_floating_point() else value
                for name, value in small().state_dict().items()}, half)  # fmt: skip
    tuned(half, "--arch", ARCH, "--data", data, "--epochs", 1, "-o", tmp_path / "out.pt")
    after = weights_of(tmp_path / "out.pt")
    assert after["conv.weight"].dtype == torch.bfloat16
    assert not after["conv.weight"].equal(weights_of(half)["conv.weight"])


def test_bf16_computes_in_sixteen_bits_and_keeps_thirty_two(tmp_path, data):
    made, out = write_program(tmp_path), tmp_path / "out.pt2"
    found = tuned(made, "--data", data, "--epochs", 6, "--lr", 0.05, "--precision", "bf16", "-o", out)
    assert found["training"]["epochs"][-1]["loss"] < found["training"]["epochs"][0]["loss"]
    assert weights_of(out)["conv.weight"].dtype == torch.float32
