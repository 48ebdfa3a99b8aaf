"""Camera Settings as Tokens: row 5 of Table 1, with weights of the user's own.

Focal length, f-number, ISO and exposure time become a token each, LN(Linear(ln(v + 1e-6))), which stand
behind the tokens of the prompt; a LoRA of SD 2.1's UNet has learned to read them. Its authors' files are not
shipped and name their tensors differently from release to release: `norms.K.*` and `linears.K.*`, with K in
the order of `SETTINGS`, are the names here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Order of the tokens; the paper of the method names the settings and not their order.
SETTINGS = ("focal_mm", "f_number", "iso", "exposure_s")
_EPS = 1e-6


class CameraTokens(nn.Module):
    """Four settings to four tokens of a text encoder's width."""

    def __init__(self, width: int):
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(1, width) for _ in SETTINGS])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in SETTINGS])

    def forward(self, settings: Tensor) -> Tensor:
        """`(B, 4)` settings > 0, in the order of `SETTINGS`, to `(B, 4, width)`."""
        logs = (settings + _EPS).log()
        parts = zip(self.linears, self.norms, logs.split(1, dim=1), strict=True)
        return torch.stack([norm(linear(log)) for linear, norm, log in parts], dim=1)
