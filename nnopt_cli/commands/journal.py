"""What the run of a recipe has written so far, so that an interrupted one does none of it again.

One JSON file, beside the output until the run is done, or in the folder of `--work` for good. An entry is
found again by a hash of all that the step follows from, and counts as long as its files are as it left them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from nnopt_cli.commands.saving import write_text
from nnopt_cli.commands.work import digest, stamps
from nnopt_cli.errors import NnoptError


class Journal:
    """The finished steps of one recipe.

    Attributes:
        file: where they are noted; None for nowhere.
        kept: whether it stays when the run is done.
    """

    def __init__(self, file: Path | None, *, kept: bool) -> None:
        self.file = file
        self.kept = kept
        self._entries = _read(file)
        self._key = ""

    def follow(self, value: object, written: object = None) -> None:
        """What comes next follows from `value`, the files that it names as they are now, and from names of
        files that are yet to be `written`."""
        self._key = digest(self._key, [value, stamps(value), written])

    def recall(self) -> Mapping[str, Any] | None:
        """What was noted of the step that follows from all so far; None where it must be done."""
        entry = self._entries.get(self._key)
        return entry["body"] if entry and _as_left(entry) else None

    def note(self, body: Mapping[str, Any], files: Iterable[Path]) -> None:
        """Note that the step is finished, and left `files`."""
        if self.file is None:
            return
        left = {str(path): stamp(path) for path in files}
        self._entries = {**_read(self.file), self._key: {"body": dict(body), "files": left}}
        with (
            nullcontext() if self.kept else suppress(NnoptError, OSError)
        ):  # beside a model that is only read
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(self._entries), self.file, force=True)

    def holds(self, path: Path) -> bool:
        """Whether a finished step left the file at `path`, as it is now."""
        return any(str(path) in entry["files"] and _as_left(entry) for entry in self._entries.values())

    def finished(self) -> None:
        """The run is done: nothing needs to be remembered."""
        if self.file is not None and not self.kept:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)


def stamp(path: Path) -> list[list[Any]]:
    """Name, size and time of a file, or of all files of a folder; empty where there is none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    seen = [(file.name, file.stat()) for file in files]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in seen]


def _as_left(entry: Mapping[str, Any]) -> bool:
    return all(left and stamp(Path(path)) == left for path, left in entry["files"].items())


def _read(file: Path | None) -> dict[str, dict[str, Any]]:
    """All entries; none where the file is half-written or no journal."""
    try:
        found = json.loads(file.read_text("utf-8")) if file is not None and file.is_file() else {}
        return {
            str(key): {"body": dict(entry["body"]), "files": dict(entry["files"])}
            for key, entry in found.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
