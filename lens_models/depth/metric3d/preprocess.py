"""From any picture to the network's camera and back to metres.

Metric3Dv2 sees every picture as if taken with a focal length of 1000 px: the picture is fitted into a
canvas of fixed size, and the answer is scaled by the focal length that the fitted picture really has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import ASSUMED_WIDE_FOCAL_MM, NEAREST_DEPTH_M, assumed_fx_px, broadcast_batch

#: Focal length of the camera that the network answers for, px.
CANONICAL_FX_PX = 1000.0
#: Range of its answer, metres for that camera.
CANONICAL_NEAR, CANONICAL_FAR = 0.1, 200.0
#: Metres are clamped to this.
FARTHEST_M = 300.0
#: Sizes the network may see, (height, width); it was trained on the first.
CANVASES: dict[str, tuple[int, int]] = {
    "616 × 1064": (616, 1064),
    "616 × 616": (616, 616),
    "784 × 784": (784, 784),
}
DEFAULT_CANVAS = "616 × 1064"
#: Chooses between the first two.
AUTO = "automatic"
#: The square canvas is chosen if it shows the picture at least this large compared with the wide one.
_SQUARE_ENOUGH = 0.9
#: Sides are multiples of this: at other sizes the maps are smaller than the picture.
SIDE_STEP_PX = 28
#: Mean and deviation of the training pictures, 0..255.
MEAN_RGB = (123.675, 116.28, 103.53)
DEVIATION_RGB = (58.395, 57.12, 57.375)
#: Guided filter: reach in px of the network's picture (two cells of its maps; it cuts the error of 1/d
#: at edges by 40 %, and more reach copies texture into depth), and the variance of the picture (0..1)
#: that counts as flat.
_GUIDED_REACH_PX, _GUIDED_FLAT = 8.0, 1e-3
#: Depth this close to the network's upper limit is at it.
_AT_LIMIT = 1.0 - 1e-4

Network = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the network says about a batch of pictures, at their size. float32.

    depth_m: `(B, H, W)` metres, > 0, +inf = sky if asked for.
    confidence: `(B, H, W)`, higher is surer; trained towards 0..1 and not clamped.
    normal: `(B, 3, H, W)` unit vectors before the camera: x right, y down, z away.
    certainty: `(B, H, W)` concentration of the normal, > 0.
    All but depth_m are None when only depth was asked for.
    """

    depth_m: Tensor
    confidence: Tensor | None = None
    normal: Tensor | None = None
    certainty: Tensor | None = None


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in the canvas, all in px.

    scale: canvas px per picture px.
    """

    height: int
    width: int
    canvas_height: int
    canvas_width: int
    scale: float
    inner_height: int
    inner_width: int

    @classmethod
    def fit(cls, height: int, width: int, canvas: str | tuple[int, int] = DEFAULT_CANVAS) -> Letterbox:
        """The largest place for a picture, in the middle of the canvas.

        canvas: a name out of `CANVASES`, `AUTO`, or (height, width) in multiples of 28 px.
        Raises ValueError for an empty picture or an unknown canvas.
        """
        if height < 1 or width < 1:
            raise ValueError(f"The picture is {width} × {height} px: there is nothing to measure.")
        canvas_height, canvas_width = _canvas_size(height, width, canvas)
        scale = min(canvas_height / height, canvas_width / width)
        inner = (
            # down to whole px, as in training; a hair-thin picture keeps one
            max(1, math.floor(side * scale + 1e-6))
            for side in (height, width)
        )
        return cls(height, width, canvas_height, canvas_width, scale, *inner)

    @property
    def top(self) -> int:
        """Rows of padding above the picture."""
        return (self.canvas_height - self.inner_height) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the picture."""
        return (self.canvas_width - self.inner_width) // 2

    def network_input(self, srgb: Tensor) -> Tensor:
        """The picture in the canvas, normalised; around it the mean colour, which is 0 then.

        srgb: `(B, 3, height, width)` 0..1.
        """
        mean, deviation = (srgb.new_tensor(c).view(1, 3, 1, 1) for c in (MEAN_RGB, DEVIATION_RGB))
        inner = F.interpolate(
            srgb, size=(self.inner_height, self.inner_width), mode="bilinear", align_corners=False
        )
        right = self.canvas_width - self.inner_width - self.left
        bottom = self.canvas_height - self.inner_height - self.top
        return F.pad((255.0 * inner - mean) / deviation, (self.left, right, self.top, bottom))

    def restore(self, maps: Tensor) -> Tensor:
        """Maps of the canvas without the padding, at the picture's size, `(B, C, height, width)`."""
        if maps.shape[-2:] != (self.canvas_height, self.canvas_width):
            raise ValueError(
                f"The network gave maps of {maps.shape[-1]} × {maps.shape[-2]} px for a canvas of "
                f"{self.canvas_width} × {self.canvas_height} px."
            )
        bottom, right = self.top + self.inner_height, self.left + self.inner_width
        inner = maps[..., self.top : bottom, self.left : right]
        return F.interpolate(inner, size=(self.height, self.width), mode="bilinear", align_corners=False)


def _canvas_size(height: int, width: int, canvas: str | tuple[int, int]) -> tuple[int, int]:
    if canvas == AUTO:
        wide, square = (CANVASES[name] for name in ("616 × 1064", "616 × 616"))
        scales = [min(h / height, w / width) for h, w in (square, wide)]
        return square if scales[0] >= _SQUARE_ENOUGH * scales[1] else wide
    if isinstance(canvas, str):
        if canvas not in CANVASES:
            raise ValueError(f'"{canvas}" is not a canvas: use {", ".join(CANVASES)} or {AUTO}.')
        return CANVASES[canvas]
    rows, columns = canvas
    if min(rows, columns) < SIDE_STEP_PX or rows % SIDE_STEP_PX or columns % SIDE_STEP_PX:
        raise ValueError(
            f"A canvas of {columns} × {rows} px does not go with the network: both sides must be multiples "
            f"of {SIDE_STEP_PX} px."
        )
    return rows, columns


def metres_from_canonical(depth: Tensor, fx_px: Tensor, scale: float, sky_m: float | None = None) -> Tensor:
    """Metres from the network's answer: metres = answer · fx_px · scale / 1000, clamped to 0.01..300.

    depth: `(B, H, W)` for the canonical camera. fx_px: `(B,)` focal length in px of the original picture.
    scale: canvas px per picture px. sky_m: see `infer`.
    """
    per_canonical = (fx_px * (scale / CANONICAL_FX_PX)).to(depth)[:, None, None]
    metres = depth * per_canonical
    clamped = metres.clamp(NEAREST_DEPTH_M, FARTHEST_M)
    if sky_m is None:
        return clamped
    sky = (metres >= min(sky_m, FARTHEST_M)) | (depth >= _AT_LIMIT * CANONICAL_FAR)
    return torch.where(sky, torch.full_like(clamped, torch.inf), clamped)


def infer(
    network: Network,
    radiance_srgb: Tensor,
    fx_px: float | Tensor,
    *,
    canvas: str | tuple[int, int] = DEFAULT_CANVAS,
    sky_m: float | None = None,
    guided: bool = False,
    maps: bool = False,
) -> Estimate:
    """Metric depth of pictures; differentiable with respect to the pictures.

    network: normalised `(B, 3, h, w)` to depth, confidence and normal, as `Metric3Dv2`.
    radiance_srgb: `(B, C, H, W)` sRGB 0..1 (clamped; NaN is black), C = 3, 1 (grey) or 4: straight
        alpha, and what is transparent shows the mean colour, as around the picture.
    fx_px: focal length in px of these pictures, a number or `(B,)`. One picture goes with several focal
        lengths (the network runs once), and the other way round.
    canvas: size that the network sees: a name out of `CANVASES`, (height, width), or `AUTO`, which takes
        the smaller square for pictures that are upright or nearly square.
    sky_m: depth at or above this many metres (at most 300), and depth at the network's own upper limit,
        becomes +inf. None keeps every depth at 300 m or less.
    guided: sharpen the edges of the enlarged depth along those of the picture; needs kornia.
    maps: also return confidence, normals and certainty.
    Raises ValueError for a picture, focal length, canvas or sky distance that cannot be used.
    """
    picture = opaque(radiance_srgb)
    count, _, height, width = picture.shape
    focal = _focal_lengths(fx_px, width, picture.device)
    results = broadcast_batch(pictures=count, focal_lengths=focal.numel())
    if sky_m is not None and not sky_m > 0:
        raise ValueError(f"The sky begins at {sky_m:g} m: it must be greater than 0.")
    box = Letterbox.fit(height, width, canvas)
    answer = network(box.network_input(picture))
    names = ("depth", "confidence", "normal") if maps else ("depth",)
    restored = box.restore(torch.cat([answer[name] for name in names], dim=1))
    if guided:
        sharp = guided_upsampled(restored[:, :1], picture.to(restored), box.scale)
        restored = torch.cat([sharp, restored[:, 1:]], dim=1)
    depth_m = metres_from_canonical(restored[:, 0], focal.to(restored.device), box.scale, sky_m)
    if not maps:
        return Estimate(depth_m)
    restored = restored.expand(results, -1, -1, -1)
    # between pixels bilinear shortens a normal
    normal = F.normalize(restored[:, 2:5], dim=1)
    return Estimate(depth_m, restored[:, 1], normal, restored[:, 5])


def opaque(srgb: Tensor) -> Tensor:
    """The picture as `(B, 3, H, W)`, 0..1, in float32 at least."""
    if srgb.ndim != 4 or srgb.shape[1] not in (1, 3, 4) or srgb.shape[0] == 0:
        raise ValueError(
            f"A picture must be (batch, 1, 3 or 4 channels, height, width); this one is {tuple(srgb.shape)}."
        )
    if not srgb.is_floating_point():
        raise ValueError(f"A picture must be 0..1 in floating point, not {srgb.dtype}: divide by 255 first.")
    if srgb.dtype != torch.float64:
        srgb = srgb.float()
    srgb = srgb.nan_to_num(nan=0.0).clamp(0.0, 1.0)
    colour = srgb[:, :3].expand(-1, 3, -1, -1)
    if srgb.shape[1] != 4:
        return colour
    empty = torch.tensor(MEAN_RGB, dtype=srgb.dtype, device=srgb.device).view(1, 3, 1, 1) / 255.0
    # exactly the colour where alpha is 1: the network would amplify the rounding of a plain mix
    return torch.lerp(empty, colour, srgb[:, 3:])


def _focal_lengths(fx_px: float | Tensor, width: int, device: torch.device) -> Tensor:
    """`(B,)` float64 focal lengths, checked."""
    if isinstance(fx_px, bool) or not isinstance(fx_px, (Real, Tensor)):
        raise ValueError(f"The focal length must be a number of pixels, not {type(fx_px).__name__}.")
    focal = torch.as_tensor(fx_px, device=device).double()
    if focal.ndim > 1 or focal.numel() == 0:
        raise ValueError(
            f"The focal length must be one number or a 1-D batch, not of shape {tuple(focal.shape)}."
        )
    for value in focal.detach().flatten().tolist():
        if not 0 < value < math.inf:
            raise ValueError(
                f"The focal length is {value:g} px for a picture {width} px wide: it must be greater than 0 "
                f"and finite. Where it is unknown, {assumed_fx_px(width):.0f} px "
                f"({ASSUMED_WIDE_FOCAL_MM:g} mm on full frame) is a fair guess."
            )
    return focal.reshape(-1)


def guided_upsampled(depth: Tensor, picture: Tensor, scale: float) -> Tensor:
    """Depth with its edges moved onto the picture's, inside the range it had.

    depth: `(B, 1, H, W)`; picture: `(B, 3, H, W)`; scale: canvas px per picture px.
    """
    try:
        from kornia.filters import guided_blur
    except ImportError as missing:
        raise ImportError(
            "Guided upsampling needs kornia, which is not installed: run `pip install kornia`, or switch "
            "guided off."
        ) from missing
    # the filter's border reflects, so its window cannot be larger than the picture
    largest = min(depth.shape[-2:]) - 1
    reach = min(math.ceil(_GUIDED_REACH_PX / scale), largest)
    if reach < 1:
        return depth
    # in 1/d blur is linear and a far background does not outweigh a near edge
    inverse = 1.0 / depth.clamp_min(CANONICAL_NEAR)
    filtered = guided_blur(picture, inverse, 2 * reach + 1, _GUIDED_FLAT)
    return 1.0 / filtered.clamp(
        inverse.amin(dim=(1, 2, 3), keepdim=True), inverse.amax(dim=(1, 2, 3), keepdim=True)
    )
