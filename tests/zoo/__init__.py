"""The zoo: architectures with random weights on which the graph engine is tested.

Hand-written ones need nothing but torch; those of torchvision and transformers need these packages.
Nothing is downloaded.
"""

from __future__ import annotations

from . import (
    attention,
    decoders,
    encoders,
    ends,
    gates,
    grouping,
    norms,
    others,
    pictures,
    positions,
    recurrent,
    skips,
    sounds,
    stacks,
    translators,
    vision,
)
from .case import Case, export, module

_HAND = (skips, grouping, gates, norms, ends, attention, positions, stacks, recurrent, others)
_BORROWED = (vision, encoders, decoders, translators, pictures, sounds)
CASES: list[Case] = [case for part in (*_HAND, *_BORROWED) for case in part.CASES]

__all__ = ["CASES", "Case", "export", "module"]
