"""Figures as people read them."""

from __future__ import annotations

import math

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(value: int) -> str:
    """`272474` as `272,474`."""
    return f"{value:,}"


def plural(value: int, noun: str) -> str:
    """`1 tensor`, `1,200 tensors`; also `2 entries`."""
    if value != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{count(value)} {noun}"


def size(value: int) -> str:
    """Bytes in powers of 1000, two or more digits: `980 B`, `1.1 MB`, `12 MB`, `5.0 GB`."""
    amount, unit = float(value), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    digits = 1 if unit and amount < 99.95 else 0
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def percent(fraction: float) -> str:
    """One decimal; what is not exactly nothing or everything never reads as 0.0% or 100.0%."""
    if 0 < fraction < 0.0005:
        return "<0.1%"
    if 0.9995 <= fraction < 1:
        return ">99.9%"
    return f"{fraction:.1%}"


def ratio(part: int, whole: int) -> float:
    """`part / whole`, 0 of nothing."""
    return part / whole if whole else 0.0


def change(before: int, after: int) -> str:
    """Relative change, signed: `-49.8%`, `x12`; empty where there is none to speak of."""
    step = after / before - 1 if before else 0.0
    if abs(step) < 0.0005:
        return ""
    return f"{step:+.1%}" if step < 10 else f"x{step + 1:,.0f}"


def seconds(value: float) -> str:
    """`0.3 s`, `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if value < 0.095:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 59.5:
        return f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def duration(value: float) -> str:
    """A short time to three digits: `35.2 us`, `1.52 ms`, `1.20 s`."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if value * factor < 999.5:
            scaled = value * factor
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.2f} s"


def number(value: float | None) -> str:
    """Four significant digits: `12.35`, `0.001235`, `1.2e-07`; empty for None."""
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 10_000:
        return str(int(value))
    if math.isfinite(value) and 1e-4 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.1e}"


def anything(value: object) -> str:
    """A number as above, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return count(value) if isinstance(value, int) else number(value)
