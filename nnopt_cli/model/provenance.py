"""The record that every output carries: who made it, from what, by which passes, with what result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

KEY = "nnopt.provenance"


@dataclass(frozen=True)
class Provenance:
    """What was done to a model so far.

    Attributes:
        steps: one table per pass, in order: `{"pass": name, options…}`, the same keys as a recipe.
        inputs: one table per input file: `path` (name only), `blake3` of its weights.
        results: measured figures of the last pass.
        version: the nnopt that wrote the record.
    """

    steps: tuple[Mapping[str, Any], ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    def then(self, step: Mapping[str, Any]) -> Provenance:
        """The same record with one more pass."""
        return replace(self, steps=(*self.steps, step))

    def to_strings(self) -> dict[str, str]:
        """As `nnopt.*` strings, for a file's metadata."""
        body = {
            "version": self.version,
            "steps": list(self.steps),
            "inputs": list(self.inputs),
            "results": dict(self.results),
        }
        return {KEY: json.dumps(body, sort_keys=True)}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str]) -> Provenance:
        """Read back; a record that is missing or not understood gives an empty one (it is untrusted)."""
        try:
            body = json.loads(strings[KEY])
            steps, inputs = tuple(body["steps"]), tuple(body["inputs"])
            return cls(steps, inputs, dict(body["results"]), str(body["version"]))
        except (KeyError, ValueError, TypeError, RecursionError):
            return cls()
