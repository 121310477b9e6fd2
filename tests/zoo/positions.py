"""Hand-written attention with shared keys, and with positions in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import SEQUENCE, Frame, mlp
from .case import Case, hand, images

CASES: list[Case] = []
case = hand(CASES)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Rotary(Frame):
    """Base of the grouped-query cases: rotary positions from a buffer."""

    heads, shared = 8, 2

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(32), nn.RMSNorm(32)
        self.q, self.k, self.v = (
            nn.Linear(32, 8 * h, bias=False) for h in (self.heads, self.shared, self.shared)
        )
        self.out = nn.Linear(8 * self.heads, 32, bias=False)
        self.register_buffer("speed", 1.0 / 10000 ** (torch.arange(0, 8, 2).float() / 8))

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        angle = torch.arange(n)[:, None] * self.speed[None, :]
        angle = torch.cat((angle, angle), dim=-1)[None, None]
        cos, sin = angle.cos(), angle.sin()
        q = rotate(self.q(x).view(b, n, self.heads, 8).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(b, n, self.shared, 8).transpose(1, 2), cos, sin)
        v = self.v(x).view(b, n, self.shared, 8).transpose(1, 2)
        return self.out(self.product(q, k, v).transpose(1, 2).reshape(b, n, -1))

    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError


@case("gqa-expand", SEQUENCE)
class GqaExpand(Rotary):
    """Shared keys expanded and flattened (Llama)."""

    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, d = k.shape
        k, v = (t[:, :, None].expand(b, 2, 4, n, d).reshape(b, 8, n, d) for t in (k, v))
        return (q @ k.transpose(2, 3) * d**-0.5).softmax(-1) @ v


@case("gqa-interleave", SEQUENCE)
class GqaInterleave(Rotary):
    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.repeat_interleave(4, dim=1), v.repeat_interleave(4, dim=1)
        return F.scaled_dot_product_attention(q, k, v)


@case("gqa-flag", SEQUENCE)
class GqaFlag(Rotary):
    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@case("gqa-grouped-view", SEQUENCE)
class GqaGrouped(Rotary):
    """Queries viewed as (shared, group) against keys with a broadcast dimension."""

    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, d = k.shape
        q = q.reshape(b, 2, 4, n, d)
        y = torch.matmul(
            torch.matmul(q, k.unsqueeze(2).transpose(-1, -2)).mul(d**-0.5).softmax(-1), v.unsqueeze(2)
        )
        return y.reshape(b, 8, n, d)


@case("multi-query", SEQUENCE)
class MultiQuery(Rotary):
    """One key and value head serves all queries."""

    heads, shared = 8, 1

    def product(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(2, 3) / 8**0.5).softmax(-1) @ v


@case("window-relative-bias", images(3, 8, 8))
class Window(nn.Module):
    """Shifted windows with a table of relative position biases (Swin), patch merging after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 1), nn.LayerNorm(32)
        self.qkv, self.proj, self.mlp = nn.Linear(32, 96), nn.Linear(32, 32), mlp(32, 64)
        self.merge_norm, self.merge, self.classify = (
            nn.LayerNorm(128),
            nn.Linear(128, 64, bias=False),
            nn.Linear(64, 10),
        )
        self.table = nn.Parameter(torch.randn(49, 4))
        grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        offset = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + 3
        self.register_buffer("where", offset[..., 0] * 7 + offset[..., 1])
        self.register_buffer("mask", torch.randn(4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)
        a = q * 8**-0.5 @ k.transpose(-2, -1)
        a = a + self.table[self.where.view(-1)].view(16, 16, 4).permute(2, 0, 1).unsqueeze(0)
        a = (a.view(b, 4, 4, 16, 16) + self.mask.unsqueeze(1).unsqueeze(0)).view(-1, 4, 16, 16)
        y = self.proj((a.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c))
        y = y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, (2, 2), (1, 2))
        x = x + self.mlp(x)
        quarters = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.classify(self.merge(self.merge_norm(torch.cat(quarters, -1))).mean((1, 2)))


@case("bucketed-bias", SEQUENCE)
class Bucketed(Frame):
    """T5: a bias per head from an embedding of distance; no scale."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32, bias=False) for _ in range(4))
        self.bias = nn.Embedding(13, 4)

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, -1, 4, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        place = torch.arange(n)
        bias = self.bias(place[None, :] - place[:, None] + 6).permute([2, 0, 1]).unsqueeze(0)
        y = (q @ k.transpose(3, 2) + bias).softmax(-1) @ v
        return self.o(y.transpose(1, 2).contiguous().view(b, -1, 32))


@case("alibi", SEQUENCE)
class Alibi(Frame):
    """A fixed slope per head times the distance, added by baddbmm on folded heads (Bloom)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.register_buffer("slopes", torch.tensor([0.5, 0.25, 0.125, 0.0625]))

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        fused = self.qkv(x).view(b, n, 4, 3, 8)
        q, k, v = fused[..., 0, :], fused[..., 1, :], fused[..., 2, :]
        alibi = (
            (self.slopes[:, None, None] * torch.arange(n)[None, None, :])
            .expand(b, 4, n, n)
            .reshape(b * 4, n, n)
        )
        q, v = (t.transpose(1, 2).reshape(b * 4, n, 8) for t in (q, v))
        k = k.permute(0, 2, 3, 1).reshape(b * 4, 8, n)
        w = torch.baddbmm(alibi, q, k, beta=1.0, alpha=8**-0.5).softmax(-1)
        y = torch.bmm(w, v).view(b, 4, n, 8).permute(0, 2, 1, 3).reshape(b, n, 32)
        return self.out(y)
