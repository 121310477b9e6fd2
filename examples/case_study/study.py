"""Overfit, prune, fine-tune, fuse, export: what each step does to test accuracy, over several seeds.

Run it from the project's root; it takes some minutes on two cores:

python examples/case_study/study.py            # writes case_study/ with models, reports and figures.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from nnopt_cli.testing import run_command

HERE = Path(__file__).parent
TEST = "digits:part=test"


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
    """The figures of one training; `epochs` is when its loss first came within 10% of its lowest."""
    trained = run["record"]["training"]
    losses = [epoch["loss"] for epoch in trained["epochs"]]
    low = min(losses)
    return {
        **run["variables"],
        "parameters": run["record"]["after"]["parameters"],
        "test": trained["after"],
        "train": trained["train"],
        "gap": trained["train"] - trained["after"],
        "epochs": next(n for n, loss in enumerate(losses, 1) if loss <= 1.1 * low),
    }


def fused(folder: Path, seed: int, optimizers: list[str]) -> dict[str, Any]:
    """One network of all fine-tuned ones of a seed, which share an ancestor, and its figures."""
    members = [folder / f"slim-{seed}-{name}.pt2" for name in optimizers]
    out = folder / f"fused-{seed}.pt2"
    nnopt("ensemble", *members, "--method", "mean", "--share-trunk", "1", "-o", out, "--force")
    found = nnopt("evaluate", out, *members, "--data", TEST)["models"]
    nnopt("export", out, "-o", out.with_suffix(".onnx"), "--force")
    scores = [each["metrics"]["accuracy"] for each in found]
    return {
        "seed": seed,
        "parameters": found[0]["parameters"],
        "test": scores[0],
        "mean member": statistics.mean(scores[1:]),
        "best member": max(scores[1:]),
    }


def said(name: str, rows: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    """Mean and standard deviation over seeds."""
    cells = []
    for key in keys:
        values = [each[key] for each in rows if key in each]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        digits = 4 if values and max(values) <= 1 else 1
        cells.append(f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}" if values else "")
    return f"{name:22}" + "".join(f"{cell:>20}" for cell in cells)


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("case_study"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs=2, default=(40, 20), help="of training and fine-tuning")
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "momentum", "adagrad", "rmsprop", "adam"])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    seeds = list(range(given.seeds))
    dense = [row(run) for run in recipe("overfit", given.folder, seed=seeds, epochs=given.epochs[0])]
    slim = [
        row(run)
        for run in recipe(
            "slim", given.folder, seed=seeds, optimizer=given.optimizers, epochs=given.epochs[1]
        )
    ]
    one = [fused(given.folder, seed, given.optimizers) for seed in seeds]
    keys = ("test", "gap", "epochs", "parameters")
    print(f"{'over ' + str(len(seeds)) + ' seeds':22}" + "".join(f"{key:>20}" for key in keys))
    print(said("overfitting", dense, keys))
    for name in given.optimizers:
        print(said(f"pruned, {name}", [each for each in slim if each["optimizer"] == name], keys))
    print(said("fused", one, keys))
    figures = {"dense": dense, "slim": slim, "fused": one}
    (given.folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
