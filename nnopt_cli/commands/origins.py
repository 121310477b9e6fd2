"""The inputs that a model's record names: found by name, known by the hash of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import Context
from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.options import ModelOptions

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model


def input_of(made: Model, given: Path | None, context: Context) -> Path:
    """The input that the passes of `made` began with: the one given, or the named one.

    Raises NnoptError: it is not there, holds other weights than the record says, or had some of the passes.
    """
    first = _tables(made)[0] if made.provenance.inputs else {}
    found = [given] if given is not None else _candidates(first, made, _folders(made))
    if not found:
        raise NnoptError(
            f"{made.path}: its input {_name(first) or '(not named)'} is neither beside it nor in "
            "the current folder",
            "Say where it is: --model PATH.",
        )
    matching = _matching(first, found, context)
    for path, model in matching:
        if not _begun(model, made):
            return path
    if matching:
        path, model = matching[-1]
        raise NnoptError(
            f"{path}: {len(model.provenance.steps)} of the passes are in it already",
            "Give the model that the passes began with: --model PATH.",
        )
    raise NnoptError(
        f"{found[-1]}: holds other weights than the input that {made.path.name} was made from",
        "Give the right one with --model PATH.",
    )


def members_of(made: Model, folder: Path | None, context: Context) -> list[Path]:
    """All inputs of a fused model, in order, looked for beside it, in this folder, or in the one given.

    Raises NnoptError that names those that are not there, or hold other weights.
    """
    tables = _tables(made)
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"--model {folder}: {made.path.name} was made of {len(tables)} models",
            "Name the folder that they are in.",
        )
    folders = _folders(made) if folder is None else [folder]
    found: list[Path] = []
    missing: list[str] = []
    other: list[str] = []
    for table in tables:
        candidates = _candidates(table, made, folders)
        matching = _matching(table, candidates, context)
        if matching:
            found.append(matching[0][0])
        else:
            (other if candidates else missing).append(_name(table) or "(not named)")
    if not missing and not other:
        return found
    places = f"in {folder}" if folder else "beside it or in the current folder"
    faults = [f"{', '.join(dict.fromkeys(missing))} not {places}"] if missing else []
    faults += [f"{', '.join(dict.fromkeys(other))} with other weights than it was made from"] if other else []
    names = " and ".join(dict.fromkeys(_name(table) or "(not named)" for table in tables))
    raise NnoptError(
        f"{made.path}: was made of {names}: {'; '.join(faults)}",
        "Put them there, or name the folder that they are in: --model FOLDER.",
    )


def _tables(made: Model) -> list[dict[str, Any]]:
    return [dict(each) if isinstance(each, dict) else {} for each in made.provenance.inputs]


def _name(table: dict[str, Any]) -> str:
    said = table.get("path")
    return PurePath(said).name if isinstance(said, str) else ""


def _folders(made: Model) -> list[Path]:
    """A name in a record never leads elsewhere."""
    return [made.path.parent, Path()]


def _candidates(table: dict[str, Any], made: Model, folders: Sequence[Path]) -> list[Path]:
    """Files of that name; a program with the same weights goes before bare weights."""
    name = _name(table)
    if not name or name == "..":
        return []
    suffix = made.path.suffix
    places = [place for folder in folders for place in ((folder / name).with_suffix(suffix), folder / name)]
    return [place for place in dict.fromkeys(places) if place.exists() and not place.samefile(made.path)]


def _matching(
    table: dict[str, Any], candidates: Sequence[Path], context: Context
) -> list[tuple[Path, Model]]:
    """Those that hold the weights that the record says."""
    from nnopt_cli.model.hashing import input_hash
    from nnopt_cli.model.io import load

    if candidates and not isinstance(table.get("blake3"), str):
        raise NnoptError(
            f"the record does not say by which weights {_name(table)} is known",
            "It was written by another version of nnopt: do again what made the file.",
        )
    options = context[ModelOptions]
    models = [(path, load(path, key=options.key, operators=options.operators)) for path in candidates]
    return [(path, model) for path, model in models if input_hash(model) == table.get("blake3")]


def _begun(model: Model, made: Model) -> bool:
    """Whether some of the passes that made `made` were done to `model` already."""
    steps = model.provenance.steps
    return bool(steps) and made.provenance.steps[: len(steps)] == steps
