"""Which tensors count as prunable weights, by dtype, dimensions and name; globs over names.

Bare weights do not say what a tensor is for, so this is a rule about names. It looks at the
parameter's own name and at the module that owns it, word by word (`ln_f.weight` is a norm,
`linear.weight` is not; `patch_embed.proj.weight` is a convolution, `pos_embed` is a table).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING

from nnopt_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nnopt_cli.formats.weight import Weight
    from nnopt_cli.model.model import Model

PRUNABLE_USES = frozenset({"convolution", "linear map", "recurrent layer"})  # as `nnopt_cli.graph.usage` says
RULE = (
    "Prunable by name and shape, as there is no graph: 16-, 32- and 64-bit floating tensors of two or more "
    "dimensions that are not embeddings, norms, biases or masks."
)

GRAPH_RULE = (
    "Prunable by the graph: 16-, 32- and 64-bit floating weights of two or more dimensions of convolutions, "
    "linear maps and recurrent layers, unless they are looked up as an embedding too."
)

_EMBEDDING = {"embed", "embeds", "embedding", "embeddings", "embedder", "emb", "wte", "wpe"}
_TABLE = {"token", "tokens", "pos", "position", "positions", "positional", "pe"}  # in a parameter's own name
_MAP = {"proj", "projection", "patch", "conv", "linear", "fc", "mlp", "dense", "out", "mapping", "head"}
_NORM = {"ln", "bn", "gn", "norms"}  # and every word that ends in `norm`
_GAIN = {"gamma", "g", "scale"}  # per-channel factors, also where stored with dimensions of size one
_PLAIN = {"weight", "weights", "w", "kernel", "original", "table"}  # names that say nothing: ask the owner


@dataclass(frozen=True)
class Selection:
    """What a pass may change, and what it may not.

    Attributes:
        names: first names of the unique weights that are prunable, in the model's order.
        left_out: why, for the first name of every other weight.
        rule: the rule in one sentence.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, str]
    rule: str


def select(model: Model, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Selection:
    """Choose the prunable weights of `model`.

    Args:
        model: its tensors' names, shapes and dtypes are looked at, never their data.
        include: globs; if any, only tensors that one of them matches are chosen. An exact name (no
            wildcard) also overrides the rule about names, not the one about dtype and dimensions.
        exclude: globs; tensors that one of them matches are left out.

    A tied weight is matched by any of its names, and left out if any of them is an embedding's. Where the
    model has a graph, what the graph does with a weight decides in place of names.

    Raises:
        UsageError: a glob matches no tensor at all; the hint names close ones.
    """
    included = {glob: set(match(model.weights, glob)) for glob in include}
    excluded = {glob: set(match(model.weights, glob)) for glob in exclude}
    aliases: dict[int, list[str]] = {}
    for name, weight in model.weights.items():
        aliases.setdefault(id(weight), []).append(name)
    chosen: list[str] = []
    left_out: dict[str, str] = {}
    uses = model.graph.uses(model.weights) if model.graph else None
    for names in aliases.values():
        reason = _unfit(model.weights[names[0]])
        if not reason and not any(name in included for name in names):
            rank = len(model.weights[names[0]].shape)
            reason = _by_name(names, rank) if uses is None else _by_use(names, uses)
        if not reason and include and not _hit(names, included):
            reason = "not included"
        if not reason and (glob := _hit(names, excluded)):
            reason = f"excluded by {glob!r}"
        if reason:
            left_out[names[0]] = reason
        else:
            chosen.append(names[0])
    return Selection(tuple(chosen), MappingProxyType(left_out), RULE if uses is None else GRAPH_RULE)


def match(names: Iterable[str], glob: str) -> list[str]:
    """The names that `glob` (shell style, case-sensitive) matches, in order.

    Raises:
        UsageError: there is none; the hint names close ones.
    """
    names = list(names)
    found = [name for name in names if name == glob or fnmatchcase(name, glob)]
    if not found:
        families = dict.fromkeys(
            f"{name[: dot.start()]}.*" for name in names for dot in re.finditer("[.]", name)
        )
        hint = suggest(glob, [*families, *names] if "*" in glob else [*names, *families])
        raise UsageError(f"{glob!r} matches no tensor", hint or "`nnopt inspect FILE` lists the names.")
    return found


def suggest(word: str, options: Iterable[str]) -> str:
    """`Did you mean 'x'?` with up to three options close to `word`, or an empty string."""
    known: dict[str, str] = {}
    for option in list(options)[:20_000]:
        known.setdefault(option.lower(), option)  # a wrong case is the closest match of all
    near = [known[found] for found in difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.6)]
    return f"Did you mean {' or '.join(repr(option) for option in near)}?" if near else ""


def _hit(names: Iterable[str], globs: Mapping[str, set[str]]) -> str | None:
    return next((glob for glob, found in globs.items() if not found.isdisjoint(names)), None)


def _unfit(weight: Weight) -> str:
    if weight.dtype.kind != "float":
        return f"{weight.dtype}, not a 16-, 32- or 64-bit float"
    if len(weight.shape) < 2:
        return "1 dimension" if weight.shape else "0 dimensions"
    return ""


def _by_name(names: Iterable[str], dimensions: int) -> str:
    return next((reason for name in names if (reason := _role(name, dimensions))), "")


def _by_use(names: Iterable[str], uses: Mapping[str, Collection[str]]) -> str:
    """What the graph says against pruning a weight of these names; an empty string if nothing."""
    found = {use for name in names for use in uses.get(name, ())}
    if not found:
        return "not used by the graph"
    if "embedding" in found:
        return "embedding"
    return "" if found & PRUNABLE_USES else "not the weight of a convolution, linear map or recurrent layer"


def _role(name: str, dimensions: int) -> str:
    """What the name says that the tensor is, if it is nothing to prune."""
    segments = name.replace(".parametrizations.", ".").split(".")
    if segments[-1] == "original0":
        return "weight norm's magnitude"
    while len(segments) > 1 and re.sub(r"\d+$", "", segments[-1]) in _PLAIN:
        segments.pop()  # conv.weight, embed.weight.original1, …
    plain = len(segments) < len(name.split("."))
    own = _words(segments[-1])
    owner = own if plain or len(segments) < 2 else _words(segments[-2])
    if "bias" in own or "biases" in own:
        return "bias"
    named_norm = any(word in _NORM or word.endswith("norm") for word in own | owner)
    if named_norm and not own & _MAP:
        return "norm"
    if not plain and (own & _GAIN):
        return "scale"
    if "mask" in own:
        return "mask"
    if own & _EMBEDDING and not own & _MAP and not (plain and dimensions > 2):
        return "embedding"
    if not plain and own & _TABLE and not own & _MAP:
        return "embedding"
    return "embedding" if plain and segments[-1] == "shared" and len(segments) <= 2 else ""  # T5's, BART's


def _words(segment: str) -> set[str]:
    """`LayerNorm_1` → {layer, norm}, `bn2` → {bn}."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", segment)
    return {word.rstrip("0123456789") for word in spaced.lower().split("_")} - {""}
