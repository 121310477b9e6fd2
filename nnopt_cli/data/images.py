"""Encoded images to arrays: decoding, resizing, cropping, and a list of those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nnopt_cli.data.table import Array, Images, Rows
from nnopt_cli.errors import NnoptError

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["RGB", "L"]


# Formats that Pillow decodes itself: others, such as EPS, would start another program on the file.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")


@cache
def _formats() -> tuple[str, ...]:
    """Those of them that this Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def missing_extra(what: str, package: str) -> NnoptError:
    """The error for a library that reads data and is not installed."""
    return NnoptError(f"{what} needs the package {package}", "Install it with: pip install 'nnopt[data]'")


@dataclass
class Skipped:
    """Images that could not be read.

    Attributes:
        strict: whether the first one is an error.
        found: what a message calls them, and why.
    """

    strict: bool = False
    found: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, error: Exception) -> None:
        """Note one. Raises NnoptError where it is strict."""
        why = " ".join(str(error).split()) or type(error).__name__
        why = "it is no image, or of an unknown kind" if "cannot identify" in why else why
        if self.strict:
            raise NnoptError(f"the image of {name} cannot be read: {why}", "Without --strict it is left out.")
        self.found[name] = why

    def note(self, total: int | None, most: int = 3) -> str:
        """One sentence for the summary that names so many of them; empty where all could be read."""
        if not self.found:
            return ""
        shown = "; ".join(f"{name}: {why}" for name, why in list(self.found.items())[:most])
        more = f"; and {len(self.found) - most:,} more" if len(self.found) > most else ""
        many = f"{len(self.found):,} images" if len(self.found) > 1 else "1 image"
        whole = f" of {total:,}" if total is not None else ""
        return f"{many}{whole} could not be read and were left out: {shown}{more}."


@dataclass(frozen=True)
class Plan:
    """How an image becomes an array.

    Attributes:
        mode: Pillow's name of the channels: `RGB`, or `L` for one of grey.
        resize: the shorter side in pixels, or height and width.
        crop: height and width of what is taken from the middle.
    """

    mode: Mode = "RGB"
    resize: tuple[int, ...] = ()
    crop: tuple[int, int] | None = None

    def decode(self, encoded: bytes | memoryview) -> Array:
        """Height x width x channels, uint8. Raises whatever Pillow raises for what is no image."""
        from PIL import Image

        return self.array(Image.open(BytesIO(encoded), formats=_formats()))

    def array(self, image: Image) -> Array:
        """The same of an image that Pillow has opened."""
        if image.mode != self.mode:
            image = image.convert(self.mode)
        if self.resize or self.crop:
            image = self._sized(image)
        raw = image.tobytes()  # twice as fast as Pillow's array interface, which makes a copy more
        return np.frombuffer(raw, np.uint8).reshape(image.height, image.width, -1)

    def _sized(self, image: Image) -> Image:
        from PIL.Image import Resampling

        if self.resize:
            width, height = image.size
            if len(self.resize) == 2:
                wanted = (self.resize[1], self.resize[0])
            else:
                scale = self.resize[0] / min(width, height)
                wanted = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = image.resize(wanted, Resampling.BILINEAR)
        if self.crop:
            height, width = self.crop
            left, top = round((image.width - width) / 2), round((image.height - height) / 2)
            if left < 0 or top < 0:
                raise NnoptError(
                    f"--crop {height}x{width} is larger than an image of {image.height}x{image.width}",
                    f"Add --resize {max(self.crop)} before it.",
                )
            image = image.crop((left, top, left + width, top + height))
        return image


class Pixels:
    """Decoded images that are kept for the next pass, where all of them together are small."""

    def __init__(self, rows: Rows, limit: int) -> None:
        """`rows`: those that will be asked for; `limit`: bytes that may be kept."""
        self._rows = np.sort(rows)
        self._limit = limit
        self._lock = Lock()
        self._values: Array | None = None
        self._have = np.zeros(len(rows), bool)

    def fetch(self, rows: Rows) -> Array | None:
        """The images of `rows` if all of them are here."""
        if self._values is None:
            return None
        places = np.searchsorted(self._rows, rows)
        found: Array | None = self._values[places] if self._have[places].all() else None
        return found

    def keep(self, rows: Rows, images: Array) -> None:
        """Remember them. Two threads that decode the same row write the same bytes."""
        if len(self._rows) * images[0].nbytes > self._limit:
            return
        with self._lock:
            if self._values is None:
                self._values = np.empty((len(self._rows), *images.shape[1:]), np.uint8)
        if self._values.shape[1:] == images.shape[1:]:
            places = np.searchsorted(self._rows, rows)
            self._values[places] = images
            self._have[places] = True


def decode_batch(
    column: Images, rows: Rows, plan: Plan, skipped: Skipped, pixels: Pixels
) -> tuple[Array, Sequence[bool] | None]:
    """Images of `rows` as one array (images x height x width x channels, uint8), and which could be read.

    The second is None where all could. Raises NnoptError where sizes differ, or none can be read and
    `skipped` is strict.
    """
    kept = pixels.fetch(rows)
    if kept is not None:
        return kept, None
    out: Any = None
    good: list[bool] = []
    for encoded, row in zip(column.take(rows), rows, strict=True):
        image = _one(column, int(row), encoded, plan, skipped)
        good.append(image is not None)
        if image is None:
            continue
        if out is None:
            out = np.empty((len(rows), *image.shape), np.uint8)
            first = int(row)
        elif image.shape != out.shape[1:]:
            raise _sizes(column, first, out.shape[1:3], int(row), image.shape[:2])
        out[len(good) - 1] = image
    if out is None:
        return np.empty((0, 1, 1, 1), np.uint8), good
    if all(good):
        pixels.keep(rows, out)
        return out, None
    return out[good], good


def _one(column: Images, row: int, encoded: bytes | memoryview, plan: Plan, skipped: Skipped) -> Array | None:
    name = column.named(row) if skipped.found else ""
    if name and name in skipped.found:
        return None
    try:
        return plan.decode(encoded)
    except (NnoptError, MemoryError):
        raise
    except ImportError as error:
        raise missing_extra("reading images", "Pillow") from error
    except Exception as error:  # whatever a broken file makes Pillow raise: there are a dozen types
        skipped.add(column.named(row), error)
        return None


def _sizes(column: Images, one: int, size: Sequence[int], other: int, different: Sequence[int]) -> NnoptError:
    return NnoptError(
        f"images have different sizes: {column.named(one)} is {size[0]}x{size[1]}, "
        f"{column.named(other)} is {different[0]}x{different[1]}",
        "Give all of them one size, e.g. with --resize 256 --crop 224.",
    )
