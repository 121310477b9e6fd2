"""Several models as one: every tensor merged from the members' when it is read or saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.weight import Array, Weight
from nnopt_cli.model.blend import BlendedWeight, Corresponding, Merge, PickedWeight, same
from nnopt_cli.model.hashing import hash_of, input_hash

if TYPE_CHECKING:
    from nnopt_cli.formats.tally import Tally
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

_UNKNOWN = "0" * 64
_RULES = {"max": "the largest value", "first": "the first member's value"}


def blended(
    method: Merge,
    models: Sequence[Model],
    *,
    weights: Callable[[str], tuple[float, ...] | None],
    base: Model | None,
    integers: Literal["max", "first", "error"],
    run: Run,
) -> Model:
    """The first model with every tensor merged; nothing is read yet.

    Args:
        method: how floating and complex tensors are merged.
        models: members of the same names, shapes and types.
        weights: how much each member counts in a tensor of that name.
        base: the ancestor, where values are differences from it.
        integers: what an element of an integer tensor becomes where members differ.
        run: its seed; where integers differ, it is noted when they are read.
    """
    everyone = (*models, *([base] if base else []))
    pick = _picking(integers, run, len(models))
    siblings: list[Corresponding] = []
    new: dict[tuple[int, ...], Weight] = {}
    out: dict[str, Weight] = {}
    for name in models[0].weights:
        theirs = [model.weights[name] for model in everyone]
        key = tuple(map(id, theirs))  # names are tied where they are in all members
        if key not in new and theirs[0].dtype.kind in ("float", "complex"):
            own = tuple(theirs[: len(models)])
            ancestor = theirs[-1] if base else None
            shape = theirs[0].shape
            tensor = Corresponding(name, len(new), shape, own, weights(name), ancestor, run.seed, siblings)
            siblings.append(tensor)
            new[key] = BlendedWeight(tensor, method)
        elif key not in new:
            new[key] = PickedWeight(name, theirs, pick)
        out[name] = new[key]
    return replace(models[0], weights=out)


def _picking(integers: str, run: Run, members: int) -> Callable[[str, list[Array]], Array]:
    def pick(name: str, words: list[Array]) -> Array:
        words = words[:members]  # without the base's
        if same(words):
            return words[0]
        if integers == "error":
            raise NnoptError(
                f"{name}: its integers differ between members, and --integers error forbids that",
                "Use --integers max or --integers first.",
            )
        kind = name.rpartition(".")[2]
        run.note(f"Members differ in integers ({kind}): each is {_RULES[integers]} (--integers {integers}).")
        return words[0] if integers == "first" else np.maximum.reduce(words)

    return pick


def sources(fused: Model, models: Sequence[Model], tallies: Mapping[str, Tally]) -> list[dict[str, str]]:
    """The record of each of `models` (members, and the base): its name and the hash of its weights.

    Hashes were taken while the tensors streamed; a model whose tensors did not all do so is read again.
    """
    blank = all(tally.blake3 == _UNKNOWN for tally in tallies.values())
    found = []
    for model in models:
        digest = _UNKNOWN if blank else _streamed(fused, model, tallies) or input_hash(model)
        found.append({"path": model.path.name, "blake3": digest})
    return found


def _streamed(fused: Model, model: Model, tallies: Mapping[str, Tally]) -> str | None:
    first = {id(weight): name for name, weight in reversed(list(fused.weights.items()))}
    digests: dict[str, str] = {}
    for name, own in model.unique().items():
        weight = fused.weights.get(name)
        tally = tallies.get(first.get(id(weight), ""))
        if tally is None or not isinstance(weight, (BlendedWeight, PickedWeight)):
            return None
        place = next((i for i, part in enumerate(weight.parts) if part is own), None)
        if place is None or own.origin is not own:  # what streamed was not this tensor as it was read
            return None
        digests[name] = (tally.blake3, *tally.parts)[place]
    return hash_of(model, digests)
