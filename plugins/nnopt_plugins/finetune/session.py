"""One run of `finetune`: put the parts together, train, and report."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnopt_cli import UsageError
from nnopt_plugins.finetune.average import Average
from nnopt_plugins.finetune.begin import Begun, begin, laid_out, network, test_rows
from nnopt_plugins.finetune.checkpoint import digest, read
from nnopt_plugins.finetune.interrupt import Interruption
from nnopt_plugins.finetune.judge import Sides, sides
from nnopt_plugins.finetune.live import Live
from nnopt_plugins.finetune.loop import DivergedError, Trainer
from nnopt_plugins.finetune.outcome import diverged, report
from nnopt_plugins.finetune.rates import Rates
from nnopt_plugins.finetune.saving import Saving
from nnopt_plugins.finetune.spans import warmup_steps
from nnopt_plugins.finetune.step import Stepper, compiled
from nnopt_plugins.finetune.teachers import Teachers, open_teachers

if TYPE_CHECKING:
    from nnopt_cli import Model, Run
    from nnopt_cli.data import Data
    from nnopt_plugins.finetune.passes import Finetune


def train(method: Finetune, model: Model, run: Run) -> Model:
    """The model, trained as `method` says.

    Raises:
        NnoptError: data, model and options do not fit, or the loss is no number any more.
        KeyboardInterrupt: after a checkpoint was saved.
    """
    import torch

    _check(method, model, run)
    threads = torch.get_num_threads()
    torch.set_num_threads(run.threads)
    devices = [run.device] if run.device.startswith("cuda") else []
    try:
        with torch.random.fork_rng(devices=devices), _own_randomness(run.seed):
            return _train(method, model, run)
    finally:
        torch.set_num_threads(threads)


def _check(method: Finetune, model: Model, run: Run) -> None:
    """Raise UsageError for options that contradict each other."""
    processes = os.environ.get("WORLD_SIZE", "1")  # set by torchrun and `accelerate launch`
    if processes.isdigit() and int(processes) > 1:
        raise UsageError(
            f"training runs in one process, and {processes} were launched: each would do all of it",
            "Launch one, as --num_processes 1; --threads says how many cores it uses.",
        )
    if not model.container.files and method.init is None:
        raise UsageError("there is no model file", "Name one, or add --init he-normal to begin from scratch.")
    if method.init is not None and method.rewind is not None:
        raise UsageError("--init and --rewind both say what training starts from", "Give one of them.")
    if method.patience is not None and method.val is None and method.val_split is None:
        raise UsageError("--patience goes by the validation metric", "Add --val DATA or --val-split 0.1.")
    if method.precision == "fp16" and not run.device.startswith("cuda"):
        raise UsageError("--precision fp16 needs a GPU", "Use bf16, or fp32.")
    idle = method.model_fields_set & {"temperature", "teacher_weight"}
    if idle and not method.teacher:
        flag = min(idle).replace("_", "-")
        raise UsageError(f"--{flag} is about teachers, and there are none", "Add --teacher MODEL.")
    if method.optimizer.full_batch and method.accumulate > 1:
        raise UsageError(f"the optimizer {method.optimizer.name!r} takes all the data in each step already")
    given = method.optimizer.lr
    if method.lr is not None and "lr" in method.optimizer.model_fields_set and method.lr != given:
        raise UsageError(f"--lr is {method.lr}, and --optimizer says {given}", "Give one of them.")


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Every generator that training may draw from, seeded; as they were afterwards."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _train(method: Finetune, model: Model, run: Run) -> Model:
    module = network(model, run)
    data = method.open(run, model, module=module, training=True)
    data, test = laid_out(method, data, test_rows(method, model, module, run))
    begun = begin(method, model, module, data, run)
    forced = method.keep == "best" or method.patience is not None or method.schedule.on_metric
    if method.schedule.on_metric and data.val is None:
        raise UsageError(
            f"--schedule {method.schedule.name} goes by the validation metric",
            "Add --val DATA or --val-split 0.1.",
        )
    chooses = forced or method.keep is None
    parts = sides(data, test, chooses, forced, method.split_seed)
    trainer = _trainer(method, model, begun, data, parts, run)
    settings = {**method.table(), "seed": run.seed, "weights": digest(begun.module), "rows": data.train.size}
    with Interruption(run) as interruption, trainer.live:
        saving = Saving(method, run, settings, interruption)
        trainer.pause = saving
        if method.resume is not None:
            trainer.load(read(method.resume, settings, run))
        try:
            trainer.run()
        except DivergedError as error:
            raise diverged(method, model, trainer, error, run) from None
        saving.finish(trainer)
    report(method, model, trainer, run)
    return model.trained(begun.module)


def _trainer(method: Finetune, model: Model, begun: Begun, data: Data, parts: Sides, run: Run) -> Trainer:
    stepper = Stepper(
        module=begun.module,
        call=compiled(begun.module) if method.compile else begun.module,
        layers=begun.layers,
        data=data,
        optimizer=method.optimizer,
        lr=method.optimizer.lr if method.lr is None else method.lr,
        regularizers=method.regularizer,
        teachers=_teachers(method, model, begun, data, run),
        masks=begun.masks,
        clip=method.clip,
        precision=method.precision,
        device=run.device,
    )
    per_epoch = _steps(method, data)
    total = per_epoch * method.epochs
    return Trainer(
        stepper=stepper,
        data=data,
        sides=parts,
        rates=Rates(
            stepper.lr, method.schedule, total, per_epoch, warmup_steps(method.warmup, total, per_epoch)
        ),
        epochs=method.epochs,
        accumulate=method.accumulate,
        average=None if method.ema is None else Average(begun.module, method.ema),
        patience=method.patience,
        keep="best" if parts.chooses and method.keep != "last" else "last",
        live=Live(run, method.epochs, total),
        pause=lambda trainer: None,
    )


def _steps(method: Finetune, data: Data) -> int:
    """Optimizer steps of an epoch. Raises UsageError where nobody knows how long it is."""
    if method.optimizer.full_batch:
        return 1
    count = data.train.count
    if count is None and data.train.limit is not None:
        count = -(-data.train.limit // data.train.batch_size)
    if count is None:
        raise UsageError(
            f"{data.train.source.origin}: is a stream, and nobody knows how many samples an epoch has",
            "Say with --limit how many samples make one.",
        )
    return max(1, -(-count // method.accumulate))


def _teachers(method: Finetune, model: Model, begun: Begun, data: Data, run: Run) -> Teachers | None:
    if not method.teacher:
        return None
    import torch

    from nnopt_cli.data import answer

    look = data.plain.first(min(4, data.plain.batch_size))
    with torch.no_grad():
        cpu = begun.module if run.device == "cpu" else network(model, run)
        outputs = answer(cpu, look, data.plain.assembly.expected.batch)
    modules = open_teachers(method.teacher, model, data, outputs, run.device)
    return Teachers(modules, data.task, method.temperature, method.teacher_weight)
