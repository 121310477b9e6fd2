"""Batches: rows in order or shuffled, read ahead in threads, finished on the device that computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nnopt_cli.data.assembly import Assembly, Raw
from nnopt_cli.data.images import Pixels, Skipped
from nnopt_cli.data.order import ordered
from nnopt_cli.data.source import Samples, Source, Stream
from nnopt_cli.data.table import Rows, Table
from nnopt_cli.errors import NnoptError
from nnopt_cli.model.arch import described

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nnopt_cli.data.task import Task

T = TypeVar("T")
CACHE_BYTES = 256 << 20  # decoded images that are kept for the next pass


@dataclass(frozen=True)
class Batch:
    """What a model is fed at once, and what it should say.

    Attributes:
        args: inputs passed by position.
        kwargs: inputs passed by name.
        target: class numbers (int64), or values; the leading dimension is the batch.
        size: how many samples.
    """

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    target: Tensor
    size: int

    @property
    def inputs(self) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """The inputs: a tuple, or a dict where they are passed by name."""
        return self.kwargs or self.args

    def call(self, module: Callable[..., Any]) -> Any:
        """What `module` makes of the inputs."""
        return module(*self.args, **self.kwargs)


@dataclass(frozen=True)
class Batches:
    """Batches of a source; going through them again gives the same ones.

    Attributes:
        source: the data.
        assembly: how samples become tensors.
        rows: the rows of a table, or the numbers of samples, that are used; None for a stream.
        batch_size: samples in a batch; the last one may be smaller.
        shuffle: whether every epoch has an order of its own.
        drop_last: whether a last, smaller batch is left out.
        seed: of orders and augmentation.
        workers: threads that read ahead (processes, for samples made by code); 0 reads in between.
        device: where the tensors lie.
        shard: this process's number, and how many processes share the rows.
        limit: most samples of a stream.
        keep: whether decoded images are kept for the next pass, where all of them together are small.
    """

    source: Source
    assembly: Assembly
    rows: Rows | None = None
    batch_size: int = 128
    shuffle: bool = False
    drop_last: bool = False
    seed: int = 0
    workers: int = 0
    device: str | torch.device = "cpu"
    shard: tuple[int, int] = (0, 1)
    limit: int | None = None
    keep: bool = True
    pixels: dict[str, Pixels] = field(default_factory=dict, compare=False)

    @property
    def skipped(self) -> Skipped:
        """Images that could not be read so far."""
        return self.assembly.skipped

    @property
    def size(self) -> int | None:
        """How many samples one pass gives; None for a stream."""
        return None if self.rows is None else len(self.rows)

    @property
    def count(self) -> int | None:
        """How many batches one pass gives; None for a stream."""
        if self.rows is None:
            return None
        mine = len(self.rows) // self.shard[1] if self.shard[1] > 1 else len(self.rows)
        return mine // self.batch_size if self.drop_last else -(-mine // self.batch_size)

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("a stream does not know how many batches it gives")
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from batch `skip` on; its order follows from seed and number."""
        for index, raw in self._raw(number, skip):
            if raw.size:
                draw = np.random.default_rng([self.seed, number, index, 1])
                yield self.assembly.finish(raw, self.device, draw)

    def on(self, device: str | torch.device) -> Batches:
        """The same on another device."""
        return replace(self, device=device)

    def training(self, task: Task | None = None) -> Batches:
        """The same, shuffled and augmented."""
        return replace(self, shuffle=True, assembly=replace(self.assembly, training=True))

    def first(self, size: int) -> Batch:
        """A first batch of at most `size` samples, for a look. Raises NnoptError where there is none."""
        plain = replace(self.assembly, training=False)
        look = replace(self, batch_size=size, shuffle=False, drop_last=False, shard=(0, 1), workers=0)
        look = replace(look, assembly=plain, pixels={}, limit=size if self.rows is None else None)
        batch = None
        if self.rows is not None:  # the first rows alone, so that nothing else is made ready
            batch = next(iter(replace(look, rows=self.rows[:size], pixels={})), None)
        batch = batch or next(iter(look), None)
        if batch is None:
            why = self.skipped.note(self.size) or "It has no rows."
            raise NnoptError(f"{self.source.origin}: there is no data", why)
        return batch

    def _raw(self, number: int, skip: int) -> Iterator[tuple[int, Raw]]:
        if isinstance(self.source, Stream):
            return self._streamed(self.source, skip)
        assert self.rows is not None
        blocks = self.source.blocks if isinstance(self.source, Table) else ()
        order = ordered(self.rows, blocks, (self.seed, number) if self.shuffle else None)
        rank, world = self.shard
        if world > 1:  # the same number for each, so that none waits for the others
            order = order[: len(order) // world * world][rank::world]
        starts = range(0, len(order) - (self.batch_size - 1 if self.drop_last else 0), self.batch_size)
        parts = [order[start : start + self.batch_size] for start in starts]
        if isinstance(self.source, Table):
            return self._table(self.source, parts, number, skip)
        return self._samples(self.source, parts, number, skip)

    def _table(
        self, table: Table, parts: Sequence[Rows], number: int, skip: int
    ) -> Iterator[tuple[int, Raw]]:
        assert self.rows is not None
        for name in self.assembly.images(table):
            self.pixels.setdefault(name, Pixels(self.rows, CACHE_BYTES if self.keep else 0))

        def work(index: int) -> tuple[int, Raw]:
            draw = np.random.default_rng([self.seed, number, index])
            return index, self.assembly.of_rows(table, parts[index], self.pixels, draw)

        return _ahead(work, range(skip, len(parts)), self.workers)

    def _samples(
        self, source: Samples, parts: Sequence[Rows], number: int, skip: int
    ) -> Iterator[tuple[int, Raw]]:
        import torch
        from torch.utils.data import DataLoader

        wanted = [[int(row) for row in part] for part in parts[skip:]]
        loader: Any = DataLoader(
            source.items,
            batch_sampler=wanted,
            num_workers=self.workers,
            collate_fn=self.assembly.collate,
            generator=torch.Generator().manual_seed(
                self.seed + number
            ),  # not the global one, which may be saved
        )
        for index, collated in enumerate(self._of_code(loader, "batches"), skip):
            draw = np.random.default_rng([self.seed, number, index])
            yield index, self.assembly.of_collated(collated, draw)

    def _of_code(self, items: Iterable[Any], unit: str) -> Iterator[Any]:
        """What the user's own code gives. Raises NnoptError where that fails."""
        count = 0
        try:
            for item in items:
                yield item
                count += 1
        except NnoptError:
            raise
        except Exception as error:
            worker = "DataLoader worker" in str(error)  # whose own traceback is the text of the error
            said = str(error).strip().rsplit("\n", 1)[-1] if worker else described(error)
            raise NnoptError(f"{self.source.origin}: fails after {count} {unit}: {said}") from error

    def _streamed(self, stream: Stream, skip: int) -> Iterator[tuple[int, Raw]]:
        for index, collated in enumerate(self._grouped(stream)):
            if index >= skip and index % self.shard[1] == self.shard[0]:
                draw = np.random.default_rng([self.seed, 0, index])
                yield index, self.assembly.of_collated(collated, draw)

    def _grouped(self, stream: Stream) -> Iterator[Any]:
        left = -1 if self.limit is None else self.limit
        if stream.batched:
            for batch in self._of_code(stream, "batches"):
                if left == 0:
                    return
                size = self.assembly.collated_size(batch)
                if 0 < left < size:
                    batch = self.assembly.head(batch, left)
                yield batch
                left -= min(size, left) if left > 0 else 0
            return
        group: list[Any] = []
        for sample in self._of_code(stream, "samples"):
            if left == 0:
                break
            left -= 1
            group.append(sample)
            if len(group) == self.batch_size:
                yield self.assembly.collate(group)
                group = []
        if group and not self.drop_last:
            yield self.assembly.collate(group)


def batches(
    source: Source,
    *,
    batch_size: int = 128,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
) -> Batches:
    """Batches of a source whose columns say by their names what they are (`x` or one image, and `y`).

    Raises UsageError where that is not clear; `--x` and `--y` of a command say it.
    """
    from nnopt_cli.data.opening import Wanted, opened

    made = opened(source, wanted=Wanted(batch_size=batch_size, seed=seed, workers=workers))
    return replace(made, shuffle=shuffle, drop_last=drop_last)


def _ahead(work: Callable[[int], T], items: Sequence[int], workers: int) -> Iterator[T]:
    """`map(work, items)` in order, with `workers` threads a few items ahead of the reader."""
    if not workers:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, "nnopt-data") as pool:
        waiting: list[Future[T]] = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers + 4:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
