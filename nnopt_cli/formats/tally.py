"""What is counted while tensors stream through the writer: nothing is read a second time for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """One tensor's figures, input side and output side.

    Attributes:
        elements: number of elements.
        zeros_before: elements that were zero in the input (+0 and -0).
        zeros_after: elements that are zero in the output.
        changed: whether any bit differs.
        blake3: hex digest of the input's elements (row-major, little-endian).
        sampled: bytes that were sampled to estimate compressed size.
        packed_before: what the sample takes after deflate, input side.
        packed_after: the same, output side.
        parts: hex digests of the further tensors that it was merged from.
    """

    elements: int
    zeros_before: int
    zeros_after: int
    changed: bool
    blake3: str
    sampled: int
    packed_before: int
    packed_after: int
    parts: tuple[str, ...] = ()
