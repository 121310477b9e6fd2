"""Hostile and broken files: each gives its own message and exit code 3, quickly, and runs nothing."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import corpus
import pytest

from nnopt_cli.errors import UNREADABLE, UnreadableError
from nnopt_cli.formats.read import read

SECONDS, BYTES = 2.0, 500 << 20


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What reading each case said, from one process that read them all."""
    paths = corpus.build(tmp_path_factory.mktemp("corpus"))
    given = json.dumps([str(path) for path in paths.values()])
    done = subprocess.run(
        [sys.executable, corpus.__file__],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, last = (json.loads(line) for line in done.stdout.splitlines())
    return dict(zip(paths, lines, strict=True)), last, paths


@pytest.mark.parametrize("case", corpus.CASES)
def test_each_broken_file_has_its_own_message(outcome, case):
    found, _, paths = outcome
    code, kind, message = found[case]["said"]
    assert (code, kind) == (UNREADABLE, "UnreadableError"), message
    assert corpus.CASES[case][1] in message
    named = str(paths[case]) if case != "nul" else repr(str(paths[case]))
    assert named in message, "the message names the file"
    assert all(char.isprintable() or char == "\n" for char in message), "nothing that a terminal would obey"


def test_none_takes_long(outcome):
    found, _, _ = outcome
    slow = {case: line["seconds"] for case, line in found.items() if line["seconds"] > SECONDS}
    assert not slow


def test_all_together_stay_small_and_never_import_torch(outcome):
    _, last, _ = outcome
    assert last["peak"] < BYTES
    assert not last["torch"]


def test_a_misspelt_name_is_corrected(outcome):
    found, _, _ = outcome
    assert "Did you mean resnet-pruned.pt" in found["misspelt"]["said"][2]


def test_the_builders_are_right():
    """Negative control: the parts that the broken files are made of make a good file."""
    assert corpus.archive(corpus.state_dict(w=corpus.tensor()))[:4] == b"PK\3\4"


@pytest.mark.parametrize("content", ["archive", "legacy", "safetensors"])
def test_the_unbroken_file_is_read(tmp_path, content):
    body = corpus.state_dict(w=corpus.tensor())
    good = {
        "archive": corpus.archive(body),
        "legacy": corpus.legacy(body),
        "safetensors": corpus.safetensors({"w": corpus.entry()}),
    }
    path = tmp_path / "good"
    path.write_bytes(good[content])
    assert {name: w.words().tolist() for name, w in read(path).weights.items()} == corpus.GOOD


# -- nothing runs: pickles that are readable, and would do harm if they were loaded -----------------


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickled values that create `canary` when Python loads them."""
    n, t = corpus.name, corpus.text
    code = f"open({str(canary)!r}, 'w').close()"
    touch = f"touch {canary}"
    return {
        "os.system": call(n("os", "system"), t(touch)),
        "posix.system": call(n("posix", "system"), t(touch)),
        "eval": call(n("builtins", "eval"), t(code)),
        "exec": call(n("builtins", "exec"), t(code)),
        "python 2's eval": call(n("__builtin__", "eval"), t(code)),
        "compile and exec": call(
            n("builtins", "exec"), call(n("builtins", "compile"), t(code), t("x"), t("exec"))
        ),
        "subprocess": call(n("subprocess", "check_output"), b"](" + t("touch") + t(str(canary)) + b"e"),
        "INST": b"(" + t(touch) + b"ios\nsystem\n",
        "OBJ": b"(" + n("os", "system") + t(touch) + b"o",
        "NEWOBJ": n("os", "system") + b"(" + t(touch) + b"t\x81",
        "NEWOBJ_EX": n("os", "system") + b"(" + t(touch) + b"t}\x92",
        "STACK_GLOBAL": t("os") + t("system") + b"\x93(" + t(touch) + b"tR",
        "dotted name": t("os") + t("path.os.system") + b"\x93(" + t(touch) + b"tR",
        "getattr": call(
            call(n("builtins", "getattr"), n("builtins", "str"), t("format")), t("{0}"), t(touch)
        ),
        "import_module": call(n("importlib", "import_module"), t("this")),
        "ctypes": call(n("ctypes", "CDLL"), b"N"),
        "open": call(n("builtins", "open"), t(str(canary)), t("w")),
        "torch.load": call(n("torch", "load"), t(str(canary))),
        "torch.jit.load": call(n("torch.jit", "load"), t(str(canary))),
        "torch.hub.load": call(n("torch.hub", "load"), t("user/repository"), t("model")),
        "functools.reduce": call(n("functools", "partial"), n("os", "system"), t(touch)),
        "BUILD": n("collections", "UserDict") + b")\x81}" + t("__setstate__") + n("os", "system") + b"sb",
        "slots": n("argparse", "Namespace") + b")\x81N}" + t("__class__") + n("os", "system") + b"s\x86b",
        "OrderedDict's state": corpus.ORDERED + b"}" + t("update") + n("os", "system") + b"sb",
        "codecs": call(n("_codecs", "encode"), t("x"), t("latin1")),
        "a dict key": b"}" + call(n("os", "system"), t(touch)) + b"Ns",
        "a set": call(n("builtins", "set"), b"](" + call(n("os", "system"), t(touch)) + b"e"),
        "numpy": call(n("numpy.core.multiarray", "_reconstruct"), n("os", "system"), b"K\0\x85", t("b")),
        "torch by name": call(n("torch._utils", "_import_dotted_name"), t("os.system")),
        "a wrapped tensor": call(
            n("torch._tensor", "_rebuild_from_type_v2"),
            n("os", "system"),
            n("torch", "Tensor"),
            t(touch) + b"\x85",
            b"N",
        ),
        "a hook": call(
            n("torch._utils", "_rebuild_parameter"),
            corpus.tensor(),
            b"\x88",
            call(n("os", "system"), t(touch)),
        ),
        "a storage's bytes": call(
            n("torch.storage", "_load_from_bytes"), corpus_bytes(legacy_payload(touch))
        ),
    }


def corpus_bytes(raw: bytes) -> bytes:
    return b"B" + len(raw).to_bytes(4, "little") + raw


def legacy_payload(touch: str) -> bytes:
    """A checkpoint in a checkpoint whose storage is what a call returns, and then a storage."""
    harm = call(corpus.name("os", "system"), corpus.text(touch)) + b"0"
    return corpus.legacy(harm + corpus.persistent())


REFUSED: set[str] = set()


@pytest.mark.parametrize("place", ["beside", "inside", "attribute"])
@pytest.mark.parametrize("payload", sorted(payloads(Path("x"))))
def test_harmful_objects_are_left_unmade(tmp_path, monkeypatch, payload, place):
    """The tensors come out, nothing runs, and no module is imported."""
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    harm = payloads(canary)[payload]
    weights = corpus.state_dict(w=corpus.tensor())
    body = {
        "beside": b"}(" + corpus.text("model") + weights + corpus.text("x") + harm + b"u",
        "inside": b"}("
        + corpus.text("w")
        + corpus.tensor()
        + corpus.text("v")
        + corpus.tensor()
        + corpus.text("x")
        + harm
        + b"u",
        "attribute": corpus.ORDERED
        + corpus.text("w")
        + corpus.tensor()
        + b"s}"
        + corpus.text("_metadata")
        + harm
        + b"sb",
    }[place]
    for make in (corpus.archive, corpus.legacy):
        path = tmp_path / "model.pt"
        path.write_bytes(make(body))
        before = set(sys.modules)
        if payload in REFUSED:  # as good as left unmade
            with pytest.raises(UnreadableError):
                read(path)
        else:
            assert read(path).weights["w"].words().tolist() == corpus.GOOD["w"]
        assert not canary.exists()
        assert {m for m in set(sys.modules) - before if not m.startswith(("nnopt_cli", "difflib"))} == set()


def test_the_payloads_would_have_done_harm(tmp_path):
    """Negative control: Python's own pickle runs them."""
    for payload in ("os.system", "exec", "INST", "OBJ", "STACK_GLOBAL", "subprocess"):
        canary = tmp_path / payload
        pickle.loads(b"\x80\x04" + payloads(canary)[payload] + b".")
        assert canary.exists(), payload
