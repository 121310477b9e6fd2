"""Programs through `.pt2` files: what PyTorch saved is read, and what nnopt writes PyTorch reads."""

from __future__ import annotations

import copy
import io
import logging
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch._export.serde.serialize import SerializeError
from torch.export import Dim
from torch.utils import _pytree as pytree

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.pt2_read import read_program
from nnopt_cli.formats.pt2_write import write_program

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # PyTorch 2.10's loader
BATCH = Dim("batch", min=1, max=1024)


class Of(nn.Module):
    """A module whose forward is a function of it and the inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self, *args, **kwargs)


class Case:
    """A network, two sets of inputs of different sizes, and what of them is dynamic."""

    def __init__(
        self, net: nn.Module, *inputs: tuple[Any, ...], kwargs: Any = None, shapes: Any = None
    ) -> None:
        self.net, self.inputs, self.kwargs, self.shapes = net, inputs, kwargs or {}, shapes

    def export(self) -> torch.export.ExportedProgram:
        return torch.export.export(self.net, self.inputs[0], self.kwargs, dynamic_shapes=self.shapes)


def randn(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(sum(sizes)))


def convolution() -> Case:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
    ).eval()
    return Case(net, (randn(2, 3, 8, 8),), (randn(5, 3, 8, 8),), shapes=({0: BATCH},))


def training() -> Case:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    return Case(net, (randn(4, 4),), (randn(6, 4),), shapes=({0: BATCH},))


def attention() -> Case:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    length = Dim("length", min=2, max=64)
    return Case(layer.eval(), (randn(2, 5, 16),), (randn(3, 9, 16),), shapes=({0: BATCH, 1: length},))


def recurrent() -> Case:
    return Case(nn.LSTM(4, 6, batch_first=True), (randn(2, 5, 4),), (randn(3, 5, 4),), shapes=({0: BATCH},))


def keywords() -> Case:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x, pair, *, options, scale):
            return {"y": self.a(x) * scale, "z": (pair[0] + pair[1], [options["bias"]])}

    first = (randn(2, 4), (randn(2, 4), randn(2, 4)))
    kwargs = {"options": {"bias": randn(4)}, "scale": randn(1)}
    return Case(Net(), first, (randn(2, 4), (randn(2, 4), randn(2, 4))), kwargs=kwargs)


def tied() -> Case:
    net = Of(
        lambda m, x: m.out(torch.tanh(m.embed(x))), embed=nn.Embedding(9, 4), out=nn.Linear(4, 9, bias=False)
    )
    net.out.weight = net.embed.weight
    return Case(net, (torch.arange(6).view(2, 3),), (torch.arange(6).view(2, 3) + 3,), shapes=None)


def tensors_of_all_kinds() -> Case:
    net = Of(lambda m, x: m.a(x) * m.gone + m.kept + m.table[2] * m.index)
    net.a = nn.Linear(4, 4)
    net.register_buffer("gone", randn(4), persistent=False)
    net.register_buffer("kept", randn(4))
    net.table = randn(3, 4)
    net.register_buffer("index", torch.tensor(2, dtype=torch.int32).long())
    net.register_buffer("flags", torch.tensor([True, False]))
    net.register_parameter("frozen", nn.Parameter(randn(2), requires_grad=False))
    return Case(net, (randn(2, 4),), (randn(2, 4),))


def half() -> Case:
    def forward(m, x):
        return m.b(m.a(x.to(torch.bfloat16)).half()).float()

    net = Of(forward, a=nn.Linear(4, 4).to(torch.bfloat16), b=nn.Linear(4, 4).half())
    return Case(net, (randn(2, 4),), (randn(2, 4),))


def channels_last() -> Case:
    net = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    return Case(net, (randn(1, 3, 6, 6),), (randn(1, 3, 6, 6),))


def shared_memory() -> Case:
    base = randn(6, 4)
    net = Of(lambda m, x: x @ m.first.t() + (x @ m.turned) + m.part)
    net.first, net.turned = nn.Parameter(base[:4]), nn.Parameter(base[:4].t())
    net.part = nn.Parameter(base[5])
    return Case(net, (randn(2, 4),), (randn(2, 4),))


def branches() -> Case:
    def forward(m, x):
        with torch.no_grad():
            y = m.a(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = m.a(x)
        return torch.cond(x.sum() > 0, lambda v: m.a(v), lambda v: v - 1, (x,)) + y + z

    return Case(Of(forward, a=nn.Linear(4, 4)), (randn(2, 4),), (-randn(2, 4).abs(),))


def mapped() -> Case:
    return Case(
        Of(lambda m, x: torch.vmap(lambda row: m.a(row) * row.sum())(x), a=nn.Linear(4, 4)),
        (randn(3, 4),),
        (randn(3, 4),),
    )


def arithmetic() -> Case:
    def forward(m, x):
        height, width = x.shape[2:]
        grown = F.interpolate(x, scale_factor=1.5)[:, :, : height // 2 + max(width, 5) % 7]
        padded = F.pad(m.a(grown), (0, (-grown.shape[3]) % 4))
        return padded.reshape(x.shape[0], -1, 4).mean(1)

    sizes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    net = Of(forward, a=nn.Conv2d(2, 2, 1))
    return Case(net, (randn(2, 2, 8, 9),), (randn(3, 2, 10, 12),), shapes=(sizes,))


def from_data() -> Case:
    def forward(m, x):
        count = (x > 0).sum().item()
        torch._check(count >= 0)
        torch._check(count <= 100)
        return m.a(x[x.sum(1) > -50]), torch.zeros(count) + 1

    return Case(Of(forward, a=nn.Linear(4, 4)), (randn(3, 4),), (randn(3, 4),))


def weightless() -> Case:
    return Case(Of(lambda m, x, y: (x + y, x.shape[0])), (randn(2, 3), 4), (randn(2, 3), 4))


CASES = [
    convolution,
    training,
    attention,
    recurrent,
    keywords,
    tied,
    tensors_of_all_kinds,
    half,
    channels_last,
]
CASES += [shared_memory, branches, mapped, arithmetic, from_data, weightless]


class Trip:
    """A case exported, saved by PyTorch, read, written, and read again by both."""

    def __init__(self, build: Callable[[], Case], folder: Path) -> None:
        torch.manual_seed(0)
        self.case = build()
        self.saved, self.written = folder / "saved.pt2", folder / "written.pt2"
        with warnings.catch_warnings():
            for about in (
                "No complete tensor found",
                "The tensor attributes?",
                "You are calling torch.compile",
            ):
                warnings.filterwarnings("ignore", about)  # PyTorch's, about strides, its LSTM, and torch.cond
            self.program = self.case.export()
            try:
                torch.export.save(self.program, self.saved)
            except SerializeError:
                pytest.skip(f"PyTorch {torch.__version__} cannot save it")
        self.theirs = torch.export.load(self.saved)
        self.read = read_program(self.saved)
        self.done = write_program(self.read.program, self.written)

    def outputs(self, program: torch.export.ExportedProgram) -> list[list[Any]]:
        """The flat outputs for each set of inputs."""
        torch.manual_seed(1)
        module = program.module()
        kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
        out = [
            pytree.tree_leaves(module(*copy.deepcopy(args), **self.case.kwargs)) for args in self.case.inputs
        ]
        for name, buffer in module.named_buffers():  # training moves the statistics of a batch norm
            buffer.copy_(kept[name])
        return out


@pytest.fixture(scope="module", params=CASES, ids=lambda build: build.__name__)
def trip(request, tmp_path_factory):
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    return Trip(request.param, tmp_path_factory.mktemp("trip"))


def same(left: list[list[Any]], right: list[list[Any]], tolerance: float = 0.0) -> bool:
    pairs = [
        pair for lefts, rights in zip(left, right, strict=True) for pair in zip(lefts, rights, strict=True)
    ]
    return all(
        torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=tolerance) for a, b in pairs
    )


def test_what_pytorch_saved_is_read_as_pytorch_reads_it(trip):
    assert str(trip.read.program.graph) == str(trip.theirs.graph)
    assert str(trip.read.program.range_constraints) == str(trip.theirs.range_constraints)
    assert same(trip.outputs(trip.read.program), trip.outputs(trip.program))
    state = trip.theirs.state_dict
    assert list(trip.read.program.state_dict) == list(state)
    for name, tensor in trip.read.program.state_dict.items():
        assert torch.equal(tensor, state[name])
        assert tensor.stride() == state[name].stride()
        assert (type(tensor), tensor.requires_grad) == (type(state[name]), state[name].requires_grad)


def test_what_is_written_pytorch_reads(trip):
    program = torch.export.load(trip.written)
    turned = any("row-major" in note for note in trip.done.notes)  # a kernel may then add in another order
    assert same(trip.outputs(program), trip.outputs(trip.program), 1e-5 if turned else 0.0)
    assert str(program.graph) == str(trip.theirs.graph)
    for name, tensor in program.state_dict.items():
        assert torch.equal(tensor, trip.theirs.state_dict[name])
        assert tensor.requires_grad == trip.theirs.state_dict[name].requires_grad


def test_what_is_written_holds_no_pickle_and_no_path_of_the_source(trip):
    with zipfile.ZipFile(trip.written) as archive:
        assert archive.testzip() is None
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert members["data/sample_inputs/model.pt"] == b""
    for name, data in members.items():
        is_record = name.startswith(("data/weights/weight_", "data/constants/tensor_"))
        assert is_record or data[:2] not in (b"PK", b"\x80\x02")
    assert b"stack_trace" not in members["models/model.json"]
    assert str(Path(__file__).parent).encode() not in members["models/model.json"]


def test_writing_is_deterministic(trip, tmp_path):
    write_program(trip.read.program, tmp_path / "again.pt2")
    write_program(read_program(trip.written).program, tmp_path / "twice.pt2")
    first = trip.written.read_bytes()
    assert (tmp_path / "again.pt2").read_bytes() == first
    assert (tmp_path / "twice.pt2").read_bytes() == first, "nothing is lost on the way through a file"


def test_what_is_read_trains(trip):
    module = trip.read.program.module()
    parameters = [p for p in module.parameters() if p.requires_grad]
    out = pytree.tree_leaves(module(*copy.deepcopy(trip.case.inputs[0]), **trip.case.kwargs))
    losses = [value.float().sum() for value in out if isinstance(value, torch.Tensor) and value.requires_grad]
    assert bool(losses) == bool(parameters)
    if losses:
        sum(losses).backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def written(case: Case, folder: Path) -> torch.export.ExportedProgram:
    write_program(case.export(), folder / "case.pt2")
    return read_program(folder / "case.pt2").program


def test_tied_weights_stay_one_tensor(tmp_path):
    program = written(tied(), tmp_path)
    assert program.state_dict["embed.weight"] is program.state_dict["out.weight"]
    assert len(list(program.module().parameters())) == 1
    with zipfile.ZipFile(tmp_path / "case.pt2") as archive:
        assert sum("/weights/weight_" in name for name in archive.namelist()) == 1
    theirs = torch.export.load(tmp_path / "case.pt2").state_dict
    assert theirs["embed.weight"].data_ptr() == theirs["out.weight"].data_ptr()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (channels_last, "Stored row-major, which they were not in memory: weight."),
        (shared_memory, "first and turned"),
    ],
)
def test_what_is_lost_of_the_memory_is_said(tmp_path, build, said):
    done = write_program(build().export(), tmp_path / "m.pt2")
    assert any(said in note for note in done.notes)


def test_tied_weights_are_no_loss(tmp_path):
    assert not write_program(tied().export(), tmp_path / "m.pt2").notes


def test_strings_and_extra_files_travel(tmp_path):
    path, strings = tmp_path / "m.pt2", {"nnopt.provenance": '{"steps": []}'}
    write_program(
        convolution().export(), path, record=lambda tallies: strings, extra={"labels.txt": "cat\ndog"}
    )
    found = read_program(path)
    assert (found.provenance, found.extra) == (strings, {"labels.txt": "cat\ndog"})
    files = {"labels.txt": "", "nnopt.json": ""}
    torch.export.load(path, extra_files=files)
    assert files["labels.txt"] == "cat\ndog"
    assert "nnopt.provenance" in files["nnopt.json"]


def test_tallies_count_what_was_written(tmp_path):
    case = convolution()
    with torch.no_grad():
        case.net[0].weight[0] = 0
    seen = {}
    done = write_program(case.export(), tmp_path / "m.pt2", record=lambda tallies: seen.update(tallies) or {})
    assert done.tallies["0.weight"].zeros_after == 27
    assert done.bytes == (tmp_path / "m.pt2").stat().st_size
    assert seen.keys() == set(case.net.state_dict())
    dry = write_program(case.export(), None)
    assert (dry.path, dry.tallies) == (None, done.tallies)


def test_an_existing_output_and_an_input_are_kept(tmp_path):
    path, program = tmp_path / "m.pt2", weightless().export()
    path.write_bytes(b"old")
    with pytest.raises(NnoptError, match="already exists"):
        write_program(program, path)
    with pytest.raises(NnoptError, match="is the input itself"):
        write_program(program, path, force=True, inputs=[path])
    assert path.read_bytes() == b"old"
    write_program(program, path, force=True)
    assert read_program(path).program.graph is not None


def effects(m: Of, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        m.count.add_(1)
    return m.a(x)


def test_a_block_that_returns_nothing(tmp_path):
    """PyTorch's loader trips over what its own saver wrote."""
    net = Of(effects, a=nn.Linear(4, 2))
    net.register_buffer("count", torch.zeros(()))
    program = torch.export.export(net, (randn(2, 4),))
    assert any("wrap_with_set_grad" in node.name for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "theirs.pt2")
    with pytest.raises(Exception, match="missing val"):
        torch.export.load(tmp_path / "theirs.pt2")
    write_program(read_program(tmp_path / "theirs.pt2").program, tmp_path / "ours.pt2")
    module = torch.export.load(tmp_path / "ours.pt2").module()
    module(randn(2, 4))
    assert module.count == 1


class Labels(dict):
    """An output class that another library registers, and that a later process does not know."""


def test_a_class_that_is_unknown_here_becomes_a_dict(tmp_path):
    pytree.register_pytree_node(
        Labels,
        lambda labels: (list(labels.values()), list(labels)),
        lambda values, keys: Labels(zip(keys, values, strict=True)),
        serialized_type_name="elsewhere.Labels",
        flatten_with_keys_fn=lambda labels: (
            [(pytree.MappingKey(key), value) for key, value in labels.items()],
            list(labels),
        ),
    )
    try:
        case = Case(Of(lambda m, x: Labels(logits=m.a(x), x=x), a=nn.Linear(4, 2)), (randn(2, 4),))
        buffer = io.BytesIO()
        torch.export.save(case.export(), buffer)
    finally:
        pytree._deregister_pytree_node(Labels)
        pytree.SUPPORTED_NODES.pop(Labels, None)
    (tmp_path / "m.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(RuntimeError):  # what PyTorch's own loader makes of it
        torch.export.load(tmp_path / "m.pt2")
    found = read_program(tmp_path / "m.pt2")
    assert set(found.program.module()(randn(2, 4))) == {"logits", "x"}
    assert found.notes == ("Where the program takes or returns a elsewhere.Labels, it now has a plain dict.",)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda p: p.state_dict.update({"0.weight": p.state_dict["0.weight"].to("meta")}),
            "0.weight: has no data",
        ),
        (
            lambda p: p.constants.update({"thing": object()}),
            "thing: is a object, which a .pt2 file could only hold as a pickle",
        ),
        (
            lambda p: p.state_dict.update({"0.weight": torch.eye(3).to_sparse()}),
            "torch.sparse_coo, which a .pt2 file could only hold as a pickle",
        ),
    ],
)
def test_what_only_a_pickle_could_hold_is_refused(tmp_path, spoil, message):
    program = convolution().export()
    spoil(program)
    with pytest.raises(NnoptError, match=message):
        write_program(program, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_a_program_that_could_not_be_read_again_is_not_written(tmp_path):
    program = convolution().export()
    relu = next(node for node in program.graph.nodes if "relu" in node.name)
    relu.target = torch.ops.aten._reshape_alias.default
    relu.args = (*relu.args, [2], [1])
    with pytest.raises(NnoptError, match=r"cannot be written .*_reshape_alias"):
        write_program(program, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())
