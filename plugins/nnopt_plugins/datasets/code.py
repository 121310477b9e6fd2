"""Data that the user's own code makes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Self

from nnopt_cli import Dataset, Run, option

if TYPE_CHECKING:
    from nnopt_cli.data import Source

_REFERENCE = re.compile(r"(?:code:)?((?:.+\.py|[A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_][\w.]*)")


class Code(Dataset):
    """Your own code: a function or class that makes a Dataset, a DataLoader or an iterable, or one itself."""

    name: ClassVar[str] = "python"
    runs_code: ClassVar[bool] = True

    reference: str = option(help="PATH.py:NAME or package.module:NAME.", metavar="REFERENCE")
    arguments: dict[str, Any] = option({}, help="Arguments of the call, as a JSON object.")

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        """A reference."""
        found = _REFERENCE.fullmatch(text)
        return cls(reference=found[1]) if found else None

    def open(self, run: Run) -> Source:
        """What the code makes, as a source; it is called anew for every pass over an iterator."""
        from nnopt_cli.data import UserCode, as_source

        code = UserCode.find(self.reference, "--data")

        def make() -> Any:
            made = code.make(**self.arguments)
            return made.open(run) if isinstance(made, Dataset) else made

        return as_source(make(), self.reference, make)

    def spec(self) -> str:
        """The reference, where it says everything."""
        return self.reference if self.from_short(self.reference) == self else super().spec()
