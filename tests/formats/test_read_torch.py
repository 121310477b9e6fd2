"""Files that torch writes, read by us and by torch: the same tensors, lazily."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.inert import Call, Global, Ordered, Placeholder
from nnopt_cli.formats.read import read
from nnopt_cli.formats.storage import StridedWeight

REAL = Path(__file__).parents[3] / "shared" / "data" / "checkpoints"
LEGACY = {"_use_new_zipfile_serialization": False}
FORMS = pytest.mark.parametrize(
    "form", [{}, LEGACY, {"pickle_protocol": 5}], ids=["zip", "legacy", "protocol 5"]
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in type, shape and every bit."""
    flat = [t.detach().flatten().clone(memory_format=torch.contiguous_format) for t in (a, b)]
    one, two = (t.view(torch.uint8) if t.numel() else t for t in flat)
    return a.dtype == b.dtype and a.shape == b.shape and (not a.numel() or torch.equal(one, two))


def agree(path: Path, expected: dict[str, torch.Tensor]) -> None:
    weights = read(path).weights
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        assert same(weights[name].torch(), tensor), name


@st.composite
def tensors(draw) -> torch.Tensor:
    """A tensor of any type and layout: empty, scalar, transposed, sliced, an expanded one made whole."""
    dtype = getattr(torch, draw(st.sampled_from(sorted(DTYPES))))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = dtype.itemsize
    count = int(np.prod(shape)) * size
    raw = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8).copy()
    if dtype == torch.bool:
        raw %= 2
    tensor = torch.from_numpy(raw).view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    for _ in range(draw(st.integers(0, 2))):
        if tensor.dim() > 1 and draw(st.booleans()):
            tensor = tensor.transpose(0, draw(st.integers(0, tensor.dim() - 1)))
        elif tensor.dim() and tensor.shape[0] > 1:
            tensor = tensor[draw(st.integers(0, 1)) :: draw(st.integers(1, 2))]
    return tensor


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@QUICK
@given(
    state=st.dictionaries(st.text(min_size=1, max_size=8), tensors(), min_size=1, max_size=5),
    form=st.sampled_from([{}, LEGACY, {"pickle_protocol": 4}]),
    ordered=st.booleans(),
)
def test_any_state_dict_is_read_as_torch_reads_it(tmp_path, state, form, ordered):
    path = tmp_path / "model.pt"
    torch.save(OrderedDict(state) if ordered else state, path, **form)
    agree(path, state)
    if not form:  # torch cannot load all that it saves in the others
        agree(path, torch.load(path, weights_only=True))


@FORMS
def test_layouts(tmp_path, form):
    base = torch.arange(24.0).reshape(2, 3, 4)
    conv = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    state = {
        "plain": base,
        "transposed": base.transpose(0, 2),
        "row": base[1],
        "column": base[:, :, 1],
        "steps": base[:, ::2, 1:],
        "channels_last": conv,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "one": torch.randn(1, 1, 5).transpose(0, 2),
        "expanded": torch.zeros(4)[:1].expand(3),
    }
    path = tmp_path / "model.pt"
    torch.save(state, path, **form)
    weights = read(path).weights
    for name, tensor in state.items():
        assert same(weights[name].torch(), tensor), name
    strided = {name for name, weight in weights.items() if isinstance(weight, StridedWeight)}
    assert strided == {"transposed", "column", "steps", "channels_last", "expanded"}


@FORMS
def test_tied_names_share_a_weight_and_overlapping_ones_do_not(tmp_path, form):
    base = torch.arange(12.0)
    state = {"a": base, "b": base, "c": base.view(3, 4), "d": base[:4], "e": base[4:8], "f": base.clone()}
    path = tmp_path / "model.pt"
    torch.save(state, path, **form)
    checkpoint = read(path)
    w = checkpoint.weights
    assert w["a"] is w["b"]
    assert w["a"].name == "a"
    assert len({id(weight) for weight in w.values()}) == 5
    assert any("share memory" in note for note in checkpoint.notes)


def test_neighbours_and_empty_tensors_do_not_overlap_and_are_not_tied(tmp_path):
    base = torch.arange(8.0)
    torch.save({"a": base[:4], "b": base[4:], "e": torch.empty(0), "f": torch.empty(0)}, tmp_path / "m.pt")
    checkpoint = read(tmp_path / "m.pt")
    assert checkpoint.notes == ()
    assert checkpoint.weights["e"] is not checkpoint.weights["f"]


@FORMS
def test_a_training_checkpoint_keeps_everything_as_data(tmp_path, form):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    extra = {
        "epoch": 7,
        "big": 1 << 70,
        "negative": -5,
        "lr": 0.1,
        "none": None,
        "yes": True,
        "name": "résumé\ud800",
        "bytes": b"\0\xff",
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cuda", 1),
        "set": {1, "x"},
        "frozen": frozenset({2}),
        "complex": 1 + 2j,
        "tuple": (1, (2, [3])),
        "count": Counter("aab"),
        "default": defaultdict(list, {"k": [1]}),
        "np": np.float32(0.5),
        "npint": np.int64(-3),
        "npbool": np.bool_(True),
        "layout": torch.strided,
    }
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), **extra}, path, **form)
    checkpoint = read(path)
    assert checkpoint.container.key == ("state_dict",)
    assert list(checkpoint.weights) == list(model.state_dict())
    assert not checkpoint.container.rebuilt
    assert checkpoint.notes == ()
    tree = checkpoint.container.tree
    plain = {k: v for k, v in extra.items() if k not in ("size", "dtype", "device", "layout")}
    assert {k: tree[k] for k in plain} == plain
    assert type(tree["np"]) is float
    assert type(tree["npbool"]) is bool
    assert tree["size"] == Call(Global("torch", "Size"), ((2, 3),))
    assert tree["device"] == Call(Global("torch", "device"), ("cuda", 1))
    assert tree["dtype"] == Global("torch", "float16")
    assert tree["layout"] == Call(Global("torch.serialization", "_get_layout"), ("torch.strided",))
    assert isinstance(tree["state_dict"], Ordered)
    assert tree["state_dict"].attributes["_metadata"][""] == {"version": 1}
    assert isinstance(tree["optimizer"]["state"][0]["exp_avg"], Leaf)


def test_parameters_are_told_from_tensors(tmp_path):
    path = tmp_path / "m.pt"
    parameter = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    torch.save({"p": torch.nn.Parameter(torch.ones(2)), "q": parameter, "t": torch.ones(2)}, path)
    tree = read(path).container.tree
    assert [(leaf.parameter, leaf.requires_grad) for leaf in tree.values()] == [
        (True, True),
        (True, False),
        (False, False),
    ]


@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet32-d509ac18.th"])
def test_real_checkpoints(name):
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{name} is not here: real checkpoints are not part of the project")
    checkpoint = read(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert checkpoint.container.format == "torch-legacy"
    assert checkpoint.container.key == ("state_dict",)
    assert checkpoint.container.prefix == "module."
    assert {f"module.{n}" for n in checkpoint.weights} == set(loaded)
    assert all(same(w.torch(), loaded[f"module.{n}"]) for n, w in checkpoint.weights.items())


def test_storage_views_of_old_files(tmp_path):
    """PyTorch before 1.0 wrote a tensor's part of a storage as a view with an offset of its own."""
    import corpus

    view = b"(" + corpus.text("v") + corpus.number(1) + corpus.number(3) + b"t"
    key = b"(" + corpus.text("storage") + corpus.name("torch.cuda", "FloatStorage") + corpus.text("0")
    key += corpus.text("cuda:0") + corpus.number(4) + view + b"tQ"
    body = corpus.state_dict(w=corpus.tensor(key, offset=1, shape=(2,)))
    (tmp_path / "old.pt").write_bytes(corpus.legacy(body))
    assert read(tmp_path / "old.pt").weights["w"].words().tolist() == [3.0, 4.0]


def test_python_2_files(tmp_path):
    """Text as Python 2's `str`, and an OrderedDict made of a list of pairs."""
    import corpus

    state = corpus.name("collections", "OrderedDict") + b"(](](U\1w" + corpus.tensor() + b"eetR"
    (tmp_path / "old.pt").write_bytes(corpus.legacy(state))
    assert read(tmp_path / "old.pt").weights["w"].words().tolist() == [1, 2, 3, 4]


# -- pickled objects --------------------------------------------------------------------------------


class Block(torch.nn.Module):
    """A module with every kind of member."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.nn.Parameter(torch.randn(2))
        self.nothing = None
        self.register_parameter("missing", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)])
        self.list = torch.nn.ParameterList([torch.randn(1)])
        self.again = self.layers[0]


@FORMS
@pytest.mark.parametrize("where", [(), ("model",), ("ema", "model")])
def test_pickled_modules_give_their_state_dict(tmp_path, form, where):
    model = Block()
    value: object = model
    for key in reversed(where):
        value = {key: value, "epoch": 3, "ema_updates": None}
    path = tmp_path / "yolo.pt"
    torch.save(value, path, **form)
    checkpoint = read(path)
    expected = model.state_dict()
    assert list(checkpoint.weights) == list(expected)
    assert all(same(checkpoint.weights[n].torch(), t) for n, t in expected.items())
    assert checkpoint.weights["again.weight"] is checkpoint.weights["layers.0.weight"]
    assert checkpoint.container.rebuilt
    assert checkpoint.container.key == where
    assert "Block" in checkpoint.notes[0]
    assert "plain state dict" in checkpoint.notes[0]


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # within torch.compile
def test_wrapped_modules(tmp_path):
    """DataParallel is a module around a module, a traced one is made by a function, a compiled one wraps."""
    wraps = {"data": torch.nn.DataParallel, "fx": torch.fx.symbolic_trace, "compile": torch.compile}
    for name, wrap in wraps.items():
        model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        torch.save({"model": wrap(model), "epoch": 1}, tmp_path / name)
        weights = read(tmp_path / name).weights
        assert list(weights) == list(model.state_dict())
        assert all(same(weights[n].torch(), tensor) for n, tensor in model.state_dict().items())


@FORMS
def test_foreign_objects_are_named_and_do_not_stand_in_the_way(tmp_path, form):
    import argparse
    import datetime

    path = tmp_path / "m.pt"
    extra = {"args": argparse.Namespace(lr=0.1), "where": Path("/x"), "when": datetime.datetime(2020, 1, 2)}
    torch.save({"model": {"w": torch.ones(2)}, **extra}, path, **form)
    if "pickle_protocol" not in form:
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
    checkpoint = read(path)
    assert checkpoint.weights["w"].torch().tolist() == [1, 1]
    assert isinstance(checkpoint.container.tree["args"], Placeholder)
    assert checkpoint.container.tree["args"].state == {"lr": 0.1}
    for name in ("argparse.Namespace", "datetime.datetime", "pathlib"):
        assert name in checkpoint.notes[0]
    assert "cannot carry them" in checkpoint.notes[0]
    assert not checkpoint.container.rebuilt


def test_torchscript(tmp_path):
    path = tmp_path / "script.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        torch.jit.script(model).save(str(path))
    checkpoint = read(path)
    assert checkpoint.container.format == "torchscript"
    assert checkpoint.container.rebuilt
    assert set(checkpoint.weights) == set(model.state_dict())
    assert all(same(checkpoint.weights[n].torch(), t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_tensors_and_arrays(tmp_path, protocol):
    state = {
        "t": torch.arange(6.0).reshape(2, 3).t(),
        "p": torch.nn.Parameter(torch.ones(3)),
        "a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "large": np.arange((1 << 18) + 5, dtype=np.float64),  # longer than a chunk
        "i": np.array([[1, -2]], np.int8),
        "s": np.array(2.0),
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": state, "author": "someone"}, protocol))
    checkpoint = read(path)
    assert checkpoint.container.format == "pickle"
    assert checkpoint.container.rebuilt
    for name, value in state.items():
        assert same(checkpoint.weights[name].torch(), torch.as_tensor(value)), name


# -- laziness and provenance ------------------------------------------------------------------------


def test_a_record_of_ours_is_found(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"w": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as file:
        root = file.namelist()[0].partition("/")[0]
        file.writestr(
            f"{root}/nnopt.json", json.dumps({"nnopt.provenance": "{}", "other": "x", "nnopt.n": 3})
        )
    assert read(path).provenance == {"nnopt.provenance": "{}"}


_MEASURE = """
import sys
from pathlib import Path
from nnopt_cli.formats.syscalls import peak_memory
from nnopt_cli.formats.read import read
before = peak_memory()
weights = read(Path(sys.argv[1])).weights
assert sum(w.nbytes for w in weights.values()) >= 1 << 30
print(peak_memory() - before, "torch" in sys.modules)
"""


@pytest.mark.parametrize("form", ["legacy", "safetensors", "zip"])
def test_a_large_file_takes_no_memory(tmp_path, form):
    """A sparse file of a gigabyte: only its header is read, and torch is never imported."""
    import corpus

    count, path = 1 << 28, tmp_path / "large"
    body = corpus.state_dict(w=corpus.tensor(corpus.persistent(elements=count), shape=(count,)))
    if form == "zip":
        path = sparse_zip(path, count)
    else:
        head = {
            "legacy": corpus.legacy(body, data=count.to_bytes(8, "little")),
            "safetensors": corpus.safetensors({"w": corpus.entry(shape=[count], end=4 * count)}, b""),
        }[form]
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + 4 * count)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    grown, torch_there = done.stdout.split()
    assert int(grown) < 24 << 20
    assert torch_there == "False"


def sparse_zip(path: Path, count: int) -> Path:
    """A torch zip whose one storage is a hole in the file, written by our own writer's layout."""
    from nnopt_cli.formats.inert import Ordered as Tree
    from nnopt_cli.formats.torch_write import TorchLayout
    from nnopt_cli.formats.weight import FileWeight, InputFile

    (path.parent / "hole").write_bytes(b"")
    weight = FileWeight("w", DTYPES["float32"], (count,), InputFile(path.parent / "hole"), 0)
    layout = TorchLayout(Tree({"w": Leaf(weight)}), {})
    with path.open("wb") as file:

        class Sink:
            def write_at(self, data, offset):
                file.seek(offset)
                file.write(data)

            def cut(self, size):
                file.truncate(size)

        layout.finish(Sink(), [0], {})
    return path


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.eye(2).to_sparse(), "is sparse"),
        (torch.empty(2, device="meta"), "has no data"),
        (torch.ones(2, dtype=torch.complex64).conj(), "lazy conjugate"),
        (torch.zeros(1).expand(1000), "claims 1000 elements"),
    ],
)
def test_tensors_that_cannot_be_read_are_named(tmp_path, tensor, reason):
    path = tmp_path / "m.pt"
    torch.save({"state_dict": {"fine": torch.ones(2), "layer.weight": tensor}}, path)
    with pytest.raises(UnreadableError, match=f"the tensor 'layer.weight' .*{reason}"):
        read(path)


def test_an_unreadable_tensor_elsewhere_is_no_obstacle(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "mask": torch.eye(2).to_sparse()}, path)
    assert list(read(path).weights) == ["w"]


def test_the_tensors_may_come_from_bytes_in_memory(tmp_path):
    """Negative control for `same`: one bit is enough to differ."""
    out = io.BytesIO()
    torch.save({"w": torch.ones(2)}, out)
    (tmp_path / "m.pt").write_bytes(out.getvalue())
    assert same(read(tmp_path / "m.pt").weights["w"].torch(), torch.ones(2))
    assert not same(torch.ones(2), torch.tensor([1.0, 1.0000001]))
    assert not same(torch.zeros(2), -torch.zeros(2))
