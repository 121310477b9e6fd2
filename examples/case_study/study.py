"""Overfit, prune, fine-tune, fuse, export: what each step does to test accuracy, over several seeds.

Run it from the project's root; it takes a minute and a half of one core:

python examples/case_study/study.py            # writes case_study/ with models, reports and figures.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from nnopt_cli.testing import run_command

HERE = Path(__file__).parent
TEST = "digits:part=test"
CONVERGED = 0.5  # training loss, of pairs that are mixed


def nnopt(*args: object) -> Any:
    """Run a command, and return the document that it prints."""
    done = run_command(*args, "--json")
    if done.code:
        raise SystemExit(done.stderr)
    return done.json


def recipe(name: str, folder: Path, **variables: object) -> list[Any]:
    """Run a recipe of this folder over its lists, with a report."""
    settings = [
        f"--set={key}={json.dumps(value)}" for key, value in {"folder": str(folder), **variables}.items()
    ]
    page = folder / f"{name}.html"
    return list(nnopt("run", HERE / f"{name}.yaml", *settings, "--force", "--report", page)["runs"])


def row(run: Any) -> dict[str, Any]:
    """The figures of one training; `epochs` is the first whose loss is under `CONVERGED`, if any is."""
    if run["error"]:
        raise SystemExit(run["error"])
    trained = run["record"]["training"]
    losses = [epoch["loss"] for epoch in trained["epochs"]]
    reached = next((n for n, loss in enumerate(losses, 1) if loss <= CONVERGED), None)
    return {
        **run["variables"],
        "parameters": run["record"]["after"]["parameters"],
        "test": trained["after"],
        "train": trained["train"],
        "gap": trained["train"] - trained["after"],
        "before": trained["before"],
        "loss": losses[-1],
        **({"epochs": reached} if reached else {}),
    }


def fused(folder: Path, seed: int, optimizers: list[str]) -> dict[str, Any]:
    """One network of several fine-tuned ones of a seed, which share an ancestor, as ONNX too; its figures."""
    members = [folder / f"slim-{seed}-{name}.pt2" for name in optimizers]
    out = folder / f"fused-{seed}.pt2"
    nnopt("ensemble", *members, "--method", "mean", "--share-trunk", "1", "-o", out, "--force")
    found = nnopt("evaluate", out, *members, "--data", TEST)["models"]
    exported = nnopt("export", out, "-o", out.with_suffix(".onnx"), "--data", TEST, "--force")
    scores = [each["metrics"]["accuracy"] for each in found]
    return {
        "seed": seed,
        "parameters": found[0]["parameters"],
        "test": scores[0],
        "mean member": statistics.mean(scores[1:]),
        "best member": max(scores[1:]),
        "gain": scores[0] - statistics.mean(scores[1:]),
        "onnx": exported["metric"]["after"],
        "difference": exported["parity"]["difference"],
    }


def said(name: str, rows: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    """Mean and standard deviation over seeds; of `epochs` also how many of them got there, if not all."""
    cells = []
    for key in keys:
        values = [each[key] for each in rows if key in each]
        if not values:
            cells.append("never" if key == "epochs" and "loss" in rows[0] else "")
        elif key == "parameters":
            cells.append(f"{statistics.mean(values):,.0f}")
        else:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            digits = 1 if key == "epochs" else 4
            some = f" ({len(values)} of {len(rows)})" if len(values) < len(rows) else ""
            cells.append(f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}{some}")
    return f"{name:26}" + "".join(f"{cell:>20}" for cell in cells)


def table(figures: dict[str, list[dict[str, Any]]], optimizers: list[str], seeds: int) -> None:
    """Print what the steps did, and which of them did not help."""
    dense, slim, control, one = (figures[name] for name in ("dense", "slim", "control", "fused"))
    keys = ("test", "gap", "epochs", "parameters")
    print(f"{f'over {seeds} seeds':26}" + "".join(f"{key:>20}" for key in keys))
    print(said("overfitting", dense, keys))
    raw = [
        {"test": each["before"], "parameters": each["parameters"]}
        for each in slim
        if each["optimizer"] == optimizers[0]  # before training they are all alike
    ]
    print(said("pruned, not yet trained", raw, keys))
    for name in optimizers:
        print(said(f"pruned, {name}", [each for each in slim if each["optimizer"] == name], keys))
    print(said("not pruned, adam", control, keys))
    print(said("fused", one, keys))
    print(said("  its members' mean", [{"test": each["mean member"]} for each in one], keys))
    print(said("  its best member", [{"test": each["best member"]} for each in one], keys))
    print(said("  as an ONNX file", [{"test": each["onnx"]} for each in one], keys))


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("case_study"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs=2, default=(40, 60), help="of training and fine-tuning")
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "momentum", "adagrad", "rmsprop", "adam"])
    parser.add_argument(
        "--fuse", nargs="+", default=["adagrad", "rmsprop", "adam"], help="two or more of them"
    )
    given = parser.parse_args()
    if len(given.fuse) < 2 or not set(given.fuse) <= set(given.optimizers):
        parser.error("--fuse takes two or more of --optimizers")
    given.folder.mkdir(parents=True, exist_ok=True)
    seeds, (first, second) = list(range(given.seeds)), given.epochs
    study = partial(recipe, folder=given.folder, seed=seeds)
    figures = {
        "dense": [row(run) for run in study("overfit", epochs=first)],
        "slim": [row(run) for run in study("slim", epochs=second, optimizer=given.optimizers)],
        "control": [row(run) for run in study("control", epochs=second)],
        "fused": [fused(given.folder, seed, given.fuse) for seed in seeds],
    }
    (given.folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    table(figures, given.optimizers, given.seeds)


if __name__ == "__main__":
    main()
