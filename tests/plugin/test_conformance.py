"""`check_component` passes what is right, and, one rule at a time, fails what is not."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from nnopt_cli import Criterion, Grouping, Pass, Pattern, TensorFilter, UsageError, option
from nnopt_cli.model.model import Model
from nnopt_cli.testing import check_component, small_model


class Halve(TensorFilter, Pass):
    """Halve the chosen weights."""

    factor: float = option(0.5, help="What to multiply by.", gt=0)

    def run(self, model, run):
        run.selection = self.select(model)
        return model.map(lambda name, weight: weight * self.factor, run.selection.names)


class Needs(Halve):
    """Halve, with an option that has no default."""

    other: float = option(help="A number.")


def test_good_passes():
    check_component(Halve)
    check_component(Halve, factor=0.25, exclude=("fc1.*",))
    check_component(Needs, other=1)


def test_what_lacks_a_required_option_cannot_be_checked():
    with pytest.raises(ValueError, match="other"):
        check_component(Needs)


def test_built_in_components_hold_the_same_rules():
    from nnopt_cli.plugin.manager import Wanted, load_plugins

    registry = load_plugins(Wanted(allowed=frozenset()))
    components = [cls for plugin in registry.plugins for cls in plugin.components]
    assert components
    for cls in components:
        required = [name for name, info in cls.model_fields.items() if info.is_required()]
        assert not required or cls.kind in ("loader", "dataset")
        given = {"sparsity": 0.5} if cls.name == "prune" else dict.fromkeys(required, "some-name")
        check_component(cls, **given)


def a_pass(body: Any, **attributes: Any) -> type[Pass]:
    namespace = {"__doc__": "A pass.", "__module__": __name__, "run": body, **attributes}
    return type("Made", (Pass,), namespace)


def keep(self, model, run):
    return model


def counting() -> type[Pass]:
    calls = iter(range(10**6))
    return a_pass(lambda self, m, run: m.map(lambda n, w: w + next(calls)))


def in_place(self, model, run):
    for weight in model.weights.values():
        if (words := weight.view(0, weight.numel)) is not None and weight.dtype.kind == "float":
            words[:] = 0
    return model


def only_some(self, model, run):
    return Model(dict(list(model.weights.items())[:3]), model.container)


def untie(self, model, run):
    copy = small_model()
    return Model({**model.weights, "head.weight": copy.weights["head.weight"]}, model.container)


def talk(self, model, run):
    print("done")
    return model


def vague_facts(self, model, run):
    run.facts["x"] = float("nan")
    return model


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (a_pass(keep, __doc__=None), "docstring"),
        (a_pass(keep, name="Not Good"), "lower-case"),
        (a_pass(keep, __annotations__={"x": int}, x=1), "help sentence"),
        (a_pass(keep, __annotations__={"x": Any}, x=option(1, help="x")), "needs a type"),
        (
            a_pass(keep, __annotations__={"x": int}, x=option("no", help="x")),
            "x 'no': must be a whole number",
        ),
        (a_pass(keep, __annotations__={"force": bool}, force=option(False, help="x")), "--force"),
        (a_pass(keep, model_config={"frozen": False}), "frozen"),
        (a_pass(keep, model_config={"extra": "ignore"}), "unknown options"),
        (a_pass(lambda self, m, run: None), "returned NoneType, not a Model"),
        (a_pass(in_place), "must not change the model"),
        (a_pass(only_some), "names and order"),
        (a_pass(untie), "must stay tied"),
        (a_pass(talk), "prints nothing"),
        (a_pass(vague_facts), "JSON"),
        (counting(), "same seed"),
    ],
)
def test_bad_passes(cls, told):
    with pytest.raises((AssertionError, ValueError), match=told):
        check_component(cls)


def test_a_pass_that_changes_a_shape_is_told_so():
    with pytest.raises(Exception, match="keeps shapes"):
        check_component(a_pass(lambda self, m, run: m.map(lambda n, w: w.reshape(-1), ["fc1.weight"])))


def test_a_module_that_imports_torch_at_its_top(tmp_path, monkeypatch):
    (tmp_path / "top_heavy_module.py").write_text(
        "import torch\nfrom nnopt_cli import Pass\n"
        "class Top(Pass):\n    'A pass.'\n    def run(self, model, run): return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from top_heavy_module import Top

    with pytest.raises(AssertionError, match="imports torch"):
        check_component(Top)


def a_criterion(score: Any, **attributes: Any) -> type[Criterion]:
    namespace = {"__doc__": "A criterion.", "__module__": __name__, "score": score, **attributes}
    return type("Scored", (Criterion,), namespace)


def refuse(self, values, where):
    raise UsageError("scores units, not weights")


def scribble(self, values, where):
    values[:] = 0
    return values


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (a_criterion(lambda self, v, w: abs(v)), None),
        (a_criterion(lambda self, v, w: np.arange(w.start, w.start + len(v)) * 1.0), None),
        (a_criterion(lambda self, v, w: abs(v), by_magnitude=True), None),
        (a_criterion(lambda self, v, w: v, by_magnitude=True), "promises the order"),
        (a_criterion(lambda self, v, w: abs(v) / (1 + abs(v).max())), "chunk"),
        (a_criterion(lambda self, v, w: np.random.default_rng().random(len(v))), "repeat"),
        (a_criterion(lambda self, v, w: abs(v)[:-1]), "shape"),
        (a_criterion(lambda self, v, w: list(v)), "not an array"),
        (a_criterion(lambda self, v, w: v > 0), "floating"),
        (a_criterion(scribble), "read-only"),
        (a_criterion(refuse), "neither weights nor units"),
        (a_criterion(refuse, score_units=lambda self, units: units), None),
    ],
)
def test_criteria(cls, told):
    if told is None:
        check_component(cls)
        return
    with pytest.raises((AssertionError, ValueError), match=told):
        check_component(cls)


class Rows(Grouping):
    """Whole rows."""

    def unit(self, shape):
        return max(1, int(np.prod(shape[1:])))

    def gather(self, op, values, shape):
        return op.reduce(values.reshape(-1, self.unit(shape)), axis=1)

    def spread(self, groups, shape, count):
        return np.repeat(groups, self.unit(shape))


class LosesSome(Rows):
    """Forgets the last element of each row."""

    def gather(self, op, values, shape):
        return op.reduce(values.reshape(-1, self.unit(shape))[:, :-1], axis=1)


class Shifted(Rows):
    """Spreads to the wrong places."""

    def spread(self, groups, shape, count):
        return np.tile(groups, count // len(groups))


class Odd(Pattern):
    """Keep every other weight."""

    def unit(self, shape):
        return 2

    def keep(self, keys, shape):
        return np.arange(len(keys)) % 2 == 0


class Median(Pattern):
    """Looks at all that it is given, however much that is."""

    def unit(self, shape):
        return 2

    def keep(self, keys, shape):
        return keys > np.median(keys)


class Ints(Odd):
    """Returns numbers."""

    name: ClassVar[str] = "ints"

    def keep(self, keys, shape):
        return keys


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (Rows, None),
        (LosesSome, "exactly one group"),
        (Shifted, "disagree"),
        (Odd, None),
        (Median, "stand on their own"),
        (Ints, "booleans"),
    ],
)
def test_granularities(cls, told):
    if told is None:
        check_component(cls)
        return
    with pytest.raises(AssertionError, match=told):
        check_component(cls)
