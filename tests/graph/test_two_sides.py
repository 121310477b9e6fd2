"""Verification: what is right passes, what is broken is caught, what proves nothing does not count."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.export import Dim, ExportedProgram

from nnopt_cli import NnoptError, UsageError
from nnopt_cli.graph import onnx_side, program_side, to_onnx, verify

torch.set_num_threads(1)
VARIES = Dim.DYNAMIC


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Net(nn.Module):
    """A convolution with its norm, a map over positions, a head, and a mean of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = self.norm(self.conv(image)).relu().mean((2, 3))
        return {"logits": self.head(self.mix(x).tanh()), "level": image.mean((1, 2, 3))}


class Tokens(nn.Module):
    """A small transformer over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.head = nn.Linear(16, 50)

    def forward(self, ids):
        return self.head(self.blocks(self.table(ids)))


def program_of(net: nn.Module, example: torch.Tensor, *axes: int) -> ExportedProgram:
    return torch.export.export(net.eval(), (example,), dynamic_shapes=(dict.fromkeys(axes, VARIES),))


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    net = Net()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return program_of(net, torch.randn(2, 3, 12, 16), 0, 2, 3)


@pytest.fixture(scope="module")
def home(tmp_path_factory, program):
    folder = tmp_path_factory.mktemp("parity")
    to_onnx(program, folder / "net.onnx", strings={"nnopt.test": "yes"})
    return folder


def against(program, path, tolerance=1e-5, **more):
    return verify(program_side(program), onnx_side(path, "the file"), tolerance=tolerance, **more)


def changed(home, change):
    model = onnx.load(home / "net.onnx")
    change(model)
    onnx.save(model, home / "changed.onnx")
    return home / "changed.onnx"


def test_a_right_file_passes_at_two_sizes_of_everything(program, home):
    found = against(program, home / "net.onnx")
    assert found.passed, found.fault
    assert found.difference <= 1e-5
    for name in ("batch", "image_dim_2", "image_dim_3"):
        assert len({trial.sizes[name] for trial in found.trials}) >= 2
    assert {trial.sizes["batch"] for trial in found.trials} == {1, 2, 3}


def test_names_strings_and_folding(home):
    model = onnx.load(home / "net.onnx")
    assert [each.name for each in model.graph.input] == ["image"]
    assert [each.name for each in model.graph.output] == ["logits", "level"]
    assert {each.key: each.value for each in model.metadata_props} == {"nnopt.test": "yes"}
    sizes = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "image_dim_2", "image_dim_3"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    text = (home / "net.onnx").read_bytes()
    assert b"stack_trace" not in text
    assert b".py" not in text, "paths of the source stay where they are"


def test_a_transposed_weight_is_caught(program, home):
    def transposed(model):
        (weight,) = [t for t in model.graph.initializer if list(t.dims) == [8, 8]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), weight.name))

    found = against(program, changed(home, transposed))
    assert not found.passed
    assert "logits differs" in found.fault


def test_a_zeroed_head_is_caught(program, home):
    def zeroed(model):
        for tensor in model.graph.initializer:
            if 5 in tensor.dims:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 0, tensor.name))

    found = against(program, changed(home, zeroed))
    assert not found.passed
    assert "logits differs by 1 " in found.fault


def test_one_wrong_element_of_a_convolution_is_caught(program, home):
    def wrong(model):
        weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
        value = numpy_helper.to_array(weight).copy()
        value[5, 1, 2, 0] += 0.05
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))

    assert not against(program, changed(home, wrong)).passed


@pytest.mark.parametrize("declared", [True, False], ids=["as-declared", "hidden"])
def test_a_frozen_dimension_is_caught_and_named(program, home, declared):
    def frozen(model):
        if declared:
            model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 16
            return
        node = model.graph.node[0]
        shape = numpy_helper.from_array(np.array([0, 3, -1, 16]), "shape")
        model.graph.initializer.append(shape)
        reshape = helper.make_node("Reshape", ["image", "shape"], ["kept"])
        node.input[list(node.input).index("image")] = "kept"
        model.graph.node.insert(0, reshape)

    found = against(program, changed(home, frozen))
    assert not found.passed
    assert ("dimension 3 of its input image is fixed to 16" if declared else "image_dim_3") in found.fault


def test_a_frozen_length_of_a_recurrent_net_is_named(tmp_path):
    """Such a net is unrolled at the length of the example; the file says so, and is taken at its word."""
    torch.manual_seed(0)
    net = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
    fixed = program_of(net, torch.randn(2, 7, 4), 0)
    to_onnx(fixed, tmp_path / "net.onnx")
    assert against(fixed, tmp_path / "net.onnx").passed

    class Loose(nn.Module):
        def forward(self, x):
            return x.cumsum(1) * 2

    want = program_side(program_of(Loose(), torch.randn(2, 7, 4), 0, 1))
    found = verify(want, onnx_side(tmp_path / "net.onnx", "the file"), tolerance=1e-5)
    assert "dimension 1 of its input" in found.fault
    assert "is fixed to 7" in found.fault


def test_outputs_that_do_not_respond_prove_nothing(tmp_path):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with torch.no_grad():
        net[1].weight.zero_()
    dead = program_of(net, torch.randn(2, 4), 0)
    to_onnx(dead, tmp_path / "dead.onnx")
    found = against(dead, tmp_path / "dead.onnx")
    assert not found.passed
    assert found.fault.startswith("unproven: the output output is the same")


def test_other_inputs_are_tried_where_noise_says_nothing(tmp_path):
    class Late(nn.Module):
        def forward(self, x):
            return (x.abs() - 6).relu()

    late = program_of(Late(), torch.randn(2, 4), 0)
    to_onnx(late, tmp_path / "late.onnx")
    found = against(late, tmp_path / "late.onnx")
    assert found.passed, found.fault
    assert {trial.inputs for trial in found.trials} == {"large values"}


def test_outputs_that_are_not_numbers_prove_nothing(tmp_path):
    class Bad(nn.Module):
        def forward(self, x):
            return (x * 0 - 1).sqrt() + x

    bad = program_of(Bad(), torch.randn(2, 4), 0)
    to_onnx(bad, tmp_path / "bad.onnx")
    assert not against(bad, tmp_path / "bad.onnx").passed


def test_an_output_that_depends_on_no_input_may_be_constant(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.scale, self.scale * 2

    two = program_of(Two(), torch.randn(2, 3), 0)
    to_onnx(two, tmp_path / "two.onnx")
    found = against(two, tmp_path / "two.onnx")
    assert found.passed, found.fault


def test_real_data_are_used_first(program, home):
    data = [[torch.rand(4, 3, 12, 16)] for _ in range(2)]
    found = against(program, home / "net.onnx", data=data)
    assert found.passed
    assert found.trials[0].inputs == "data"
    assert found.trials[0].sizes == {"batch": 4, "image_dim_2": 12, "image_dim_3": 16}


def test_noise_is_measured_where_few_bits_are_right(program, home):
    def rounded(model):
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                value = numpy_helper.to_array(tensor)
                step = np.abs(value).max() / 127
                tensor.CopyFrom(
                    numpy_helper.from_array((np.rint(value / step) * step).astype("f"), tensor.name)
                )

    path = changed(home, rounded)
    assert not against(program, path).passed
    found = against(program, path, measure="noise")
    assert found.passed, found.fault
    assert 12 < found.snr < 80


def test_noise_above_the_signal_is_refused(program, home):
    def ruined(model):
        weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
        value = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(value[::-1].copy(), weight.name))

    found = against(program, changed(home, ruined), measure="noise")
    assert not found.passed
    assert "dB" in found.fault


def test_tokens(tmp_path):
    torch.manual_seed(0)
    net = program_of(Tokens(), torch.randint(0, 50, (2, 7)), 0, 1)
    to_onnx(net, tmp_path / "net.onnx")
    found = against(net, tmp_path / "net.onnx")
    assert found.passed, found.fault
    assert len({trial.sizes["ids_dim_1"] for trial in found.trials}) == 2


def test_opsets(program, tmp_path):
    to_onnx(program, tmp_path / "old.onnx", opset=18)
    assert onnx.load(tmp_path / "old.onnx").opset_import[0].version == 18
    with pytest.raises(UsageError, match="too old"):
        to_onnx(program, tmp_path / "x.onnx", opset=9)
    with pytest.raises(UsageError, match="too new"):
        to_onnx(program, tmp_path / "x.onnx", opset=99)


def test_an_operator_without_a_form_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x @ x.mT)

    odd = program_of(Odd(), torch.randn(2, 4, 4), 0)
    with pytest.raises(NnoptError, match="eigh"):
        to_onnx(odd, tmp_path / "odd.onnx")
    assert not (tmp_path / "odd.onnx").exists()


def test_sizes_that_belong_together():
    """Two inputs whose batches have different names, but must be equal."""
    from nnopt_cli.graph.sides import Side
    from nnopt_cli.model.inputs import Dim as Size
    from nnopt_cli.model.inputs import Input, InputSpec

    spec = InputSpec(tuple(Input(name, "float32", (Size(f"{name}_size"), 4)) for name in ("one", "two")))

    def side(most: int) -> Side:
        def call(given):
            if len(given[0]) != len(given[1]) or len(given[0]) > most:
                raise NnoptError("the sizes do not fit")
            return [given[0] + 2 * given[1]]

        return Side("it", spec, ("output",), call, {"one_size": 2, "two_size": 2})

    assert verify(side(100), side(100), tolerance=1e-6).passed
    assert "one_size is frozen" in (verify(side(100), side(2), tolerance=1e-6).fault or "")


def test_what_the_optimiser_stops_at_is_written_all_the_same(tmp_path, monkeypatch):
    whole = torch.onnx.export
    stops = eval("lambda: 1 / 0", {"__name__": "onnxscript.optimizer._part"})

    def export(*args, optimize=True, **options):
        return stops() if optimize else whole(*args, optimize=False, **options)

    monkeypatch.setattr("torch.onnx.export", export)
    program = program_of(Net(), torch.randn(2, 3, 8, 8), 0)
    to_onnx(program, tmp_path / "net.onnx")
    assert verify(program_side(program), onnx_side(tmp_path / "net.onnx"), tolerance=1e-5).passed
    stops = eval("lambda: 1 / 0", {"__name__": "elsewhere"})
    with pytest.raises(NnoptError, match="division"):
        to_onnx(program, tmp_path / "other.onnx")
