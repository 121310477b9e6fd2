"""The content hash of a model's weights: the same for every container format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from nnopt_cli.formats.tally import Tally
    from nnopt_cli.model.model import Model
    from nnopt_cli.model.stats import Stats


def content_hash(model: Model, tallies: Mapping[str, Tally] | Mapping[str, Stats]) -> str:
    """blake3 over every tensor's name, dtype, shape and own blake3, under each name of tied ones."""
    return hash_of(model, {name: tally.blake3 for name, tally in tallies.items()})


def input_hash(model: Model) -> str:
    """The content hash of the weights as they were read, below all edits. Reads all of them."""
    import numpy as np

    digests = {}
    for name, weight in model.unique().items():
        origin, digest = weight.origin, blake3()
        for start, count in origin.spans():
            digest.update(origin.chunk(start, count, np.empty(count, origin.dtype.word)).data.cast("B"))
        digests[name] = digest.hexdigest()
    return hash_of(model, digests)


def hash_of(model: Model, digests: Mapping[str, str]) -> str:
    """The content hash from the blake3 of every tensor, by the first of its names."""
    digest = blake3()
    known = {id(model.weights[name]): own for name, own in digests.items()}
    for name in sorted(model.weights):  # tied or stored twice, it is the same under each of its names
        weight = model.weights[name]
        own = known[id(weight)]
        digest.update(f"{name}\t{weight.dtype}\t{list(weight.shape)}\t{own}\n".encode())
    return digest.hexdigest()
