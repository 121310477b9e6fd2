"""Whether models hold the same tensors, so that their weights can be averaged; from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError
from nnopt_cli.model.matching import match_names

if TYPE_CHECKING:
    from nnopt_cli.formats.weight import Weight
    from nnopt_cli.model.model import Model

_SHOWN = 3  # names of each sort that an error lists
OUTPUTS = (
    "Networks that differ in architecture can be fused by their outputs: --method mean, for .pt2 files, or "
    "with --arch and --input for each."
)


@dataclass(frozen=True)
class Unlike:
    """How a model's tensors differ from the first one's.

    Attributes:
        model: which model.
        what: one sentence without its end: what differs, with names.
        hint: what to do about it.
    """

    model: Model
    what: str
    hint: str


def unlike(models: Sequence[Model]) -> Unlike | None:
    """The first difference in names, shapes or types from the first model; None where there is none."""
    for model in models[1:]:
        found = _names(models[0], model) or _shapes(models[0], model) or _types(models[0], model)
        if found is not None:
            return found
    return None


def check_alike(models: Sequence[Model]) -> None:
    """Raise NnoptError unless all have the same names, shapes and types, and types that can be averaged."""
    found = unlike(models)
    if found is not None:
        raise NnoptError(f"{models[0].path} and {found.model.path}: {found.what}", found.hint)
    for name, weight in models[0].weights.items():
        if reason := _unfit(weight):
            raise NnoptError(f"{models[0].path}: {name} is {reason}, which cannot be averaged", _FLOATING)


_FLOATING = "Fuse the models as they were before they were quantised."


def _unfit(weight: Weight) -> str:
    if weight.dtype.kind == "float8":
        return str(weight.dtype)
    if weight.dtype.name in ("int8", "uint8") and len(weight.shape) > 1:
        return f"quantised ({weight.dtype})"
    return ""


def _names(first: Model, other: Model) -> Unlike | None:
    if first.weights.keys() == other.weights.keys():
        return None
    matching = match_names(first, other)
    if matching.added or matching.removed:
        return Unlike(
            other,
            f"the second's names begin with {matching.added or matching.removed!r}"
            if matching.added
            else f"the first's names begin with {matching.removed!r}",
            "Write both under the same names first; `nnopt compare` shows what differs.",
        )
    parts = []
    if matching.only_a:
        parts.append(f"only the first has {_listed(matching.only_a)}")
    if matching.only_b:
        parts.append(f"only the second has {_listed(matching.only_b)}")
    renamed = next(iter(matching.renames.items()), None)
    tail = f" ({renamed[0]} may be {renamed[1][0]})" if renamed else ""
    return Unlike(other, "; ".join(parts) + tail, f"Averaging needs the same tensors. {OUTPUTS}")


def _shapes(first: Model, other: Model) -> Unlike | None:
    pairs = [(name, first.weights[name].shape, other.weights[name].shape) for name in first.weights]
    differ = [(name, a, b) for name, a, b in pairs if a != b]
    if not differ:
        return None
    shown = ", ".join(f"{name} {_size(a)} and {_size(b)}" for name, a, b in differ[:_SHOWN])
    more = f", and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
    last = [name for name, a, b in differ if a[1:] == b[1:]]
    if len(differ) == len(last) <= 2:  # a weight and its bias, of other rows only: the classifier
        return Unlike(
            other,
            f"the last layer differs in its outputs: {shown}",
            "Models of other classes cannot be fused, neither by weights nor by outputs.",
        )
    return Unlike(other, f"shapes differ: {shown}{more}", f"Averaging needs the same shapes. {OUTPUTS}")


def _types(first: Model, other: Model) -> Unlike | None:
    pairs = [(name, first.weights[name].dtype, other.weights[name].dtype) for name in first.weights]
    differ = [(name, a, b) for name, a, b in pairs if a != b]
    if not differ:
        return None
    name, a, b = differ[0]
    more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
    return Unlike(
        other, f"types differ: {name} is {a} and {b}{more}", "Cast one of them to the other's types first."
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
