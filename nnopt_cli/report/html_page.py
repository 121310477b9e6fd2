"""The frame of every report: one file, no request to anywhere, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as _escape

from nnopt_cli.report.text import printable

MARK = "<!-- a report of nnopt -->"
MOST_ROWS = 2000  # of one table; a browser lays out no more with ease

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --raised: #f5f6f8; --ink: #1b1f24; --soft: #5b6570;
  --line: #dde1e6; --grey: #a9b1bb; --one: #2563c9; --two: #c2570c; --three: #0f8a6d; --four: #8a3fc0;
  --five: #b3234f; --six: #6b7d0a; --good: #17803d; --bad: #b42318; --heat: 37, 99, 201; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --raised: #1d2126; --ink: #e7eaee;
  --soft: #9aa5b1; --line: #31373e; --grey: #68727d; --one: #6ea3f5; --two: #f29a55; --three: #4cc9a4;
  --four: #c493ea; --five: #f2809f; --six: #b8cc4a; --good: #5dc984; --bad: #f58a7f;
  --heat: 110, 163, 245; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(.8rem, 3vw, 2rem) 3rem; max-width: 66rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h1 small { font-weight: 400; color: var(--soft); font-size: 1rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .2rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .2rem; }
p, ul { margin: .3rem 0 .8rem; max-width: 48rem; }
li { margin: .2rem 0; overflow-wrap: anywhere; }
.soft, figcaption, .note { color: var(--soft); font-size: .87rem; }
code, .name { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .84rem; }
.chips { display: flex; flex-wrap: wrap; gap: .35rem; margin: .4rem 0 1rem; padding: 0; list-style: none;
  max-width: none; }
.chips li { background: var(--raised); border: 1px solid var(--line); border-radius: 1rem; padding: 0 .6rem;
  font-size: .85rem; margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1rem 0; }
.card { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; }
.card b { display: block; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .84rem; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, th.name { font-family: inherit; font-size: inherit; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: nowrap; }
th, td { padding: .22rem .7rem .22rem 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
.r { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 9rem; max-width: 24rem; }
td.bar { width: 34%; min-width: 5rem; }
.track { position: relative; height: .8rem; background: var(--raised); border-radius: 2px; overflow: hidden; }
.track i { position: absolute; inset: 0 auto 0 0; border-radius: 2px; background: var(--one); }
.track i.was { background: var(--grey); opacity: .55; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: .6rem 0 1rem; } figcaption { margin-top: .2rem; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; overflow: visible; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 0 1.5rem; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; }
svg .axis { stroke: var(--line); stroke-width: 1; fill: none; }
svg .was { fill: none; stroke: var(--soft); stroke-width: 1.2; } svg .now { fill: var(--one); opacity: .75; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; padding: 0; list-style: none; }
.legend li::before { content: ""; display: inline-block; width: .8rem; height: .25rem; margin-right: .4rem;
  vertical-align: middle; background: var(--swatch); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .6rem 1.2rem; }
.grid figure { margin: 0; min-width: 0; } .grid .name { overflow-wrap: anywhere; display: block; }
summary { cursor: pointer; color: var(--soft); margin: .8rem 0 .3rem; }
td.heat { text-align: right; padding-right: .4rem; } footer { margin-top: 2.5rem; }
@media (max-width: 34rem) { .hide { display: none; } td.name { min-width: 7.5rem; } td.bar { width: 26%; }
  th, td { padding-right: .45rem; } }
@media print { body { max-width: none; } details > * { display: block; } }
"""


@dataclass(frozen=True)
class Sheet:
    """What a page shows: the command, what it worked on, its settings, and the parts, which are HTML."""

    command: str
    what: str
    chips: Sequence[str]
    parts: Sequence[str]


def text(value: object) -> str:
    """Text from anywhere as it may stand in a page: control characters shown, markup escaped."""
    return _escape(printable(str(value)), quote=True).encode("utf-8", "backslashreplace").decode()


def frame(title: str, heading: str, parts: Iterable[str], footer: str) -> str:
    """The whole page; `heading` and `parts` are HTML, the others text."""
    # The policy lets the page ask nobody for anything, whatever names it shows.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n{MARK}\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>{heading}</header>\n<main>\n{''.join(part for part in parts if part)}</main>\n"
        f'<footer class="soft">{text(footer)}</footer>\n</body>\n</html>\n'
    )


def heading(command: str, what: str, chips: Sequence[str] = ()) -> str:
    """The title, and the settings under it."""
    items = "".join(f"<li>{text(chip)}</li>" for chip in chips)
    listed = f'<ul class="chips">{items}</ul>' if chips else ""
    return f"<h1>{text(command)} <small>{text(what)}</small></h1>{listed}"


def section(title: str, *parts: str, note: str = "", level: int = 2) -> str:
    """A part of the page under a heading; empty where all its parts are."""
    body = "".join(parts)
    if not body:
        return ""
    said = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section><h{level}>{text(title)}</h{level}>{said}{body}</section>\n"


def cards(items: Iterable[tuple[str, str, str]]) -> str:
    """Figures at a glance: what it is, the figure, and what to hold it against."""
    shown = "".join(
        f'<div class="card"><span>{text(label)}</span><b>{text(figure)}</b><span>{text(aside)}</span></div>'
        for label, figure, aside in items
    )
    return f'<div class="cards">{shown}</div>' if shown else ""


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], align: str = "", hide: Sequence[int] = ()
) -> str:
    """Rows of HTML cells.

    Args:
        headings: text above the columns.
        rows: cells, each HTML; `text` makes one of plain text. A cell that begins with `<td` is used whole.
        align: one letter for each column: `l` text, `n` name of a tensor, `r` figure, `b` bar.
        hide: the columns that a narrow window leaves out.
    """
    if not rows:
        return ""
    kinds = align.ljust(len(headings), "l")
    classes = [{"r": "r", "n": "name", "b": "bar"}.get(kind, "") for kind in kinds]
    classes = [f"{each} hide".strip() if n in hide else each for n, each in enumerate(classes)]
    head = "".join(f'<th class="{c}">{text(h)}</th>' for h, c in zip(headings, classes, strict=True))
    lines = []
    for row in rows[:MOST_ROWS]:
        cells = (
            cell if cell.startswith("<td") else f'<td class="{c}">{cell}</td>'
            for cell, c in zip(row, classes, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    more = f'<p class="note">and {len(rows) - MOST_ROWS:,} more</p>' if len(rows) > MOST_ROWS else ""
    top = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    return f'<div class="wide"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>{more}'


def folded(summary: str, body: str) -> str:
    """Something that is shown when it is asked for."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>" if body else ""


def notes(sentences: Sequence[str]) -> str:
    """The notes of a record."""
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return section("Notes", f"<ul>{items}</ul>" if items else "")
