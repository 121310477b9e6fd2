"""`--input`: what each form means, that it prints as it is read, and what wrong ones are told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt_cli import UsageError
from nnopt_cli.model.inputs import Dim, Input, InputSpec

N = Dim("N")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3x224x224", Input("", "", (N, 3, 224, 224))),
        ("16", Input("", "", (N, 16))),
        ("3xHxW", Input("", "", (N, 3, Dim("H"), Dim("W")))),
        ("[N, 3, 8, 8]", Input("", "", (N, 3, 8, 8))),
        ("float32[1,3,8,8]", Input("", "float32", (1, 3, 8, 8))),
        ("float16[N,H:64..512]", Input("", "float16", (N, Dim("H", 64, 512)))),
        ("float32[N,T:2..]", Input("", "float32", (N, Dim("T", 2)))),
        ("float32[N,T:..9]", Input("", "float32", (N, Dim("T", 1, 9)))),
        ("float32[N,3,32*H,32*W]", Input("", "float32", (N, 3, Dim("H", factor=32), Dim("W", factor=32)))),
        ("ids = int64[N,16] < 30522", Input("ids", "int64", (N, 16), 30522)),
        ("bool[N]", Input("", "bool", (N,))),
        ("int64[]", Input("", "int64", ())),
    ],
)
def test_forms(text, expected):
    spec = InputSpec.parse(text)
    assert spec.inputs == (expected,)
    assert InputSpec.parse(str(spec)) == spec


def test_several_inputs_in_one_text_or_in_several():
    joined = InputSpec.parse("ids=int64[N,T]; mask=int64[N,T]<2")
    assert joined == InputSpec.parse(["ids=int64[N,T]", "mask=int64[N,T]<2"])
    args, kwargs = joined.example(5)
    assert args == ()
    assert list(kwargs) == ["ids", "mask"]
    assert kwargs["ids"].shape == kwargs["mask"].shape
    assert kwargs["ids"].shape[0] == 5


def test_one_name_has_one_range():
    spec = InputSpec.parse("float32[N,T:4..9]; float32[N,T]")
    assert spec.inputs[1].shape[1] == Dim("T", 4, 9)
    with pytest.raises(UsageError, match="T is given two ranges"):
        InputSpec.parse("float32[T:4..9]; float32[T:4..8]")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3,224,224", "not understood"),
        ("float32[N", "not understood"),
        ("name=", "not understood"),
        ("", "says nothing"),
        (" ; ", "says nothing"),
        ("float23[N]", "there is no element type 'float23'"),
        ("float32[N,-1]", "'-1' is not a size"),
        ("float32[N,]", "'' is not a size"),
        ("3xx4", "'' is not a size"),
        ("float32[H:9..2]", "cannot vary"),
        ("float32[H:1..1]", "cannot vary"),
        ("float32[0*H]", "always 0"),
        ("float32[N]<7", "is for integers"),
        ("int64[N]<0", "no value is below 0"),
        ("x=float32[N]; x=float32[N]", "'x' is given twice"),
    ],
)
def test_wrong_ones_are_told(text, told):
    with pytest.raises(UsageError, match=told.replace("[", r"\[")):
        InputSpec.parse(text)


def test_a_close_element_type_is_named():
    with pytest.raises(UsageError) as caught:
        InputSpec.parse("float33[N]")
    assert "'float32'" in str(caught.value)


def test_examples_fit_their_ranges_and_repeat():
    spec = InputSpec.parse("float32[N,3,H:64..512,8*W:3..5]; ids=int64[N,7]<50; flag=bool[N]; float64[2]")
    first, again = spec.tensors(seed=1), spec.tensors(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    image, ids, flag, fixed = first
    assert image.shape[0] == 2
    assert 64 <= image.shape[2] <= 512
    assert image.shape[3] in (24, 32, 40)
    assert ids.dtype == torch.int64
    assert 0 <= int(ids.min()) <= int(ids.max()) < 50
    assert flag.dtype == torch.bool
    assert fixed.dtype == torch.float64
    assert not torch.equal(image, spec.tensors(seed=2)[0])
    assert spec.tensors(6)[0].shape[0] == 6
    assert InputSpec.parse("3x4").tensors(dtype="float16")[0].dtype == torch.float16


def test_sizes_that_vary_differ_so_that_none_is_taken_for_another():
    sizes = InputSpec.parse("float32[N,A,B,C]").sizes()
    assert len(set(sizes.values())) == 4


def test_a_fixed_batch_is_no_batch():
    spec = InputSpec.parse("float32[4,H]")
    assert spec.batch is None
    assert spec.tensors(9)[0].shape[0] == 4
    assert InputSpec.parse("float32[4]; float32[B,4]").batch == "B"


names = st.from_regex(r"[A-Z][A-Z0-9_]{0,4}", fullmatch=True)
dims = st.one_of(
    st.integers(0, 999),
    st.builds(Dim, names, st.integers(1, 40), st.one_of(st.none(), st.integers(50, 90)), st.integers(1, 9)),
)
inputs = st.builds(
    Input,
    st.just(""),
    st.sampled_from(["float32", "int64", "bfloat16"]),
    st.lists(dims, max_size=5).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(inputs)
def test_whatever_is_printed_is_read_back(each):
    ranges = {}
    for dim in each.shape:
        if isinstance(dim, Dim) and ranges.setdefault(dim.name, (dim.low, dim.high)) != (dim.low, dim.high):
            return  # two ranges for one name are refused
    spec = InputSpec((each,))
    assert InputSpec.parse(str(spec)) == spec
