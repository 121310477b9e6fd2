"""Whatever is done to a `.pt2` file: it is refused with a message, or is a program that runs or complains."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_pt2
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.pt2_expr import expression
from nnopt_cli.formats.pt2_read import Program, read_program, read_weights
from nnopt_cli.formats.pt2_records import RefusedError
from nnopt_cli.formats.sniff import open_file

SECONDS = 5.0
CODE = "__import__('pathlib').Path('CANARY').touch()"
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    7,
    1 << 40,
    1 << 70,
    1.5,
    1e308,
    "",
    "x",
    "self",
    "torch",
    "\0",
    "a.b",
    [],
    {},
]
JUNK += [
    "relu",
    "batch_norm",
    "a.weight",
    "NaN",
    CODE,
    f"x={CODE}",
    f"');{CODE};('",
    f"\n{CODE}\n",
    [CODE],
    {CODE: 1},
]
JUNK += [
    "torch.os.system",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.relu.default",
    "_operator.add",
]
JUNK += ["torch.ops.aten.zeros.default", "torch.ops.aten.set_.default", "torch.ops.aten.add_.Tensor"]
JUNK += ["Symbol('s0', integer=True)", "Integer(3)", "Pow(Integer(9), Integer(64))", f"Symbol({CODE})", "u0"]
JUNK += [
    {"as_int": 5},
    {"as_none": True},
    {"as_tensor": {"name": "x"}},
    {"as_string": CODE},
    {"as_bool": False},
]
JUNK += [
    {"as_ints": [0, 1 << 33]},
    {"as_expr": {"expr_str": "Integer(4)"}},
    {"as_operator": "torch.os.system"},
]


@pytest.fixture(scope="module")
def honest() -> hostile_pt2.Pt2:
    return hostile_pt2.Pt2.of(hostile_pt2.net_program())


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        found.append((value, key))
        places(value[key], found)
    return found


def mutate(tree: Any, seed: int, canary: Path) -> None:
    """Replace, remove, repeat or swap a few values in a tree."""
    rng = random.Random(seed)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not (all_places := places(tree, [])):
            return
        (holder, key), (other, its) = rng.choice(all_places), rng.choice(all_places)
        kind = rng.random()
        if kind < 0.6:
            text = json.dumps(rng.choice(JUNK)).replace("CANARY", json.dumps(str(canary))[1:-1])
            holder[key] = json.loads(text)
        elif kind < 0.75:
            holder[key] = json.loads(json.dumps(other[its]))
        elif kind < 0.9 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        else:
            del holder[key]


def outcome(action: Callable[[], Any]) -> Any:
    """What an action returns, or the error that it ends in."""
    try:
        return action()
    except Exception as error:
        return error


def try_everything(path: Path, canary: Path) -> bool:
    """Read a file both ways, and run what is read; whether it was read."""
    began = time.perf_counter()
    for found in (outcome(lambda: read_weights(open_file(path))), outcome(lambda: read_program(path))):
        if isinstance(found, Exception):
            assert type(found) is UnreadableError
            assert str(path) in found.message
    if isinstance(found, Program):
        ran = outcome(lambda: found.program.module()(torch.zeros(3, 4)))
        assert not isinstance(ran, (SyntaxError, NameError)), "generated code is always sound"
    assert not canary.exists()
    assert time.perf_counter() - began < SECONDS
    return isinstance(found, Program)


def check_tree(honest: hostile_pt2.Pt2, folder: Path, seed: int) -> bool:
    path, canary = folder / "fuzz.pt2", folder / "canary"
    archive = honest.copy()
    if seed % 4:
        tree = archive.program()
        mutate(tree, seed, canary)
        archive.set_program(tree)
    else:
        kind = "weights" if seed % 8 else "constants"
        table = archive.config(kind)
        mutate(table, seed, canary)
        archive.set_config(table, kind)
    path.write_bytes(archive.bytes())
    return try_everything(path, canary)


SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(seed=st.integers(0, 1 << 32))
@settings(SETTINGS, max_examples=150)
def test_any_change_of_its_records_ends_well(honest, tmp_path, seed):
    check_tree(honest, tmp_path, seed)


@given(data=st.data())
@settings(SETTINGS, max_examples=150)
def test_any_change_of_its_bytes_ends_well(honest, tmp_path, data):
    raw = bytearray(honest.bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "copy"]))
        if what == "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        elif what == "cut":
            del raw[at : at + data.draw(st.integers(1, 100))]
        elif what == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            source = data.draw(st.integers(0, len(raw) - 1))
            raw[at : at + 30] = raw[source : source + 30]
        if not raw:
            return
    path = tmp_path / "fuzz.pt2"
    path.write_bytes(raw)
    try_everything(path, tmp_path / "canary")


@given(text=st.text(alphabet="Symbol('s0',integer=True)AdMuPw Ig3-_.[]\n\"", max_size=60))
@example("Symbol('s0', integer=True)")
@example("Add(Integer(1), Symbol('u0'))")
@settings(SETTINGS, max_examples=300)
def test_an_expression_is_refused_or_printed_the_same_again(text):
    try:
        printed = expression(text)
    except RefusedError:
        return
    assert expression(printed) == printed
    assert set(printed) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_()', =.-")


@pytest.mark.slow
def test_many_changes_end_well_and_some_are_read(honest, tmp_path):
    read = sum(check_tree(honest, tmp_path, seed) for seed in range(4000))
    assert 100 < read < 3900, "negative control: not everything is refused, and not everything is read"
