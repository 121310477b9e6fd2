"""`Page`: what every rendering on a terminal is made of, so that all of them look and fit alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.table import GAP, Column, lines
from nnopt_cli.report.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PROSE_WIDTH = 100  # sentences are no easier to read on a wider line
WIDE = 110  # cells from which a line has room for a longer bar
ENDLESS = 100_000  # cells; where the output is no terminal, `grep` wants whole names


@dataclass(frozen=True)
class Glyphs:
    """Characters beyond letters, and what stands for them where the terminal has only ASCII."""

    dot: str = "·"
    arrow: str = "→"
    bullet: str = "•"
    ellipsis: str = "…"
    times: str = "\u00d7"  # the multiplication sign
    full: str = "━"
    rest: str = "─"


ASCII = Glyphs("-", "->", "-", "..", "x", "#", "-")


class Page:
    """Writes lines, sentences and tables to a console; whatever comes from a file is made harmless.

    Attributes:
        console: where to.
        glyphs: what the console's encoding has.
        width: cells that a table may take; without end where the output is no terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._ascii = not console.encoding.lower().startswith("utf")
        self.glyphs = ASCII if self._ascii else Glyphs()
        self.width = console.width if console.is_terminal else ENDLESS

    def text(self, text: str, style: str = "") -> Text:
        """`text` as it may be printed: no markup, no control characters."""
        from rich.text import Text

        safe = printable(text)
        return Text(safe.encode("ascii", "backslashreplace").decode() if self._ascii else safe, style, end="")

    def line(self, *parts: str | Text) -> None:
        """One line, never wrapped and never cut, however long."""
        from rich.text import Text

        whole = Text(end="")
        for part in parts:
            whole.append_text(self.text(part) if isinstance(part, str) else part)
        self.console.print(whole, soft_wrap=True)

    def gap(self) -> None:
        """An empty line."""
        self.console.print()

    def heading(self, text: str, note: str = "") -> None:
        """The name of a section, after an empty line."""
        self.gap()
        label = self.text(f"{text}  " if note else text, "bold")
        for number, part in enumerate(self.text(note, "dim").wrap(self.console, self._room(label.cell_len))):
            part.rstrip()
            self.line(self.text(" " * label.cell_len) if number else label, part)

    def prose(self, sentence: str, style: str = "", *, bullet: bool = False) -> None:
        """Sentences, wrapped between words; with a bullet, the next lines stand under the first."""
        head = f"  {self.glyphs.bullet} " if bullet else ""
        wrapped = self.text(sentence, style).wrap(self.console, self._room(len(head)))
        for number, row in enumerate(wrapped):
            row.rstrip()
            self.line(self.text(" " * len(head) if number else head, style), row)

    def notes(self, sentences: Sequence[str]) -> None:
        """Sentences under a heading of their own; nothing where there are none."""
        if sentences:
            self.heading("Notes")
        for sentence in sentences:
            self.prose(sentence, bullet=True)

    def spent(self, seconds: float, peak_bytes: int, device: str) -> None:
        """What a command took: wall time, the most memory, and where it computed."""
        took = (numbers.seconds(seconds), f"{numbers.size(peak_bytes)} peak memory", device)
        self.line(self.text(self.joined(took), "dim"))

    def written(self, output: str | None, *, dry_run: bool = True) -> None:
        """Where the result is; where there is none, whether that is because of --dry-run."""
        if output is None:
            self.line(self.text("Nothing was written", "bold"), " (--dry-run)." if dry_run else ".")
        else:
            self.line("Wrote ", self.text(output, "bold green"))

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], *, indent: int = 2
    ) -> None:
        """Rows under headings, fitted to the width."""
        safe = [
            [
                self.text(c, column.style) if isinstance(c, str) else c
                for c, column in zip(row, columns, strict=True)
            ]
            for row in rows
        ]
        for line in lines(columns, safe, self.width, indent=indent, ellipsis=self.glyphs.ellipsis):
            self.line(line)

    def _room(self, taken: int) -> int:
        return max(10, min(self.console.width, PROSE_WIDTH) - taken)

    def pairs(self, rows: Iterable[tuple[str, str | Text]]) -> None:
        """Labels and what they say; a long text goes on under its beginning, so that nothing is lost."""
        safe = [(self.text(label, "dim"), self.text(t) if isinstance(t, str) else t) for label, t in rows]
        indent = 2 + max((label.cell_len for label, _ in safe), default=0) + GAP
        room = max(10, self.width - indent)
        for label, said in safe:
            for number, part in enumerate(said.wrap(self.console, room)):
                head = self.text("  ").append_text(label) if number == 0 else self.text("")
                head.pad_right(indent - head.cell_len)
                part.rstrip()
                self.line(head, part)

    def bar(self, fraction: float) -> Text:
        """A bar, the first `fraction` of it strong; readable without colour."""
        cells = 20 if WIDE <= self.width < ENDLESS else 10
        full = round(min(1.0, max(0.0, fraction)) * cells)
        bar = self.text(self.glyphs.full * full, "cyan")
        return bar.append(self.glyphs.rest * (cells - full), "dim")

    def joined(self, parts: Iterable[str]) -> str:
        """The parts that are not empty, with dots between."""
        return f" {self.glyphs.dot} ".join(part for part in parts if part)

    def shape(self, sizes: Sequence[int]) -> str:
        """Sizes with multiplication signs between; no dimensions at all read `scalar`."""
        return self.glyphs.times.join(str(size) for size in sizes) or "scalar"
