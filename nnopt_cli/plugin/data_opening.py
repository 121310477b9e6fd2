"""Open `--data` for a model: source, columns, split, task, loss and metrics, checked on a first batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.data import DataOptions, installed, losses, metrics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnopt_cli.data import Batch, Batches, Data, Source, Task
    from nnopt_cli.data.expected import Expected
    from nnopt_cli.data.opening import Wanted
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.kinds import Dataset, Loss, Metric
    from nnopt_cli.plugin.registry import Registry
    from nnopt_cli.run import Run

_LOOK = 4  # samples that go through the model before the first step


def open_data(
    options: DataOptions, run: Run, model: Model, module: nn.Module | None = None, training: bool = False
) -> Data:
    """See `DataOptions.open`."""
    from nnopt_cli.data import Data
    from nnopt_cli.data.expected import Expected
    from nnopt_cli.data.opening import class_names, held_out, opened, targets_of

    if options.data is None:
        raise UsageError("this needs data", "Add --data FILE (or --data digits to try it out).")
    if options.val is not None and options.val_split is not None:
        raise UsageError("--val and --val-split both say what metrics are taken on", "Give one of them.")
    model.require("module")
    module = model.module() if module is None else module
    expected = Expected.of(model, module)
    notes: list[str] = []
    source = opened_source(options.data, run)
    wanted = _wanted(options, run, expected, source)
    made = opened(source, expected, wanted, notes)
    if training and made.size == 1:
        raise NnoptError(f"{made.source.origin}: holds one sample, from which nothing can be learnt")
    task, expected = _checked(made, module, options, notes, training)
    made = replace(made, assembly=replace(made.assembly, task=task, expected=expected))
    val: Batches | None = None
    if options.val_split is not None:
        labels = targets_of(made)[0] if task.kind == "classification" else None
        single = labels is not None and labels.ndim == 1
        made, val = held_out(made, options.val_split, options.split_seed, labels if single else None)
    elif options.val is not None:
        other = opened_source(options.val, run)
        alone = replace(wanted, rows=None, limit=None)
        val = opened(other, expected, alone, notes, class_names(made))
        same, _ = _checked(val, module, options, notes, False)
        if same.kind != task.kind:
            raise NnoptError(f"--data is for {task.kind}, and --val for {same.kind}")
        val = replace(val, assembly=replace(val.assembly, task=task, expected=expected))
    for sentence in notes:
        run.note(sentence)
    registry = installed(run)
    gate, every = _gate(options.metric, registry, task)
    loss = options.loss or losses(registry, task.kind)
    if options.loss is not None:
        _try(options.loss, made, module, registry)
    return Data(made.training(), made, val, task, loss, gate, tuple(every))


def opened_source(dataset: Dataset, run: Run) -> Source:
    """What a dataset opens to, whatever form it has."""
    from nnopt_cli.data import as_source

    return as_source(dataset.open(run), dataset.spec())


def _wanted(options: DataOptions, run: Run, expected: Expected, source: Source) -> Wanted:
    from nnopt_cli.data import Table
    from nnopt_cli.data.augment import Augment, Normalize
    from nnopt_cli.data.opening import Wanted

    size = options.batch_size or expected.batch or 128
    if expected.batch and size != expected.batch:
        raise UsageError(
            f"--batch-size {size}: the model was made for batches of {expected.batch} only",
            "Leave it out, or export the model with a batch that may vary.",
        )
    workers = source.workers(run.threads) if isinstance(source, Table) else 0
    workers = workers if options.workers is None else options.workers
    crop = _size(options.crop)
    return Wanted(
        x=options.x,
        y=options.y,
        resize=_size(options.resize),
        crop=(crop[0], crop[-1]) if crop else None,
        normalize=Normalize.parse(options.normalize) if options.normalize else None,
        augment=Augment.parse(options.augment),
        rows=options.rows,
        limit=options.limit,
        seed=run.seed,
        split_seed=options.split_seed,
        batch_size=size,
        workers=workers,
        strict=options.strict,
    )


def _size(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x")) if text else ()


def _checked(
    made: Batches, module: nn.Module, options: DataOptions, notes: list[str], training: bool
) -> tuple[Task, Expected]:
    """The task, and what the model takes after a first small batch went through it.

    Raises NnoptError where they do not fit.
    """
    from nnopt_cli.data.opening import class_names, targets_of
    from nnopt_cli.data.task import Task, check_labels, class_count, empty_classes, find_task, is_one_hot

    origin = made.source.origin
    outputs, expected = first_answer(made, module, made.assembly.expected)
    targets, whole = targets_of(made)
    if targets is None:
        targets = made.first(min(_LOOK, made.batch_size)).target.cpu().numpy()
    kind = find_task(outputs, targets, None if options.task == "auto" else options.task, origin)
    names = class_names(made)
    if kind != "classification":
        values = int(outputs[0].numel())
        return Task(kind, values, names if len(names) == values else ()), expected
    hot = tuple(outputs.shape[1:]) == targets.shape[1:] and is_one_hot(targets)
    numbers = targets.argmax(1) if hot else targets
    classes = class_count(outputs, numbers)
    counts = check_labels(numbers, classes, names, origin)
    task = Task(kind, classes, names if len(names) <= classes else (), counts if whole else (), hot)
    if whole and (sentence := empty_classes(task)):
        if training and options.strict:
            raise NnoptError(f"{origin}: {sentence}", "Leave --strict out to go on without.")
        notes.append(sentence)
    return task, expected


def _try(loss: Loss, made: Batches, module: nn.Module, registry: Registry) -> None:
    """Take the loss of a few samples. Raises NnoptError where it does not go with outputs and targets."""
    import torch

    from nnopt_cli.data.evaluation import aligned
    from nnopt_cli.data.expected import shown
    from nnopt_cli.data.outputs import answer
    from nnopt_cli.model.arch import described

    expected, task = made.assembly.expected, made.assembly.task
    assert task is not None
    batch = expected.fed(made.first(min(_LOOK, made.batch_size)))
    with torch.inference_mode():
        outputs, target = aligned(answer(module, batch, expected.batch), batch.target, task)
        try:
            value = loss(outputs, target)
            if getattr(value, "shape", None) == ():
                return
            why = f"it gives {shown(value) if isinstance(value, torch.Tensor) else value!r}, not one number"
        except NnoptError as error:
            message = error.message.removeprefix(f"{loss.name}: ")
            raise NnoptError(f"--loss {loss.name}: {message}", error.hint) from error
        except Exception as error:  # PyTorch on shapes or types that do not fit, or the user's own code
            why = described(error)
    fitting = [cls.name for cls in registry.all("loss") if task.kind in getattr(cls, "tasks", ())]
    raise NnoptError(
        f"--loss {loss.name}: does not go with outputs {shown(outputs)} and targets {shown(target)}, for "
        f"{task.kind}: {why}",
        f"Losses for {task.kind}: {', '.join(fitting)}.",
    )


def first_answer(made: Batches, module: nn.Module, expected: Expected) -> tuple[Tensor, Expected]:
    """What the model makes of a first small batch, and what it takes, found on it.

    Raises NnoptError with what the model expects where it does not take the batch.
    """
    import torch

    from nnopt_cli.data.expected import shown
    from nnopt_cli.data.outputs import answer
    from nnopt_cli.model.arch import described

    batch = expected.fed(made.first(min(_LOOK, made.batch_size)))
    expected.check(batch.args, batch.kwargs)
    try:
        with torch.inference_mode():
            outputs = answer(module, batch, expected.batch)
    except NnoptError:
        raise
    except Exception as error:  # the user's own code, or PyTorch on a shape that does not fit
        inputs = [*(("", each) for each in batch.args), *batch.kwargs.items()]
        fed = ", ".join(f"{name}={shown(tensor)}" if name else shown(tensor) for name, tensor in inputs)
        raise NnoptError(
            f"the model does not take what the data give it ({fed}): {described(error)}",
            "--x names the columns that it is fed; --resize and --crop give images another size.",
        ) from error
    if any(tensor.dim() == 4 for tensor in (*batch.args, *batch.kwargs.values())):
        return outputs, _channels_last(batch, module, expected, outputs)
    return outputs, expected


def _channels_last(batch: Batch, module: nn.Module, expected: Expected, outputs: Tensor) -> Expected:
    """With channels last in memory, where the model computes the same on them: convolutions like that."""
    import torch

    from nnopt_cli.data.outputs import answer

    other = replace(expected, channels_last=True)
    try:
        with torch.inference_mode():
            again = answer(module, other.fed(batch), expected.batch)
    except RuntimeError:  # a `view` of what now lies in another order
        return expected
    scale = float(outputs.abs().max())
    same = again.shape == outputs.shape and float((again - outputs).abs().max()) <= 1e-2 * scale
    return other if same else expected


def _gate(chosen: Metric | None, registry: Registry, task: Task) -> tuple[Metric, list[Metric]]:
    every = metrics(registry, task)
    if chosen is not None:
        if chosen.detail:
            raise UsageError(
                f"--metric {chosen.name}: gives one figure for each class, and one has to decide",
                f"There are: {', '.join(metric.name for metric in every if not metric.detail)}.",
            )
        if not chosen.fits(task):
            fitting = ", ".join(metric.name for metric in every)
            raise UsageError(f"--metric {chosen.name}: is not for {task.kind}", f"There are: {fitting}.")
        return chosen, [chosen, *(metric for metric in every if metric.name != chosen.name)]
    if not every:
        raise NnoptError(f"no plugin provides a metric for {task.kind}", "Give one with --metric.")
    return every[0], every
