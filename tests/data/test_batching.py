"""Batches: the same for every number of threads, every epoch in its own order, all of it repeatable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_models import Small, model_of, options, run
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from nnopt_cli import NnoptError
from nnopt_cli.data import Numbers, Stream, Table, as_source, batches
from nnopt_cli.data.opening import Wanted, opened
from nnopt_cli.data.order import limited, ordered, row_range, split

X = np.arange(50, dtype=np.float32)[:, None] * np.ones(3, np.float32)
TABLE = Table({"x": Numbers(X), "y": Numbers(np.arange(50) % 5)})


def seen(made, epoch: int = 0, skip: int = 0) -> list[int]:
    return [int(row[0]) for batch in made.epoch(epoch, skip) for row in batch.args[0]]


def test_in_order_by_default_and_the_last_batch_is_smaller():
    made = batches(TABLE, batch_size=8)
    assert seen(made) == list(range(50))
    assert [batch.size for batch in made] == [8] * 6 + [2]
    assert len(made) == 7
    assert all(batch.target.tolist() == [int(v) % 5 for v in batch.args[0][:, 0]] for batch in made)
    short = batches(TABLE, batch_size=8, drop_last=True)
    assert seen(short) == list(range(48))
    assert len(short) == 6


def test_every_epoch_has_its_own_order_which_follows_from_the_seed():
    made = batches(TABLE, batch_size=7, shuffle=True, seed=3)
    first, second = seen(made, 0), seen(made, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == seen(batches(TABLE, batch_size=7, shuffle=True, seed=3), 0)
    assert first != seen(batches(TABLE, batch_size=7, shuffle=True, seed=4), 0)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_change_nothing(workers):
    alone = batches(TABLE, batch_size=7, shuffle=True)
    assert seen(replace(alone, workers=workers), 2) == seen(alone, 2)


def test_going_on_in_the_middle_gives_the_rest():
    made = batches(TABLE, batch_size=7, shuffle=True)
    assert seen(made, 4, skip=3) == seen(made, 4)[21:]


def test_leaving_early_ends_the_threads():
    import threading

    before = threading.active_count()
    for batch in batches(TABLE, batch_size=2, workers=3):
        assert batch.size == 2
        break
    assert threading.active_count() <= before + 3
    iterator = batches(TABLE, batch_size=2, workers=3).epoch(0)
    next(iterator)
    iterator.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_reaches_the_reader():
    class Odd(Numbers):
        def take(self, rows):
            if 30 in rows:
                raise NnoptError("row 30 is odd")
            return super().take(rows)

    table = Table({"x": Odd(X), "y": Numbers(np.arange(50))})
    with pytest.raises(NnoptError, match="row 30 is odd"):
        seen(batches(table, batch_size=4, workers=3))


def test_processes_share_the_rows():
    made = replace(batches(TABLE, batch_size=4, shuffle=True), shard=(0, 3))
    parts = [seen(replace(made, shard=(rank, 3)), 1) for rank in range(3)]
    assert [len(part) for part in parts] == [16, 16, 16]
    assert len(set().union(*parts)) == 48
    assert all(len(replace(made, shard=(rank, 3))) == 4 for rank in range(3))


@given(st.integers(1, 300), st.lists(st.integers(1, 299), max_size=6), st.integers(0, 9))
def test_blocks_are_shuffled_as_a_whole_and_nothing_is_lost(count, cuts, seed):
    rows = np.arange(count)
    blocks = (0, *sorted({cut for cut in cuts if cut < count}))
    out = ordered(rows, blocks, (seed, 1))
    assert sorted(out.tolist()) == rows.tolist()


def test_large_blocks_stay_together(monkeypatch):
    import nnopt_cli.data.order as order

    monkeypatch.setattr(order, "WINDOW", 10)
    out = ordered(np.arange(40), (0, 10, 20, 30), (0, 0))
    assert all(len({row // 10 for row in part}) == 1 for part in out.reshape(4, 10).tolist())
    assert out.tolist() != list(range(40))


@pytest.mark.parametrize(
    ("text", "want"),
    [(":3", [0, 1, 2]), ("7:", [7, 8, 9]), ("-2:", [8, 9]), ("2:4", [2, 3]), (":", range(10))],
)
def test_row_ranges(text, want):
    assert row_range(text, 10).tolist() == list(want)


@pytest.mark.parametrize("text", ["5", "a:b", "20:", "5:5", "1:2:3"])
def test_row_ranges_that_name_nothing(text):
    from nnopt_cli import UsageError

    with pytest.raises(UsageError, match="--rows"):
        row_range(text, 10)


def test_a_limit_is_drawn_and_keeps_the_order():
    rows = limited(np.arange(1000), 100, 5)
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert rows.max() > 500
    assert rows.tolist() == limited(np.arange(1000), 100, 5).tolist()
    assert rows.tolist() != limited(np.arange(1000), 100, 6).tolist()


def test_a_split_keeps_the_shares_of_the_classes():
    labels = np.array([0] * 80 + [1] * 20)
    train, val = split(np.arange(100), labels, 0.2, 0)
    assert sorted([*train, *val]) == list(range(100))
    assert labels[val].sum() == 4
    again = split(np.arange(100), labels, 0.2, 0)
    assert val.tolist() == again[1].tolist()
    assert val.tolist() != split(np.arange(100), labels, 0.2, 1)[1].tolist()


@pytest.mark.parametrize(
    ("labels", "share", "said"),
    [
        ([0, 0, 0, 1], 0.5, "class 1 has one sample"),
        ([0, 0, 1, 1], 0.25, "cannot hold 2 classes"),
        ([0], 0.5, "leaves 1 and 0"),
    ],
)
def test_a_split_that_cannot_be(labels, share, said):
    with pytest.raises(NnoptError, match=said):
        split(np.arange(len(labels)), np.array(labels), share, 0)


class Counting(IterableDataset):
    def __iter__(self):
        for number in range(11):
            yield torch.full((3,), float(number)), number % 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: Counting(),
        lambda: DataLoader(Counting(), batch_size=4),
        lambda: DataLoader(TensorDataset(torch.from_numpy(X[:11]), torch.arange(11) % 4), batch_size=5),
        lambda: TensorDataset(torch.from_numpy(X[:11]), torch.arange(11) % 4),
        lambda: [(np.full(3, float(n), np.float32), n % 4) for n in range(11)],
        lambda: [{"x": np.full(3, float(n), np.float32), "label": n % 4} for n in range(11)],
        lambda: (X[:11], np.arange(11) % 4),
        lambda: {"x": torch.from_numpy(X[:11]), "label": list(np.arange(11) % 4)},
        lambda: Stream(lambda: ((np.full(3, float(n), np.float32), n % 4) for n in range(11))),
    ],
    ids=[
        "iterable",
        "loader",
        "loader of a dataset",
        "dataset",
        "pairs",
        "dicts",
        "arrays",
        "table",
        "stream",
    ],
)
def test_whatever_code_returns(make):
    made = opened(as_source(make()), wanted=Wanted(batch_size=4))
    for _ in range(2):
        assert seen(made) == list(range(11))
        assert [int(t) for batch in made for t in batch.target] == [n % 4 for n in range(11)]
    few = opened(as_source(make()), wanted=Wanted(batch_size=4, limit=6))
    assert len(seen(few)) == 6
    assert made.first(2).size <= 2
    if made.rows is not None:
        assert seen(replace(made, shuffle=True), 1) == seen(replace(made, shuffle=True), 1)


def test_an_iterator_needs_code_that_makes_it_again():
    pairs = [(np.zeros(3, np.float32), 1)] * 3
    with pytest.raises(NnoptError, match="only once"):
        as_source(iter(pairs))
    source = as_source(iter(pairs), "code", lambda: iter(pairs))
    made = opened(source, wanted=Wanted(batch_size=2))
    assert [len(seen(made)) for _ in range(3)] == [3, 3, 3]


@pytest.mark.parametrize("thing", [3, "text", np.zeros(3), torch.zeros(2), None])
def test_what_is_no_data_is_refused(thing):
    with pytest.raises(NnoptError):
        as_source(thing)


def test_samples_that_do_not_fit_together():
    samples = [(np.zeros(3), 0), (np.zeros(4), 1)]
    with pytest.raises(NnoptError, match="do not fit together"):
        list(opened(as_source(samples), wanted=Wanted(batch_size=2)))


def test_columns_of_different_lengths():
    with pytest.raises(NnoptError, match="x 3, y 4"):
        as_source({"x": np.zeros((3, 2)), "y": np.zeros(4)})


def test_reading_batches_leaves_the_global_generator_alone():
    samples = as_source([(np.zeros(3, np.float32), 0)] * 8)
    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    for source in (samples, TABLE):
        list(opened(source, wanted=Wanted(batch_size=2)))
    assert torch.equal(torch.rand(3), want)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_read_samples():
    samples = as_source(TensorDataset(torch.from_numpy(X), torch.arange(50) % 5))
    made = opened(samples, wanted=Wanted(batch_size=8, workers=2))
    assert seen(made) == list(range(50))


def test_epochs_of_a_split_hold_its_rows_only(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.random.rand(60, 3, 4, 4).astype(np.float32), y=np.arange(60) % 4)
    data = options(data=str(tmp_path / "d.npz"), val_split=0.25, batch_size=9).open(
        run(), model_of(tmp_path, Small)
    )
    assert data.train.size == 45
    assert data.val is not None
    assert data.val.size == 15
    train = torch.cat([batch.args[0] for batch in data.train])
    val = torch.cat([batch.args[0] for batch in data.val])
    assert torch.cat([train, val]).unique(dim=0).shape[0] == 60
    assert data.measured is data.val
