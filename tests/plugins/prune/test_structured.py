"""Channels, heads and layers removed from graphs: how many, which, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnopt_plugins.prune.criteria import Magnitude, Random
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.plan import Ranked, plan
from nnopt_plugins.prune.structures import Channel, Head, Layer
from nnopt_plugins.prune.unit_criteria import FPGM, L2, LAMP, BatchNormScale
from prune_models import quiet
from structured_nets import INPUTS, Attention, Bound, Residual, made
from torch import nn

import nnopt_cli
from nnopt_cli import Model, NnoptError, UsageError
from nnopt_cli.graph import Group, Member, costs
from nnopt_cli.testing import run_command

NETS = Path(__file__).with_name("structured_nets.py")
Open = Callable[[type[nn.Module]], Model]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """A network as a model on the graph rung; exported once."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("nets")
    seen: dict[type[nn.Module], Model] = {}

    def open_(cls: type[nn.Module]) -> Model:
        if cls not in seen:
            path = folder / f"{cls.__name__}.pt"
            torch.save(made(cls).state_dict(), path)
            seen[cls] = nnopt_cli.load(path, cls, inputs=INPUTS[cls])
        return seen[cls]

    return open_


def pruned(model: Model, **options: Any) -> tuple[Model, Any]:
    run = quiet()
    return Prune(granularity=options.pop("granularity", Channel()), **options).run(model, run), run


def rows(model: Model) -> dict[str, int]:
    return {name: weight.shape[0] for name, weight in model.weights.items() if name.endswith(".weight")}


def answers(model: Model) -> torch.Tensor:
    """What a model computes; it is also run at another batch size."""
    inputs = nnopt_cli.graph.sample_inputs(model.program(), 5, 1)
    with torch.no_grad():
        return model.program().module()(*inputs)


CRITERIA = [Magnitude(), Random(), L2(), BatchNormScale(), FPGM(), LAMP()]


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda each: each.name)
def test_half_of_every_group_goes_under_every_criterion(opened: Open, criterion: Any) -> None:
    after, run = pruned(opened(Residual), sparsity=0.5, criterion=criterion)
    assert rows(after) == {
        "stem.weight": 8,
        "a1.weight": 6,
        "n1.weight": 6,
        "b1.weight": 8,
        "a2.weight": 10,
        "n2.weight": 10,
        "b2.weight": 8,
        "head.weight": 10,
    }
    assert after.structure_changed
    assert run.facts["units"] == [48, 24]
    assert run.facts["shrunk"]["difference"] < 1e-9
    assert answers(after).shape == (5, 10)


def test_the_survivors_are_the_largest_and_keep_every_bit(opened: Open) -> None:
    model = opened(Residual)
    after, _ = pruned(model, sparsity=0.5, criterion=L2())
    tensors = {name: weight.torch() for name, weight in model.weights.items()}
    # all that goes with a channel of a1: its row, and its column in b1
    mass = tensors["a1.weight"].flatten(1).square().sum(1) + tensors["b1.weight"].square().sum((0, 2, 3))
    stay = mass.argsort()[6:].sort().values
    stem = after.weights["stem.weight"].torch()
    kept = [i for i in range(16) if any(torch.equal(tensors["stem.weight"][i], row) for row in stem)]
    assert torch.equal(after.weights["a1.weight"].torch(), tensors["a1.weight"][stay][:, kept])
    assert torch.equal(after.weights["n1.running_var"].torch(), tensors["n1.running_var"][stay])


@pytest.mark.parametrize(("scope", "share"), [("layer", 0.3), ("global", 0.3), ("global", 0.7)])
def test_scopes(opened: Open, scope: Any, share: float) -> None:
    _, run = pruned(opened(Residual), sparsity=share, scope=scope)
    widths = {row["layer"]: (row["before"], row["after"]) for row in run.facts["shrunk"]["widths"]}
    if scope == "layer":
        assert widths == {"stem.weight": (16, 11), "a1.weight": (12, 8), "a2.weight": (20, 14)}
    else:
        assert run.facts["units"] == [48, 48 - round(share * 48)]


def test_ties_are_broken_by_order_also_between_groups() -> None:
    groups = [Group(np.arange(0, 4), (Member("a", 0),)), Group(np.arange(4, 10), (Member("b", 0),))]
    ranked = [Ranked(group, np.ones(len(group.classes))) for group in groups]
    for count in range(11):
        assert len(plan(ranked, count / 10, "global")) == min(count, 8), "one of each group stays"
    assert plan(ranked, 0.2, "global").tolist() == [0, 1]
    assert plan(ranked, 0.5, "layer").tolist() == [0, 1, 4, 5, 6]


@pytest.mark.parametrize("kind", ["params", "macs"])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("steps", [1, 3])
def test_budgets_are_met_and_not_overshot(opened: Open, kind: str, scope: Any, steps: int) -> None:
    model = opened(Residual)
    after, run = pruned(model, **{kind: 0.4}, scope=scope, steps=steps)
    count = "parameters" if kind == "params" else "macs"
    before, now = getattr(costs(model.program()), count), getattr(costs(after.program()), count)
    assert 0.4 * before * 0.85 < now <= 0.4 * before  # one unit of these small groups is up to a tenth
    assert run.facts["shrunk"]["macs"][1] == costs(after.program()).macs


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_several_steps_remove_as_much_as_one(opened: Open, share: float, scope: Any) -> None:
    _, once = pruned(opened(Residual), sparsity=share, scope=scope)
    after, thrice = pruned(opened(Residual), sparsity=share, scope=scope, steps=3)
    if scope == "layer":
        assert thrice.facts["shrunk"]["widths"] == once.facts["shrunk"]["widths"]
    assert thrice.facts["units"] == once.facts["units"]
    assert answers(after).shape == (5, 10)


def test_widths_are_multiples(opened: Open) -> None:
    _, run = pruned(opened(Residual), sparsity=0.5, round_to=8)
    assert {row["layer"]: row["after"] for row in run.facts["shrunk"]["widths"]} == {
        "stem.weight": 8,
        "a1.weight": 8,
        "a2.weight": 8,
    }
    _, run = pruned(opened(Residual), macs=0.5, round_to=4, scope="global")
    assert all(row["after"] % 4 == 0 for row in run.facts["shrunk"]["widths"])


def test_patterns_have_their_own_share(opened: Open) -> None:
    for steps in (1, 2):
        _, run = pruned(opened(Residual), sparsity=["0.25", "a2.*=0.8"], steps=steps)
        after = {row["layer"]: row["after"] for row in run.facts["shrunk"]["widths"]}
        assert after == {"stem.weight": 12, "a1.weight": 9, "a2.weight": 4}
    _, run = pruned(opened(Residual), sparsity=["b1.*=0.5", "head.*=0.5"])
    after = {row["layer"]: row["after"] for row in run.facts["shrunk"]["widths"]}
    assert after == {"stem.weight": 8, "a1.weight": 12, "a2.weight": 20}, "b1's rows are the stem's channels"
    assert any("'head.*=0.5' changes nothing" in note for note in run.notes)


def test_include_and_exclude(opened: Open) -> None:
    _, run = pruned(opened(Residual), sparsity=0.5, include=("a*",), exclude=("a2.*",))
    assert run.facts["shrunk"]["widths"] == [{"layer": "a1.weight", "before": 12, "after": 6}]


def test_at_least_one_unit_stays(opened: Open) -> None:
    after, run = pruned(opened(Residual), sparsity=1.0)
    assert run.facts["units"] == [48, 3]
    assert answers(after).shape == (5, 10)


def test_nothing_is_asked_for_nothing_goes(opened: Open) -> None:
    after, _ = pruned(opened(Residual), sparsity=0.0)
    assert torch.equal(answers(after), answers(opened(Residual)))


def test_heads(opened: Open) -> None:
    after, run = pruned(opened(Attention), sparsity=0.5, granularity=Head())
    shapes = {name: weight.shape for name, weight in after.weights.items()}
    assert {shapes[f"{name}.weight"] for name in "qkv"} == {(8, 16)}
    assert shapes["out.weight"] == (16, 8)
    assert shapes["up.weight"] == (24, 16)
    assert run.facts["units"] == [4, 2]
    assert run.facts["shrunk"]["what"] == "heads"
    _, run = pruned(opened(Attention), sparsity=0.5, granularity=Channel(heads=False))
    assert "q.weight" not in {row["layer"] for row in run.facts["shrunk"]["widths"]}


@pytest.mark.parametrize(
    ("options", "removed"),
    [({"sparsity": 0.5}, 1), ({"sparsity": 1.0}, 2), ({"params": 0.7}, 1), ({"macs": 0.3}, 2)],
    ids=str,
)
def test_whole_residual_branches(opened: Open, options: dict[str, float], removed: int) -> None:
    after, run = pruned(opened(Residual), granularity=Layer(), **options)
    assert run.facts["units"] == [2, 2 - removed]
    assert sum(name in after.weights for name in ("a1.weight", "a2.weight")) == 2 - removed
    assert ("n1.weight" in after.weights) == ("a1.weight" in after.weights)
    assert answers(after).shape == (5, 10)


def test_a_seed_decides_what_is_drawn(opened: Open) -> None:
    def drawn(seed: int) -> torch.Tensor:
        after = Prune(granularity=Channel(), sparsity=0.5, criterion=Random()).run(
            opened(Residual), quiet(seed=seed)
        )
        return after.weights["a1.weight"].torch()

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_the_input_is_not_changed(opened: Open) -> None:
    model = opened(Residual)
    before = {name: tensor.clone() for name, tensor in model.program().state_dict.items()}
    pruned(model, sparsity=0.5, steps=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.program().state_dict.items())


def test_a_pruned_model_is_pruned_again_and_trains(opened: Open) -> None:
    after, _ = pruned(opened(Residual), sparsity=0.5)
    again, run = pruned(after, sparsity=0.5, exclude=("stem.*",))
    assert [row["after"] for row in run.facts["shrunk"]["widths"]] == [3, 5]
    module = again.program().module()
    loss = module(torch.randn(4, 3, 8, 8)).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters() if p.dim() > 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of --sparsity, --params, --macs, --speedup, --max-drop"),
        ({"sparsity": 0.5, "macs": 0.5}, "exactly one of"),
        ({"params": 0.5, "macs": 0.5}, "exactly one of"),
        ({"speedup": "1x"}, "is no speedup"),
        ({"max_drop": "1%"}, "--max-drop needs data"),
        ({"sparsity": 0.5, "keep_best": True}, "goes with --max-drop only"),
        ({"sparsity": 0.5, "include": ("stm.*",)}, "Did you mean"),
        ({"sparsity": "a9.*=0.5"}, "matches no tensor"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(opened: Open, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pruned(opened(Residual), **options)


def test_flags_of_graphs_are_refused_for_weights(opened: Open) -> None:
    for option in ({"macs": 0.5}, {"latency": True}, {"round_to": 8}):
        with pytest.raises(UsageError, match="does not go with --granularity weight"):
            Prune(**option).run(opened(Residual), quiet())
    with pytest.raises(UsageError, match="scores channels and heads, not single weights"):
        Prune(sparsity=0.5, criterion=FPGM()).run(opened(Residual), quiet())


@pytest.mark.parametrize(
    ("net", "options", "said"),
    [
        (Bound, {"sparsity": 0.5}, "nothing to prune: the graph has no group of channels"),
        (Residual, {"sparsity": 0.5, "granularity": Head()}, "no group of heads"),
        (Bound, {"sparsity": 0.5, "granularity": Layer()}, "no residual branch"),
        (
            Residual,
            {"macs": 0.001},
            "0.001 cannot be met: 0.8% of the MACs remain even with one unit left",
        ),
        (Residual, {"params": 0.01, "granularity": Layer()}, "--params 0.01 cannot be met"),
    ],
    ids=str,
)
def test_what_cannot_be_done(opened: Open, net: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(NnoptError, match=said):
        pruned(opened(net), **options)


def test_scores_that_are_no_numbers(opened: Open) -> None:
    model = opened(Residual).map(lambda _, tensor: torch.full_like(tensor, torch.nan), ["a1.weight"])
    with pytest.raises(NnoptError, match=r"one finite number per unit for the channels of \w+\.weight"):
        pruned(model, sparsity=0.5)


class TestCommand:
    """The same from the command line."""

    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        torch.save(made(Residual).state_dict(), tmp_path / "net.pt")
        return tmp_path / "net.pt"

    @pytest.fixture
    def asked(self, weights: Path) -> list[object]:
        return [
            "prune",
            weights,
            "--arch",
            f"{NETS}:Residual",
            "--input",
            "3x8x8",
            "--granularity",
            "channel",
        ]

    def test_a_graph_comes_out(self, weights: Path, asked: list[object]) -> None:
        result = run_command(*asked, "--sparsity", "0.5", "--json")
        assert result.code == 0, result.stderr
        record, out = result.json, weights.with_name("net.pruned.pt2")
        assert record["output"] == str(out)
        net = made(Residual)
        assert record["before"]["parameters"] == sum(p.numel() for p in net.parameters())
        assert record["before"]["nonzeros"] == sum(int(p.count_nonzero()) for p in net.parameters())
        assert record["shrunk"]["macs"][0] > 3 * record["shrunk"]["macs"][1]
        small = nnopt_cli.load(out)
        assert small.weights["a1.weight"].shape == (6, 8, 3, 3)
        assert small.provenance.steps[-1]["granularity"] == {"name": "channel"}
        assert answers(small).shape == (5, 10)

    @pytest.mark.parametrize("width", [80, 140])
    def test_the_summary_fits(self, asked: list[object], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("FORCE_COLOR", "1")
        result = run_command(*asked, "--sparsity", "0.5", "--dry-run")
        assert result.code == 0, result.stderr
        plain = [line for line in result.stdout.splitlines() if "\x1b" not in line]
        assert max(map(len, plain)) <= width
        for word in ("multiply-accumulates", "Channels", "a2.weight", "Checked"):
            assert word in result.stdout

    def test_nothing_is_written_where_the_cut_is_wrong(
        self, weights: Path, asked: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from nnopt_cli.graph import Keep

        class Rolled(Keep):
            def indices(self, dim: Any) -> Any:
                right = super().indices(dim)
                return np.sort((right + 1) % len(dim)) if self.touches(dim) and len(dim) == 20 else right

        import nnopt_cli.graph.cutting as cutting

        cut = cutting.cut

        def wrong(program: Any, coupling: Any, keep: Keep) -> Any:
            rolled = Rolled.__new__(Rolled)
            rolled.__dict__.update(keep.__dict__)
            return cut(program, coupling, rolled)

        monkeypatch.setattr("nnopt_cli.graph.cut", wrong)
        result = run_command(*asked, "--sparsity", "0.5", "--criterion", "random")
        assert result.code == 1
        assert "does not compute what the dense one does" in result.stderr
        assert sorted(path.name for path in weights.parent.iterdir()) == ["net.pt"]

    @pytest.mark.parametrize(
        ("more", "code"), [(["--macs", "0.0001"], 1), (["--sparsity", "0.5", "--params", "0.5"], 2)]
    )
    def test_nothing_is_written_on_failure(
        self, weights: Path, asked: list[object], more: list[str], code: int
    ) -> None:
        assert run_command(*asked, *more).code == code
        assert sorted(path.name for path in weights.parent.iterdir()) == ["net.pt"]

    def test_bare_weights_say_what_to_add(self, weights: Path) -> None:
        result = run_command("prune", weights, "--granularity", "channel", "--sparsity", "0.5")
        assert result.code == 1
        for word in ("--arch", "--input", ".pt2"):
            assert word in result.stderr

    def test_latency_is_measured_where_it_is_asked_for(self, asked: list[object]) -> None:
        result = run_command(*asked, "--sparsity", "0.5", "--latency", "--dry-run", "--json")
        assert result.code == 0, result.stderr
        shrunk = result.json["shrunk"]
        assert shrunk["timed_in"] == "ONNX Runtime"
        assert all(0 < seconds < 1 for seconds in shrunk["latency"])


class TestWithData:
    """Criteria that look at gradients and activations, and the metric before and after."""

    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        path = tmp_path / "train.npz"
        images = rng.standard_normal((48, 3, 8, 8)).astype(np.float32)
        np.savez(path, x=images, y=np.arange(48) % 10)
        return path

    @pytest.mark.parametrize("criterion", ["taylor", "obd", "activation", "l2"])
    def test_from_the_command_line(self, table: Path, criterion: str, tmp_path: Path) -> None:
        torch.save(made(Residual).state_dict(), tmp_path / "net.pt")
        asked = ["prune", tmp_path / "net.pt", "--arch", f"{NETS}:Residual", "--input", "3x8x8", "--json"]
        more = ["--granularity", "channel", "--sparsity", "0.25", "--data", table, "--criterion", criterion]
        result = run_command(*asked, *more)
        assert result.code == 0, result.stderr
        shrunk = result.json["shrunk"]
        assert shrunk["metric_name"] == "accuracy"
        assert all(0 <= value <= 1 for value in shrunk["metric"])
        assert {row["after"] for row in shrunk["widths"]} == {12, 9, 15}

    @pytest.mark.parametrize("criterion", ["taylor", "obd", "activation"])
    def test_a_channel_that_does_nothing_goes_first(
        self, table: Path, criterion: str, tmp_path: Path
    ) -> None:
        net = made(Residual)
        with torch.no_grad():  # large weights, which a criterion of weights would keep, into a dead channel
            net.a1.weight[5] *= 1 if criterion == "activation" else 100
            net.n1.weight[5] = 0
            net.n1.bias[5] = 0
        torch.save(net.state_dict(), tmp_path / "net.pt")
        model = nnopt_cli.load(tmp_path / "net.pt", Residual, inputs="3x8x8")
        asked = ["prune", tmp_path / "net.pt", "--arch", f"{NETS}:Residual", "--input", "3x8x8"]
        only = ["--include", "a1.*", "--sparsity", str(1 / 12), "--granularity", "channel"]
        result = run_command(*asked, *only, "--data", table, "--criterion", criterion)
        assert result.code == 0, result.stderr
        after = nnopt_cli.load(tmp_path / "net.pruned.pt2").weights["a1.weight"].torch()
        stay = [i for i in range(12) if i != 5]
        assert torch.equal(after, model.weights["a1.weight"].torch()[stay])

    def test_data_that_are_missing_or_not_needed(self, opened: Open) -> None:
        from nnopt_plugins.prune.unit_criteria import Taylor

        with pytest.raises(UsageError, match="'taylor' needs data"):
            pruned(opened(Residual), sparsity=0.5, criterion=Taylor())
        with pytest.raises(UsageError, match="scores channels and heads"):
            Prune(sparsity=0.5, criterion=Taylor()).run(opened(Residual), quiet())

    @pytest.fixture
    def asked(self, table: Path, tmp_path: Path) -> list[object]:
        """A network with eight dead channels of twelve in one layer, and labels that it gets all right."""
        net = made(Residual)
        with torch.no_grad():
            net.n1.weight[4:] = 0
            net.n1.bias[4:] = 0
            images = torch.from_numpy(np.load(table)["x"])
            net.head.bias -= net(images).mean(0)  # else all are of one class
            np.savez(table, x=images.numpy(), y=net(images).argmax(1).numpy())
        torch.save(net.state_dict(), tmp_path / "net.pt")
        asked = ["prune", tmp_path / "net.pt", "--arch", f"{NETS}:Residual", "--input", "3x8x8"]
        return [*asked, "--data", table, "--criterion", "bn-scale", "--granularity", "channel"]

    def test_as_much_goes_as_the_metric_allows(self, asked: list[object]) -> None:
        result = run_command(*asked, "--include", "a1.*", "--max-drop", "0", "--json")
        assert result.code == 0, result.stderr
        shrunk = result.json["shrunk"]
        assert shrunk["metric"] == [1, 1]
        assert shrunk["widths"][0]["after"] <= 4
        assert any("chosen on the rows" in note for note in result.json["notes"])

    def test_a_gate_that_is_missed(self, asked: list[object], tmp_path: Path) -> None:
        asked += ["--include", "stem.*", "--max-drop", "0", "--round-to", "2", "--criterion", "random"]
        result = run_command(*asked)
        assert result.code == 4, result.stdout
        assert "even the smallest cut lowers accuracy" in result.stderr
        assert not (tmp_path / "net.pruned.pt2").exists()
        result = run_command(*asked, "--keep-best")
        assert result.code == 4
        assert (tmp_path / "net.pruned.pt2").exists()
