"""Builders of `.pt2` files that do harm when PyTorch loads or runs them, and of broken ones.

Every harmful one would create a file, its canary, so that a test can tell whether it was run.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

HUGE = 1 << 40


class Net(nn.Module):
    """Small, with every kind of tensor that a program can have: 8 inputs of sizes (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.b = nn.Linear(6, 2)
        self.register_buffer("scale", torch.ones(6), persistent=False)
        self.shift = torch.arange(2.0)

    def forward(self, x):
        hidden = torch.relu(self.norm(self.a(x))) * self.scale
        return self.b(hidden).reshape(x.shape[0], 2) + self.shift


def net_program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=512)
    return torch.export.export(Net().eval(), (torch.randn(3, 4),), dynamic_shapes=({0: batch},))


class Pt2:
    """The members of an archive, to be spoilt."""

    def __init__(self, data: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self.members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        self.raw: list[tuple[str, bytes, int]] = []  # members to add under full names, and how to pack them

    @classmethod
    def of(cls, program: torch.export.ExportedProgram) -> Pt2:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return cls(buffer.getvalue())

    def copy(self) -> Pt2:
        return Pt2(self.bytes())

    def bytes(self) -> bytes:
        out = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            warnings.simplefilter("ignore")  # that a name is there twice is the point of one case
            for name, data in self.members.items():
                archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
            for name, data, packing in self.raw:
                archive.writestr(zipfile.ZipInfo(name), data, packing)
        return out.getvalue()

    def program(self) -> dict[str, Any]:
        return json.loads(self.members["models/model.json"])

    def set_program(self, tree: dict[str, Any]) -> None:
        self.members["models/model.json"] = json.dumps(tree).encode()

    def config(self, kind: str = "weights") -> dict[str, Any]:
        return json.loads(self.members[f"data/{kind}/model_{kind}_config.json"])

    def set_config(self, table: dict[str, Any], kind: str = "weights") -> None:
        self.members[f"data/{kind}/model_{kind}_config.json"] = json.dumps(table).encode()


CASES: dict[str, tuple[Callable[[Pt2, str], None], str]] = {}
BITES = set()  # cases that create the canary when torch.export.load reads them


def case(message: str, *, bites: bool = False) -> Callable[[Callable[[Pt2, str], None]], None]:
    """Register a builder under its name: it spoils an archive, given the path of the canary."""

    def register(build: Callable[[Pt2, str], None]) -> None:
        CASES[build.__name__] = (build, message)
        if bites:
            BITES.add(build.__name__)

    return register


def in_program(message: str, *, bites: bool = False) -> Callable[[Callable[[dict, str], None]], None]:
    """The same for a builder that changes only the program's tree."""

    def register(build: Callable[[dict[str, Any], str], None]) -> None:
        def spoil(archive: Pt2, canary: str) -> None:
            tree = archive.program()
            build(tree, canary)
            archive.set_program(tree)

        spoil.__name__ = build.__name__
        case(message, bites=bites)(spoil)

    return register


class Bomb:
    """Pickled, it makes the canary when it is read."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (Path(self.canary),)


def bomb(canary: str) -> bytes:
    out = io.BytesIO()
    torch.save((Bomb(canary), {}), out)
    return out.getvalue()


def touch(canary: str) -> str:
    """An expression that makes the canary, without quotes of either kind around its path's parts."""
    return f"__import__('pathlib').Path({canary!r}).touch()"


def graph(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["graph_module"]["graph"]


def node(tree: dict[str, Any], word: str) -> dict[str, Any]:
    return next(n for n in graph(tree)["nodes"] if word in n["target"])


def sizes(tree: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return graph(tree)["tensor_values"][name]["sizes"]


def argument(name: str, **value: Any) -> dict[str, Any]:
    return {"name": name, "arg": value, "kind": 1}


def rename(tree: dict[str, Any], old: str, new: str) -> None:
    """Give a value another name, wherever it stands."""
    text = json.dumps(tree["graph_module"])
    tree["graph_module"] = json.loads(text.replace(json.dumps(old), json.dumps(new)))


# Routes to code at load.


@case("stored as a pickle", bites=True)
def weight_pickled(archive, canary):
    table = archive.config()
    table["config"]["a.weight"] |= {"use_pickle": True, "path_name": "weight_77"}
    archive.set_config(table)
    archive.members["data/weights/weight_77"] = bomb(canary)


@case("stored as a pickle", bites=True)
def constant_pickled(archive, canary):
    table = archive.config("constants")
    table["config"]["shift"] |= {"use_pickle": True, "path_name": "tensor_77"}
    archive.set_config(table, "constants")
    archive.members["data/constants/tensor_77"] = bomb(canary)


@case("pickled object of a custom class", bites=True)
def opaque_object(archive, canary):
    table = archive.config("constants")
    table["config"]["thing"] = {
        "path_name": "opaque_obj_0",
        "is_param": False,
        "use_pickle": True,
        "tensor_meta": None,
    }
    archive.set_config(table, "constants")
    archive.members["data/constants/opaque_obj_0"] = pickle.dumps(Bomb(canary))


@case("pickled object of a custom class")
def script_object(archive, canary):
    archive.members["data/constants/custom_obj_0"] = b"PK"


@case("as PyTorch 2.8 and older wrote them", bites=True)
def legacy_weights(archive, canary):
    archive.members["data/weights/model.pt"] = bomb(canary)


@case("as PyTorch 2.8 and older wrote them", bites=True)
def legacy_constants(archive, canary):
    archive.members["data/constants/model.pt"] = bomb(canary)


@case("compiled library")
def library(archive, canary):
    archive.members["data/aotinductor/model/lib.so"] = b"\x7fELF"


@case("compiled code")
def library_elsewhere(archive, canary):
    archive.members["data/weights/kernel.cubin"] = b"\x7fELF"


@in_program("PyTorch would run it as Python code", bites=True)
def expression(tree, canary):
    sizes(tree, "x")[0]["as_expr"]["expr_str"] = touch(canary)


@in_program("PyTorch would run it as Python code", bites=True)
def expression_attribute(tree, canary):
    code = f"Symbol('s77', integer=True).func.mro()[-1].__subclasses__() and {touch(canary)}"
    sizes(tree, "x")[0]["as_expr"]["expr_str"] = code


@in_program("is not a name; PyTorch would run it", bites=True)
def input_name(tree, canary):
    rename(tree, "x", f"x={touch(canary)}")


@in_program("is not a name; PyTorch would run it")
def node_name(tree, canary):
    name = f"dead = 0\n    return 0\n{touch(canary)}\ndef g():\n    dead"
    relu = json.loads(json.dumps(node(tree, "relu")))
    relu |= {"name": name, "outputs": [{"as_tensor": {"name": name}}]}
    graph(tree)["nodes"].append(relu)
    graph(tree)["tensor_values"][name] = graph(tree)["tensor_values"]["relu"]


@in_program("which is neither text nor a whole number", bites=True)
def enum_key(tree, canary):
    """The reader of nested inputs imports whatever module an enum is said to be in."""
    folder = Path(canary).parent
    (folder / "evil_enum.py").write_text(f"import pathlib; pathlib.Path({canary!r}).touch()")
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    key = json.dumps([{"__enum__": True, "fqn": "evil_enum:E", "name": "A"}])
    call["out_spec"] = json.dumps([1, {"type": "builtins.dict", "context": key, "children_spec": [leaf]}])


@in_program("keys of a collections.defaultdict", bites=True)
def defaultdict_factory(tree, canary):
    folder = Path(canary).parent
    (folder / "evil_factory.py").write_text(f"import pathlib; pathlib.Path({canary!r}).touch()")
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    context = {"default_factory_module": "evil_factory", "default_factory_name": "f", "dict_context": "k"}
    spec = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}
    call["out_spec"] = json.dumps([1, spec])


# Routes to code, files or the terminal when the program runs, or is made a module.


@in_program("calls torch.os.system, which is not among")
def target_os(tree, canary):
    relu = node(tree, "relu")
    relu["target"], relu["inputs"] = "torch.os.system", [argument("", as_string=f"touch {canary}")]


@in_program("calls torch.hub.load, which is not among")
def target_hub(tree, canary):
    node(tree, "relu")["target"] = "torch.hub.load"


@in_program("calls os.system, which is not among")
def target_module(tree, canary):
    node(tree, "relu")["target"] = "os.system"


@in_program("calls builtins.eval, which is not among")
def target_builtin(tree, canary):
    node(tree, "relu")["target"] = "builtins.eval"


@in_program("calls _operator.attrgetter, which is not among")
def target_operator(tree, canary):
    node(tree, "relu")["target"] = "_operator.attrgetter"


@in_program("calls torch.ops.aten.relu.default.__class__, which is not among")
def target_dunder(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.aten.relu.default.__class__"


@in_program("calls torch.ops.load_library, which is not among")
def target_library(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.load_library"


@in_program("calls #evil:op, which is not among")
def target_extension(tree, canary):
    node(tree, "relu")["target"] = "#evil:op"


@in_program("calls torch.ops.aten.from_file.default, which is not among")
def from_file(tree, canary):
    relu = node(tree, "relu")
    relu["target"] = "torch.ops.aten.from_file.default"
    relu["inputs"] = [
        argument("filename", as_string=canary),
        argument("shared", as_bool=True),
        argument("size", as_int=64),
    ]


@in_program("is not among")
def set_storage(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.aten.set_.source_Tensor"


@in_program("is not among")
def unchecked_view(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.aten._reshape_alias.default"


@in_program("is not among")
def printing(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.aten._print.default"


@in_program("is not among")
def compiled_delegate(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.higher_order.aoti_call_delegate"


@in_program("leaves torch.vmap switched on")
def nested_vmap(tree, canary):
    relu = node(tree, "relu")
    relu["target"] = "torch._functorch.predispatch._vmap_increment_nesting"
    relu["inputs"] = [argument("", as_int=3), argument("", as_string="error")]


@in_program("custom operator")
def custom_operator(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.evil.run.default"


@in_program("writes to its argument")
def out_variant(tree, canary):
    relu = node(tree, "relu")
    relu["target"] = "torch.ops.aten.sigmoid.out"
    relu["inputs"].append({"name": "out", "arg": relu["inputs"][0]["arg"], "kind": 2})


@in_program("does not have")
def unknown_overload(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.aten.relu.nowhere"


@in_program("which only TorchScript has")
def torchscript_overload(tree, canary):
    node(tree, "relu")["target"] = "torch.ops.aten.add.str"


@in_program("has no argument 'evil'")
def unknown_argument(tree, canary):
    node(tree, "relu")["inputs"].append(argument("evil", as_int=1))


@in_program("an operator is an argument")
def operator_argument(tree, canary):
    node(tree, "relu")["inputs"].append(argument("f", as_operator="torch.os.system"))


@in_program("custom class")
def custom_argument(tree, canary):
    node(tree, "relu")["inputs"].append(argument("f", as_custom_obj={"name": "f", "class_fqn": "F"}))


@in_program("custom class")
def custom_value(tree, canary):
    graph(tree)["custom_obj_values"] = {"f": {"name": "f", "class_fqn": "F"}}


@in_program("is given a graph, and takes none")
def graph_argument(tree, canary):
    inside = {"name": "sub", "graph": {**graph(tree), "nodes": []}}
    inside["graph"]["outputs"] = inside["graph"]["inputs"]
    node(tree, "relu")["inputs"].append(argument("f", as_graph=inside))


@in_program("is not among")
def hidden_in_subgraph(tree, canary):
    inner = json.loads(json.dumps(graph(tree)))
    next(n for n in inner["nodes"] if "relu" in n["target"])["target"] = "torch.os.system"
    relu = node(tree, "relu")
    relu["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled"
    relu["inputs"] = [argument("", as_bool=False), argument("", as_graph={"name": "sub", "graph": inner})]


@in_program("could end a quoted text")
def weight_name(tree, canary):
    spec = tree["graph_module"]["signature"]["input_specs"][0]["parameter"]
    spec["parameter_name"] = f'a"){touch(canary)}#'


@in_program("could end a quoted text")
def constant_input(tree, canary):
    """PyTorch compares an input with such a text, in code that it writes and runs."""
    module = tree["graph_module"]
    module["graph"]["inputs"].append({"as_string": f"' or {touch(canary)} or '"})
    value = {"as_string": f"' or {touch(canary)} or '"}
    module["signature"]["input_specs"].append({"constant_input": {"name": "mode", "value": value}})


@in_program("is not a name; PyTorch would run it")
def argument_name(tree, canary):
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    call["forward_arg_names"] = [f"x={touch(canary)}"]


@in_program("could end a quoted text")
def keyword_name(tree, canary):
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    words = {"type": "builtins.dict", "context": json.dumps([touch(canary)]), "children_spec": [leaf]}
    empty = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    spec = {"type": "builtins.tuple", "context": "null", "children_spec": [empty, words]}
    call["in_spec"] = json.dumps([1, spec])


@in_program("two of its inputs have the same name")
def repeated_argument(tree, canary):
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    words = {"type": "builtins.dict", "context": json.dumps(["arg_0"]), "children_spec": [leaf]}
    pair = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    spec = {"type": "builtins.tuple", "context": "null", "children_spec": [pair, words]}
    call |= {"in_spec": json.dumps([1, spec]), "forward_arg_names": None}


@in_program("means something in Python or PyTorch")
def shadowing_name(tree, canary):
    rename(tree, "x", "torch")


@in_program("cannot be the name of a tensor or a module")
def dunder_weight(tree, canary):
    tree["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = "a.__class__"


# Claims about sizes.


@in_program("asks for a tensor of 1,099,511,627,776 elements")
def huge_creation(tree, canary):
    relu = node(tree, "relu")
    relu["target"] = "torch.ops.aten.zeros.default"
    relu["inputs"] = [argument("size", as_ints=[HUGE])]


@in_program("asks for a tensor of")
def huge_value(tree, canary):
    sizes(tree, "relu")[1]["as_int"] = HUGE


@in_program("has a power that is not")
def huge_power(tree, canary):
    text = "PowByNatural(Integer(10), Integer(1000000000))"
    sizes(tree, "relu")[0]["as_expr"]["expr_str"] = text


@in_program("comes to numbers that no size can have")
def tower_of_powers(tree, canary):
    text = "Integer(9)"
    for _ in range(8):
        text = f"Pow({text}, Integer(60))"
    sizes(tree, "relu")[0]["as_expr"]["expr_str"] = text


@in_program("is too large an expression")
def deep_expression(tree, canary):
    sizes(tree, "relu")[0]["as_expr"]["expr_str"] = "Add(" * 500 + "Integer(1)" + ")" * 500


@in_program("is not the name of a dynamic size")
def odd_symbol(tree, canary):
    sizes(tree, "x")[0]["as_expr"]["expr_str"] = "Symbol('evil', integer=True)"


@in_program("is not the name of a dynamic size")
def symbol_number(tree, canary):
    tree["range_constraints"]["u999999999999"] = {"min_val": 0, "max_val": 1}


@in_program("no size is in 9 to 3")
def empty_range(tree, canary):
    next(iter(tree["range_constraints"].values())).update(min_val=9, max_val=3)


@in_program("is not a 64-bit integer")
def wide_integer(tree, canary):
    node(tree, "relu")["inputs"].append(argument("n", as_int=1 << 70))


def claim(message: str, kind: str = "weights", name: str = "a.weight") -> Callable[..., None]:
    """A builder that changes one tensor's entry in the table."""

    def register(build: Callable[[dict[str, Any]], None]) -> None:
        def spoil(archive: Pt2, canary: str) -> None:
            table = archive.config(kind)
            build(table["config"][name])
            archive.set_config(table, kind)

        spoil.__name__ = build.__name__
        case(message)(spoil)

    return register


@claim("claims 1,099,511,627,776 elements, and its record holds 24")
def expanded(entry):
    entry["tensor_meta"] |= {"sizes": [{"as_int": HUGE}], "strides": [{"as_int": 0}]}


@claim("strides reach beyond its record of 24 elements")
def stretched(entry):
    entry["tensor_meta"]["strides"] = [{"as_int": 100}, {"as_int": 1}]


@claim("strides reach beyond its record of 24 elements")
def shifted(entry):
    entry["tensor_meta"]["storage_offset"] = {"as_int": 1}


@claim("is not in 0 to")
def negative_offset(entry):
    entry["tensor_meta"]["storage_offset"] = {"as_int": -8}


@claim("claims 24 elements, and its record holds 12")
def wrong_type(entry):
    entry["tensor_meta"]["dtype"] = 8


@claim("has another shape or element type than the graph says")
def wrong_shape(entry):
    entry["tensor_meta"] |= {"sizes": [{"as_int": 24}], "strides": [{"as_int": 1}]}


@claim("is not one of")
def unknown_type(entry):
    entry["tensor_meta"]["dtype"] = 99


@claim("is not one of")
def sparse_layout(entry):
    entry["tensor_meta"]["layout"] = 1


@claim("cannot be dynamic")
def dynamic_weight(entry):
    entry["tensor_meta"]["sizes"][0] = {"as_expr": {"expr_str": "Symbol('s0')", "hint": None}}


@claim("there is no record")
def missing_record(entry):
    entry["path_name"] = "weight_999"


@claim("there is no record")
def record_elsewhere(entry):
    entry["path_name"] = "../../models/model.json"


@claim("has 6 dimensions and 2 strides")
def many_dimensions(entry):
    entry["tensor_meta"]["sizes"] = [{"as_int": 1}] * 6


@claim("claims to be trained", name="norm.num_batches_tracked")
def trained_integer(entry):
    entry["tensor_meta"]["requires_grad"] = True


# The archive.


@case("is none that a .pt2 file has")
def unknown_member(archive, canary):
    archive.members["setup.py"] = b"raise SystemExit"


@case("do not lie in one folder")
def absolute_member(archive, canary):
    archive.raw.append(("/etc/evil", b"", zipfile.ZIP_STORED))


@case("is none that a .pt2 file has")
def climbing_member(archive, canary):
    archive.members["extra/../../evil"] = b""


@case("twice")
def repeated_member(archive, canary):
    archive.raw.append(("archive/models/model.json", b"{}", zipfile.ZIP_STORED))


@case("is compressed")
def compressed_member(archive, canary):
    archive.raw.append(("archive/extra/zeros.txt", b"0" * (1 << 20), zipfile.ZIP_DEFLATED))


@case("more than 16,777,216 bytes")
def large_extra(archive, canary):
    archive.members["extra/large.txt"] = bytes((16 << 20) + 1)


@case("67,108,864 are the most")
def large_program(archive, canary):
    archive.members["models/model.json"] = b" " * ((64 << 20) + 1)


@case("values, and 4,000,000 are the most")
def many_values(archive, canary):
    archive.members["models/model.json"] = b"[" + b"{}," * 6_000_000 + b"1]"


@case("nested too deeply")
def deep_json(archive, canary):
    archive.members["models/model.json"] = b"[" * 100_000


@case("has a key twice")
def repeated_key(archive, canary):
    archive.members["models/model.json"] = b'{"graph_module": 1, "graph_module": 2}'


@case("it is not JSON")
def no_json(archive, canary):
    archive.members["models/model.json"] = b"\xff\xfe"


@case("it holds 0 programs")
def no_program(archive, canary):
    del archive.members["models/model.json"]


@case("it holds 2 programs (model, other)")
def two_programs(archive, canary):
    archive.members["models/other.json"] = b"{}"


@case("so its weights cannot be found")
def no_table(archive, canary):
    del archive.members["data/weights/model_weights_config.json"]


@case("its byteorder is b'big'")
def big_endian(archive, canary):
    archive.members["byteorder"] = b"big"


@case("its archive version is b'9'")
def other_archive_version(archive, canary):
    archive.members["archive_version"] = b"9"


@case("was saved without its weights")
def no_data(archive, canary):
    archive.members["data/weights/weight_0"] = b""


@case("whose tensors are pickles")
def before_archives(archive, canary):
    archive.members = {}
    for name in ("version", "serialized_exported_program.json", "serialized_state_dict.pt"):
        archive.raw.append((name, bomb(canary), zipfile.ZIP_STORED))


# The program's own consistency.


@in_program("wrote it in schema 9.0, and nnopt reads schema 8")
def other_schema(tree, canary):
    tree["schema_version"] = {"major": 9, "minor": 0}


@in_program("'graph' is missing")
def no_graph(tree, canary):
    del tree["graph_module"]["graph"]


@in_program("which nothing before it makes")
def used_before_made(tree, canary):
    graph(tree)["nodes"].reverse()


@in_program("is made a second time")
def made_twice(tree, canary):
    graph(tree)["nodes"].append(graph(tree)["nodes"][-1])


@in_program("the sizes of 'relu' are not there")
def unsized(tree, canary):
    del graph(tree)["tensor_values"]["relu"]


@in_program("is not in the file")
def missing_weight(tree, canary):
    tree["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = "gone.weight"


@in_program("is not the graph's input at that place")
def crossed_weights(tree, canary):
    tree["graph_module"]["signature"]["input_specs"].reverse()


@in_program("and its signature")
def short_signature(tree, canary):
    tree["graph_module"]["signature"]["input_specs"].pop()


@in_program("is not one of TRAINING, ATEN")
def odd_verifier(tree, canary):
    tree["verifiers"] = ["EDGE"]


@in_program("how the program is called is not there")
def uncallable(tree, canary):
    tree["graph_module"]["module_call_graph"] = []


@in_program("does not say what kind of value it is")
def two_kinds(tree, canary):
    node(tree, "relu")["inputs"][0]["arg"] = {"as_int": 1, "as_tensor": {"name": "x"}}
