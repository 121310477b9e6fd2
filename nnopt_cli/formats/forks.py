"""Work on many tensors in forked processes, where threads would wait for Python's lock half of the time.

A fork starts in milliseconds and has all that was read so far. It is safe only where no library is loaded
whose threads do not survive it, and is known to be on Linux alone.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.syscalls import peak_memory

Tick = Callable[[int], None]
Work = Callable[[int, Tick], Any]


def can_fork() -> bool:
    """Whether work may go to forked processes here: on Linux, and not beside the thread pools of torch."""
    return sys.platform == "linux" and "torch" not in sys.modules


def in_forks(
    count: int,
    numbers: Sequence[int],
    work: Work,
    *,
    tick: Tick,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[dict[int, Any], int]:
    """`work(number, tick)` for all `numbers`, by `count` processes that take the next one when they are done.

    Where it raises, it is done once more in this process, so that the exception is raised here, with its
    traceback. Whatever ends this function ends the processes.

    Args:
        count: how many processes; where the system allows fewer, they do it, or this one.
        numbers: what there is to do, in the order in which it is begun.
        work: gives what can be pickled, and leaves no trace in memory but that.
        tick: told of progress, in this process only.
        meanwhile: what this process does first, while the others work.

    Returns:
        what `work` gave, by number, and the peak resident bytes of the processes, summed.
    Raises NnoptError where the system killed one.
    """
    found: dict[int, Any] = {}
    peak = 0
    with _crew(count, work) as crew:
        waiting = iter(numbers)
        for idle in crew:
            _tell(idle, next(waiting, None))
        meanwhile()
        if not crew:
            found = {number: work(number, tick) for number in numbers}
        while crew:
            for line in wait(list(crew)):
                assert isinstance(line, Connection)
                try:
                    said, *rest = line.recv()
                except EOFError:
                    raise _killed(crew[line]) from None
                if said == "tick":
                    tick(rest[0])
                elif said == "end":
                    peak += rest[0]
                    crew.pop(line).join()
                else:
                    _tell(line, next(waiting, None))
                    found[rest[0]] = rest[1] if said == "done" else work(rest[0], tick)
    return found, peak


@contextmanager
def _crew(count: int, work: Work) -> Iterator[dict[Connection, BaseProcess]]:
    """Processes that wait for numbers, by the lines to them; none is left afterwards."""
    context = get_context("fork")
    everyone: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(count):
            try:
                mine, theirs = context.Pipe()
            except OSError:  # no more files are allowed
                break
            process: BaseProcess = context.Process(
                target=_serve, args=(theirs, [*everyone, mine], work), daemon=True
            )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of threads: a progress bar's, here
                    process.start()
            except OSError:  # no more processes are allowed: those that there are do it
                mine.close()
                break
            finally:
                theirs.close()
            everyone[mine] = process
        yield dict(everyone)
    finally:
        for line, process in everyone.items():
            process.kill()
            process.join()
            line.close()


def _tell(line: Connection, number: int | None) -> None:
    """Send a number to do, or that there are no more."""
    with suppress(OSError):  # it is gone, for a reason that is looked for
        line.send(number)


def _serve(line: Connection, others: Sequence[Connection], work: Work) -> None:
    """What a forked process does."""
    for other in others:  # a line breaks once the first process is gone, if no one else holds its end
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while (number := line.recv()) is not None:
            try:
                done = work(number, lambda count: line.send(("tick", count)))
            except BaseException:  # the first process finds out which
                line.send(("failed", number))
            else:
                line.send(("done", number, done))
        line.send(("end", peak_memory()))
    except (EOFError, OSError):  # nobody is there any more
        pass
    finally:
        os._exit(0)  # nothing of the first process is to be tidied up here


def _killed(process: BaseProcess) -> NnoptError:
    process.join()
    code = process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    short = "Memory may have run out: " if code == -signal.SIGKILL else ""
    return NnoptError(
        f"a process that worked on the tensors ended early ({how})",
        f"{short}--threads 1 does without such processes.",
    )
