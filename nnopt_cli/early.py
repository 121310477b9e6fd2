"""What must be known before plugins load and flags are parsed: `--no-plugin`, `--json`, `-v`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnopt_cli.plugin.manager import Wanted
    from nnopt_cli.plugin.registry import Registry


@dataclass(frozen=True)
class Early:
    """A first look at the command line.

    Attributes:
        rest: the arguments without `--no-plugin NAME`.
        blocked: the plugins that `--no-plugin` names; a None among them where its value is missing.
        json: whether stdout is to be one JSON document.
        verbose: how many `-v` there are.
    """

    rest: list[str]
    blocked: tuple[str | None, ...]
    json: bool
    verbose: int

    @classmethod
    def read(cls, argv: Sequence[str]) -> Early:
        """Look through `argv` up to a `--`."""
        end = argv.index("--") if "--" in argv else len(argv)
        rest: list[str] = []
        blocked: list[str | None] = []
        words = iter(argv[:end])
        for word in words:
            if word == "--no-plugin":
                blocked.append(next(words, None))
            elif word.startswith("--no-plugin="):
                blocked.append(word.partition("=")[2])
            else:
                rest.append(word)
        shown = {"--help", "--version", "--show-completion"}.isdisjoint(rest)  # their text is the result
        verbose = sum(len(word) - 1 for word in rest if re.fullmatch("-v+", word)) + rest.count("--verbose")
        return cls([*rest, *argv[end:]], tuple(blocked), "--json" in rest and shown, verbose)

    def wanted(self) -> Wanted:
        """Which plugins to load. Raises UsageError for a `--no-plugin` without a name."""
        from nnopt_cli.errors import UsageError
        from nnopt_cli.plugin.manager import Wanted

        names = [name for name in self.blocked if name]
        if len(names) < len(self.blocked):
            raise UsageError("--no-plugin needs the name of a plugin", "`nnopt plugins` lists them.")
        return Wanted.read(os.environ, names)

    def warn(self, registry: Registry) -> None:
        """One line on stderr for each broken plugin; none while a shell completes a word."""
        if "_NNOPT_COMPLETE" in os.environ:
            return
        from nnopt_cli.report.text import printable

        for plugin in registry.broken():
            print(printable(f"warning: plugin {plugin.name!r} was left out: {plugin.why}"), file=sys.stderr)
