"""How a run ends: errors as messages and exit codes, signals, and the one JSON document."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from typer import Abort
from typer.exceptions import TyperException

from nnopt_cli.early import Early
from nnopt_cli.errors import FAILED, INTERRUPTED, NnoptError
from nnopt_cli.plugin.manager import Wanted
from nnopt_cli.plugin.noise import stdout_to_stderr
from nnopt_cli.plugin.registry import Registry
from nnopt_cli.report.text import printable

_NOTHING = object()
_BREAK = re.compile(r"\n(?=  )")  # lines of a list; any other newline is part of a name, and is escaped


@dataclass
class Outcome:
    """What a run came to: its exit code, and with `--json` its document."""

    code: int = 0
    document: object = _NOTHING

    def give(self, document: object) -> None:
        """Take the document that stdout is to be."""
        self.document = document

    def end(self, code: object) -> None:
        """Take what the application returned; it turns Ctrl-C into a code of its own."""
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        self.code = code if isinstance(code, int) else 0


@contextmanager
def failing(early: Early) -> Iterator[Outcome]:
    """Run the body; whatever it raises becomes a message on stderr and `outcome.code`."""
    outcome = Outcome()
    _settle_streams()
    try:
        with ExitStack() as stack:
            stack.enter_context(_terminated())
            if early.json:
                stack.enter_context(stdout_to_stderr())
            yield outcome
        if outcome.document is not _NOTHING:
            _print_json(outcome.document)
        sys.stdout.flush()
    except BrokenPipeError:
        outcome.code = FAILED
        _drop_stdout()
    except BaseException as error:
        message, hint, outcome.code = explain_failure(error)
        if message:
            _tell(message, hint, error if early.verbose > 1 else None)
            if early.json:
                _try_to_print({"error": {"message": message, "hint": hint, "exit_code": outcome.code}})


def explain_failure(error: BaseException) -> tuple[str, str | None, int]:
    """Message, hint and exit code for an exception; an empty message where there is nothing to say."""
    if isinstance(error, Abort) and isinstance(error.__cause__, EOFError):
        error = error.__cause__  # typer takes any end of a file for the end of the input at a prompt
    match error:
        case NnoptError():
            return error.message, error.hint, error.exit_code
        case TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "nnopt"
            return error.format_message(), f"`{command} --help` shows what there is.", error.exit_code
        case KeyboardInterrupt() | Abort():
            return "interrupted", None, INTERRUPTED
        case SystemExit():
            code = error.code if isinstance(error.code, int) else FAILED if error.code else 0
            return "", None, code
        case MemoryError():
            return "not enough memory", "Close other programs, or use fewer --threads.", FAILED
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{_place(error)}the disk is full", "Free some space, or write elsewhere with -o.", FAILED
        case OSError():
            return f"{_place(error)}{error.strerror or error}", None, FAILED
    said = " ".join([f"{type(error).__name__}: {error}".split("\n", 1)[0], *getattr(error, "__notes__", ())])
    return f"internal error: {said}", "Run it again with -vv for the traceback.", FAILED


def strict_failure(registry: Registry, wanted: Wanted) -> None:
    """Raise NnoptError if there are broken plugins and `NNOPT_STRICT_PLUGINS` is set."""
    names = [plugin.name for plugin in registry.broken()]
    if names and wanted.strict:
        told = f"broken plugins: {', '.join(names)}; NNOPT_STRICT_PLUGINS makes this an error"
        raise NnoptError(told, "`nnopt plugins` says what is wrong with each.")


def _place(error: OSError) -> str:
    return f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""


def _tell(message: str, hint: str | None, cause: BaseException | None) -> None:
    from rich.console import Console
    from rich.text import Text

    if cause is not None:
        traceback.print_exception(cause)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    head = Text("error: ", "bold red")
    paragraphs = _BREAK.split(message) + ([hint] if hint else [])
    for paragraph in paragraphs:
        shown = [printable(paragraph)]
        if console.is_terminal:  # a path stays whole, however long, to be copied
            room = max(20, console.width - len(head))
            shown = textwrap.wrap(shown[0], room, break_long_words=False, break_on_hyphens=False)
        for line in shown:
            console.print(head + Text(line))
            head = Text(" " * len(head))


def _try_to_print(document: object) -> None:
    """The error as JSON, where stdout still takes anything; the message is on stderr already."""
    try:
        _print_json(document)
        sys.stdout.flush()
    except OSError:
        _drop_stdout()


def _print_json(document: object) -> None:
    print(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _settle_streams() -> None:
    """No model file may take a closed stream's place, and no odd name end a run for want of an encoding."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _drop_stdout() -> None:
    """Whoever read our output went away; keep Python from complaining about it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, so that temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
