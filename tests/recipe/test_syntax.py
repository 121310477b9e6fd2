"""Recipes as text, and their variables."""

from __future__ import annotations

import string
import tomllib

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from nnopt_cli import UsageError
from nnopt_cli.recipe.syntax import read_table, read_value, write_table
from nnopt_cli.recipe.variables import combinations, escape, parse_settings, substitute

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.text(string.ascii_letters + "_-.", min_size=1, max_size=6)
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(
        ["2:4", "4x4", "no", "on", "1e-3", "0x10", "1_000", "~", "null", "", "- a", "12:30:45", "="]
    ),
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([".yaml", ".toml", ".json"]))
@example({"A": "\x85"}, ".yaml")
@example({"A": "a \u2028 b\n", "B": ["\u2029"]}, ".yaml")
def test_what_is_written_is_read_back(tmp_path_factory, table, suffix):
    path = tmp_path_factory.mktemp("recipe") / f"r{suffix}"
    path.write_text(write_table(table, suffix, "a comment\nof two lines"), encoding="utf-8", newline="")
    assert read_table(path) == table


@given(VALUES)
def test_an_escaped_value_has_no_variables(value):
    assert substitute(escape(value), {}) == value


def test_yaml_reads_what_the_flags_write():
    text = "{a: 2:4, b: no, c: 1e-3, d: 0.5, e: true, f: null, g: '0.5', h: 007, i: 4x4, j: .5}"
    want = {"a": "2:4", "b": "no", "c": 1e-3, "d": 0.5, "e": True, "f": None, "g": "0.5", "h": 7, "i": "4x4"}
    assert read_value(text) == {**want, "j": 0.5}
    assert yaml.safe_load("2:4") == 124, "what PyYAML itself makes of it"


def test_toml_is_toml():
    table = {
        "model": "a.pt",
        "vars": {"s": 0.5},
        "steps": [{"pass": "prune", "x": [1, 2], "c": {"name": "a"}}],
    }
    assert tomllib.loads(write_table(table, ".toml")) == table


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.yaml", "steps: [", "line 1"),
        ("r.yaml", "a: 1\na: 2\n", "'a' is given twice"),
        ("r.yaml", "a: &x [1]\nb: *x\n", "aliases are not read"),
        ("r.yaml", "!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("r.yaml", "1: 2", "the key 1 is not text"),
        ("r.yaml", "- a", "holds a list"),
        ("r.yaml", "", "holds nothing"),
        ("r.json", '{"a": 1, "a": 2}', "'a' is given twice"),
        ("r.json", "[" * 100_000, "nested too deeply"),
        ("r.toml", "a = ", "r.toml"),
        ("r.txt", "a: 1", "ends in .yaml"),
    ],
)
def test_bad_text_is_refused(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        read_table(path)
    assert name in caught.value.message


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="no such recipe"):
        read_table(tmp_path / "r.yaml")
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(UsageError, match=r"d\.yaml"):
        read_table(tmp_path / "d.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_table(tmp_path / "b.yaml")


def test_settings():
    found = parse_settings(["s=0.5", "t=0.5,0.7", "u=[a, b]", "v={name: sgd, lr: 1e-3}", "w='a,b'", "x=2:4"])
    assert found == {
        "s": 0.5,
        "t": [0.5, 0.7],
        "u": ["a", "b"],
        "v": {"name": "sgd", "lr": 1e-3},
        "w": "a,b",
        "x": "2:4",
    }
    for bad in (["s"], ["=1"], ["s=1", "s=2"], ["s=["], ["s.t=1"]):
        with pytest.raises(UsageError, match="--set"):
            parse_settings(bad)


def test_combinations_are_all_of_them():
    runs = combinations({"a": [1, 2], "b": "x", "c": [True, False]})
    assert [(run["a"], run["b"], run["c"]) for run in runs] == [
        (1, "x", True),
        (1, "x", False),
        (2, "x", True),
        (2, "x", False),
    ]
    assert combinations({}) == [{}]
    with pytest.raises(UsageError, match="empty list"):
        combinations({"a": []})
    with pytest.raises(UsageError, match="runs"):
        combinations({"a": list(range(100)), "b": list(range(100))})


def test_substitution_keeps_types_and_names_close_matches():
    values = {"s": 0.5, "o": {"name": "sgd"}, "n": "x"}
    assert substitute({"a": "${s}", "b": ["${o}"], "c": "m-${s}-${n}.pt"}, values) == {
        "a": 0.5,
        "b": [{"name": "sgd"}],
        "c": "m-0.5-x.pt",
    }
    with pytest.raises(UsageError, match="no variable 'sparsty'") as caught:
        substitute("${sparsty}", {"sparsity": 1})
    assert "Did you mean 'sparsity'?" in (caught.value.hint or "")
