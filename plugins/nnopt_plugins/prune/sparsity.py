"""`--sparsity`: one number, or several for several patterns of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema


@dataclass(frozen=True, slots=True)
class Share:
    """A sparsity and the tensors that it is for.

    Attributes:
        value: fraction of the groups to prune, from 0 to 1.
        pattern: a glob over names; None for all that no pattern matches.
    """

    value: float
    pattern: str | None = None

    def fits(self, name: str) -> bool:
        """Whether the pattern matches `name`, case-sensitively; no pattern matches all."""
        return self.pattern is None or name == self.pattern or fnmatchcase(name, self.pattern)

    def __str__(self) -> str:
        return f"{self.pattern}={self.value}" if self.pattern else str(self.value)


def parse(given: Any) -> tuple[Share, ...]:
    """Read `0.5`, `"50%"`, `"layer4.*=0.8"`, a list of these, or a table of pattern to number.

    Raises:
        ValueError: a value is not a fraction, or two are given for the same tensors.
    """
    if isinstance(given, Mapping):
        shares = [Share(_fraction(value), _glob(str(pattern))) for pattern, value in given.items()]
    else:
        shares = [_share(item) for item in (given if isinstance(given, (list, tuple)) else [given])]
    patterns = [share.pattern for share in shares]
    for pattern in patterns:
        if patterns.count(pattern) > 1:
            raise ValueError(
                f"two sparsities for {pattern!r}" if pattern else "two sparsities without a pattern"
            )
    return tuple(shares)


def _share(item: Any) -> Share:
    if isinstance(item, Share):
        return Share(_fraction(item.value), item.pattern)
    if isinstance(item, str) and "=" in item:
        pattern, _, value = item.rpartition("=")
        if not pattern.strip():
            raise ValueError(f"{item!r} names no pattern; write 0.5 or 'layer4.*=0.8'")
        return Share(_fraction(value), _glob(pattern.strip()))
    return Share(_fraction(item))


def _glob(pattern: str) -> str | None:
    return None if pattern == "*" else pattern


def _fraction(value: Any) -> float:
    text = str(value).strip()
    digits = text.removesuffix("%")
    try:
        number = float(digits)
        if digits != text:
            number = float(Fraction(str(number)) / 100)  # 33.3% is 0.333, not the float beside it
    except ValueError:
        raise ValueError(f"{text!r} is not a fraction such as 0.5 or 50%") from None
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError(f"{text} is not between 0 and 1; write 0.5 or 50% for half of the weights")
    return number


def target(sparsity: float, groups: int) -> int:
    """How many of `groups` a sparsity means: rounded half to even, the decimal as it was written."""
    return round(Fraction(str(sparsity)) * groups)


def assign(names: Mapping[str, Sequence[str]], shares: Sequence[Share]) -> dict[Share, list[str]]:
    """Give each tensor its sparsity: the last pattern that matches one of its names, else the plain number.

    Args:
        names: all the names of each tensor, by its first.
        shares: from `parse`.

    Returns:
        First names by share, in the order of `names`; tensors without a sparsity are in none.
    """
    out: dict[Share, list[str]] = {share: [] for share in shares}
    base = [share for share in shares if share.pattern is None]
    ranked = [share for share in reversed(shares) if share.pattern is not None] + base
    for first, aliases in names.items():
        share = next((share for share in ranked if any(share.fits(name) for name in aliases)), None)
        if share is not None:
            out[share].append(first)
    return out


Sparsity = Annotated[
    tuple[Share, ...],
    BeforeValidator(parse),
    PlainSerializer(lambda shares: [str(share) for share in shares], when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string"},
                {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
                {"type": "object", "additionalProperties": {"type": ["number", "string"]}},
            ],
            "description": "0.5, '50%', 'layer4.*=0.8', a list of these, or a table of pattern to number",
        }
    ),
]
