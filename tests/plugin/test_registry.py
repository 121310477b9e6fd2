"""Building components from what a user writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar, Literal, Self

import pytest
from pydantic import model_validator

from nnopt_cli import Component, Criterion, Granularity, NnoptError, UsageError, option
from nnopt_cli.plugin.registry import Registry


class Optimizer(Component, kind="optimizer"):
    """A kind that only this test knows."""


class Sgd(Optimizer):
    """Stochastic gradient descent."""

    lr: float = option(0.1, help="Step size.", gt=0)
    momentum: float = option(0.0, help="Momentum.", ge=0, lt=1)
    nesterov: bool = option(False, help="Look ahead.")
    mode: Literal["plain", "decoupled"] = option("plain", help="How decay is applied.")
    tags: tuple[str, ...] = option((), help="Labels.")
    lambda_: float = option(0.0, help="Decay.")
    warm_up: int | None = option(None, help="Steps.")
    path: Path | None = option(None, help="A file.")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum")
        return self


class Wrap(Optimizer):
    """Holds another one."""

    inner: Optimizer = option(help="The other one.")
    also: tuple[Optimizer, ...] = option((), help="More.")


class Grid(Optimizer):
    """Has a short form."""

    rows: int = option(1, help="Rows.", ge=1)
    columns: int = option(1, help="Columns.", ge=1)

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        rows, x, columns = text.partition("x")
        return cls(rows=rows, columns=columns) if x and rows.isdigit() and columns.isdigit() else None

    def spec(self) -> str:
        return f"{self.rows}x{self.columns}"


@pytest.fixture
def registry() -> Registry:
    made = Registry(commands=["inspect"])
    made.add([Sgd, Wrap, Grid], "test")
    return made


def test_every_form_gives_the_same(registry):
    wanted = Sgd(lr=0.5, momentum=0.9, nesterov=True)
    assert registry.build("optimizer", "sgd:lr=0.5,momentum=0.9,nesterov=true") == wanted
    assert (
        registry.build("optimizer", {"name": "sgd", "lr": 0.5, "momentum": 0.9, "nesterov": True}) == wanted
    )
    assert registry.build("optimizer", {"name": "sgd:lr=0.5", "momentum": "0.9", "nesterov": "yes"}) == wanted
    assert registry.build("optimizer", wanted) is wanted
    assert registry.build("optimizer", "sgd") == Sgd()


def test_values_of_every_type(registry):
    built = registry.build("optimizer", "sgd:tags=one,lambda=0.5,warm-up=3,path='a, b',mode=decoupled")
    assert built == Sgd(tags=("one",), lambda_=0.5, warm_up=3, path=Path("a, b"), mode="decoupled")
    assert registry.build("optimizer", 'sgd:tags=["a", "b,c"],warm_up=null') == Sgd(tags=("a", "b,c"))


def test_components_inside_components(registry):
    wanted = Wrap(inner=Sgd(lr=0.5), also=(Sgd(), Grid(rows=2, columns=3)))
    table = {"name": "wrap", "inner": "sgd:lr=0.5", "also": [{"name": "sgd"}, "2x3"]}
    assert registry.build("optimizer", table) == wanted
    assert registry.build("optimizer", wanted.table()) == wanted
    assert registry.build("optimizer", wanted.spec()) == wanted
    assert registry.build("optimizer", 'wrap:inner="sgd:lr=0.5,momentum=0.1"').inner.momentum == 0.1


def test_a_short_form_must_match_whole(registry):
    assert registry.build("optimizer", "2x3") == Grid(rows=2, columns=3)
    for text in ("2x", "2x3x4", "2x3 "):
        with pytest.raises(UsageError, match="there is no optimizer"):
            registry.build("optimizer", text)
    with pytest.raises(UsageError, match="rows '0': must be at least 1"):
        registry.build("optimizer", "0x3")


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("sdg", "there is no optimizer 'sdg'", "Did you mean 'sgd'? There are: sgd, wrap, grid."),
        ("sgd:momentun=0.9", "optimizer 'sgd': there is no option 'momentun'", "Did you mean 'momentum'?"),
        ({"name": "sgd", "mometum": 1}, "there is no option 'mometum'", "Did you mean 'momentum'?"),
        ("sgd:lr=fast", "optimizer 'sgd': lr 'fast': must be a number, above 0", None),
        ("sgd:momentum=1", "momentum '1': must be at least 0, below 1", None),
        ("sgd:mode=plan", "mode 'plan': must be one of plain, decoupled", "Did you mean 'plain'?"),
        ("sgd:nesterov=maybe", "nesterov 'maybe': must be a valid boolean", None),
        ("sgd:nesterov=true", "optimizer 'sgd': nesterov needs momentum", None),
        ("sgd:lr=0,momentum=2", "lr '0': must be above 0", None),
        ("wrap", "optimizer 'wrap': inner is required", "The other one."),
        ("wrap:inner=sdg", "there is no optimizer 'sdg'", "Did you mean 'sgd'?"),
        ({"lr": 1}, "needs the key 'name'", "It has: lr."),
        (3, "3 is no optimizer", None),
        (None, "None is no optimizer", None),
        ("", "there is no optimizer ''", None),
    ],
)
def test_mistakes_name_what_is_allowed(registry, value, message, hint):
    with pytest.raises(UsageError) as caught:
        registry.build("optimizer", value)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    if hint:
        assert hint in (caught.value.hint or "")


def test_two_mistakes_are_told_at_once(registry):
    with pytest.raises(UsageError) as caught:
        registry.build("optimizer", "sgd:lr=0,momentum=2")
    assert "lr" in caught.value.message
    assert "momentum" in caught.value.message


def test_an_object_of_another_kind_is_refused(registry):
    class Other(Criterion):
        """x"""

        def score(self, values, where):
            return values

    with pytest.raises(UsageError, match="'other' is of kind criterion, not optimizer"):
        registry.build("optimizer", Other())


def test_a_kind_without_components(registry):
    with pytest.raises(UsageError) as caught:
        registry.build("loss", "focal")
    assert "No plugin provides any" in (caught.value.hint or "")


CODE = """
from nnopt_cli import Criterion, option
class Mine(Criterion):
    '''My own.'''
    power: float = option(2.0, help="Exponent.")
    def score(self, values, where):
        return abs(values) ** self.power
class Half(Criterion):
    '''Lacks score.'''
not_a_class = 3
"""


class TestCode:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "my code.py"
        path.write_text(CODE)
        return path

    def test_a_file(self, registry, file):
        built = registry.build("criterion", f"code:{file}:Mine:power=3", allow_code=True)
        assert built.power == 3
        again = registry.build("criterion", {"name": f"code:{file}:Mine", "power": 3}, allow_code=True)
        assert again == built
        assert type(again) is type(built)  # the file runs once
        assert registry.build("criterion", built.table(), allow_code=True) == built
        assert registry.build("criterion", built.spec(), allow_code=True) == built

    def test_a_module(self, registry, tmp_path, monkeypatch):
        (tmp_path / "mymod_for_test.py").write_text(CODE)
        monkeypatch.syspath_prepend(tmp_path)
        assert registry.build("criterion", "code:mymod_for_test:Mine", allow_code=True).power == 2
        del sys.modules["mymod_for_test"]

    def test_it_is_followed_only_where_allowed(self, registry, tmp_path):
        file = tmp_path / "boom.py"
        file.write_text("raise SystemExit('ran')")
        for value in (f"code:{file}:X", {"name": f"code:{file}:X"}):
            with pytest.raises(UsageError, match="refers to code, which is not followed here"):
                registry.build("criterion", value)

    def test_nor_inside_a_table_that_is_not_trusted(self, registry, tmp_path):
        with pytest.raises(UsageError, match="not followed here"):
            registry.build("optimizer", {"name": "wrap", "inner": f"code:{tmp_path / 'x.py'}:X"})

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("Mien", "there is no 'Mien' in it"),
            ("Half", "lacks score"),
            ("not_a_class", "is not of kind criterion"),
            ("Criterion", "is not of kind criterion"),
        ],
    )
    def test_mistakes(self, registry, file, name, told):
        with pytest.raises(UsageError, match=told):
            registry.build("criterion", f"code:{file}:{name}", allow_code=True)

    @pytest.mark.parametrize(
        ("source", "told"),
        [
            ("1 / 0", r"ZeroDivisionError: division by zero \(bad.py, line 1\)"),
            ("import sys; sys.exit(3)", "SystemExit: 3"),
            ("def f(:", "SyntaxError"),
        ],
    )
    def test_code_that_fails(self, registry, tmp_path, source, told):
        (tmp_path / "bad.py").write_text(source)
        with pytest.raises(UsageError, match=told):
            registry.build("criterion", f"code:{tmp_path / 'bad.py'}:X", allow_code=True)

    def test_code_that_is_not_there(self, registry, tmp_path):
        with pytest.raises(UsageError, match="there is no file"):
            registry.build("criterion", f"code:{tmp_path / 'none.py'}:X", allow_code=True)
        with pytest.raises(UsageError, match="No module named"):
            registry.build("criterion", "code:no_such_module_here:X", allow_code=True)

    def test_a_registered_class_keeps_its_name(self, registry):
        registry.add([Plain], "test")
        registry.build("criterion", f"code:{Plain.__module__}:Plain", allow_code=True)
        assert Plain.name == "plain"


class Plain(Criterion):
    """x"""

    def score(self, values, where):
        return values


def test_adding_is_all_or_nothing():
    made = Registry()
    made.add([Sgd], "first")

    class Fresh(Optimizer):
        """x"""

    class Taken(Optimizer):
        """x"""

        name: ClassVar[str] = "sgd"

    with pytest.raises(NnoptError, match="the optimizer 'sgd' is taken: plugin 'first' has it"):
        made.add([Fresh, Taken], "second")
    assert made.names("optimizer") == ("sgd",)
    assert made.owner(Fresh) == ""
    made.add([Fresh], "third")
    assert made.names("optimizer") == ("sgd", "fresh")


def test_granularities_need_a_registry_to_be_named():
    class Holder(Optimizer):
        """x"""

        granularity: Granularity = option(help="x")

    with pytest.raises(ValueError, match="validate with a registry"):
        Holder(granularity="2:4")
