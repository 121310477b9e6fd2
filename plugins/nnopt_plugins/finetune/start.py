"""What training starts from: initial values, other weights, masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli import NnoptError, UsageError, load, match

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli import Initializer, Model, Run
    from nnopt_cli.graph import Layer


def initialise(
    layers: Sequence[Layer],
    everything: Initializer | None,
    chosen: Sequence[tuple[str, Initializer]],
    seed: int,
) -> list[str]:
    """Draw weights anew, in place; the names of the tensors that were.

    Args:
        layers: the parameters.
        everything: for all of them: weights by it, the gains of norms 1, biases 0.
        chosen: pattern and rule, for weights and biases that match; later ones count.
        seed: of the draws, each tensor by its own place.

    Raises UsageError: a pattern matches nothing, or a rule says nothing about what it matches.
    """
    import torch

    rules: dict[str, Initializer] = {}
    names = [layer.name for layer in layers]
    if everything is not None:
        rules.update(dict.fromkeys(names, everything))
    for pattern, rule in chosen:
        rules.update(dict.fromkeys(match(names, pattern), rule))
    with torch.no_grad():
        for place, layer in enumerate(layers):
            if layer.name not in rules:
                continue
            if layer.kind == "norm":
                layer.parameter.fill_(1.0)
            elif layer.kind == "bias":
                layer.parameter.zero_()
            elif not layer.is_weight:
                del rules[layer.name]  # the sizes of weight norm, scales of layers: as the network was built
            else:
                generator = torch.Generator().manual_seed((seed << 20) + place)
                rules[layer.name].fill(layer.parameter, generator)
    return [name for name in names if name in rules]


def reset_statistics(module: nn.Module) -> None:
    """Forget what norms recorded: mean 0, variance 1."""
    import torch

    with torch.no_grad():
        for name, value in module.named_buffers():
            leaf = name.rpartition(".")[2]
            if leaf in ("running_mean", "num_batches_tracked"):
                value.zero_()
            elif leaf == "running_var":
                value.fill_(1)


def rewind(module: nn.Module, model: Model, path: Path) -> int:
    """Put the weights of another checkpoint of the same network in place (Frankle and Carbin 2019).

    Returns how many tensors. Raises NnoptError where names or shapes differ.
    """
    import torch

    source = load(path)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found = {name: source.weights[name] for name in tensors if name in source.weights}
    learnt = [name for name, _ in module.named_parameters() if name not in found]
    if learnt:
        raise NnoptError(
            f"--rewind {path}: has no {learnt[0]}" + (f" and {len(learnt) - 1} more" if learnt[1:] else ""),
            f"Give a checkpoint of the network in {model.path}, from earlier in its training.",
        )
    for name, weight in found.items():
        if weight.shape != tuple(tensors[name].shape):
            raise NnoptError(
                f"--rewind {path}: {name} is {list(weight.shape)} there and {list(tensors[name].shape)} here",
                "Weights can be rewound where they were set to zero, not where channels were cut out.",
            )
    with torch.no_grad():
        for name, weight in found.items():
            tensors[name].copy_(weight.torch())
    return len(found)


def parse_reinit(texts: Sequence[str], run: Run) -> list[tuple[str, Initializer]]:
    """`PATTERN=INITIALIZER` each. Raises UsageError."""
    out = []
    for text in texts:
        pattern, equals, spec = text.partition("=")
        if not equals or not pattern or not spec:
            raise UsageError(
                f"--reinit {text!r}: is not PATTERN=INITIALIZER", "For example 'fc.*=he-normal'."
            )
        out.append((pattern, _initializer(spec, run)))
    return out


def _initializer(spec: str, run: Run) -> Initializer:
    from nnopt_cli import Initializer, UsageError

    if run.registry is None:
        raise UsageError("--reinit: no components are loaded", "Pass a Run with a registry.")
    names = run.registry.names("initializer")
    head, colon, rest = spec.partition(":")
    head = head.replace("_", "-") if head not in names else head
    made = run.registry.build("initializer", head + colon + rest, allow_code=True)
    assert isinstance(made, Initializer)
    return made
