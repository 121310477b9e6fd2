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
    for layer in module.modules():
        for kinds, tell in _TABLE.items():
            if isinstance(layer, kinds):
                tell(layer)
    _verify(arch, module, program)
    return module


def _linear(layer: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _bilinear(layer: Any) -> None:
    layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape


def _convolution(layer: Any) -> None:
    first, second = layer.weight.shape[:2]
    if layer.groups > 1:  # whole groups go: each that stays has as many channels as before
        layer.groups = max(1, first * layer.groups // _before(layer))
    inner, outer = (first, second * layer.groups) if layer.transposed else (second * layer.groups, first)
    layer.in_channels, layer.out_channels = inner, outer


def _before(layer: Any) -> int:
    return int(layer.in_channels if layer.transposed else layer.out_channels)


def _statistics(layer: Any) -> None:
    known = layer.weight if layer.weight is not None else layer.running_mean
    if known is not None:
        layer.num_features = known.shape[0]


def _group_norm(layer: Any) -> None:
    if layer.weight is not None:
        each = layer.num_channels // layer.num_groups
        layer.num_channels = layer.weight.shape[0]
        layer.num_groups = max(1, layer.num_channels // each)


def _layer_norm(layer: Any) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


def _embedding(layer: Any) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _prelu(layer: Any) -> None:
    layer.num_parameters = layer.weight.numel()


def _recurrent(layer: Any) -> None:
    rows, layer.input_size = layer.weight_ih_l0.shape
    layer.hidden_size = rows // {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    layer.proj_size = layer.weight_hr_l0.shape[0] if layer.proj_size else 0


def _attention(layer: Any) -> None:
    if layer.in_proj_weight is not None:
        inner, outer = layer.in_proj_weight.shape[0] // 3, layer.in_proj_weight.shape[1]
        layer.embed_dim = layer.kdim = layer.vdim = outer
        layer.num_heads = max(1, inner // layer.head_dim)


_TABLE: dict[Any, Callable[[Any], None]] = {
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
