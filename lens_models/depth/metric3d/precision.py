"""Where the network computes in float32, and what of it is computed again for the gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def precise(x: Tensor) -> Tensor:
    """The same values in float32 when they are in half precision; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def recomputed(active: bool, step, *inputs):
    """`step(*inputs)`; when active, the backward pass runs it again and does not keep what lies between."""
    if active and torch.is_grad_enabled():
        return checkpoint(step, *inputs, use_reentrant=False)
    return step(*inputs)
