"""Which entries of a checkpoint are the model: keys, prefixes, what is never taken for one."""

from __future__ import annotations

import pytest
import torch

from nnopt_cli.errors import UnreadableError, UsageError
from nnopt_cli.formats.inert import Placeholder
from nnopt_cli.formats.read import read
from nnopt_cli.formats.tree import is_optimizer_entry
from nnopt_cli.formats.weight import MemoryWeight

W = {"w": torch.ones(2, 2), "b": torch.zeros(2)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.fixture
def saved(tmp_path):
    def save(value):
        torch.save(value, tmp_path / "m.pt")
        return tmp_path / "m.pt"

    return save


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "params", "net", "weights", "whatever"]
)
def test_one_entry_is_taken_whatever_its_name(saved, key):
    checkpoint = read(saved({key: W, "epoch": 1, "optimizer": OPTIMIZER, "best": torch.tensor(0.5)}))
    assert checkpoint.container.key == (key,)
    assert list(checkpoint.weights) == ["w", "b"]


def test_entries_are_found_three_levels_down(saved):
    assert read(saved({"a": {"b": {"c": W}}})).container.key == ("a", "b", "c")
    with pytest.raises(UnreadableError, match="holds no model"):
        read(saved({"a": {"b": {"c": {"d": W}}}}))


def test_several_entries_are_listed_and_one_is_chosen(saved):
    path = saved({"model": W, "ema": {"module": {**W, "x": torch.ones(1)}}, "epoch": 3})
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.exit_code == 2
    assert "--key model (2 tensors), --key ema.module (3 tensors)" in str(caught.value)
    assert list(read(path, key="model").weights) == ["w", "b"]
    assert read(path, key="ema.module").container.key == ("ema", "module")


def test_a_wrong_key_suggests_a_right_one(saved):
    path = saved({"model": W, "model_ema": W | {"x": torch.ones(1)}})
    with pytest.raises(UsageError, match="Did you mean 'model_ema'"):
        read(path, key="modelema")
    with pytest.raises(UsageError, match="no entry 'epoch'"):
        read(saved({"model": W, "epoch": 3}), key="epoch")
    with pytest.raises(UsageError, match="Leave --key out"):
        read(saved(W), key="zzz")


def test_keys_with_dots(saved):
    path = saved({"a.b": {"c.d": W}, "a": {"b": {"c": {**W, "x": torch.ones(1)}}}})
    assert read(path, key="a.b.c.d").container.key == ("a.b", "c.d")
    assert read(path, key="a.b.c").container.key == ("a", "b", "c")


def test_the_same_object_twice_is_one_entry(saved):
    assert read(saved({"model": W, "state_dict": W})).container.key == ("model",)


def test_optimizers_metrics_and_rng_states_are_no_models(saved):
    value = {
        "state_dict": W,
        "optimizer_states": [OPTIMIZER],
        "opt": {"exp_avg": W, "exp_avg_sq": W},
        "trainer": {"inner": OPTIMIZER},
        "metrics": {"loss": torch.tensor(0.1), "accuracy": torch.tensor(0.9)},
        "rng": {"cpu": torch.zeros(16, dtype=torch.uint8), "cuda": torch.ones(16, dtype=torch.uint8)},
        "callbacks": {"ModelCheckpoint{'a': 1}": {"best_k_models": {"/x.ckpt": torch.tensor(0.2)}}},
        "pytorch-lightning_version": "2.0",
    }
    assert read(saved(value)).container.key == ("state_dict",)


def test_a_table_of_integers_is_taken_when_there_is_nothing_better(saved):
    assert list(read(saved({"model": {"table": torch.arange(4)}})).weights) == ["table"]


def test_a_bare_state_dict_with_other_items(saved):
    value = {**W, "_extra_state": {"a": torch.ones(3)}, "version": 3}
    checkpoint = read(saved({"s": value | {"c": torch.ones(1)}}))
    assert list(checkpoint.weights) == ["w", "b", "c"]
    assert checkpoint.container.key == ("s",)


def test_statistics_beside_a_model_do_not_hide_it(saved):
    model = {f"layer{i}": torch.ones(2) for i in range(5)}
    assert read(saved({"model": model, "mean": torch.ones(3), "std": torch.ones(3)})).container.key == (
        "model",
    )


def test_models_in_lists_are_read_and_not_written_back_there(saved):
    checkpoint = read(saved([W, OPTIMIZER, 3]))
    assert checkpoint.container.key == ("0",)
    assert checkpoint.container.rebuilt
    assert "plain state dict" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["module.w", "module.b"], "module."),
        (["_orig_mod.w", "_orig_mod.b"], "_orig_mod."),
        (["module._orig_mod.w", "module._orig_mod.b"], "module._orig_mod."),
        (["_orig_mod.module.module.w", "_orig_mod.module.module.b"], "_orig_mod.module.module."),
        (["module.w", "b"], ""),
        (["module.", "module.b"], ""),
        (["modules.w", "modules.b"], ""),
    ],
)
def test_prefixes_are_stripped_when_they_cover_all_tensors(saved, names, prefix):
    value = {**dict(zip(names, W.values(), strict=True)), "_metadata_": 1}
    checkpoint = read(saved(value))
    assert checkpoint.container.prefix == prefix
    assert list(checkpoint.weights) == [name.removeprefix(prefix) for name in names]
    assert [w.name for w in checkpoint.weights.values()] == list(checkpoint.weights)


def test_cycles_are_no_trouble(saved):
    value = {"model": W, "list": []}
    value["list"].append(value["list"])
    value["self"] = value
    checkpoint = read(saved(value))
    assert checkpoint.container.key == ("model",)
    assert checkpoint.container.tree["self"] is checkpoint.container.tree


def test_nothing_at_all(saved):
    for value in ({}, {"a": 1}, [], None, {"optimizer": OPTIMIZER}):
        with pytest.raises(UnreadableError, match="holds no model"):
            read(saved(value))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optimizer", OPTIMIZER, True),
        ("optimizer_states", [OPTIMIZER], True),
        ("optim", {"m": 1}, True),
        ("G_optimizer", {"m": 1}, True),
        ("opt", [], True),
        ("whatever", OPTIMIZER, True),
        ("whatever", [OPTIMIZER, OPTIMIZER], True),
        ("optimizer", Placeholder(None), True),
        ("optimizer", "adam", False),
        ("optimizer_lr", 0.1, False),
        ("options", {"m": 1}, False),
        ("model", {"state": 1}, False),
        ("model", [], False),
        (3, {"m": 1}, False),
    ],
)
def test_what_an_optimizers_state_is(key, value, expected):
    assert is_optimizer_entry(key, value) is expected


def test_a_tensor_of_size_one_with_an_odd_stride_can_be_held():
    odd = torch.arange(4.0)[::2][1:]
    assert MemoryWeight.of("w", odd).words().tolist() == [2.0]
