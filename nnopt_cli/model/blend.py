"""Corresponding tensors of several models, merged chunk by chunk as they are read: constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from blake3 import blake3

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.weight import Array, Tap, Weight
from nnopt_cli.model.numbers import compute_type, reals_per_word, to_reals, to_words

BLOCK = 1 << 17  # elements merged at once: threads rarely meet, and they stay in cache
_LOOK = 64  # bytes, in which tensors that differ almost always do
Over = Literal["tensor", "layer", "model"]


class Merge(Protocol):
    """What a method in weight space does; see `nnopt_cli.WeightFusion`."""

    convex: ClassVar[bool]

    def survey(self, tensor: Corresponding) -> Any:
        """What `merge` has to know of the whole tensor."""

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        """One chunk, merged."""


@dataclass(frozen=True, eq=False)
class Corresponding:
    """One tensor of every member, as a method sees it.

    Attributes:
        name: its name, the same in all.
        index: its place among the model's tensors.
        shape: its dimensions.
        members: the tensor in each member.
        weights: how much each member counts; None where nothing was given.
        base: the ancestor's, where values are differences from it.
        seed: the run's seed.
        siblings: all tensors of the model that are merged, this one among them.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    members: tuple[Weight, ...]
    weights: tuple[float, ...] | None = None
    base: Weight | None = None
    seed: int = 0
    siblings: list[Corresponding] = field(default_factory=list, repr=False)

    @property
    def shares(self) -> tuple[float, ...]:
        """`weights`, or equal ones that sum to one."""
        return self.weights or (1 / len(self.members),) * len(self.members)

    @property
    def layer(self) -> str:
        """The module that owns it: its name without the last part."""
        return self.name.rpartition(".")[0]

    @property
    def all(self) -> tuple[Weight, ...]:
        """The members', and the base's last where there is one."""
        return self.members if self.base is None else (*self.members, self.base)

    def chunks(self, most: int | None = None) -> Iterator[tuple[int, list[Array]]]:
        """The values as `merge` gets them, each with the flat index of its first; anew at every call.

        They are good until the next are asked for. What is infinite and the same in all members (a mask)
        is left out.

        Args:
            most: give only so many chunks, spread evenly, of a tensor that has more.
        """
        unit = math.lcm(*(weight.unit for weight in self.all))
        first = self.members[0]
        spans = list(first.spans(min(unit, max(1, first.numel)), BLOCK * first.dtype.itemsize))
        if not spans:
            return
        if most is not None and len(spans) > most:
            spans = [spans[len(spans) * i // most] for i in range(most)]
        longest = max(count for _, count in spans)
        buffers, rooms = [np.empty(longest, weight.dtype.word) for weight in self.all], self.rooms(longest)
        for start, count in spans:
            pairs = zip(self.all, buffers, strict=True)
            words = [weight.chunk(start, count, buffer) for weight, buffer in pairs]
            if self.read(words, rooms):
                numbers = count * reals_per_word(first.dtype)
                yield start, [room[:numbers] for room in rooms[: len(self.members)]]

    def rooms(self, count: int) -> list[Array]:
        """For every one of `all` room for `count` elements as numbers."""
        kind = compute_type(weight.dtype for weight in self.all)
        return [np.empty(count * reals_per_word(weight.dtype), kind) for weight in self.all]

    def read(self, words: Sequence[Array], rooms: Sequence[Array]) -> bool:
        """Put raw words of all members (and the base) into `rooms` as numbers; members' less the base's.

        Returns False where they hold NaN or infinity, and are the same in all.
        Raises NnoptError: only some do.
        """
        for weight, own, room in zip(self.all, words, rooms, strict=True):
            to_reals(own, weight.dtype, room.dtype.type, room)
        count = len(words[0]) * reals_per_word(self.members[0].dtype)
        values = [room[:count] for room in rooms]
        if self.base is not None:
            start = values.pop()
            with np.errstate(invalid="ignore"):  # infinity less infinity is no number, which is looked for
                for each in values:
                    np.subtract(each, start, out=each)
        return all(map(_finite, values)) or self._fit(words)

    def _fit(self, words: Sequence[Array]) -> bool:
        """As `read` returns and raises, by looking at every element of every member."""
        for position, (weight, own) in enumerate(zip(self.all, words, strict=True)):
            if not np.isfinite(to_reals(own, weight.dtype, compute_type([weight.dtype]))).all():
                if same(words):
                    return False
                raise _unfit(self.name, weight, position)
        return True

    def gram(self, over: Over = "tensor", most: int | None = None) -> Array:
        """Inner products of all pairs of members, float64, over this tensor or its whole layer or model.

        `most` looks at so many chunks of each tensor only.
        """
        if over == "tensor":
            return _gram(self, most)
        near = [each for each in self.siblings if over == "model" or each.layer == self.layer]
        return np.asarray(sum(_gram(each, most) for each in near))


def same(words: Sequence[Array]) -> bool:
    """Whether all are the same, bit for bit."""
    first, *others = (each.view(np.uint8) for each in words)
    return all(np.array_equal(first[:_LOOK], each[:_LOOK]) and np.array_equal(first, each) for each in others)


def _finite(numbers: Array) -> bool:
    """Whether there is no NaN and no infinity; may be False for the largest of numbers."""
    return math.isfinite(np.dot(numbers, numbers))


def _into(digest: Any) -> Tap:
    return lambda seen: digest.update(seen.view(np.uint8))


def _gram(tensor: Corresponding, most: int | None) -> Array:
    total = np.zeros((len(tensor.members), len(tensor.members)))
    for _, values in tensor.chunks(most):
        for i, one in enumerate(values):
            for j in range(i + 1):
                total[i, j] += np.dot(one, values[j])
    return np.asarray(total + np.tril(total, -1).T)


def _unfit(name: str, weight: Weight, position: int) -> NnoptError:
    file = getattr(getattr(weight.origin, "file", None), "path", None)
    whose = str(file) if file else f"member {position + 1}"
    return NnoptError(
        f"{whose}: {name} holds NaN or infinity, which would spread into the result",
        "Leave this model out; `nnopt inspect --stats` counts such values.",
    )


class BlendedWeight(Weight):
    """A tensor merged from those of several members whenever it is read; as the first one's type.

    Attributes:
        digests: blake3 of each further member's tensor (and the base's), from the last read from its start.
    """

    def __init__(self, tensor: Corresponding, method: Merge) -> None:
        first = tensor.members[0]
        super().__init__(first.name, first.dtype, first.shape)
        self.pure = all(weight.pure for weight in tensor.all)
        self._tensor = tensor
        self._method = method
        self._lock = Lock()
        self._survey: list[Any] = []
        self.digests = [blake3() for _ in tensor.all[1:]]

    @property
    def parts(self) -> tuple[Weight, ...]:
        """The members' tensors, and the base's."""
        return self._tensor.all

    @property
    def unit(self) -> int:
        whole = math.lcm(*(weight.unit for weight in self._tensor.all))
        return min(whole, max(1, self.numel))

    @property
    def origin(self) -> Weight:
        return self._tensor.members[0].origin

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        if start == 0:
            self.digests = [blake3() for _ in self._tensor.all[1:]]
        first, *others = self._tensor.all
        first.read_into(out, start, tap)
        words = [out]
        for weight, digest in zip(others, self.digests, strict=True):
            buffer = np.empty(len(out), weight.dtype.word)
            weight.read_into(buffer, start, _into(digest))
            words.append(buffer)
        found, rooms = self._found(), self._tensor.rooms(min(BLOCK, len(out)))
        for at in range(0, len(out), BLOCK):
            self._blend([each[at : at + BLOCK] for each in words], rooms, start + at, found)

    def _blend(self, words: list[Array], rooms: list[Array], start: int, found: Any) -> None:
        """Merge one block into the first of `words`."""
        tensor = self._tensor
        if (self._method.convex and same(words)) or not tensor.read(words, rooms):
            return
        factor = reals_per_word(self.dtype)
        values = [room[: len(words[0]) * factor] for room in rooms]
        merged = self._method.merge(values[: len(tensor.members)], tensor, found, start * factor)
        made = merged.shape if isinstance(merged, np.ndarray) else f"{type(merged).__name__}, no array,"
        if made != values[0].shape:
            raise NnoptError(f"{tensor.name}: the fusion made {made} out of {values[0].shape}")
        if tensor.base is not None:
            merged = np.add(merged, values[-1], out=values[-1])
        words[0][:] = to_words(merged, self.dtype)

    def _found(self) -> Any:
        with self._lock:
            if not self._survey:
                self._survey.append(self._method.survey(self._tensor))
        return self._survey[0]


class PickedWeight(Weight):
    """A tensor of integers, of which each element is taken from the members by a rule."""

    def __init__(
        self, name: str, members: Sequence[Weight], pick: Callable[[str, list[Array]], Array]
    ) -> None:
        first = members[0]
        super().__init__(first.name, first.dtype, first.shape)
        self._name = name
        self._members = tuple(members)
        self._pick = pick
        self.digests = [blake3() for _ in members[1:]]

    @property
    def parts(self) -> tuple[Weight, ...]:
        """The members' tensors."""
        return self._members

    @property
    def unit(self) -> int:
        return min(math.lcm(*(weight.unit for weight in self._members)), max(1, self.numel))

    @property
    def origin(self) -> Weight:
        return self._members[0].origin

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        if start == 0:
            self.digests = [blake3() for _ in self._members[1:]]
        self._members[0].read_into(out, start, tap)
        words = [out]
        for weight, digest in zip(self._members[1:], self.digests, strict=True):
            words.append(np.empty(len(out), weight.dtype.word))
            weight.read_into(words[-1], start, _into(digest))
        if not same(words):
            out[:] = self._pick(self._name, words)
