"""A docstring as the help text of a command."""

from __future__ import annotations

import inspect
import re

from rich.markup import escape

_FOR_PROGRAMMERS = ("Args:", "Attributes:", "Class attributes:", "Raises:", "Returns:", "Yields:")


def help_of(doc: str) -> str:
    """Rich markup of a docstring: paragraphs flow, `Examples:` and indented lines stay as they are."""
    kept = []
    for paragraph in inspect.cleandoc(doc).split("\n\n"):
        if paragraph.startswith(_FOR_PROGRAMMERS):
            continue
        title, _, rest = paragraph.partition("\n")
        if re.fullmatch(r"[A-Z][\w ]*:", title):
            kept.append(f"[bold]{escape(title)}[/bold]" + (f"\n{escape(rest)}" if rest else ""))
        elif re.search(r"^\s", paragraph, re.M):
            kept.append(escape(paragraph))
        else:
            kept.append(escape(" ".join(paragraph.split())))
    return "\n\n".join(kept)


def first_sentence(doc: str) -> str:
    """The sentence that stands in the list of commands, as rich markup."""
    paragraph = " ".join(inspect.cleandoc(doc).split("\n\n", 1)[0].split())
    return escape(re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0])
