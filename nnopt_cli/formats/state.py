"""The state of a run that can be gone on with: tensors and plain data in one safetensors file.

Written atomically, read without executing anything: tensors by safetensors, all else as JSON. A tree of
dicts, lists, tuples, numbers, strings and tensors comes back as it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.atomic import new_file
from nnopt_cli.formats.target import check_space, check_target

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "nnopt.state"
_MARKS = ("tensor", "tuple", "dict")  # what JSON has no form for: {"$tensor": 3}


def save_state(path: str | Path, state: Any) -> None:
    """Write a tree to `path`, in place of what is there.

    Raises NnoptError where it cannot be written (the disk is full); what was there then stays.
    """
    from safetensors.torch import save

    target = check_target(Path(path), folder=False, force=True, inputs=())
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(state, tensors))
    data = save(tensors, {_KEY: text})
    check_space(target, len(data))
    with new_file(target, len(data)) as file:
        file.write_at(data, 0)


def load_state(path: str | Path) -> Any:
    """Read what `save_state` wrote; tensors are on the CPU, contiguous.

    Raises UnreadableError: there is no such file, it is broken, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise UnreadableError(f"{path}: is a folder, and the state of a run is a file")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            # in memory of their own: where a tensor begins decides how its sums are rounded
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if text is None:
            raise UnreadableError(f"{path}: is no checkpoint of a run", "Name the file that the run wrote.")
        return _unpacked(json.loads(text), tensors)
    except FileNotFoundError:
        raise UnreadableError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = str(error).split("\n", 1)[0]
        raise UnreadableError(f"{path}: is no checkpoint that can be read: {said}") from None


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # a copy of its own each: safetensors refuses tensors that share memory
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    if isinstance(value, tuple):
        return {"$tuple": [_packed(each, tensors) for each in value]}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and not any(key.startswith("$") for key in value):
            return {key: _packed(each, tensors) for key, each in value.items()}
        return {"$dict": [[_packed(key, tensors), _packed(each, tensors)] for key, each in value.items()]}
    if isinstance(value, list):
        return [_packed(each, tensors) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a state holds a {type(value).__name__}")


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), "")[1:] if len(value) == 1 else ""
    if mark not in _MARKS or f"${mark}" not in value:
        return {key: _unpacked(each, tensors) for key, each in value.items()}
    inner = value[f"${mark}"]
    if mark == "tensor":
        return tensors[inner]
    if mark == "tuple":
        return tuple(_unpacked(each, tensors) for each in inner)
    return {_unpacked(key, tensors): _unpacked(each, tensors) for key, each in inner}
