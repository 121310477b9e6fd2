"""What each layer of a graph costs: as data, and as a table on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.record import Row
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.report.page import Page


class LayerCost(Row):
    """One operator that multiplies, for one sample."""

    layer: str  # its weight, or the operator's own name where it has none
    operator: str
    parameters: int  # elements of all that it reads
    macs: int  # multiply-accumulates
    output_bytes: int


class CostTable(Row):
    """A graph, for one sample. Elementwise work and norms are not counted as multiplying."""

    layers: list[LayerCost]
    macs: int
    parameters: int  # of the whole graph, tied ones counted once
    activation_bytes: int  # the most that results take at once


def cost_table(program: ExportedProgram) -> CostTable:
    """Count what a program costs, operator by operator."""
    from nnopt_cli.graph import costs

    found = costs(program)
    wanted = set(program.graph_signature.parameters)
    held = {s.arg.name: str(s.target) for s in program.graph_signature.input_specs if s.target in wanted}
    reads = {
        node.name: [held[source.name] for source in node.all_input_nodes if source.name in held]
        for node in program.graph.nodes
    }
    layers = [
        LayerCost(
            layer=layer.weight or layer.node,
            operator=layer.operator,
            parameters=sum(program.state_dict[name].numel() for name in reads[layer.node]),
            macs=layer.macs,
            output_bytes=layer.output_bytes,
        )
        for layer in found.layers
    ]
    return CostTable(
        layers=layers, macs=found.macs, parameters=found.parameters, activation_bytes=found.peak_bytes
    )


def render_costs(page: Page, table: CostTable) -> None:
    """Show `table` on `page`."""
    total = page.joined(
        (
            f"{numbers.count(table.macs)} multiply-accumulates",
            f"activations take {numbers.size(table.activation_bytes)} at most",
        )
    )
    page.heading("Cost of one sample", total)
    columns = (
        Column("layer", align="left", flexible=True),
        Column("operator", align="left", style="dim", drop=3),
        Column("parameters"),
        Column("MACs"),
        Column("share"),
        Column(align="left", drop=2),
        Column("output", drop=1),
    )
    rows = []
    for layer in table.layers:
        share = numbers.ratio(layer.macs, table.macs)
        figures = numbers.count(layer.parameters), numbers.count(layer.macs), numbers.percent(share)
        rows.append(
            (layer.layer, layer.operator, *figures, page.bar(share), numbers.size(layer.output_bytes))
        )
    page.table(columns, rows)
