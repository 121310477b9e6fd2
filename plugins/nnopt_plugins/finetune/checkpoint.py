"""Checkpoints of a training: everything that the rest of it follows from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli import UsageError, load_state, save_state

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli import Run

_KIND = "nnopt finetune 1"


def random_state(device: str) -> dict[str, Any]:
    """The state of every generator that training may draw from."""
    import numpy as np
    import torch

    name, keys, place, has, cached = np.random.get_state(legacy=True)
    out: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [str(name), [int(key) for key in keys], int(place), int(has), float(cached)],
    }
    if device.startswith("cuda"):
        out["cuda"] = torch.cuda.get_rng_state(device)
    return out


def set_random_state(state: Mapping[str, Any], device: str) -> None:
    """Put the generators back."""
    import numpy as np
    import torch

    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    name, keys, place, has, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), place, has, cached))
    if "cuda" in state and device.startswith("cuda"):
        torch.cuda.set_rng_state(state["cuda"], device)


def digest(module: nn.Module) -> str:
    """Of the weights that training starts from."""
    import torch

    out = sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            out.update(name.encode())
            out.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()


def write(path: Path, settings: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Save a training. Raises NnoptError where that fails; an older checkpoint then stays as it is."""
    import torch

    from nnopt_cli import __version__

    made_by = {"version": __version__, "torch": str(torch.__version__), "threads": torch.get_num_threads()}
    save_state(
        path, {"kind": _KIND, "settings": dict(settings), "made_by": made_by, "trainer": dict(trainer)}
    )


def read(path: Path, settings: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The training in a checkpoint.

    Raises:
        UnreadableError: there is none.
        UsageError: it is of a training with other settings.
    """
    import torch

    state = load_state(path)
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise UsageError(f"--resume {path}: is no checkpoint of a training")
    other = [
        key for key in {**settings, **state["settings"]} if settings.get(key) != state["settings"].get(key)
    ]
    if other:
        shown = "; ".join(
            f"{key} was {_short(state['settings'].get(key))}, is {_short(settings.get(key))}"
            for key in sorted(other)[:4]
        )
        raise UsageError(
            f"--resume {path}: was saved by another training: {shown}",
            "Give the same model and options as then; --resume goes on with exactly that training.",
        )
    before = state["made_by"]
    if (before["torch"], before["threads"]) != (str(torch.__version__), torch.get_num_threads()):
        run.note(
            f"The checkpoint was made by PyTorch {before['torch']} with {before['threads']} threads, other "
            "than now: the result may differ in the last bits."
        )
    return dict(state["trainer"])


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) < 50 else text[:47] + "..."
