"""Hand-written attention, one per way of splitting heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import SEQUENCE, Frame
from .case import Case, hand, images, together

CASES: list[Case] = []
case = hand(CASES)


@case("attention-packed-permute", SEQUENCE)
class PackedPermute(Frame):
    """timm's form: view to (3, heads, size), permute, unbind."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


@case("attention-packed-index", SEQUENCE)
class PackedIndex(Frame):
    """q, k, v by indexing; the product, scale and softmax written out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96, bias=False), nn.Linear(32, 32)

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


@case("attention-packed-chunk", SEQUENCE)
class PackedChunk(Frame):
    """Chunk first, heads after (CLIP, GPT-2)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = (part.view(b, n, 4, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        weights = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(8)
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        weights = weights.masked_fill(~causal, float("-inf")).softmax(-1)
        return self.proj(torch.matmul(weights, v).transpose(1, 2).contiguous().view(b, n, c))


@case("attention-packed-by-head", SEQUENCE)
class PackedByHead(Frame):
    """Each head holds its own q, k and v side by side (GPT-NeoX, Bloom): view to (heads, 3 size), chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 4, 24).transpose(1, 2).chunk(3, -1)
        return self.proj(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, n, c)
        )


@case("attention-size-major", SEQUENCE)
class SizeMajor(Frame):
    """einops' `b n (d h qkv)`: the head is neither first nor last."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 8, 4, 3).permute(4, 0, 3, 1, 2)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.permute(0, 2, 3, 1).reshape(b, n, 32))


@case("attention-separate", SEQUENCE)
class Separate(Frame):
    """BERT's form: three linear maps, permute, a context that is viewed back by size()[:-2]."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))

    def heads(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], 4, 8).permute(0, 2, 1, 3)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))
        weights = F.softmax(torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(8), dim=-1)
        context = torch.matmul(weights, v).permute(0, 2, 1, 3).contiguous()
        return self.out(context.view(*context.size()[:-2], 32))


@case("attention-folded-heads", SEQUENCE)
class FoldedHeads(Frame):
    """Heads folded into the batch (fairseq, Bart): batch * heads as one dimension, bmm."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape

        def fold(y: Tensor) -> Tensor:
            return y.view(b, n, 4, 8).transpose(1, 2).contiguous().view(b * 4, n, 8)

        weights = F.softmax(torch.bmm(fold(self.q(x)) * 8**-0.5, fold(self.k(x)).transpose(1, 2)), dim=-1)
        y = torch.bmm(weights, fold(self.v(x)))
        return self.out(y.view(b, 4, n, 8).transpose(1, 2).reshape(b, n, c))


@case("attention-einsum", SEQUENCE)
class Einsum(Frame):
    """Projections and products as einsum over a 3-D weight (T5X style)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(32, 4, 8) * 0.2) for _ in range(3))
        self.out = nn.Parameter(torch.randn(4, 8, 32) * 0.2)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bnc,chd->bnhd", x, w) for w in (self.q, self.k, self.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(8**0.5).softmax(-1)
        return torch.einsum("bqhd,hdc->bqc", torch.einsum("bhqk,bkhd->bqhd", weights, v), self.out)


@case("attention-nc", images(6, 4, 4))
class ChannelsFirst(nn.Module):
    """Attention on feature maps: qkv by 1x1 convolution, (heads, size) before the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.out = nn.Conv2d(6, 32, 1), nn.Conv2d(32, 96, 1), nn.Conv2d(32, 32, 1)
        self.norm, self.classify = nn.GroupNorm(8, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b * 4, 24, h * w).split(8, dim=1)
        weights = torch.einsum("bct,bcs->bts", q * 8**-0.25, k * 8**-0.25).softmax(-1)
        y = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, h, w)
        return self.classify((x + self.out(y)).mean((2, 3)))


@case("talking-heads", SEQUENCE)
class TalkingHeads(Frame):
    """Linear maps across heads before and after the softmax (CaiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4)
        w = self.before((q @ k.mT / 8**0.5).permute(0, 2, 3, 1)).softmax(2)
        return self.out((self.after(w).permute(0, 3, 1, 2) @ v).transpose(1, 2).reshape(b, n, c))


@case("query-key-norm", SEQUENCE)
class QueryKeyNorm(Frame):
    """RMSNorm over each head's size, with weights shared by the heads; a gate per head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.gate = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 4)
        self.nq, self.nk = nn.RMSNorm(8), nn.RMSNorm(8)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, 4, 8).unbind(2)
        y = F.scaled_dot_product_attention(
            self.nq(q).transpose(1, 2), self.nk(k).transpose(1, 2), v.transpose(1, 2)
        )
        y = y.transpose(1, 2) * self.gate(x).sigmoid().unsqueeze(-1)
        return self.out(y.reshape(b, n, c))


@case("linear-attention", SEQUENCE)
class LinearAttention(Frame):
    """k times v first; the head's size is contracted last (Katharopoulos et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = (f(x).view(b, n, 4, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        norm = q @ k.sum(2).unsqueeze(-1)
        return self.out((q @ (k.transpose(-1, -2) @ v) / norm).transpose(1, 2).reshape(b, n, c))


@case("channel-attention", images(6, 4, 4))
class ChannelAttention(nn.Module):
    """Attention between channels instead of pixels, normalised, a temperature per head (XCiT, Restormer)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.out = nn.Conv2d(6, 32, 1), nn.Conv2d(32, 96, 1), nn.Conv2d(32, 32, 1)
        self.depth = nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.temperature, self.classify = nn.Parameter(torch.ones(4, 1, 1)), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, 4, 8, h * w) for t in self.depth(self.qkv(x)).chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(-1) @ v
        return self.classify((x + self.out(y.reshape(b, c, h, w))).mean((2, 3)))


@case("axial", images(3, 6, 6))
class Axial(nn.Module):
    """Attention along rows, then along columns, with the other axis in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.classify = nn.Conv2d(3, 32, 1), nn.Linear(32, 10)
        self.qkv = nn.ModuleList(nn.Linear(32, 96) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        for qkv, out in zip(self.qkv, self.out, strict=True):
            b, h, w, c = x.shape
            q, k, v = qkv(x).view(b * h, w, 3, 4, 8).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h, w, c)
            x = (x + out(y)).transpose(1, 2)
        return self.classify(x.mean((1, 2)))


@case("cross-attention", together(images(7, 6), images(5, 9)))
class CrossAttention(nn.Module):
    """Queries of one input, keys and values of another, packed as kv."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 32), nn.Linear(9, 24)
        self.q, self.kv, self.out, self.classify = (
            nn.Linear(32, 32),
            nn.Linear(24, 64),
            nn.Linear(32, 32),
            nn.Linear(32, 10),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.one(x), self.two(y)
        q = self.q(x).unflatten(-1, (4, 8)).transpose(1, 2)
        k, v = self.kv(y).unflatten(-1, (2, 4, 8)).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.classify((x + self.out(z)).mean(1))
