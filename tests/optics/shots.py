"""Ray-traced truth for the scenes, rendered once per test run, and lens_models' view of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from optics import scenes

from lens_models import Camera, Focus, Layer
from tools.raytrace import Scene, ThinLens, render

RAYS = 1024


@dataclass(frozen=True)
class Shot:
    """truth, aif: `(H, W, 3)` linear light, float64; depth: `(H, W)` metres."""

    scene: Scene
    lens: ThinLens
    truth: np.ndarray
    aif: np.ndarray
    depth: np.ndarray

    def camera(self, f_number=None) -> Camera:
        return Camera(
            self.lens.f_number if f_number is None else f_number, self.lens.focal_mm, self.lens.sensor_mm
        )

    def focus(self) -> Focus:
        return Focus(self.lens.focus_m)

    def sharp(self) -> torch.Tensor:
        return radiance(self.aif)

    def depth_m(self) -> torch.Tensor:
        return torch.from_numpy(self.depth)[None].float()

    def soft_depth_m(self) -> torch.Tensor:
        """As a network gives it: inverse depth blurred by 1.5 px, and 2 % off over wide areas."""
        inverse = 1.0 / self.depth_m()[None]
        kernel = torch.exp(-0.5 * (torch.arange(-6.0, 7.0) / 1.5) ** 2)
        kernel = kernel / kernel.sum()
        inverse = torch.nn.functional.pad(inverse, (6,) * 4, mode="replicate")
        inverse = torch.nn.functional.conv2d(inverse, kernel.view(1, 1, 1, -1))
        inverse = torch.nn.functional.conv2d(inverse, kernel.view(1, 1, -1, 1))
        wide = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
        wide = torch.nn.functional.interpolate(wide, size=inverse.shape[-2:], mode="bicubic")
        return 1.0 / (inverse * (1.0 + 0.02 * wide))[0]

    def true_layers(self) -> list[Layer]:
        """What the scene is made of, hidden parts included, averaged over the pixels of the frame."""
        height, width = self.scene.height, self.scene.width
        y, x = (v.ravel().astype(float) for v in np.mgrid[:height, :width])
        steps = (np.arange(8) + 0.5) / 8 - 0.5
        layers = []
        for layer in self.scene.layers:
            rgba = sum(layer.look_up(x + ox, y + oy) for oy in steps for ox in steps) / len(steps) ** 2
            rgba = rgba.reshape(height, width, 4)
            alpha = rgba[..., 3:]
            colour = np.where(alpha > 1e-3, rgba[..., :3] / np.maximum(alpha, 1e-3), 0.0)
            depth = torch.from_numpy(1.0 / layer.inverse_depth(x, y).reshape(1, height, width))
            layers.append(Layer(radiance(colour), radiance(alpha), depth.float()))
        return layers


def radiance(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float()


def picture(output: torch.Tensor) -> np.ndarray:
    return output[0].permute(1, 2, 0).double().numpy()


@cache
def shot(name: str) -> Shot:
    scene, lens = getattr(scenes, name)()
    return Shot(scene, lens, *render(scene, lens, RAYS))
