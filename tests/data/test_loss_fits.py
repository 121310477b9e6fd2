"""A loss that does not go with the model's outputs and the targets is told before the first step."""

from __future__ import annotations

import pytest

from nnopt_cli.testing import run_command

DIGITS = (
    "evaluate",
    "examples/digits/digits.pt",
    "--arch",
    "examples/digits/net.py:build",
    "--data",
    "digits:part=test",
)
CODE = """
def rows(outputs, target):
    return outputs.mean(1)

def fails(outputs, target):
    raise KeyError("gone")
"""


@pytest.fixture(autouse=True)
def at_home(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "binary-cross-entropy"])
def test_a_loss_for_another_task(loss):
    done = run_command(*DIGITS, "--limit", "40", "--loss", loss)
    assert done.code == 1
    assert "internal error" not in done.stderr
    assert "cross-entropy" in done.stderr


@pytest.mark.parametrize(("name", "words"), [("rows", "not one number"), ("fails", "KeyError: 'gone'")])
def test_a_function_that_is_no_loss(tmp_path, name, words):
    (tmp_path / "mine.py").write_text(CODE)
    done = run_command(*DIGITS, "--limit", "40", "--loss", f"code:{tmp_path / 'mine.py'}:{name}")
    assert done.code in (1, 2)
    text = " ".join(done.stderr.split())
    assert words in text
    assert "internal error" not in text


def test_a_loss_that_fits():
    done = run_command(
        *DIGITS, "--limit", "40", "--loss", "code:torch.nn:CrossEntropyLoss:label_smoothing=0.1"
    )
    assert done.code == 0, done.stderr
