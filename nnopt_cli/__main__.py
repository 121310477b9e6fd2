"""`nnopt` and `python -m nnopt_cli`: the command as a process of its own."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def start() -> NoReturn:
    """Run the command and end the process.

    What is made while starting stays, so the collector would look at all of it several times for nothing; at
    the end, to take everything apart would take a tenth of a second.
    """
    gc.disable()  # until the command runs
    from nnopt_cli.app import main

    code = main()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as any program's end
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # closed by now: whoever read it is gone, and was told
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    start()
