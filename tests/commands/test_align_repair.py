"""`--align` on networks without batch norm: units get the spread back that their average lost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnopt_cli.testing import run_command

torch.set_num_threads(1)
NET = """
from torch import nn

def build():
    parts = [nn.Flatten()]
    for _ in range(6):
        parts += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(64, 10))
"""


def trained(seed: int) -> nn.Module:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(seed)
    home: dict[str, object] = {}
    exec(NET, home)
    net = home["build"]()  # type: ignore[operator]
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(12):
        for rows in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net


def test_what_an_average_lost_comes_back(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    for seed in (1, 2):
        torch.save(trained(seed).state_dict(), f"{seed}.pt")
    data = ("--data", "digits:part=train", "--val", "digits:part=test")
    aligned = ("--arch", "net.py:build", "--input", "1x8x8", "--method", "linear", "--align", "weights")
    done = run_command("ensemble", "1.pt", "2.pt", *aligned, *data, "-o", "out.pt", "--json")
    assert done.code == 0, done.stderr
    note = next(note for note in done.json["notes"] if "responses repaired" in note)
    with_it, without = (float(word) for word in note.replace(",", " ").split() if word.startswith("0."))
    assert note.startswith("Units were given the mean and spread")
    assert with_it > without + 0.02
    plain = run_command("ensemble", "1.pt", "2.pt", *aligned, "-o", "plain.pt", "--json")
    assert plain.code == 0, plain.stderr
    shown = run_command(
        "evaluate", "plain.pt", "out.pt", "--arch", "net.py:build", *data[:1], "digits:part=test", "--json"
    )
    before, after = (model["metrics"]["accuracy"] for model in shown.json["models"])
    assert after > before
