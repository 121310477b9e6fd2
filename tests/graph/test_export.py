"""Exports: what may vary varies, and whatever stops an export is named with the line of the source."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from nnopt_cli import NnoptError
from nnopt_cli.graph.export import export
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.signature import input_spec
from nnopt_cli.model.arch import from_code
from nnopt_cli.model.inputs import InputSpec

HEAD = """
import torch
from torch import nn

@torch.library.custom_op("nnopt_test::shift", mutates_args=())
def shift(x: torch.Tensor) -> torch.Tensor:
    return x + 1

class Box:
    def __init__(self, x):
        self.x = x

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def build(tmp_path, body, name="net.py"):
    """A Net with the lines of `body` as its forward, from a file of its own."""
    path = tmp_path / name
    head = HEAD.replace("nnopt_test", f"nnopt_test_{abs(hash(body))}")
    path.write_text(head + textwrap.indent(textwrap.dedent(body).strip(), " " * 8) + "\n")
    return from_code(f"{path}:Net").build()


def failure(tmp_path, body, text="4"):
    with pytest.raises(NnoptError) as caught:
        export(build(tmp_path, body), InputSpec.parse(text), "net.py:Net")
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "line", "told"),
    [
        (
            "y = self.fc(x)\nif y.sum() > 0:\n    return y\nreturn -y",
            "if y.sum() > 0:",
            "depends on the values",
        ),
        (
            "y = self.fc(x)\nfor _ in range(int(x.argmax())):\n    y = y + 1\nreturn y",
            "range(int(",
            "depends on",
        ),
        (
            "y = self.fc(x)\nn = y.detach().numpy()\nreturn torch.from_numpy(n)",
            "n = y.detach()",
            "out of PyTorch",
        ),
        ("y = self.fc(x)\ny = y.view(2, 4)\nreturn y", "y = y.view(2, 4)", "to the constant 2"),
        ("return torch.stack([self.fc(row) for row in x])", "torch.stack(", "to the constant 2"),
        ("return shift(self.fc(x))", "return shift(self.fc(x))", "no shape function"),
    ],
)
def test_the_construct_and_its_line_are_named(tmp_path, body, line, told):
    message = failure(tmp_path, body)
    assert told in message
    number = 1 + (tmp_path / "net.py").read_text().splitlines().index(
        next(text for text in (tmp_path / "net.py").read_text().splitlines() if line in text)
    )
    assert f"net.py, line {number}:" in message
    assert line in message


def test_the_line_is_the_users_own_not_a_librarys(tmp_path):
    (tmp_path / "parts.py").write_text("def pick(x):\n    return x if x.max() > 1 else -x\n")
    (tmp_path / "net.py").write_text(f"from parts import pick\n{HEAD}        return pick(self.fc(x))\n")
    with pytest.raises(NnoptError) as caught:
        export(from_code(f"{tmp_path / 'net.py'}:Net").build(), InputSpec.parse("4"))
    message = str(caught.value)
    assert "parts.py, line 2: return x if x.max() > 1" in message


def test_an_output_that_is_no_tensor(tmp_path):
    assert "neither a tensor nor a list, tuple or dict" in failure(tmp_path, "return Box(self.fc(x))")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3", "fails when fed float32[2, 3]: RuntimeError: mat1 and mat2"),
        ("int64[N,4]", "fails when fed int64[2, 4]"),
        ("4; 4", "takes other arguments: too many positional arguments"),
        ("y=float32[N,4]", "forward(x)"),
        ("x=float32[N,4]; z=float32[N]", "got an unexpected keyword argument 'z'"),
    ],
)
def test_inputs_that_do_not_fit_are_not_blamed_on_the_export(tmp_path, text, told):
    message = failure(tmp_path, "return self.fc(x)", text)
    assert told in message
    assert "cannot be exported" not in message


def test_nothing_is_printed(tmp_path, capfd):
    failure(tmp_path, "if x.sum() > 0:\n    return x\nreturn -x")
    failure(tmp_path, "return x.view(2, 4)", "4")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("text", ["4", "x=float32[N,4]", "float32[N:2..64,4]"])
def test_the_batch_varies(tmp_path, text):
    net = build(tmp_path, "return self.fc(x).flatten(1)")
    program = export(net, InputSpec.parse(text))
    for batch in (1, 2, 7):
        x = torch.randn(batch, 4)
        got = run(program, [x])[0]
        assert torch.equal(got, net(x))
    assert sorted(program.state_dict) == ["fc.bias", "fc.weight"]
    assert all(parameter.requires_grad for parameter in program.parameters())


def test_a_number_fixes_a_size(tmp_path):
    program = export(build(tmp_path, "return self.fc(x).view(2, 4)"), InputSpec.parse("float32[2,4]"))
    assert str(input_spec(program)) == "float32[2,4]"


def test_sizes_in_steps(tmp_path):
    net = build(tmp_path, "return self.fc(x.view(x.shape[0], -1, 4))")
    program = export(net, InputSpec.parse("float32[N,4*T]"))
    x = torch.randn(3, 20)
    assert torch.equal(run(program, [x])[0], net(x))


class Pair(nn.Module):
    """Two inputs by keyword, one of them looked up in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 4)

    def forward(self, ids, mask, scale=None):
        return {"out": self.table(ids) * mask[..., None]}


def test_the_inputs_are_read_off_the_graph():
    program = export(Pair(), InputSpec.parse("mask=float32[N,T:2..50]; ids=int64[N,T]<30"))
    spec = input_spec(program)
    found = {each.name: (each.dtype, each.below, len(each.shape)) for each in spec.inputs}
    assert found == {"ids": ("int64", 30, 2), "mask": ("float32", 2, 2)}
    assert spec.batch == "N"
    assert spec.inputs[0].shape[1] == spec.inputs[1].shape[1]
    assert spec.inputs[0].shape[1].high == 50


@dataclass
class Answer:
    """An output class as libraries have them, registered with pytree."""

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


pytree.register_pytree_node(
    Answer,
    lambda a: ([a.logits, a.hidden], None),
    lambda leaves, _: Answer(*leaves),
    serialized_type_name="tests.Answer",
)


class Answering(nn.Module):
    """Returns an Answer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return Answer(self.fc(x), (x + 1, x + 2))


def test_an_output_class_becomes_a_dict_so_that_the_file_needs_no_library():
    x = torch.randn(2, 4)
    net = Answering()
    outputs = export(net, InputSpec.parse("4")).module()(x)
    assert isinstance(outputs, dict)
    assert torch.equal(outputs["logits"], net(x).logits)
    assert torch.equal(outputs["hidden"][1], x + 2)
