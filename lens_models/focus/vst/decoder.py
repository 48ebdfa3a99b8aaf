"""From fused tokens to saliency and contour at 1/16, 1/8, 1/4 and full size, driven by two task tokens."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import BlockStack, two_layers

_PERFORMER_EPS = 1e-8


class Tasks(NamedTuple):
    """Tokens of one scale: patches `(B, N, width)` and the two task tokens `(B, 1, width)`."""

    saliency_token: Tensor
    patches: Tensor
    contour_token: Tensor

    @classmethod
    def split(cls, tokens: Tensor) -> Tasks:
        return cls(tokens[:, :1], tokens[:, 1:-1], tokens[:, -1:])

    def joined(self) -> Tensor:
        return torch.cat(self, dim=1)


class TokenGate(nn.Module):
    """Patch-task attention: each patch takes in the task token as far as it resembles it.

    A patch sees a single token, so the weight is a sigmoid, not a softmax.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, patches: Tensor, token: Tensor) -> Tensor:
        """patches `(B, N, width)`, token `(B, 1, width)` -> `(B, N, width)`."""
        asked, offered = self.norm(patches), self.norm(token)
        likeness = self.q(asked) @ self.k(offered).transpose(1, 2) * asked.shape[-1] ** -0.5
        return self.proj(torch.sigmoid(likeness) * self.v(offered)) + patches


class TokenTransformer(nn.Module):
    """Fused tokens of both modalities with a saliency and a contour token, at 1/16."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.mlp_s = two_layers(2 * width, width, width)
        self.saliency_token = nn.Parameter(torch.zeros(1, 1, width))
        self.contour_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoderlayer = BlockStack(depth, width, heads, hidden)
        self.saliency_token_pre = TokenGate(width)
        self.contour_token_pre = TokenGate(width)

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tasks]:
        """Gated saliency and contour patches `(B, N, width)`, and the tokens they came from."""
        patches = self.mlp_s(self.norm(torch.cat([rgb, depth], dim=-1)))
        saliency, contour = (t.expand(len(rgb), -1, -1) for t in (self.saliency_token, self.contour_token))
        tasks = Tasks(saliency, patches, contour)
        tasks = Tasks.split(self.encoderlayer(tasks.joined()))
        saliency = self.saliency_token_pre(tasks.patches, tasks.saliency_token)
        contour = self.contour_token_pre(tasks.patches, tasks.contour_token)
        return saliency, contour, tasks


class TokenRefiner(nn.Module):
    """The task tokens of the scale above meet the patches of this one (`token_pre_1_8`, `token_pre_1_4`)."""

    def __init__(self, depth: int, width: int, token_width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(token_width)
        self.mlp = two_layers(token_width, width, width)
        self.encoderlayer = BlockStack(depth, width, 1, hidden)
        self.saliency_token_pre = TokenGate(width)
        self.contour_token_pre = TokenGate(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp2 = two_layers(width, token_width, token_width)
        self.norm2_c = nn.LayerNorm(width)
        self.mlp2_c = two_layers(width, token_width, token_width)

    def forward(self, patches: Tensor, above: Tasks) -> tuple[Tensor, Tensor, Tasks]:
        """patches `(B, N, token_width)` -> saliency and contour `(B, N, token_width)`, and the tokens."""
        tasks = above._replace(patches=self.mlp(self.norm(patches)))
        tasks = Tasks.split(self.encoderlayer(tasks.joined()))
        saliency = self.saliency_token_pre(tasks.patches, tasks.saliency_token)
        contour = self.contour_token_pre(tasks.patches, tasks.contour_token)
        return self.mlp2(self.norm2(saliency)), self.mlp2_c(self.norm2_c(contour)), tasks


class Performer(nn.Module):
    """Attention in linear time through random features (Choromanski et al. 2021), `(B, N, width)`.

    Computed in float32 at least: exp and the sum over thousands of tokens leave the range of half floats.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.kqv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = two_layers(width, width, width)
        # drawn once and stored with the weights, never trained
        self.w = nn.Parameter(torch.empty(features, width), requires_grad=False)

    def _features(self, x: Tensor, w: Tensor) -> Tensor:
        norm = x.square().sum(dim=-1, keepdim=True) / 2.0
        return torch.exp(x @ w.T - norm) / math.sqrt(w.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        with _no_autocast(x.device):
            k, q, v, w = (t if t.dtype == torch.float64 else t.float() for t in (k, q, v, self.w))
            asked, offered = self._features(q, w), self._features(k, w)
            mixed = asked @ (offered.transpose(1, 2) @ v)
            mixed = mixed / (asked @ offered.sum(dim=1, keepdim=True).transpose(1, 2) + _PERFORMER_EPS)
        x = x + self.proj(mixed.to(x.dtype))
        return x + self.mlp(self.norm2(x))


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _fold(tokens: Tensor, grid: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Tokens `(B, N, C·k²)` as overlapping windows summed into tokens `(B, grid², C)`."""
    image = F.fold(tokens.transpose(1, 2), (grid, grid), kernel_size=kernel, stride=stride, padding=padding)
    return image.flatten(2).transpose(1, 2)


class UpFuse(nn.Module):
    """Double the grid, join the picture encoder's tokens of that scale, mix (`decoder1`, `decoder2`)."""

    def __init__(self, width: int, token_width: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = two_layers(width, token_width, token_width)
        self.project = nn.Linear(token_width, token_width * 3 * 3)
        self.concatFuse = two_layers(2 * token_width, token_width, token_width)
        self.att = Performer(token_width, features)

    def forward(self, patches: Tensor, skip: Tensor, grid: int) -> Tensor:
        """patches `(B, (grid/2)², width)`, skip `(B, grid², token_width)` -> like skip."""
        x = _fold(self.project(self.mlp(self.norm(patches))), grid, 3, 2, 1)
        return self.att(self.concatFuse(torch.cat([x, skip], dim=-1)))


class UpLast(nn.Module):
    """From 1/4 to every pixel (`decoder3`, `decoder3_c`)."""

    def __init__(self, token_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(token_width, token_width * 7 * 7)

    def forward(self, patches: Tensor, grid: int) -> Tensor:
        """patches `(B, (grid/4)², token_width)` -> `(B, grid², token_width)`."""
        return _fold(self.project(patches), grid, 7, 4, 2)


class Decoder(nn.Module):
    """Saliency and contour logits at four scales. `grid` is the side of the 1/16 token grid."""

    def __init__(
        self, grid: int, width: int, token_width: int, depth: int, hidden: int, features: int
    ) -> None:
        super().__init__()
        self.grid = grid
        for suffix in ("", "_c"):
            self.add_module(f"norm{suffix}", nn.LayerNorm(width))
            self.add_module(f"mlp{suffix}", two_layers(width, width, token_width))
            self.add_module(f"decoder3{suffix}", UpLast(token_width))
            for scale in ("1_16", "1_8", "1_4", "1_1"):
                self.add_module(f"pre_{scale}{suffix}", nn.Linear(token_width, 1))
        self.decoder1 = UpFuse(width, token_width, features)
        self.token_pre_1_8 = TokenRefiner(depth, width, token_width, hidden)
        self.decoder2 = UpFuse(width, token_width, features)
        self.token_pre_1_4 = TokenRefiner(depth, width, token_width, hidden)

    def forward(
        self, saliency: Tensor, contour: Tensor, tasks: Tasks, eighth: Tensor, quarter: Tensor
    ) -> dict[str, Tensor]:
        """saliency, contour: gated patches at 1/16; eighth, quarter: the picture encoder's tokens."""
        part, out = self.get_submodule, {}

        def add(scale: str, side: int, saliency: Tensor, contour: Tensor) -> None:
            for name, suffix, tokens in (("saliency", "", saliency), ("contour", "_c", contour)):
                logits = part(f"pre_{scale}{suffix}")(tokens)
                out[f"{name}_{scale}"] = logits.transpose(1, 2).unflatten(-1, (side, side))

        g16, g8, g4, g1 = (self.grid * k for k in (1, 2, 4, 16))
        narrowed = (
            part(f"mlp{suffix}")(part(f"norm{suffix}")(tokens))
            for suffix, tokens in (("", saliency), ("_c", contour))
        )
        add("1_16", g16, *narrowed)
        out["token_1_16"] = tasks.saliency_token[:, 0]
        saliency, contour, tasks = self.token_pre_1_8(self.decoder1(tasks.patches, eighth, g8), tasks)
        add("1_8", g8, saliency, contour)
        out["token_1_8"] = tasks.saliency_token[:, 0]
        saliency, contour, tasks = self.token_pre_1_4(self.decoder2(tasks.patches, quarter, g4), tasks)
        add("1_4", g4, saliency, contour)
        out["token_1_4"] = tasks.saliency_token[:, 0]
        add("1_1", g1, part("decoder3")(saliency, g1), part("decoder3_c")(contour, g1))
        return out
