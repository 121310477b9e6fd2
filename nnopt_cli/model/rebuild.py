"""A shrunk program as a module of its own source: built, resized to the widths recorded, and verified.

The source builds the module at its full size. Every parameter then takes the shape that the program
has, the layers that own them are told their new sizes, and the result is run against the program:
where the source holds a size in its code (a `view`, a `split`), that is found here, never later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from nnopt_cli.errors import NnoptError
from nnopt_cli.graph.rules.base import argument, operator_name
from nnopt_cli.graph.rules.contract import convolution_form
from nnopt_cli.model.agreement import difference, tolerance
from nnopt_cli.model.arch import Architecture, described
from nnopt_cli.model.fit import fill

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.formats.weight import Weight

_WAY_OUT = (
    "The program needs no source: load the file without it, and module() gives the program as a module."
)


def rebuild(arch: Architecture, program: ExportedProgram, weights: Mapping[str, Weight]) -> nn.Module:
    """The module that `arch` builds, in the sizes and with the weights of `program`, in evaluation mode.

    Raises NnoptError: names differ, the source bakes a size in (its line is named), or outputs differ.
    """
    module = arch.build()
    fill(module, weights, arch.spec, resize=True)
    groups = _groups(program)
    for name, layer in module.named_modules():
        for kinds, tell in _TABLE.items():
            if isinstance(layer, kinds):
                tell(layer, groups.get(f"{name}.weight" if name else "weight"))
    _verify(arch, module, program)
    return module


def _groups(program: ExportedProgram) -> dict[str, int]:
    """The number of groups of every convolution and group norm, by the name of its weight."""
    targets = {s.arg.name: str(s.target) for s in program.graph_signature.input_specs if s.target}
    out = {}
    for node in program.graph.nodes:
        kind = operator_name(node) if node.op == "call_function" else ""
        if kind.startswith("conv"):
            out[targets.get(str(node.args[1]), "")] = convolution_form(node)[0]
        elif kind == "group_norm":
            out[targets.get(str(argument(node, 2, "weight")), "")] = int(argument(node, 1, "num_groups"))
    return out


def _linear(layer: Any, groups: int | None) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _bilinear(layer: Any, groups: int | None) -> None:
    layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape


def _convolution(layer: Any, groups: int | None) -> None:
    first, second = layer.weight.shape[:2]
    layer.groups = groups or layer.groups
    inner, outer = (first, second * layer.groups) if layer.transposed else (second * layer.groups, first)
    layer.in_channels, layer.out_channels = inner, outer


def _statistics(layer: Any, groups: int | None) -> None:
    known = layer.weight if layer.weight is not None else layer.running_mean
    if known is not None:
        layer.num_features = known.shape[0]


def _group_norm(layer: Any, groups: int | None) -> None:
    if layer.weight is not None:
        layer.num_channels = layer.weight.shape[0]
        layer.num_groups = groups or layer.num_groups


def _layer_norm(layer: Any, groups: int | None) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


def _embedding(layer: Any, groups: int | None) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _prelu(layer: Any, groups: int | None) -> None:
    layer.num_parameters = layer.weight.numel()


def _recurrent(layer: Any, groups: int | None) -> None:
    rows, layer.input_size = layer.weight_ih_l0.shape
    layer.hidden_size = rows // {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    layer.proj_size = layer.weight_hr_l0.shape[0] if layer.proj_size else 0


def _attention(layer: Any, groups: int | None) -> None:
    if layer.in_proj_weight is not None:
        inner, outer = layer.in_proj_weight.shape[0] // 3, layer.in_proj_weight.shape[1]
        layer.embed_dim = layer.kdim = layer.vdim = outer
        layer.num_heads = max(1, inner // layer.head_dim)


_TABLE: dict[Any, Callable[[Any, int | None], None]] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.modules.conv._ConvNd: _convolution,
    nn.modules.batchnorm._NormBase: _statistics,
    nn.GroupNorm: _group_norm,
    (nn.LayerNorm, nn.RMSNorm): _layer_norm,
    (nn.Embedding, nn.EmbeddingBag): _embedding,
    nn.PReLU: _prelu,
    nn.RNNBase: _recurrent,
    nn.MultiheadAttention: _attention,
}


def _verify(arch: Architecture, module: nn.Module, program: ExportedProgram) -> None:
    try:
        off = difference(program, module)
    except Exception as error:
        raise NnoptError(
            f"--arch {arch.spec}: its code holds a size that was cut: {described(error)}", _WAY_OUT
        ) from error
    if not off <= tolerance(program):
        raise NnoptError(
            f"--arch {arch.spec}: rebuilt at the sizes in the file, it computes something else than the "
            f"program (largest difference over largest output: {off:.2g})",
            f"Its code holds a size, or uses its weights in a way that the cut changed. {_WAY_OUT}",
        )
