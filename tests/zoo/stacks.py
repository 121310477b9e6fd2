"""Hand-written transformers, mixers and language models; PyTorch's own modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import SEQUENCE, Frame, mlp
from .case import Case, hand, images, together, tokens

CASES: list[Case] = []
case = hand(CASES)


@case("nn-multihead", SEQUENCE)
class Multihead(Frame):
    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(32, 4, batch_first=True)

    def attend(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x, need_weights=False)[0]


@case("nn-multihead-weights", images(7, 6))
class MultiheadWeights(nn.Module):
    """Sequence first, different key and value widths, attention weights returned (averaged over heads)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 32), nn.Linear(6, 20), nn.Linear(6, 12)
        self.mha, self.out = nn.MultiheadAttention(32, 4, kdim=20, vdim=12), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.transpose(0, 1)
        y, weights = self.mha(self.q(x), self.k(x), self.v(x))
        return self.out(y).transpose(0, 1), weights


@case("nn-encoder", tokens(50, 9))
class Encoder(nn.Module):
    """nn.TransformerEncoder with a causal mask, learned positions, embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(50, 32), nn.Parameter(torch.randn(1, 9, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu")
        self.body = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(32), enable_nested_tensor=False)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.triu(torch.full((9, 9), float("-inf")), diagonal=1)
        return self.classify(self.body(self.embed(x) + self.place, mask=mask, is_causal=True)[:, -1])


@case("nn-transformer", together(images(8, 6), images(5, 6)))
class Transformer(nn.Module):
    """nn.Transformer: encoder, decoder, memory; post-normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Linear(6, 32), nn.Linear(6, 32)
        self.body = nn.Transformer(32, 4, 2, 2, 48, batch_first=True)
        self.out = nn.Linear(32, 7)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.out(self.body(self.source(source), self.target(target)))


@case("vit-class-token", images(3, 16, 16))
class ClassToken(nn.Module):
    """Patches, a class token that is expanded and joined, positions, register tokens cut off again."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 32, 4, 4), nn.LayerNorm(32)
        self.token, self.register = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 3, 32))
        self.place = nn.Parameter(torch.randn(1, 17, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.classify = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        x = torch.cat([x[:, :1], self.register.expand(x.shape[0], -1, -1), x[:, 1:]], 1)
        x = self.norm(self.block(x))
        return self.classify(torch.cat([x[:, 0], x[:, 4:].mean(1)], -1))


@case("attention-pooling", images(7, 6))
class AttentionPooling(nn.Module):
    """Learned queries read a sequence (Perceiver, set transformers); a scored average beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.latent = nn.Linear(6, 32), nn.Parameter(torch.randn(5, 32))
        self.q, self.k, self.v, self.score = (
            nn.Linear(32, 32),
            nn.Linear(32, 32),
            nn.Linear(32, 32),
            nn.Linear(32, 1),
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b = x.shape[0]
        q = self.q(self.latent).view(5, 4, 8).transpose(0, 1).unsqueeze(0).expand(b, -1, -1, -1)
        k, v = (f(x).view(b, -1, 4, 8).transpose(1, 2) for f in (self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1)
        pooled = (self.score(x).softmax(1).transpose(1, 2) @ x).squeeze(1)
        return self.classify(torch.cat([y, pooled], -1))


@case("mixer", images(3, 16, 16), most=0.5)
class Mixer(nn.Module):
    """Linear maps over tokens and over channels, by transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.classify = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(4))
        self.space, self.channel = (
            nn.ModuleList(mlp(16, 24) for _ in range(2)),
            nn.ModuleList(mlp(32, 64) for _ in range(2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for i in range(2):
            x = x + self.space[i](self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.channel[i](self.norms[2 * i + 1](x))
        return self.classify(x.mean(1))


@case("spatial-gating", images(12, 6), most=0.55)
class SpatialGating(nn.Module):
    """gMLP: half of the channels gate the other half after a map over positions (a 1-D convolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wide, self.norm = nn.Linear(6, 32), nn.Linear(32, 96), nn.LayerNorm(48)
        self.space, self.narrow, self.classify = nn.Conv1d(12, 12, 1), nn.Linear(48, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        u, v = F.gelu(self.wide(x)).chunk(2, dim=-1)
        return self.classify((x + self.narrow(u * (self.space(self.norm(v)) + 1))).mean(1))


@case("tied-embedding", tokens(40, 8))
class Tied(nn.Module):
    """A language model whose output weights are its embedding; SwiGLU; RMSNorm written out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 32), nn.Linear(32, 40, bias=False)
        self.head.weight = self.embed.weight
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)
        self.scale = nn.Parameter(torch.ones(32))

    def norm(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32) if x.dtype != torch.float64 else x
        return self.scale * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) * 32**0.5
        y = self.norm(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(self.norm(x))


@case("shared-layers", tokens(40, 8))
class SharedLayers(nn.Module):
    """One block applied three times (ALBERT), with a factorised embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lift = nn.Embedding(40, 16), nn.Linear(16, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.down, self.head = nn.Linear(32, 16), nn.Linear(16, 40)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(self.embed(x))
        for _ in range(3):
            x = self.block(x)
        return self.head(F.gelu(self.down(x)))
