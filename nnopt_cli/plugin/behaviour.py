"""What a component of each kind must do: the second half of `check_component`."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from itertools import pairwise
from typing import TYPE_CHECKING

from nnopt_cli.plugin.component import plain

if TYPE_CHECKING:
    from nnopt_cli.formats.weight import Array
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.kinds import Criterion, Grouping, Pass, Pattern, Where
    from nnopt_cli.run import Run

_SHAPES = ((10, 16), (5, 7), (8, 3, 3, 3), (1, 1))


def check_pass(method: Pass) -> None:
    """It maps a model to one with the same tensors, leaves its input alone and repeats itself."""
    from nnopt_cli.testing import small_model

    if method.needs != "weights":
        return  # the small model has no graph
    model = small_model()
    untouched = _words(small_model())
    first, run = _run(method, model)
    assert list(first.weights) == list(model.weights), (
        "a pass on bare weights keeps the tensors' names and order"
    )
    for name, weight in first.weights.items():
        had, has = model.weights[name], weight
        assert has.shape == had.shape, f"{name}: a pass on bare weights keeps shapes"
        assert has.dtype == had.dtype, f"{name}: a pass on bare weights keeps dtypes"
    once = _words(first)
    assert _words(model) == untouched, "a pass must not change the model that it is given"
    second, _ = _run(method, small_model())
    assert _words(second) == once, "the same seed must give the same weights, bit for bit"
    assert _words(first) == once, "reading a weight twice must give the same bits"
    json.dumps(plain(run.facts), allow_nan=False)
    tied = first.weights["embed.weight"] is first.weights["head.weight"]
    assert tied, "tensors that were tied must stay tied; use Model.edit or Model.map"


def _run(method: Pass, model: Model) -> tuple[Model, Run]:
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

    run, printed = Run(seed=1), io.StringIO()
    with redirect_stdout(printed):
        out = method.run(model, run)
    assert isinstance(out, Model), f"run() returned {type(out).__name__}, not a Model"
    assert not printed.getvalue(), "a pass prints nothing; say it with run.note(...)"
    return out, run


def _words(model: Model) -> dict[str, bytes]:
    return {name: weight.words().tobytes() for name, weight in model.weights.items()}


def check_criterion(criterion: Criterion) -> None:
    """A score per weight that depends on the weight, its place and the seed, not on its chunk.

    One that scores only whole units refuses single weights by a UsageError, and has `score_units`.
    """
    import numpy as np

    from nnopt_cli.errors import UsageError
    from nnopt_cli.plugin.kinds import Criterion

    try:
        _score(criterion, np.ones(1, "float32"), 0)
    except UsageError:
        assert type(criterion).score_units is not Criterion.score_units, "it scores neither weights nor units"
        return
    for dtype in ("float32", "float64"):
        values = np.random.default_rng(0).standard_normal(257).astype(dtype)
        values[::50] = 0
        whole = _score(criterion, values, 0)
        assert np.array_equal(whole, _score(criterion, values, 0), equal_nan=True), "scores must repeat"
        cuts = (0, 1, 64, 200, 257)
        parts = [_score(criterion, values[a:b], a) for a, b in pairwise(cuts)]
        same = np.array_equal(whole, np.concatenate(parts), equal_nan=True)
        assert same, "a weight's score may not depend on the chunk that it comes in; `where` says its place"
        if criterion.by_magnitude:
            order, places = np.argsort(whole, kind="stable"), np.argsort(np.abs(values), kind="stable")
            assert np.array_equal(order, places), "by_magnitude promises the order of |w|, ties included"


def _score(criterion: Criterion, values: Array, start: int) -> Array:
    import numpy as np

    given = values.copy()
    given.flags.writeable = False  # numpy raises where a criterion writes into the model's weights
    scores = criterion.score(given, _where(start))
    assert isinstance(scores, np.ndarray), f"score() returned {type(scores).__name__}, not an array"
    assert scores.shape == values.shape, f"score() returned shape {scores.shape} for {values.shape} weights"
    assert scores.dtype.kind == "f", f"scores are floating numbers, not {scores.dtype}"
    return scores


def _where(start: int) -> Where:
    from nnopt_cli.plugin.kinds import Where

    return Where(name="fc1.weight", index=2, start=start, seed=1)


def check_grouping(granularity: Grouping) -> None:
    """Every element is in one group, bands stand on their own, and `spread` inverts `gather`."""
    import numpy as np

    for shape in _SHAPES:
        count = int(np.prod(shape))
        unit = granularity.unit(shape)
        assert unit >= 1, f"unit({shape}) is {unit}; a band holds at least one element"
        sizes = granularity.gather(np.add, np.ones(count), shape)
        assert sizes.ndim == 1, f"{shape}: gather() gives one value per group, in a row"
        assert sizes.sum() == count, f"{shape}: each element belongs to exactly one group"
        labels = np.arange(len(sizes), dtype=np.float64)
        spread = granularity.spread(labels, shape, count)
        assert spread.shape == (count,), f"{shape}: spread() gives one value per element"
        for power in (1, 2):  # no spread in a group, and its mean is its label: all its elements carry it
            back = granularity.gather(np.add, spread**power, shape)
            assert np.array_equal(back, sizes * labels**power), f"{shape}: spread() and gather() disagree"
        values = np.random.default_rng(0).standard_normal(count)
        bands = [values[at : at + unit] for at in range(0, count, unit)]
        parts = np.concatenate([granularity.gather(np.add, band, shape) for band in bands])
        whole = granularity.gather(np.add, values, shape)
        assert np.array_equal(parts, whole), f"{shape}: a group's sum may not depend on the bands around it"


def check_pattern(granularity: Pattern) -> None:
    """Which elements stay is decided neighbourhood by neighbourhood, and never revives a zero's place."""
    import numpy as np

    for shape in _SHAPES:
        count = int(np.prod(shape))
        unit = granularity.unit(shape)
        assert unit >= 1, f"unit({shape}) is {unit}; it counts elements"
        keys = np.random.default_rng(0).permutation(count).astype(np.uint32) + 1
        given = keys.copy()
        whole = granularity.keep(given, shape)
        assert np.array_equal(given, keys), "keep() must not change the keys"
        assert whole.shape == (count,), f"{shape}: keep() gives one value per element"
        assert whole.dtype == np.bool_, f"keep() gives booleans, not {whole.dtype}"
        parts = [granularity.keep(keys[at : at + unit].copy(), shape) for at in range(0, count, unit)]
        assert np.array_equal(whole, np.concatenate(parts)), f"{shape}: units must stand on their own"
