"""Errors that are messages: what is wrong, in which file and tensor, and what to do."""

from __future__ import annotations

from typing import Any

FAILED, USAGE, UNREADABLE, GATE_MISSED, INTERRUPTED = 1, 2, 3, 4, 130  # process exit codes


class NnoptError(Exception):
    """A failure that the user can act on. `message` says what is wrong, `hint` what to do about it."""

    exit_code = FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ComponentError(NnoptError):
    """A component, such as a criterion or a loss, does not do what its kind promises.

    Attributes:
        component: which.
        fault: what it did, as the rest of a sentence: `gave 3 scores for 4 weights`.
        title: the component and the package that it came from, once that is known.
    """

    def __init__(self, component: Any, fault: str, hint: str | None = None, title: str = "") -> None:
        super().__init__(f"{title or f'the {component.kind} {component.name!r}'} {fault}", hint)
        self.component = component
        self.fault = fault
        self.title = title


class UsageError(NnoptError):
    """The command line or a recipe asks for something that does not exist or does not fit."""

    exit_code = USAGE


class UnreadableError(NnoptError):
    """The model file cannot be read: broken, unsafe, or not a model."""

    exit_code = UNREADABLE


class GateMissedError(NnoptError):
    """A quality gate such as `--max-drop` was not met."""

    exit_code = GATE_MISSED
