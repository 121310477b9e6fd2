"""What a training came to: facts for the record, sentences for the summary, errors that say what to try."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nnopt_cli import NnoptError, save
from nnopt_plugins.finetune.judge import figures

if TYPE_CHECKING:
    from nnopt_cli import Model, Run
    from nnopt_cli.data import Data
    from nnopt_plugins.finetune.judge import Sides
    from nnopt_plugins.finetune.loop import DivergedError, Trainer
    from nnopt_plugins.finetune.passes import Finetune

_DIVERGED = 2.0  # times the loss before training: no fluctuation


def report(method: Finetune, model: Model, trainer: Trainer, run: Run) -> None:
    """Measure the result, and leave all figures in `run`."""
    data, sides, device = trainer.data, trainer.sides, trainer.stepper.device
    after = figures(trainer.module, sides.reported, data, device)
    sample = after if sides.sample is sides.reported else figures(trainer.module, sides.sample, data, device)
    name, history = data.gate.name, trainer.history
    run.facts["training"] = {
        "epochs": history.epochs,
        "losses": history.curve(),
        "steps": trainer.step,
        "samples": history.seen,
        "metric_name": name,
        "larger_is_better": data.gate.larger_is_better,
        "dense": dense_figure(model, name),
        "before": trainer.before["metric"],
        "after": after.metrics[name],
        "train": sample.metrics[name],
        "loss": [trainer.before["loss"], after.loss],
        "reported_on": sides.said,
        "reported_samples": after.samples,
        "chosen_on": (sides.watched.size or 0) if sides.watched is not None and sides.chooses else 0,
        "best_epoch": trainer.best.epoch if sides.chooses else None,
        "kept": trainer.keep,
        "stopped": trainer.stopped,
        "zeros_kept": trainer.stepper.masks.kept,
        "gradients": trainer.gradients.rows(),
    }
    run.timings["samples_per_second"] = trainer.timed / trainer.seconds if trainer.seconds else 0.0
    for remark in trainer.gradients.remarks():
        run.note(remark)
    if sides.chooses and trainer.best.epoch == 0 and trainer.keep == "best":
        run.note(f"No epoch was better than the start by {name}: the weights are those from before training.")
    gain = after.metrics[name] - trainer.before["metric"]
    worse = gain < 0 if data.gate.larger_is_better else gain > 0
    if worse and method.init is None:
        run.note(f"Training made it worse by {name}. Try a smaller --lr, or more data.")
    elif after.loss > _DIVERGED * abs(trainer.before["loss"]) + 1:
        run.note(
            f"The loss went up from {trainer.before['loss']:.3g} to {after.loss:.3g}. Try a smaller --lr."
        )
    if data.val is None and sides.said == "training rows":
        run.note("Without --val or --test, figures are of rows that were trained on, and look too good.")
    if not math.isfinite(after.loss):
        run.note(f"The loss on {sides.said} is {after.loss}: look for NaN and huge values in them.")
    if method.val is not None and method.val == method.data:
        run.note("--val is the data that was trained on: its figures look too good.")
    for sentence in _left_out(data, sides, run):
        run.note(sentence)


def _left_out(data: Data, sides: Sides, run: Run) -> list[str]:
    """Of each set of data, the images that could not be read; with -v all of them by name."""
    parts = [data.train, *([] if data.val is None else [data.val])]
    if all(sides.reported.skipped is not each.skipped for each in parts):
        parts.append(sides.reported)  # what --test names
    most = {"most": 1 << 30} if run.verbose > 0 else {}
    out = []
    for skipped in {id(each.skipped): each.skipped for each in parts}.values():
        sizes = [each.size for each in parts if each.skipped is skipped]  # of one source, if it was split
        total = None if None in sizes else sum(size or 0 for size in sizes)
        out.append(skipped.note(total, **most))
    return [sentence for sentence in out if sentence]


def dense_figure(model: Model, name: str) -> float | None:
    """The metric before pruning, if the model's record has it: it is a claim of the file."""
    results = model.provenance.results
    shrunk: Any = results.get("shrunk")
    earlier: Any = results.get("training")
    try:
        if isinstance(shrunk, dict) and shrunk.get("metric_name") == name and shrunk.get("metric"):
            return float(shrunk["metric"][0])
        if isinstance(earlier, dict) and earlier.get("metric_name") == name:
            return None if earlier.get("dense") is None else float(earlier["dense"])
    except (TypeError, ValueError, IndexError, KeyError):
        pass
    return None


def diverged(method: Finetune, model: Model, trainer: Trainer, error: DivergedError, run: Run) -> NnoptError:
    """The error for a loss that is no number; the last good weights are saved beside the output."""
    rate = trainer.stepper.lr
    hint = [f"Try --lr {rate / 10:.2g}, --warmup 5%, or --clip 1."]
    if trainer.stepper.precision != "fp32":
        hint.append("Or --precision fp32.")
    if not math.isfinite(trainer.before["loss"]):
        hint = ["It was no number before the first step either: look for NaN and huge values in the data."]
    good = trainer.best.tensors if trainer.keep == "best" and trainer.best.epoch else trainer.good
    if good is None:
        return NnoptError(f"{error.message}; the model is as it was", " ".join(hint))
    kept = trainer.best.epoch if good is trainer.best.tensors else trainer.epoch
    trainer.put(good)
    trainer.stepper.masks.settle()
    if run.output is None:
        return NnoptError(f"{error.message}; epoch {kept} was the last good one", " ".join(hint))
    path = run.output.with_name(f"{run.output.stem}.last-good{run.output.suffix}")
    save(model.trained(trainer.module), path, run=run, force=True)
    return NnoptError(f"{error.message}; the weights after epoch {kept} are kept in {path}", " ".join(hint))
