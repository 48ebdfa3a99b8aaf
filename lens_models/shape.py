"""Aperture shapes: what the opening of the lens looks like, and so what a light out of focus looks like.

A shape is a function a(x, y) >= 0 on the unit aperture, x to the right, y down, as the photographer sees
it. Lights behind the focal plane show it upright, lights in front of it point-inverted. How large it is
drawn follows from its second moment (`blur/family.py`), so an f-number blurs alike with every shape.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .light import image_to_radiance

KINDS = ("disc", "polygon", "ring", "picture")
#: Side of the drawing of an aperture, px; pictures of an aperture are reduced to it.
_DRAWING_PX = 1024
#: The same for the many drawings of a cat's eye, one per zone of the field.
_ZONE_PX = 384
#: Drawings whose light differs from its point mirror by less than this share count as point-symmetric.
_SYMMETRIC = 1e-4
#: Centre of a full soap bubble against its rim, and how steeply the rim rises.
_BUBBLE_CENTRE, _BUBBLE_POWER = 0.1, 10.0
#: A picture reaches so many blur radii at most: a dot in a large black picture would reach farther.
MAX_SPREAD = 6.0


class KernelPicture:
    """Grey values >= 0 of a picture of an aperture, linear light, compared by content."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.float64)
        self.values.flags.writeable = False
        self._digest = hashlib.sha256(repr(values.shape).encode() + self.values.tobytes()).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelPicture) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"KernelPicture({self.values.shape[1]} × {self.values.shape[0]} px)"


@dataclass(frozen=True)
class ApertureShape:
    """The opening of a lens.

    kind: "disc"; "polygon" of `blades`; "ring", a mirror lens; "picture", the drawing in `picture`.
    blades: 3..12. curvature: of the blades, 0 = straight edges, 1 = a circle.
    rotation_deg: clockwise; at 0 a corner of a polygon points up.
    squeeze: height over width, 2 = the tall ovals of a 2× anamorphic lens; 0.25..4.
    inner: radius of the ring's hole over that of the ring, 0..0.95.
    edge: -1 = apodised (fades to nothing), 0 = even, 1 = soap bubble (a bright rim). Not for pictures.
    cats_eye: 0..1, how far the barrel's rim covers the opening in the corners of the picture: the opening
    is cut by an equal circle shifted towards the picture's centre, by `cats_eye` radii in the corners.
    Raises ValueError, a sentence, for values out of range.
    """

    kind: str = "disc"
    blades: int = 6
    curvature: float = 0.0
    rotation_deg: float = 0.0
    squeeze: float = 1.0
    inner: float = 0.4
    edge: float = 0.0
    cats_eye: float = 0.0
    picture: KernelPicture | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'Unknown aperture shape "{self.kind}": use one of {", ".join(KINDS)}.')
        _check("blades", self.blades, 3, 12)
        if int(self.blades) != self.blades:
            raise ValueError(f"blades is {self.blades}: it must be a whole number.")
        _check("curvature", self.curvature, 0.0, 1.0)
        _check("rotation", self.rotation_deg, -math.inf, math.inf)
        _check("squeeze", self.squeeze, 0.25, 4.0)
        _check("inner", self.inner, 0.0, 0.95)
        _check("edge", self.edge, -1.0, 1.0)
        _check("cats_eye", self.cats_eye, 0.0, 1.0)
        if self.kind == "picture" and self.picture is None:
            raise ValueError(
                "The aperture shape is a picture, but there is none: connect an IMAGE to kernel, white "
                "where the light passes."
            )

    @property
    def is_disc(self) -> bool:
        """Whether this is the plain disc, for which the engines have a faster way."""
        circle = self.kind == "disc" or (self.kind == "polygon" and self.curvature == 1.0)
        return circle and self.squeeze == 1.0 and self.edge == 0.0 and self.cats_eye == 0.0

    @classmethod
    def from_image(cls, image: Tensor, **settings) -> ApertureShape:
        """A shape drawn in a ComfyUI picture `(H, W, C)` or `(1, H, W, C)`, sRGB, white where light passes.

        settings: the other fields. Raises ValueError for a picture without light, a batch, a NaN, or a
        dot so small that its light would be drawn over the whole picture.
        """
        if image.ndim == 4 and image.shape[0] == 1:
            image = image[0]
        if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
            raise ValueError(
                f"The kernel of an aperture shape is one picture, not a batch of shape {tuple(image.shape)}: "
                "take one of them."
            )
        if not torch.isfinite(image).all():
            raise ValueError("The kernel picture has pixels that are not a number (NaN or infinite).")
        linear = image_to_radiance(image[None, ..., :3].float().cpu().clamp_min(0.0))
        values = linear.mean(1)
        if image.shape[-1] == 4:
            values = values * image[None, ..., 3].float().cpu().clamp(0.0, 1.0)
        larger = max(values.shape[-2:]) / _DRAWING_PX
        if larger > 1.0:
            size = [max(1, round(side / larger)) for side in values.shape[-2:]]
            values = torch.nn.functional.interpolate(values[None].double(), size=size, mode="area")[0]
        values = values[0].double().numpy()
        if not values.max() > 0.0:
            raise ValueError(
                "The kernel picture is black everywhere, so no light would pass: draw the opening in white."
            )
        shape = cls(kind="picture", picture=KernelPicture(values), **settings)
        height, width = np.array(values.shape) / max(values.shape)
        (cx, cy), (vx, vy) = moments(drawing(shape))
        spread = math.hypot(height + abs(cy), width + abs(cx)) / 2.0 / math.sqrt((vx + vy) / 2.0)
        if spread > MAX_SPREAD:
            raise ValueError(
                "The light in the kernel picture is a dot with much black around it: crop the picture to "
                "what is white."
            )
        return shape


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most or not math.isfinite(value):
        bounds = f"from {least:g} to {most:g}" if math.isfinite(least) else "a finite number"
        raise ValueError(f"{name} of the aperture shape is {value:g}: it must be {bounds}.")


def _outline(shape: ApertureShape, x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Distance of the opening's edge from the centre, in the direction of each point."""
    if shape.kind != "polygon" or shape.curvature == 1.0:
        return 1.0
    half = math.pi / shape.blades
    clockwise_from_up = np.arctan2(x, -y) - math.radians(shape.rotation_deg)
    from_middle = np.mod(clockwise_from_up, 2.0 * half) - half
    bulge = shape.curvature * (1.0 - math.cos(half))
    if bulge < 1e-6:
        return math.cos(half) / np.cos(from_middle)
    # each blade is an arc through two corners: its radius, and its centre on the blade's middle line
    radius = (math.sin(half) ** 2 + bulge**2) / (2.0 * bulge)
    centre = math.cos(half) + bulge - radius
    return centre * np.cos(from_middle) + np.sqrt(radius**2 - (centre * np.sin(from_middle)) ** 2)


def _profile(edge: float, toward_edge: np.ndarray) -> np.ndarray | float:
    """Light from the middle (0) to the edge (1) of the opening."""
    if edge < 0.0:
        return (1.0 - toward_edge**2) ** (-2.0 * edge)
    return 1.0 - edge * (1.0 - _BUBBLE_CENTRE) * (1.0 - toward_edge**_BUBBLE_POWER)


def _sampled(picture: np.ndarray, x: np.ndarray, y: np.ndarray, degrees: float) -> np.ndarray:
    """The picture turned clockwise, its half diagonal 1, at points; black outside."""
    turn = math.radians(degrees)
    height, width = picture.shape
    half = math.hypot(height, width) / 2.0
    column = (x * math.cos(turn) + y * math.sin(turn)) * half + width / 2.0
    row = (y * math.cos(turn) - x * math.sin(turn)) * half + height / 2.0
    grid = torch.from_numpy(np.stack([2.0 * column / width - 1.0, 2.0 * row / height - 1.0], -1))
    values = torch.from_numpy(picture.copy())[None, None]
    return torch.nn.functional.grid_sample(values, grid[None], align_corners=False)[0, 0].numpy()


@functools.lru_cache(maxsize=8)
def drawing(shape: ApertureShape, cut: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The opening without squeeze as a square picture of unit energy, float64, for area sampling.

    It spans -1..1 in both axes. cut: shift of the cat's eye circle, in radii of the opening.
    """
    turned = shape.rotation_deg % 360.0 != 0.0
    values = shape.picture.values if shape.kind == "picture" and shape.picture is not None else None
    if values is not None and not turned and cut == (0.0, 0.0):
        # the picture itself, so that nothing is resampled twice
        side = max(values.shape)
        top, left = ((side - length) // 2 for length in values.shape)
        result = np.zeros((side, side))
        result[top : top + values.shape[0], left : left + values.shape[1]] = values
    else:
        side = _ZONE_PX if shape.cats_eye else _DRAWING_PX
        axis = (np.arange(side) + 0.5) * 2.0 / side - 1.0
        # around the middle of the two circles, where the cut disc is point-symmetric
        x, y = axis[None, :] + cut[0] / 2.0, axis[:, None] + cut[1] / 2.0
        distance = np.hypot(x, y)

        def covered(inside: np.ndarray) -> np.ndarray:
            return np.clip(inside * side / 2.0 + 0.5, 0.0, 1.0)

        if values is not None:
            x_grid, y_grid = np.broadcast_arrays(x, y)
            result = _sampled(values, x_grid, y_grid, shape.rotation_deg)
        else:
            outline = _outline(shape, x, y)
            result = covered(outline - distance)
            toward_edge = np.clip(distance / outline, 0.0, 1.0)
            if shape.kind == "ring":
                result = result * covered(distance - shape.inner)
                across = np.clip((distance - shape.inner) / (1.0 - shape.inner), 0.0, 1.0)
                toward_edge = np.abs(2.0 * across - 1.0)
            result = result * _profile(shape.edge, toward_edge)
        if cut != (0.0, 0.0):
            result = result * covered(1.0 - np.hypot(x - cut[0], y - cut[1]))
    if not result.max() > 0.0:
        raise ValueError(
            "The cat's eye covers all of the kernel picture's light in the corners: lower cats_eye."
        )
    result = result / result.sum()
    mirrored = result[::-1, ::-1]
    if np.abs(result - mirrored).sum() < _SYMMETRIC:
        result = (result + mirrored) / 2.0
    result.flags.writeable = False
    return result


def moments(drawn: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Centroid (x, y) and second moments about it (x, y) of a drawing, in its -1..1."""
    side = drawn.shape[0]
    axis = (np.arange(side) + 0.5) * 2.0 / side - 1.0
    centre, moment = [], []
    for marginal in (drawn.sum(axis=0), drawn.sum(axis=1)):
        mean = float(marginal @ axis)
        centre.append(mean if abs(mean) > 1e-12 else 0.0)
        # a pixel of the drawing is a square, not a point
        moment.append(float(marginal @ (axis - centre[-1]) ** 2) + 1.0 / (3.0 * side * side))
    return tuple(centre), tuple(moment)


def is_symmetric(drawn: np.ndarray) -> bool:
    """Whether a drawing is its own point mirror, to the last bit (`drawing` sees to that)."""
    return bool(np.array_equal(drawn, drawn[::-1, ::-1]))
