"""Put a file's weights into a module: strictly, and with an explanation where they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError
from nnopt_cli.model.naming import suggest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nnopt_cli.formats.weight import Weight

_SHOWN = 4  # names of each kind of misfit in a message; the rest is counted


@dataclass(frozen=True)
class Fit:
    """How a file's names and a module's correspond.

    Attributes:
        names: the module's name -> the file's name, of all tensors that are filled.
        notes: what was allowed though it is not the same.
    """

    names: Mapping[str, str]
    notes: tuple[str, ...] = ()


def fill(module: nn.Module, weights: Mapping[str, Weight], spec: str, *, resize: bool = False) -> Fit:
    """Load `weights` into `module` in place; every tensor takes the file's dtype.

    Args:
        module: as its source builds it.
        weights: by name, as the file holds them.
        spec: what was given for `--arch`, for messages.
        resize: let tensors take the file's shapes too (see `rebuild`).

    Raises:
        NnoptError: names are missing or unexpected, or shapes differ; few of each are listed, with close
            matches, and a difference in a prefix is explained.
    """
    tensors = named_tensors(module)
    fit = match_names(module, tensors, weights, spec, resize=resize)
    filled: dict[int, str] = {}
    for name, source in fit.names.items():
        first = filled.setdefault(id(tensors[name]), source)
        if first == source:
            put(tensors[name], weights[source].torch())
        elif weights[first] is not weights[source]:
            _check_shared(spec, weights[first], weights[source])
    return fit


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by every name they have, as `state_dict` calls them."""
    import torch

    found = module.state_dict(keep_vars=True)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def match_names(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    weights: Mapping[str, Weight],
    spec: str,
    *,
    resize: bool = False,
) -> Fit:
    """Find for every tensor of the module the weight that fills it. Raises NnoptError as `fill` does."""
    renaming = next(_renamings(list(tensors), list(weights)), None)
    names = {name: renaming.to_file(name) if renaming else name for name in tensors}
    given = {name for name in names.values() if name in weights}
    missing, notes = _missing(module, tensors, names, weights)
    unexpected = [name for name in weights if name not in given]
    ignored = [name for name in unexpected if _is_table(weights[name]) or name in _transient(module)]
    filled = {name: source for name, source in names.items() if source in weights}
    shapes = [
        f"{name}: the file has {list(weights[source].shape)}, the module {list(tensors[name].shape)}"
        for name, source in filled.items()
        if tuple(tensors[name].shape) != weights[source].shape and not resize
    ]
    unexpected = [name for name in unexpected if name not in ignored]
    if missing or unexpected or shapes:
        raise _misfit(spec, missing, unexpected, shapes, list(tensors), list(weights))
    if renaming:
        notes.append(renaming.note)
    if ignored:
        notes.append(f"The module has no place for {_listed(ignored)}, which are no parameters; left out.")
    return Fit(filled, tuple(notes))


@dataclass(frozen=True)
class _Renaming:
    to_file: Callable[[str], str]
    note: str


def _renamings(expected: Sequence[str], given: Sequence[str]) -> Iterator[_Renaming]:
    """One prefix on all names of either side, where no name fits without."""
    if not expected or not given or set(expected) & set(given):
        return
    for prefix in _prefixes(given):
        if {f"{prefix}{name}" for name in expected} & set(given):
            note = f"All names in the file begin with {prefix!r}, which the module's do not."
            yield _Renaming(lambda name, p=prefix: f"{p}{name}", note)  # type: ignore[misc]
    for prefix in _prefixes(expected):
        if {name.removeprefix(prefix) for name in expected} & set(given):
            note = f"All names in the module begin with {prefix!r}, which the file's do not."
            yield _Renaming(lambda name, p=prefix: name.removeprefix(p), note)  # type: ignore[misc]


def _prefixes(names: Sequence[str]) -> list[str]:
    """The dotted beginnings that all `names` share, shortest first."""
    out, start = [], 0
    while (dot := names[0].find(".", start)) >= 0:
        if not all(name.startswith(names[0][: dot + 1]) for name in names):
            break
        out.append(names[0][: dot + 1])
        start = dot + 1
    return out


def _missing(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    weights: Mapping[str, Weight],
) -> tuple[list[str], list[str]]:
    """Names that nothing fills, and notes on those that may be absent."""
    import torch

    filled = {id(tensors[name]) for name, source in names.items() if source in weights}
    absent = [name for name in names if names[name] not in weights and id(tensors[name]) not in filled]
    parameters = {id(parameter) for parameter in module.parameters()}
    tables = [
        name
        for name in absent
        if id(tensors[name]) not in parameters
        and not (tensors[name].is_floating_point() or tensors[name].dtype == torch.complex64)
    ]
    notes = [f"The file has no {_listed(tables)}; the module's own values stay."] if tables else []
    return [name for name in absent if name not in tables], notes


def _is_table(weight: Weight) -> bool:
    """Counters, index tables and masks: what a module makes itself, and older versions of it stored."""
    return weight.dtype.kind in ("int", "bool")


def _transient(module: nn.Module) -> set[str]:
    """Buffers that the module does not save."""
    return {name for name, _ in module.named_buffers()} - set(named_tensors(module))


def _misfit(
    spec: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    shapes: Sequence[str],
    expected: Sequence[str],
    given: Sequence[str],
) -> NnoptError:
    lines = [f"the weights do not fit the module of --arch {spec}"]
    lines += _block("not in the file", missing, unexpected)
    lines += _block("not in the module", unexpected, missing)
    lines += _block("of another shape", shapes, ())
    fitting = len(set(expected) & set(given))
    hint = "Give the function that built this very network; --arch-arg NAME=VALUE passes it arguments."
    if not fitting and len(expected) != len(given):
        hint = f"No name fits: the file looks like another architecture. {hint}"
    elif shapes and not (missing or unexpected):
        hint = f"Names fit and sizes do not: often another number of classes, or another width. {hint}"
    return NnoptError("\n  ".join(lines), hint)


def _block(title: str, names: Sequence[str], others: Sequence[str]) -> list[str]:
    if not names:
        return []
    lines = [f"{len(names)} {title}:"]
    for name in names[:_SHOWN]:
        near = suggest(name, others)
        lines.append(f"  {name}" + (f" ({near})" if near else ""))
    if len(names) > _SHOWN:
        lines.append(f"  and {len(names) - _SHOWN} more")
    return lines


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more like them" if len(names) > 2 else ""
    return " and ".join(names[:2]) + more if len(names) <= 2 else ", ".join(names[:2]) + more


def _check_shared(spec: str, one: Weight, other: Weight) -> None:
    """What the module holds once and the file twice must be the same."""
    if one.dtype != other.dtype or one.words().tobytes() != other.words().tobytes():
        raise NnoptError(
            f"--arch {spec}: its module shares one tensor as {one.name} and {other.name}, and the file holds "
            "two different ones",
            "Build the network without that sharing.",
        )


def put(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Replace what a parameter or buffer holds, in any shape and dtype; it stays the same object."""
    if not (value.is_floating_point() or value.is_complex()):
        tensor.requires_grad_(False)
    tensor.data = value
