"""Data that the user's own code makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnopt_cli.errors import NnoptError
from nnopt_cli.model.arch import described, find_code, importable


@dataclass(frozen=True)
class UserCode:
    """Something in the user's own code that makes data, or is data.

    Attributes:
        reference: `PATH.py:NAME` or `package.module:NAME`.
        flag: what it was given for, for messages.
        thing: the function, class or object.
        home: the folder that the code's own imports are looked for in.
    """

    reference: str
    flag: str
    thing: Any
    home: Path

    @classmethod
    def find(cls, reference: str, flag: str) -> UserCode:
        """Import it, which runs the user's code. Raises UsageError where there is no such code."""
        return cls(reference, flag, *find_code(reference, flag))

    def make(self, **arguments: Any) -> Any:
        """What it returns when it is called, or the thing itself. Raises NnoptError where it fails."""
        if not callable(self.thing):
            return self.thing
        with importable(self.home):
            try:
                return self.thing(**arguments)
            except NnoptError:
                raise
            except (Exception, SystemExit) as error:
                raise NnoptError(f"{self.flag} {self.reference}: {described(error)}") from error
