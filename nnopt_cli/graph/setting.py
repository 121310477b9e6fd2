"""Under which conditions a program runs, and what it is once it is set up to."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Setting:
    """Under which conditions a program runs.

    Attributes:
        batch: size of the leading dynamic dimension.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: threads of one operator on the CPU.
        dtype: what weights and floating inputs are cast to, in PyTorch; their own if None.
    """

    batch: int = 1
    device: str = "cpu"
    threads: int = 1
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Ready:
    """A program set up to run.

    Attributes:
        call: one forward pass on random inputs; it gives the outputs.
        peak: runs once more and gives the bytes that weights and results take at most, None where
            that cannot be measured.
        batch: how many samples a pass takes.
        notes: what the user should know.
    """

    call: Callable[[], Any]
    peak: Callable[[], int | None]
    batch: int
    notes: tuple[str, ...] = ()


@contextmanager
def quiet() -> Iterator[None]:
    """What exporters and compilers print on the way is of no use to who runs a command."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
