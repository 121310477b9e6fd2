"""Keeps what plugins and libraries print away from stdout, which belongs to the result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send all that is written to stdout meanwhile to stderr, below Python too (C code, subprocesses)."""
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # started with stdout or stderr closed
        kept = -1
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)
