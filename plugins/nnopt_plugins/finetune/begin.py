"""From a model and options to a network that is ready for its first step, and data that fit it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nnopt_cli import NnoptError
from nnopt_plugins.finetune import start
from nnopt_plugins.finetune.masks import Masks

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli import Model, Run
    from nnopt_cli.data import Batches, Data
    from nnopt_cli.graph import Layer
    from nnopt_plugins.finetune.passes import Finetune


@dataclass(frozen=True)
class Begun:
    """The network before its first step.

    Attributes:
        module: on the device, in evaluation mode.
        layers: its parameters.
        masks: which weights stay zero.
    """

    module: nn.Module
    layers: list[Layer]
    masks: Masks


def network(model: Model, run: Run) -> nn.Module:
    """The network on the CPU, in 32 bits where nothing but its weights says that they are fewer."""
    import torch

    module = model.trainable()
    short = {p.dtype for p in module.parameters()} & {torch.float16, torch.bfloat16}
    if short and model.inputs is None:
        module = module.float()
        run.note("Trained in 32 bits, and written in the model's own 16.")
    return module


def test_rows(method: Finetune, model: Model, module: nn.Module, run: Run) -> Batches | None:
    """What `--test` names."""
    if method.test is None:
        return None
    other = method.model_copy(update={"val": method.test, "val_split": None})
    return other.open(run, model, module=module).val


def laid_out(method: Finetune, data: Data, test: Batches | None) -> tuple[Data, Batches | None]:
    """With or without channels last, where that was said; and no last batch that norms cannot take."""
    expected = data.train.assembly.expected
    last = expected.channels_last if method.channels_last is None else method.channels_last

    def changed(batches: Batches | None) -> Batches | None:
        if batches is None:
            return None
        as_said = replace(batches.assembly.expected, channels_last=last)
        return replace(batches, assembly=replace(batches.assembly, expected=as_said))

    train, plain = changed(data.train), changed(data.plain)
    assert train is not None
    assert plain is not None
    size = data.train.size or 0
    odd = size % expected.batch if expected.batch is not None else size % data.train.batch_size == 1
    train = replace(train, drop_last=bool(odd) and size > data.train.batch_size)
    return replace(data, train=train, plain=plain, val=changed(data.val)), changed(test)


def begin(method: Finetune, model: Model, module: nn.Module, data: Data, run: Run) -> Begun:
    """On the device, its zeros noted, drawn anew or rewound where that was asked for.

    Raises NnoptError: nothing can be trained, or a weight is no number.
    """
    import torch

    from nnopt_cli.graph import layers_of

    if run.device != "cpu":
        module = model.trainable(run.device) if model.arch is None else module.to(run.device)
    flat = method.optimizer.closure  # LBFGS sees all weights as one vector, in their usual order
    if data.train.assembly.expected.channels_last and not flat:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    program = model.program() if model.arch is None else None
    coupled = any(getattr(each, "needs_channels", False) for each in method.regularizer)
    layers = layers_of(module, program, coupled)
    if not layers:
        raise NnoptError(
            f"{model.path}: there is nothing to train: none of its parameters asks for a gradient",
            "Build the network without `requires_grad_(False)`.",
        )
    fresh = not model.container.files
    masks = Masks(layers if method.keep_zeros and not fresh else [])
    drawn = start.initialise(layers, method.init, start.parse_reinit(method.reinit, run), run.seed)
    if method.init is not None:
        start.reset_statistics(module)
    if method.rewind is not None:
        start.rewind(module, model, method.rewind)
    if drawn and not fresh:
        run.note(f"Drawn anew before training: {len(drawn)} of {len(layers)} parameters.")
    masks.apply()
    _require_finite(layers, model)
    for regularizer in method.regularizer:
        regularizer.prepare(module)
    return Begun(module, layers, masks)


def _require_finite(layers: list[Layer], model: Model) -> None:
    bad = next((layer.name for layer in layers if not bool(layer.parameter.isfinite().all())), None)
    if bad is not None:
        raise NnoptError(
            f"{model.path}: {bad} holds NaN or infinite weights, from which nothing can be learnt",
            f"Draw them anew: --reinit '{bad}=he-normal', or use another checkpoint.",
        )
