"""From rows or samples to tensors: read, augment, then cast and normalise on the device that computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt_cli.data.augment import Augment, Normalize
from nnopt_cli.data.expected import Expected
from nnopt_cli.data.fields import TARGETS, Feature, Fields, target_values
from nnopt_cli.data.images import Pixels, Plan, Skipped, decode_batch
from nnopt_cli.data.table import Array, Images, Lists, Numbers, Rows, Table
from nnopt_cli.data.task import check_labels
from nnopt_cli.errors import NnoptError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nnopt_cli.data.batching import Batch
    from nnopt_cli.data.task import Task


@dataclass(frozen=True)
class Part:
    """One input of a raw batch: an array or tensor, and whether it is pixels (batch x h x w x channels)."""

    values: Any
    name: str = ""
    pixels: bool = False


@dataclass(frozen=True)
class Raw:
    """A batch as it was read, before it is cast, normalised and moved."""

    parts: tuple[Part, ...]
    target: Any
    size: int


@dataclass(frozen=True)
class Assembly:
    """How samples become tensors.

    Attributes:
        expected: what the model takes.
        fields: which columns of a table are what; None for samples that come from code.
        target: the name of the target in samples that are mappings; found by its name if empty.
        resize: see `images.Plan`.
        crop: the same.
        normalize: applied to images and to other inputs of four dimensions; None for division by 255 alone.
        augment: applied where `training` is set.
        training: whether batches are augmented.
        task: once it is known, it says what targets are cast to.
        skipped: images that could not be read.
    """

    expected: Expected = field(default_factory=Expected)
    fields: Fields | None = None
    target: str = ""
    resize: tuple[int, ...] = ()
    crop: tuple[int, int] | None = None
    normalize: Normalize | None = None
    augment: Augment = field(default_factory=Augment)
    training: bool = False
    task: Task | None = None
    skipped: Skipped = field(default_factory=Skipped)

    def images(self, table: Table) -> list[str]:
        """The columns of images that are inputs."""
        assert self.fields is not None
        names = [name for feature in self.fields.inputs for name in feature.columns]
        return [name for name in names if isinstance(table.columns[name], Images)]

    def of_rows(
        self, table: Table, rows: Rows, pixels: Mapping[str, Pixels], draw: np.random.Generator
    ) -> Raw:
        """Read `rows` of a table; rows with an image that cannot be read are left out."""
        assert self.fields is not None
        parts: list[Part] = []
        read: list[Any] = []
        good = np.ones(len(rows), bool)
        for index, feature in enumerate(self.fields.inputs):
            column = table.columns[feature.columns[0]]
            if isinstance(column, Images):
                plan = Plan(self.expected.mode(index, feature.name), self.resize, self.crop)  # type: ignore[arg-type]
                values, fine = decode_batch(column, rows, plan, self.skipped, pixels[feature.columns[0]])
                if fine is not None:
                    good &= np.asarray(fine)
                read.append((feature, values, fine))
            else:
                read.append((feature, self._numbers(table, feature, rows), None))
        for feature, values, fine in read:
            if not good.all():
                values = values[good if fine is None else good[np.asarray(fine)]]
            parts.append(self._part(values, feature.name, draw))
        target = target_values(table, self.fields.target, rows[good])
        return Raw(tuple(parts), target, int(good.sum()))

    def _numbers(self, table: Table, feature: Feature, rows: Rows) -> Array:
        values = []
        for name in feature.columns:
            column = table.columns[name]
            if isinstance(column, Lists):
                return _padded(column.take(rows))
            if not isinstance(column, Numbers):
                raise UsageError(
                    f"--x: the column {name!r} holds {column.kind}, and a model takes numbers",
                    "Leave it out, or turn it into numbers first.",
                )
            values.append(column.take(rows))
        whole = values[0].ndim == 1 and (len(values) > 1 or self._vector(feature))
        return np.stack(values, axis=1) if len(values) > 1 or whole else values[0]

    def _vector(self, feature: Feature) -> bool:
        """Whether a single number per row is a vector of length one, as linear layers take it."""
        assert self.fields is not None
        known = self.expected.of_input(self.fields.inputs.index(feature), feature.name)
        return known is None or len(known.shape) == 2

    def _part(self, values: Any, name: str, draw: np.random.Generator) -> Part:
        """With pixels laid out as height x width x channels, and augmented."""
        found = _as_pixels(values)
        pixels = values if found is None else found
        if found is None:
            if self.resize or self.crop:
                raise UsageError("--resize and --crop are for images in files, and the data hold arrays")
            if self.training and (self.augment.flip or self.augment.crop) and values.ndim == 4:
                moved = np.moveaxis(np.asarray(values), 1, -1)
                return Part(np.moveaxis(self.augment.images(moved, draw), -1, 1), name)
            return Part(values, name)
        if self.training and len(pixels):
            pixels = self.augment.images(np.asarray(pixels), draw)
        return Part(pixels, name, True)

    def collate(self, samples: Sequence[Any]) -> Any:
        """Samples that come from code, one on top of the other."""
        from torch.utils.data import default_collate

        try:
            return default_collate([self._plain(sample) for sample in samples])
        except (RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split("\n", 1)[0].split())
            raise NnoptError(
                f"the samples do not fit together into a batch: {said}",
                "Give all of them one form, shape and type, or return a DataLoader that collates them.",
            ) from error

    def _plain(self, sample: Any) -> Any:
        """A sample with Pillow's images as arrays."""
        if isinstance(sample, Mapping):
            return {key: self._plain(value) for key, value in sample.items()}
        if isinstance(sample, tuple | list):
            return [self._plain(value) for value in sample]
        if hasattr(sample, "convert") and hasattr(sample, "tobytes"):
            plan = Plan(self.expected.mode(0, ""), self.resize, self.crop)  # type: ignore[arg-type]
            return plan.array(sample)
        return sample

    def parts_of(self, batch: Any) -> tuple[list[tuple[str, Any]], Any]:
        """The inputs (with names, where they have some) and the target of a collated batch."""
        if isinstance(batch, Mapping):
            key = self.target or next((name for name in TARGETS if name in batch), "")
            if key not in batch:
                raise UsageError(
                    f"the samples have no target: their entries are {', '.join(map(str, batch))}",
                    "Name it with --y.",
                )
            rest = [name for name in batch if name != key]
            names = self.expected.by_name(rest) or rest
            return [(name if len(names) > 1 else "", batch[name]) for name in names], batch[key]
        if isinstance(batch, Sequence) and len(batch) > 1 and not isinstance(batch, str):
            inputs = batch[0] if len(batch) == 2 else list(batch[:-1])
            if isinstance(inputs, Mapping):
                return list(inputs.items()), batch[-1]
            many = isinstance(inputs, list | tuple)
            return [("", each) for each in (inputs if many else [inputs])], batch[-1]
        raise NnoptError(
            f"a sample is a {type(batch).__name__}, without a target",
            "Give (input, target), (input, …, target), ({names: inputs}, target), or a dict with a 'label'.",
        )

    def of_collated(self, batch: Any, draw: np.random.Generator) -> Raw:
        """A batch that code made."""
        import torch

        inputs, target = self.parts_of(batch)
        if self.task is not None and self.task.kind == "classification" and not self.task.one_hot:
            check_labels(np.asarray(target), self.task.classes, (), "the data")
        for _, value in [*inputs, ("", target)]:
            if not isinstance(value, torch.Tensor | np.ndarray):
                raise NnoptError(
                    f"a sample holds a {type(value).__name__}, which is no array", "Give tensors or numbers."
                )
        parts = tuple(self._part(_array(value), name, draw) for name, value in inputs)
        return Raw(parts, _array(target), len(target))

    def collated_size(self, batch: Any) -> int:
        """How many samples a batch that code made holds."""
        return len(self.parts_of(batch)[1])

    def head(self, batch: Any, count: int) -> Any:
        """The first samples of it."""
        inputs, target = self.parts_of(batch)
        if any(name for name, _ in inputs):
            return {name: value[:count] for name, value in inputs}, target[:count]
        return [*(value[:count] for _, value in inputs), target[:count]]

    def finish(self, raw: Raw, device: str | torch.device, draw: np.random.Generator) -> Batch:
        """Tensors on `device`, cast and normalised as the model takes them."""
        from nnopt_cli.data.batching import Batch

        tensors = [(part.name, self._finished(index, part, device)) for index, part in enumerate(raw.parts)]
        target = self._target(_moved(raw.target, device))
        if self.training and self.augment.mixup:
            target = self.augment.mixed([tensor for _, tensor in tensors], self._soft(target), draw)
        args = tuple(tensor for name, tensor in tensors if not name)
        kwargs = {name: tensor for name, tensor in tensors if name}
        return self.expected.fed(Batch(args, kwargs, target, raw.size))

    def _finished(self, index: int, part: Part, device: str | torch.device) -> Tensor:
        import torch

        known = self.expected.of_input(index, part.name)
        floating = getattr(torch, self.expected.dtype)
        wanted = getattr(torch, known.dtype) if known is not None and known.dtype else None
        tensor = _moved(part.values, device)
        if part.pixels:
            if self.normalize is not None:
                self._check_channels(tensor.shape[-1])
                tensor = self.normalize.pixels(tensor)
            else:
                tensor = tensor.to(torch.float32).div_(255)
            return tensor.permute(0, 3, 1, 2).to(wanted or floating)
        if known is not None and len(known.shape) == tensor.dim() + 1 == 4 and known.shape[1] == 1:
            tensor = tensor.unsqueeze(1)
        if tensor.is_floating_point():
            if self.normalize is not None and tensor.dim() == 4:
                self._check_channels(tensor.shape[1])
                tensor = self.normalize.apply(tensor.to(torch.float32, copy=True))
            return tensor.to(wanted if wanted is not None and wanted.is_floating_point else floating)
        if wanted is not None:
            return tensor.to(wanted)
        whole_numbers = tensor.dtype in (torch.int64, torch.int32, torch.bool) and tensor.dim() == 2
        return tensor if whole_numbers and self.expected.tokens else tensor.to(floating)

    def _check_channels(self, channels: int) -> None:
        assert self.normalize is not None
        if len(self.normalize.mean) not in (1, channels):
            raise UsageError(
                f"--normalize has {len(self.normalize.mean)} means, the images {channels} channels"
            )

    def _target(self, target: Tensor) -> Tensor:
        import torch

        if self.task is None:
            return target
        if self.task.kind == "classification":
            return target.argmax(1) if self.task.one_hot else target.to(torch.int64)
        target = target.to(torch.float64 if self.expected.dtype == "float64" else torch.float32)
        return target.unsqueeze(1) if target.dim() == 1 else target

    def _soft(self, target: Tensor) -> Tensor:
        """Targets that can be mixed: shares of the classes."""
        import torch

        if target.is_floating_point():
            return target
        if self.task is None or target.dim() != 1:
            raise UsageError("--augment mixup needs one target for each sample")
        return torch.nn.functional.one_hot(target, self.task.classes).to(getattr(torch, self.expected.dtype))


def _moved(values: Any, device: str | torch.device) -> Tensor:
    import torch

    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _array(value: Any) -> Any:
    """A numpy array of what has one; tensors of types that numpy lacks stay tensors."""
    import torch

    if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.dtype != torch.bfloat16:
        return value.detach().numpy()
    return value


def _as_pixels(values: Any) -> Array | None:
    """Bytes of three or more dimensions are pixels: batch x height x width x channels, or None."""
    if getattr(values, "dtype", None) != np.uint8 or values.ndim not in (3, 4):
        return None
    if values.ndim == 3:
        return np.asarray(values)[..., None]
    if values.shape[-1] not in (1, 3, 4) and values.shape[1] in (1, 3, 4):
        return np.moveaxis(np.asarray(values), 1, -1)
    return np.asarray(values)


def _padded(lists: Sequence[Array]) -> Array:
    """Rows of different lengths, filled up with zeros on the right."""
    width = max((len(each) for each in lists), default=0)
    kind = lists[0].dtype if len(lists) else np.dtype(np.int64)
    out = np.zeros((len(lists), width), kind)
    for row, each in enumerate(lists):
        out[row, : len(each)] = each
    return out
