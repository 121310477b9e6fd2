"""Hand-written networks of other kinds."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import mlp
from .case import Case, hand, images, together, tokens

CASES: list[Case] = []
case = hand(CASES)


@case("conformer", images(10, 8))
class Conformer(nn.Module):
    """Half-step feed-forward, attention, and a gated depthwise convolution in channels-first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.ff1, self.ff2 = nn.Linear(8, 32), mlp(32, 64), mlp(32, 64)
        self.mha, self.norms = (
            nn.MultiheadAttention(32, 4, batch_first=True),
            nn.ModuleList(nn.LayerNorm(32) for _ in range(4)),
        )
        self.point1, self.depth = nn.Conv1d(32, 64, 1), nn.Conv1d(32, 32, 3, padding=1, groups=32)
        self.norm, self.point2, self.head = nn.BatchNorm1d(32), nn.Conv1d(32, 32, 1), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + 0.5 * self.ff1(self.norms[0](x))
        y = self.norms[1](x)
        x = x + self.mha(y, y, y, need_weights=False)[0]
        y = F.glu(self.point1(self.norms[2](x).transpose(1, 2)), dim=1)
        x = x + self.point2(F.silu(self.norm(self.depth(y)))).transpose(1, 2)
        x = x + 0.5 * self.ff2(x)
        return self.head(self.norms[3](x))


@case("mixture-of-experts", images(7, 6))
class Experts(nn.Module):
    """Soft routing: all experts as stacked weights, contracted by einsum, weighed by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.route, self.head = nn.Linear(6, 32), nn.Linear(32, 4), nn.Linear(32, 5)
        self.up, self.down = (
            nn.Parameter(torch.randn(4, 32, 48) * 0.2),
            nn.Parameter(torch.randn(4, 48, 32) * 0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        hidden = F.gelu(torch.einsum("bnc,ech->bneh", x, self.up))
        y = torch.einsum("bneh,ehc->bnec", hidden, self.down)
        return self.head(x + (y * self.route(x).softmax(-1).unsqueeze(-1)).sum(2))


@case("graph-convolution", together(images(9, 6), images(9, 9)))
class GraphConvolution(nn.Module):
    """Node features mixed by an adjacency input; an attention score by broadcast sums (GAT)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.source, self.target = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(adjacency.softmax(-1) @ self.one(x))
        h = self.two(x).view(x.shape[0], 9, 4, 8)
        score = (h * self.source).sum(-1).unsqueeze(2) + (h * self.target).sum(-1).unsqueeze(1)
        weight = F.leaky_relu(score, 0.2).masked_fill(adjacency.unsqueeze(-1) < 0, -1e9).softmax(2)
        y = torch.einsum("bijh,bjhd->bihd", weight, h).flatten(2)
        return self.head(F.elu(y)).mean(1)


@case("recommender", together(tokens(20, 3), images(5)), most=0.45)
class Recommender(nn.Module):
    """Embedding tables, pairwise dot products picked by a triangle, joined with a dense tower (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, 16) for _ in range(3))
        self.dense = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(16 + 6, 32), nn.ReLU(), nn.Linear(32, 1))
        self.register_buffer("rows", torch.tril_indices(4, 4, -1)[0])
        self.register_buffer("columns", torch.tril_indices(4, 4, -1)[1])

    def forward(self, sparse: Tensor, dense: Tensor) -> Tensor:
        d = self.dense(dense)
        parts = torch.stack([d, *(table(sparse[:, i]) for i, table in enumerate(self.tables))], 1)
        pairs = torch.bmm(parts, parts.transpose(1, 2))[:, self.rows, self.columns]
        return torch.sigmoid(self.top(torch.cat([d, pairs], 1)))


@case("mean-embedding", tokens(60, 12))
class MeanEmbedding(nn.Module):
    """EmbeddingBag-like mean over tokens with a padding mask, then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = (
            nn.Embedding(60, 24, padding_idx=0),
            nn.Linear(24, 48),
            nn.Linear(48, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = (x != 0).unsqueeze(-1).to(self.embed.weight.dtype)
        y = (self.embed(x) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.head(torch.relu(self.hidden(y)))


@case("fourier", images(16, 6))
class Fourier(nn.Module):
    """FNet: a Fourier transform over positions mixes tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp, self.head = nn.Linear(6, 32), mlp(32, 64), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + torch.fft.fft(x, dim=1).real
        return self.head((x + self.mlp(x)).mean(1))


@case("capsule", images(8, 10), most=0.55)
class Capsule(nn.Module):
    """Dynamic routing: agreement between votes, squash, three rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.vote = nn.Linear(10, 24), nn.Parameter(torch.randn(8, 5, 16, 24) * 0.1)
        self.hidden, self.head = nn.Linear(80, 40), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        votes = torch.einsum("njdc,bnc->bnjd", self.vote, F.relu(self.lift(x)))
        logits = torch.zeros_like(votes[..., 0])
        for _ in range(3):
            s = (logits.softmax(2).unsqueeze(-1) * votes).sum(1)
            size = s.pow(2).sum(-1, keepdim=True)
            v = s * size / (1 + size) / (size + 1e-9).sqrt()
            logits = logits + (votes * v.unsqueeze(1)).sum(-1)
        return self.head(F.relu(self.hidden(v.flatten(1))))
