"""What a graph costs: multiply-accumulates, parameters and activation memory, operator by operator.

One MAC is one multiplication and one addition; `torch.utils.flop_counter` counts it as two flops.
Elementwise work and normalisation are not counted, as is usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from nnopt_cli.graph.coupling import identity, is_tensor, sizes
from nnopt_cli.graph.inputs import recorded_size
from nnopt_cli.graph.rules.base import operator_name
from nnopt_cli.graph.rules.contract import convolution_form, einsum_terms

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.graph.coupling import Coupling
    from nnopt_cli.graph.keep import Keep

Sizes = Callable[[Node], list[int]]


@dataclass(frozen=True)
class Cost:
    """One operator that multiplies.

    Attributes:
        node: its name in the graph.
        operator: e.g. `conv2d`.
        weight: the parameter it multiplies with, if any.
        macs: multiply-accumulates for the whole batch.
        output_bytes: size of its result.
    """

    node: str
    operator: str
    weight: str | None
    macs: int
    output_bytes: int


@dataclass(frozen=True)
class Costs:
    """A whole graph.

    Attributes:
        layers: the operators that multiply, in order.
        macs: their sum.
        parameters: elements of all parameters, tied ones counted once.
        peak_bytes: the most that activations take at once when the graph runs in order.
    """

    layers: tuple[Cost, ...]
    macs: int
    parameters: int
    peak_bytes: int


def costs(
    program: ExportedProgram,
    batch: int = 1,
    coupling: Coupling | None = None,
    keep: Keep | None = None,
) -> Costs:
    """Count a program's cost for a batch of `batch`; other dynamic sizes are those it was exported with.

    With `coupling` and `keep`: what the program would cost after that cut, without making it.
    """
    names = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.target}
    sized = _sized(program, batch)
    if coupling is not None and keep is not None:
        sized = _after(sized, coupling, keep)
    layers = []
    for node in program.graph.nodes:
        count = MACS.get(operator_name(node)) if node.op == "call_function" else None
        if count is not None:
            weight = next((names[s.name] for s in node.all_input_nodes if s.name in names), None)
            name = operator_name(node)
            layers.append(Cost(node.name, name, weight, count(node, sized), _bytes(node, sized)))
    total = sum(layer.macs for layer in layers)
    return Costs(tuple(layers), total, parameters(program, sized), _peak(program, sized))


def parameters(program: ExportedProgram, sized: Sizes | None = None) -> int:
    """Elements of all parameters, tied ones counted once."""
    targets = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs}
    wanted = set(program.graph_signature.parameters)
    found = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and targets.get(node.name) in wanted:
            shape = sized(node) if sized else [int(size) for size in sizes(node)]
            found[identity(program.state_dict[targets[node.name]])] = math.prod(shape)
    return sum(found.values())


def _after(sized: Sizes, coupling: Coupling, keep: Keep) -> Sizes:
    """Sizes as a cut would leave them."""

    def left(node: Node) -> list[int]:
        before, value = sized(node), coupling.values.get(node)
        if not value or isinstance(value[0], list):
            return before
        pairs = zip(before, value, strict=True)
        return [n if dim is None or not len(dim) else n * keep.count(dim) // len(dim) for n, dim in pairs]

    return left


def _sized(program: ExportedProgram, batch: int) -> Sizes:
    """Turns symbolic sizes into numbers: the leading one of the inputs is the batch."""
    inputs = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    first = [sizes(n)[0] for n in program.graph.nodes if n.name in inputs and is_tensor(n) and sizes(n)]
    batches = {s for size in first if hasattr(size, "node") for s in size.node.expr.free_symbols}

    def number(size: Any) -> int:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        shape_env = size.node.shape_env
        known = {s: batch if s in batches else recorded_size(shape_env, s) for s in expression.free_symbols}
        return int(expression.subs(known))

    return lambda node: [number(size) for size in sizes(node)]


def _linear(node: Node, sized: Sizes) -> int:
    return math.prod(sized(node)) * sized(node.args[0])[-1]  # type: ignore[arg-type]


def _addmm(node: Node, sized: Sizes) -> int:
    return math.prod(sized(node)) * sized(node.args[1])[-1]  # type: ignore[arg-type]


def _convolution(node: Node, sized: Sizes) -> int:
    _, transposed = convolution_form(node)
    weight: Any = node.args[1]
    source: Any = node.args[0]
    # out x in/groups x kernel per output position; transposed: in x out/groups x kernel per input position
    per = math.prod(sized(weight)[1:])
    return math.prod(sized(source)) * per if transposed else math.prod(sized(node)) * per


def _attention(node: Node, sized: Sizes) -> int:
    q, k, v = (sized(source) for source in node.args[:3])  # type: ignore[arg-type]
    scores = math.prod(q[:-1]) * k[-2]
    return scores * q[-1] + scores * v[-1]


def _einsum(node: Node, sized: Sizes) -> int:
    terms, _ = einsum_terms(node)
    operands: Any = node.args[1]
    letters: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        letters.update(zip(term, sized(operand), strict=True))
    return math.prod(letters.values()) if len(terms) > 1 else 0


def _recurrent(node: Node, sized: Sizes) -> int:
    weights: Any = node.args[2]
    steps = math.prod(sized(node.args[0])[:-1])  # type: ignore[arg-type]
    return steps * sum(math.prod(sized(weight)) for weight in weights if len(sizes(weight)) == 2)


MACS: dict[str, Callable[[Node, Sizes], int]] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _linear),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    **dict.fromkeys((f"conv{n}d" for n in (1, 2, 3)), _convolution),
    **dict.fromkeys((f"conv_transpose{n}d" for n in (1, 2, 3)), _convolution),
    "convolution": _convolution,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}


def _bytes(node: Node, sized: Sizes) -> int:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return math.prod(sized(node)) * value.element_size()
    return 0  # several outputs: each is counted where it is taken out


def _peak(program: ExportedProgram, sized: Sizes) -> int:
    """The most bytes of results that are alive at once, views counted as copies."""
    order = [node for node in program.graph.nodes if node.op == "call_function"]
    last = {source: node for node in order for source in node.all_input_nodes}
    ends: dict[Node, list[Node]] = {}
    for source, node in last.items():
        ends.setdefault(node, []).append(source)
    alive, now, peak = set(), 0, 0
    for node in order:
        now += _bytes(node, sized)
        alive.add(node)
        peak = max(peak, now)
        for source in ends.get(node, ()):
            if source in alive:
                alive.discard(source)
                now -= _bytes(source, sized)
    return peak
