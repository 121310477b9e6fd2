"""What a user writes, and what is said when it does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from nnopt_plugins.prune.granularities import NM, Block
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.sparsity import Share, assign, parse, target
from prune_models import memory_model, pruned_words, quiet, random_tensors
from pydantic import ValidationError

from nnopt_cli import NnoptError, UsageError


def three_layers():  # type: ignore[no-untyped-def]
    a, b, c = random_tensors(0, [(10, 10)] * 3, ["float32"] * 3)
    return memory_model({"layer1.weight": a, "layer2.weight": b, "head.weight": c, "layer1.bias": a[0]})


def zeros(model) -> dict[str, int]:  # type: ignore[no-untyped-def]
    return {name: int((words == 0).sum()) for name, words in pruned_words(model).items()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.5, [(None, 0.5)]),
        ("50%", [(None, 0.5)]),
        ("33.3%", [(None, 0.333)]),
        (0, [(None, 0.0)]),
        (["0.5", "layer4.*=0.8"], [(None, 0.5), ("layer4.*", 0.8)]),
        ("a=b.weight=10%", [("a=b.weight", 0.1)]),
        ({"*": 0.5, "layer4.*": "80%"}, [(None, 0.5), ("layer4.*", 0.8)]),
    ],
)
def test_sparsity_is_written_as_one_likes(given: object, expected: list[tuple[str | None, float]]) -> None:
    shares = Prune(sparsity=given).sparsity
    assert [(share.pattern, share.value) for share in shares] == expected
    assert Prune(sparsity=Prune(sparsity=given).table()["sparsity"]).sparsity == shares


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (1.5, "between 0 and 1"),
        ("-0.1", "between 0 and 1"),
        ("nan", "between 0 and 1"),
        ("101%", "between 0 and 1"),
        (50, "write 0.5 or 50%"),
        (True, "fraction|between"),
        ("half", "not a fraction"),
        ("=0.5", "names no pattern"),
        (["0.5", "0.6"], "two sparsities without a pattern"),
        (["a=0.5", "a=0.6"], "two sparsities for 'a'"),
    ],
)
def test_sparsity_that_is_none(given: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Prune(sparsity=given)


def test_the_last_pattern_wins_over_earlier_ones_and_over_the_plain_number() -> None:
    shares = parse(["a.*=0.1", "0.5", "a.b.*=0.9"])
    names = {"a.b.w": ["a.b.w"], "a.c.w": ["a.c.w"], "d.w": ["d.w"], "e.w": ["e.w", "a.b.tied"]}
    by_value = {share.value: chosen for share, chosen in assign(names, shares).items()}
    assert by_value == {0.1: ["a.c.w"], 0.5: ["d.w"], 0.9: ["a.b.w", "e.w"]}
    assert str(Share(0.8, "layer4.*")) == "layer4.*=0.8"


def test_each_pattern_competes_among_its_own() -> None:
    run = quiet()
    after = zeros(Prune(sparsity=["0.5", "layer1.*=0.8"]).run(three_layers(), run))
    assert after["layer1.weight"] == 80
    assert after["layer2.weight"] + after["head.weight"] == 100
    assert after["layer1.bias"] == 0
    assert run.facts["achieved"] == 180
    assert [cut["for"] for cut in run.facts["cuts"]] == ["*", "layer1.*"]


def test_only_patterns_leave_the_rest_alone_and_say_so() -> None:
    run = quiet()
    after = zeros(Prune(sparsity="layer1.*=0.8").run(three_layers(), run))
    assert after == {"layer1.weight": 80, "layer2.weight": 0, "head.weight": 0, "layer1.bias": 0}
    assert any("2 prunable tensors match no pattern" in note for note in run.notes)


def test_include_and_exclude() -> None:
    run = quiet()
    after = zeros(Prune(sparsity=0.5, include=("layer*",), exclude=("layer2.*",)).run(three_layers(), run))
    assert after == {"layer1.weight": 50, "layer2.weight": 0, "head.weight": 0, "layer1.bias": 0}
    assert run.selection is not None
    assert dict(run.selection.left_out) == {
        "layer2.weight": "excluded by 'layer2.*'",
        "head.weight": "not included",
        "layer1.bias": "1 dimension",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--sparsity is missing"),
        ({"sparsity": 0.5, "granularity": NM()}, "--sparsity does not go with --granularity 2:4"),
        ({"sparsity": 0.5, "include": ("layr1.*",)}, r"Did you mean 'layer1\.\*'"),
        ({"sparsity": "layr1.*=0.5"}, r"'layr1\.\*' matches no tensor"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Prune(**options).run(three_layers(), quiet())


def test_nothing_to_prune() -> None:
    model = memory_model({"a.bias": np.ones(4, "<f4"), "steps": np.ones((2, 2), "<i8")})
    with pytest.raises(NnoptError, match="nothing to prune"):
        Prune(sparsity=0.5).run(model, quiet())


def test_weights_that_are_not_finite_are_refused_by_name_and_count() -> None:
    model = three_layers()
    words = model.weights["layer2.weight"].words()
    words[0, :3] = np.nan
    words[1, 1] = -np.inf
    model = memory_model({"layer2.weight": words, "head.weight": model.weights["head.weight"]})
    with pytest.raises(NnoptError, match=r"layer2\.weight has 3 NaN and 1 infinite weights"):
        Prune(sparsity=0.5).run(model, quiet())
    run = quiet()
    after = pruned_words(Prune(sparsity=0.5, non_finite="keep").run(model, run))
    assert np.isnan(after["layer2.weight"][0, :3]).all()
    assert sum(int((value == 0).sum()) for value in after.values()) == target(0.5, 200)
    assert any("3 NaN and 1 infinite" in note for note in run.notes)


@pytest.mark.parametrize(("text", "n", "m"), [("2:4", 2, 4), ("1:16", 1, 16)])
def test_short_form_of_nm(text: str, n: int, m: int) -> None:
    found = NM.from_short(text)
    assert found == NM(n=n, m=m)
    assert found.spec() == text


@pytest.mark.parametrize("text", ["4:4", "5:4", "0:4", "1:99999"])
def test_no_pattern(text: str) -> None:
    with pytest.raises(ValidationError):
        NM.from_short(text)


def test_short_form_of_blocks() -> None:
    assert Block.from_short("4x16") == Block(rows=4, columns=16)
    assert Block(rows=4, columns=16).spec() == "4x16"
    assert Block.from_short("4:8") is None
    assert NM.from_short("4x8") is None
    with pytest.raises(ValidationError):
        Block.from_short("0x4")


def test_what_does_not_come_out_even_is_said() -> None:
    run = quiet()
    Prune(sparsity=0.5, granularity=Block(rows=4, columns=4)).run(three_layers(), run)
    assert any("4x4 does not divide 3 of 3 tensors" in note for note in run.notes)
    run = quiet()
    Prune(granularity=NM()).run(three_layers(), run)
    assert any("2 of 10 inputs left dense" in note for note in run.notes)
