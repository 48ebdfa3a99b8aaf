"""Overlays: what is sharp, what lies in front of it and what behind; and where the eye goes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_NEAR = (1.0, 0.42, 0.10)  # warm
_FAR = (0.16, 0.48, 1.0)  # cool
_SHARP = (0.25, 0.95, 0.40)
_LUMA = (0.2126, 0.7152, 0.0722)
#: Blur that shows the full tint, as a share of the picture's diagonal.
_FULL_TINT = 0.02
_WEAKEST_TINT, _STRONGEST_TINT = 0.35, 0.8


def acceptable_coc_px(width_px: int, height_px: int) -> float:
    """Largest blur diameter that counts as sharp, px: the usual 1/1500 of the diagonal, at least 1 px."""
    return max(1.0, math.hypot(width_px, height_px) / 1500.0)


def focus_overlay(image: Tensor, coc: Tensor, sharp_px: float | None = None) -> Tensor:
    """Grey picture with the near side warm, the far side cool and the in-focus zone in its own colours.

    image: `(B, H, W, C)` sRGB 0..1, C = 1, 3 or 4. coc: `(B, H, W)` signed diameter, px, < 0 in front.
    sharp_px: largest diameter that counts as in focus; None takes `acceptable_coc_px`. The zone is
    outlined in green; tints grow with the blur and are full at 2 % of the diagonal.
    Returns `(B, H, W, 3)` sRGB 0..1. Batches broadcast.
    """
    height, width = coc.shape[-2:]
    sharp = acceptable_coc_px(width, height) if sharp_px is None else sharp_px
    full = max(_FULL_TINT * math.hypot(width, height), 2.0 * sharp)
    colour, luma = _seen(image)

    blur = torch.nan_to_num(coc.abs(), nan=0.0)
    amount = ((blur - sharp) / (full - sharp)).clamp(0.0, 1.0)[..., None]
    amount = _WEAKEST_TINT + (_STRONGEST_TINT - _WEAKEST_TINT) * amount.sqrt()
    tint = torch.where(coc[..., None] < 0, colour.new_tensor(_NEAR), colour.new_tensor(_FAR))
    dimmed = 0.8 * luma
    blurred = dimmed + amount * (tint * (0.25 + 0.75 * luma) - dimmed)

    in_focus = blur <= sharp
    return _outlined(torch.where(in_focus[..., None], colour, blurred), in_focus)


def saliency_overlay(image: Tensor, saliency: Tensor) -> Tensor:
    """The picture in its own colours where the eye goes, grey and dim elsewhere, with a green line at half.

    image: `(B, H, W, C)` sRGB 0..1, C = 1, 3 or 4. saliency: `(B, H, W)` 0..1. Batches broadcast.
    Returns `(B, H, W, 3)` sRGB 0..1.
    """
    colour, luma = _seen(image)
    share = torch.nan_to_num(saliency).clamp(0.0, 1.0)[..., None]
    picture = share * colour + (1.0 - share) * (0.45 * luma)
    return _outlined(picture, share[..., 0] >= 0.5)


def _seen(image: Tensor) -> tuple[Tensor, Tensor]:
    """Colour `(B, H, W, 3)` and luma `(B, H, W, 1)` of an IMAGE, transparency over black."""
    image = torch.nan_to_num(image.float(), nan=0.0).clamp(0.0, 1.0)
    colour = image[..., :3] * image[..., 3:] if image.shape[-1] == 4 else image[..., :3]
    colour = colour.expand(*colour.shape[:-1], 3)
    return colour, (colour * colour.new_tensor(_LUMA)).sum(dim=-1, keepdim=True)


def _outlined(picture: Tensor, zone: Tensor) -> Tensor:
    """The picture with a green line just outside a zone `(B, H, W)` that covers neither all nor nothing."""
    thickness = max(1, round(min(zone.shape[-2:]) / 400))
    solid = zone[:, None].float()
    grown = F.max_pool2d(solid, 2 * thickness + 1, stride=1, padding=thickness)
    return torch.where((grown > solid)[:, 0, ..., None], picture.new_tensor(_SHARP), picture)
