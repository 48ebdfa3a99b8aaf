"""Pictures with blur radii or depth that the benchmarks measure on."""

from __future__ import annotations

import torch
from torch import Tensor

from lens_models import Camera, Focus, coc_px

FOCUS_M, FOCAL_MM = 2.0, 85.0


def textured(size: int, radius_px: float) -> tuple[Tensor, Tensor]:
    """Texture, a checkerboard and highlights; blur radii of a receding ramp with a sharp object on it."""
    random = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft2(torch.randn(3, size, size, generator=random))
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    texture = torch.fft.irfft2(spectrum / frequency.clamp_min(1 / size), s=(size, size))
    image = 0.5 + 0.15 * texture / texture.std()
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image = torch.where((x > size * 3 // 4) & ((x // 16 + y // 16) % 2 == 0), 0.05, image).clamp_min(0)
    for py, px in torch.randint(0, size - 2, (40, 2), generator=random).tolist():
        image[:, py : py + 2, px : px + 2] = 8.0
    radius = radius_px * (1 - y / size)
    radius[((x - size / 2) ** 2 + (y - size / 2) ** 2) < (size / 4) ** 2] = 0.0
    return image[None], radius[None].contiguous()


def many_layers(size: int, radius_px: float) -> tuple[Tensor, Tensor, Focus, Camera]:
    """A wall, discs at six distances and grass blades in front: much edge, many layers.

    The camera's largest blur radius in the scene is `radius_px`.
    """
    random = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    grain = torch.rand(3, size, size, generator=random) * 0.4
    image, depth = 0.2 + grain, torch.full((size, size), 20.0)
    for distance_m in (9.0, 5.0, 3.2, 2.0, 1.6, 1.3):
        mask = torch.zeros(size, size, dtype=torch.bool)
        for cx, cy, r in torch.rand(6, 3, generator=random).tolist():
            mask |= (x - cx * size) ** 2 + (y - cy * size) ** 2 < (0.03 + 0.06 * r) ** 2 * size**2
        if distance_m < 1.5:
            for foot, lean in torch.rand(60, 2, generator=random).tolist():
                mask |= ((x - foot * size) - (lean - 0.5) * (size - y)).abs() < 1.5 * (y > size / 2)
        colour = torch.rand(3, 1, 1, generator=random)
        image = torch.where(mask, 0.7 * colour + 0.5 * grain, image)
        depth = torch.where(mask, distance_m, depth)
    image, depth, focus = image[None], depth[None], Focus(FOCUS_M)
    at_f1 = coc_px(depth, focus, Camera(1.0, FOCAL_MM), size).abs().max().item() / 2
    return image, depth, focus, Camera(at_f1 / radius_px, FOCAL_MM)
