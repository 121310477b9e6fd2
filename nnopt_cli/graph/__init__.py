"""What nnopt knows about graphs: channel coupling, cutting, the masked reference. Public to plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.lazy import exports

if TYPE_CHECKING:
    from nnopt_cli.graph.align import match_activations as match_activations
    from nnopt_cli.graph.align import match_weights as match_weights
    from nnopt_cli.graph.check import Check as Check
    from nnopt_cli.graph.check import check_cut as check_cut
    from nnopt_cli.graph.check import distance as distance
    from nnopt_cli.graph.cost import Cost as Cost
    from nnopt_cli.graph.cost import Costs as Costs
    from nnopt_cli.graph.cost import costs as costs
    from nnopt_cli.graph.coupling import Coupling as Coupling
    from nnopt_cli.graph.coupling import Frozen as Frozen
    from nnopt_cli.graph.coupling import analyse as analyse
    from nnopt_cli.graph.coupling import identity as identity
    from nnopt_cli.graph.cutting import cut as cut
    from nnopt_cli.graph.evidence import Evidence as Evidence
    from nnopt_cli.graph.evidence import Units as Units
    from nnopt_cli.graph.fuse import Fused as Fused
    from nnopt_cli.graph.fuse import common_inputs as common_inputs
    from nnopt_cli.graph.fuse import fused as fused
    from nnopt_cli.graph.fuse import output_values as output_values
    from nnopt_cli.graph.inputs import sample_inputs as sample_inputs
    from nnopt_cli.graph.keep import Keep as Keep
    from nnopt_cli.graph.layers import Channels as Channels
    from nnopt_cli.graph.layers import Layer as Layer
    from nnopt_cli.graph.layers import layers_of as layers_of
    from nnopt_cli.graph.layers import parameter_groups as parameter_groups
    from nnopt_cli.graph.modes import trainable as trainable
    from nnopt_cli.graph.onnx_export import to_onnx as to_onnx
    from nnopt_cli.graph.parity import Parity as Parity
    from nnopt_cli.graph.parity import verify as verify
    from nnopt_cli.graph.permute import Order as Order
    from nnopt_cli.graph.permute import check_permuted as check_permuted
    from nnopt_cli.graph.permute import exchangeable as exchangeable
    from nnopt_cli.graph.permute import permuted as permuted
    from nnopt_cli.graph.permute import same_graph as same_graph
    from nnopt_cli.graph.reference import run as run
    from nnopt_cli.graph.reference import run_masked as run_masked
    from nnopt_cli.graph.reference import run_zeroed as run_zeroed
    from nnopt_cli.graph.repair import Responses as Responses
    from nnopt_cli.graph.repair import repaired as repaired
    from nnopt_cli.graph.repair import resettable as resettable
    from nnopt_cli.graph.repair import responses as responses
    from nnopt_cli.graph.residual import Block as Block
    from nnopt_cli.graph.residual import blocks as blocks
    from nnopt_cli.graph.residual import without_blocks as without_blocks
    from nnopt_cli.graph.sensitivity import sensitivities as sensitivities
    from nnopt_cli.graph.sharing import Shared as Shared
    from nnopt_cli.graph.sides import Side as Side
    from nnopt_cli.graph.sides import onnx_side as onnx_side
    from nnopt_cli.graph.sides import program_side as program_side
    from nnopt_cli.graph.statistics import norm_statistics as norm_statistics
    from nnopt_cli.graph.timing import Latency as Latency
    from nnopt_cli.graph.timing import Stopwatch as Stopwatch
    from nnopt_cli.graph.timing import interleaved as interleaved
    from nnopt_cli.graph.timing import latencies as latencies
    from nnopt_cli.graph.units import Group as Group
    from nnopt_cli.graph.units import Member as Member
    from nnopt_cli.graph.units import groups as groups
    from nnopt_cli.graph.units import mass as mass

_HOME = {
    "Block": "residual",
    "blocks": "residual",
    "without_blocks": "residual",
    "match_activations": "align",
    "match_weights": "align",
    "Check": "check",
    "check_cut": "check",
    "distance": "check",
    "Cost": "cost",
    "Costs": "cost",
    "costs": "cost",
    "Coupling": "coupling",
    "Frozen": "coupling",
    "analyse": "coupling",
    "identity": "coupling",
    "cut": "cutting",
    "Fused": "fuse",
    "common_inputs": "fuse",
    "fused": "fuse",
    "output_values": "fuse",
    "sample_inputs": "inputs",
    "Keep": "keep",
    "Channels": "layers",
    "Layer": "layers",
    "layers_of": "layers",
    "parameter_groups": "layers",
    "trainable": "modes",
    "to_onnx": "onnx_export",
    "Parity": "parity",
    "verify": "parity",
    "Side": "sides",
    "onnx_side": "sides",
    "program_side": "sides",
    "Order": "permute",
    "check_permuted": "permute",
    "exchangeable": "permute",
    "permuted": "permute",
    "same_graph": "permute",
    "Responses": "repair",
    "repaired": "repair",
    "resettable": "repair",
    "responses": "repair",
    "run": "reference",
    "run_masked": "reference",
    "run_zeroed": "reference",
    "Evidence": "evidence",
    "Units": "evidence",
    "sensitivities": "sensitivity",
    "Shared": "sharing",
    "norm_statistics": "statistics",
    "Latency": "timing",
    "Stopwatch": "timing",
    "interleaved": "timing",
    "latencies": "timing",
    "Group": "units",
    "Member": "units",
    "groups": "units",
    "mass": "units",
}
__all__ = list(_HOME)
__getattr__ = exports(globals(), _HOME)
