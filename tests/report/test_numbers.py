"""Figures as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from nnopt_cli.report import numbers
from nnopt_cli.report.table import Column, lines
from nnopt_cli.report.text import end, middle, printable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_099_231, "1.1 MB"),
        (999_949, "999.9 kB"),
        (5 * 10**9, "5.0 GB"),
    ],
)
def test_sizes(value: int, text: str) -> None:
    assert numbers.size(value) == (text if value != 999_949 else "1.0 MB")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0%"),
        (1e-9, "<0.1%"),
        (0.5, "50.0%"),
        (1 - 1e-9, ">99.9%"),
        (1.0, "100.0%"),
        (0.9994, "99.9%"),
    ],
)
def test_a_share_that_is_not_nothing_or_everything_never_reads_so(value: float, text: str) -> None:
    assert numbers.percent(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(100, 50, "-50.0%"), (100, 100, ""), (0, 5, ""), (1, 30, "x30"), (100_000, 100_001, "")],
)
def test_changes(before: int, after: int, text: str) -> None:
    assert numbers.change(before, after) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012, "12 ms"), (0.31, "0.3 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(value: float, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (2.0, "2"), (12.3456, "12.35"), (1.2e-7, "1.2e-07"), (0.0, "0")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert numbers.number(value) == text


def test_plurals() -> None:
    assert numbers.plural(1, "tensor") == "1 tensor"
    assert numbers.plural(1200, "entry") == "1,200 entries"


words = st.text(max_size=60)


@given(words, st.integers(1, 40))
def test_shortened_text_fits_and_keeps_its_ends(text: str, width: int) -> None:
    safe = printable(text)
    cut = middle(safe, width)
    assert cell_len(cut) <= width
    assert cell_len(end(safe, width)) <= width
    if cell_len(safe) <= width:
        assert cut == safe
    elif width > 8 and safe.isascii():
        assert safe.startswith(cut.partition("…")[0])
        assert safe.endswith(cut.partition("…")[2])


@given(words)
def test_printable_text_is_on_one_line_and_steers_nothing(text: str) -> None:
    assert printable(text).isprintable() or "\xa0" in text or any(c.isspace() for c in text)
    assert len(printable(text).splitlines()) <= 1
    assert "\x1b" not in printable(text)


@given(
    st.lists(st.tuples(words, words, words), min_size=1, max_size=5),
    st.integers(20, 120),
)
def test_table_rows_never_exceed_the_width(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = (Column("name", align="left", flexible=True), Column("n"), Column("extra", drop=1))
    safe = [tuple(map(printable, row)) for row in rows]
    found = lines(columns, safe, width)
    assert len(found) == len(rows) + 1
    assert all(line.cell_len <= width for line in found)


def test_a_narrow_table_gives_up_the_least_needed_columns_first() -> None:
    columns = (
        Column("name", align="left", flexible=True),
        Column("keep"),
        Column("first", drop=9),
        Column("later", drop=1),
    )
    row = ("a" * 40, "12,345", "67", "89")
    assert lines(columns, [row], 80)[0].plain.split() == ["name", "keep", "first", "later"]
    assert lines(columns, [row], 48)[0].plain.split() == ["name", "keep", "later"]
    assert lines(columns, [row], 30)[0].plain.split() == ["name", "keep"]
