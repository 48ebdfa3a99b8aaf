"""sRGB to linear light and back, and ComfyUI's picture layout to the core's.

Blur adds light, so it happens in linear radiance; blurring sRGB values costs 6 dB on average and eats
highlights.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: A blur is right to 1e-5, and ComfyUI cuts to 8 bits: without this 0.9999999 would be saved as 254.
OPAQUE = 1.0 - 1e-5


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """IEC 61966-2-1 decoding, any shape; 0..1 to 0..1, continued above 1. Negative values become 0."""
    srgb = srgb.clamp_min(0.0)
    toe = srgb <= 0.04045
    # the toe is replaced before the power: its gradient there would be multiplied into NaN
    power = ((torch.where(toe, torch.ones_like(srgb), srgb) + 0.055) / 1.055) ** 2.4
    return torch.where(toe, srgb / 12.92, power)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 encoding, any shape; inverse of `srgb_to_linear`. Negative values become 0."""
    linear = linear.clamp_min(0.0)
    toe = linear <= 0.0031308
    power = 1.055 * torch.where(toe, torch.ones_like(linear), linear) ** (1.0 / 2.4) - 0.055
    return torch.where(toe, linear * 12.92, power)


def image_to_radiance(image: Tensor) -> Tensor:
    """ComfyUI IMAGE to core radiance.

    image: `(B, H, W, C)` sRGB 0..1, C = 1 (grey), 3, or 4 with straight alpha.
    Returns `(B, 3 or 4, H, W)` linear radiance, premultiplied by alpha where there is one.
    Raises ValueError for another shape.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"A picture must be (batch, height, width, 1, 3 or 4 channels); this one is {tuple(image.shape)}."
        )
    planes = image.movedim(-1, 1)
    planes = planes if planes.dtype == torch.float64 else planes.float()
    if planes.shape[1] == 1:
        planes = planes.expand(-1, 3, -1, -1)
    colour = srgb_to_linear(planes[:, :3])
    if planes.shape[1] == 3:
        return colour
    alpha = planes[:, 3:].clamp(0.0, 1.0)
    return torch.cat([colour * alpha, alpha], dim=1)


def radiance_to_image(radiance: Tensor) -> Tensor:
    """Core radiance to ComfyUI IMAGE: inverse of `image_to_radiance`.

    radiance: `(B, 3 or 4, H, W)` linear, premultiplied.
    Returns `(B, H, W, 3 or 4)` sRGB with straight alpha; colour is black where alpha is 0.
    """
    colour = radiance[:, :3]
    if radiance.shape[1] == 3:
        return linear_to_srgb(colour).movedim(1, -1)
    alpha = radiance[:, 3:].clamp(0.0, 1.0)
    alpha = torch.where(alpha > OPAQUE, 1.0, alpha)
    visible = alpha > 1e-6
    colour = torch.where(visible, colour / alpha.clamp_min(1e-6), torch.zeros_like(colour))
    return torch.cat([linear_to_srgb(colour), alpha], dim=1).movedim(1, -1)
