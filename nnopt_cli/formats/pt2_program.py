"""A serialized program, rebuilt from what was understood of it, so that nothing else reaches PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from nnopt_cli.formats.pt2_graph import Rules, check_graph
from nnopt_cli.formats.pt2_operators import is_higher_order
from nnopt_cli.formats.pt2_records import RefusedError, dotted, integer, parse, plain, sequence, show, table
from nnopt_cli.formats.pt2_schema import CALL, GRAPH, RANGES, SIGNATURE, VERIFIERS, VERSION
from nnopt_cli.formats.pt2_tree import Trees

SCHEMA = 8  # the major version of PyTorch's schema that is known here: PyTorch 2.6 to 2.13
_ELSEWHERE = re.compile(rb'"type":\s*"(cuda|mps|xpu|hpu|mtia|xla|meta)"')


@dataclass(frozen=True)
class Clean:
    """A program that may be given to PyTorch.

    Attributes:
        tree: as PyTorch's serializer would write it, without guards and the exporter's own marks.
        torch_version: of the PyTorch that wrote it.
        schema: major and minor version of the schema that it was written in.
        notes: what is different from the file.
    """

    tree: dict[str, Any]
    torch_version: str
    schema: tuple[int, int]
    notes: tuple[str, ...]


def versions(raw: Any) -> tuple[str, tuple[int, int]]:
    """The PyTorch and the schema that wrote a program. Raises RefusedError where that is not known here."""
    if type(raw) is not dict or "graph_module" not in raw:
        raise RefusedError("it is not a program")
    word = raw.get("torch_version")
    torch_version = (
        word if type(word) is str and re.fullmatch(r"[\w.+-]{1,60}", word) else "an unknown version"
    )
    try:
        found = VERSION(raw.get("schema_version"))
    except RefusedError as problem:
        raise problem.under(".schema_version") from None
    if found["major"] != SCHEMA:
        raise RefusedError(
            f"PyTorch {torch_version} wrote it in schema {found['major']}.{found['minor']}, and nnopt reads "
            f"schema {SCHEMA} (here with PyTorch {version('torch')})",
            "Export the model again with a PyTorch from 2.10 to 2.13.",
        )
    return torch_version, (found["major"], found["minor"])


def clean(text: bytes, tensors: Mapping[str, Mapping[str, Any]], rules: Rules) -> Clean:
    """Check a whole program and rebuild it.

    Args:
        text: the JSON that a file holds.
        tensors: element type and sizes of every weight and constant beside it, as the schema has them.
        rules: what the caller lets through.

    Raises:
        RefusedError: it breaks a rule; the error says which and where.
    """
    raw = parse(text)
    torch_version, schema = versions(raw)
    trees = Trees()
    module = raw["graph_module"]
    if type(module) is not dict:
        raise RefusedError("it is not a program").under(".graph_module")
    graph = _part(module, "graph", GRAPH)
    signature = _part(module, "signature", SIGNATURE)
    calls = _part(module, "module_call_graph", lambda value: _calls(value, trees))
    try:
        check_graph(graph, rules)
    except RefusedError as problem:
        raise problem.under(".graph") from None
    _check_signature(graph, signature, tensors)
    _mend(graph)
    tree = {
        "graph_module": {
            "graph": graph,
            "signature": signature,
            "module_call_graph": calls,
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": _part(raw, "opset_version", table(plain, integer())),
        "range_constraints": _ranges(raw),
        "schema_version": {"major": schema[0], "minor": schema[1]},
        "verifiers": _part(raw, "verifiers", VERIFIERS) if "verifiers" in raw else [],
        "torch_version": torch_version,
        "guards_code": [],
    }
    return Clean(tree, torch_version, schema, _notes(raw, text, trees))


def _mend(graph: Mapping[str, Any]) -> None:
    """Say of a call of a graph for its effects alone that it returns nothing: PyTorch leaves it open when it
    writes, and then refuses what it wrote."""
    for node in graph["nodes"]:
        if is_higher_order(node["target"]) and not node["outputs"]:
            node["outputs"] = [{"as_none": True}]
        for argument in node["inputs"]:
            if "as_graph" in argument["arg"]:
                _mend(argument["arg"]["as_graph"]["graph"])


def _part(holder: Mapping[str, Any], word: str, kind: Any) -> Any:
    if word not in holder:
        raise RefusedError(f"{word!r} is missing")
    try:
        return kind(holder[word])
    except RefusedError as problem:
        raise problem.under(f".{word}") from None


def _calls(value: Any, trees: Trees) -> list[dict[str, Any]]:
    """How the program, and modules in it that were asked for, are called."""

    def entry(item: Any) -> dict[str, Any]:
        if type(item) is not dict or type(item.get("fqn")) is not str:
            raise RefusedError(f"{show(item)} is not a call of a module")
        fqn = item["fqn"] and dotted(item["fqn"])
        signature = item.get("signature")
        if signature is None:
            return {"fqn": fqn, "signature": None}
        call = _part(item, "signature", CALL)
        count, keywords = _part(call, "in_spec", trees.parameters)
        names = call["forward_arg_names"]
        if names is None or len(names) != count + len(keywords):
            names, call["forward_arg_names"] = [f"arg_{i}" for i in range(count)] + keywords, None
        if len(set(names)) != len(names):
            raise RefusedError(f"two of its inputs have the same name: {show(names)}").under(".signature")
        call["in_spec"] = _part(call, "in_spec", trees.any)
        call["out_spec"] = _part(call, "out_spec", trees.any)
        return {"fqn": fqn, "signature": call}

    entries: list[dict[str, Any]] = sequence(entry)(value)
    if not entries or entries[0]["fqn"] or entries[0]["signature"] is None:
        raise RefusedError("how the program is called is not there")
    return entries


def _ranges(raw: Mapping[str, Any]) -> dict[str, Any]:
    ranges: dict[str, Any] = _part(raw, "range_constraints", RANGES)
    for word, bounds in ranges.items():
        low, high = bounds["min_val"], bounds["max_val"]
        if low is not None and high is not None and low > high:
            raise RefusedError(f"no size is in {low} to {high}").under(f".range_constraints[{word}]")
    return ranges


def _check_signature(
    graph: Mapping[str, Any], signature: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]]
) -> None:
    """Its inputs and outputs are the graph's, and the tensors among them are those that the file holds."""
    for side, specs in (("inputs", signature["input_specs"]), ("outputs", signature["output_specs"])):
        if len(graph[side]) != len(specs):
            raise RefusedError(f"the graph has {len(graph[side])} {side}, and its signature {len(specs)}")
    for index, (value, spec) in enumerate(zip(graph["inputs"], signature["input_specs"], strict=True)):
        try:
            _check_input(graph, value, spec, tensors)
        except RefusedError as problem:
            raise problem.under(f".signature.input_specs[{index}]") from None
    for index, spec in enumerate(signature["output_specs"]):
        for kind, item in spec.items():
            target = item.get("buffer_name") or item.get("parameter_name")
            if target is not None and target not in tensors:
                raise RefusedError(f"the weight {target!r} ({kind}) is not in the file").under(
                    f".signature.output_specs[{index}]"
                )


def _check_input(
    graph: Mapping[str, Any],
    value: Mapping[str, Any],
    spec: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Any]],
) -> None:
    ((kind, item),) = spec.items()
    if kind in ("user_input", "constant_input"):
        return
    target = item.get("parameter_name") or item.get("buffer_name") or item.get("tensor_constant_name")
    if value.get("as_tensor") != item["arg"]:
        raise RefusedError(f"the weight {target!r} is not the graph's input at that place")
    if target not in tensors:
        raise RefusedError(f"the weight {target!r} is not in the file")
    declared, held = graph["tensor_values"][item["arg"]["name"]], tensors[target]
    if (declared["dtype"], declared["sizes"]) != (held["dtype"], held["sizes"]):
        raise RefusedError(f"the weight {target!r} has another shape or element type than the graph says")


def _notes(raw: Mapping[str, Any], text: bytes, trees: Trees) -> tuple[str, ...]:
    notes = []
    if elsewhere := _ELSEWHERE.search(text):
        notes.append(f"The program was exported on {elsewhere[1].decode()}; it was read onto the CPU.")
    for kind, plainer in sorted(trees.replaced.items()):
        notes.append(f"Where the program takes or returns a {kind}, it now has a plain {plainer}.")
    guards = raw.get("guards_code")
    if type(guards) is list and guards:
        what = "A condition" if len(guards) == 1 else f"{len(guards)} conditions"
        notes.append(
            f"{what} on the sizes of inputs, kept as Python code, did not pass; ranges of sizes did."
        )
    return tuple(notes)
