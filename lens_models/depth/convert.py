"""Every foreign depth becomes metres here, once: files, grey maps, geometry of other estimators.

Inside the project depth is `(B, H, W)` float32 metres, +inf = sky. A pixel without a measurement is
filled, and `DepthMap.valid` remembers which those were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import ASSUMED_FOCAL_MM, ASSUMED_SENSOR_MM

#: Metres per unit of a depth file; None marks inverse metres.
UNITS: dict[str, float | None] = {
    "metres": 1.0,
    "millimetres": 1e-3,
    "centimetres": 1e-2,
    "inches": 0.0254,
    "feet": 0.3048,
    "1/metres (disparity)": None,
}
CONVENTIONS = ("near is bright", "near is dark", "metres")
SPACINGS = ("inverse depth", "depth")
GEOMETRY_UNITS = ("automatic", "as given", "DA3: depth × focal px / 300")

#: Longest side, px, at which ComfyUI's Depth Anything 3 node runs unless set otherwise.
DA3_RESOLUTION = 504
_DA3_FOCAL = 300.0
_DA3_PATCH = 14
_SKY_PROBABILITY = 0.5
_SET_SCALE = "numbers are not metres until you set scale (true distance of something / distance shown)."
_RELATIVE = f"Depth Anything 3 Small and Base give relative depth: the {_SET_SCALE}"
_MAYBE_MONO = "Read as DA3-Metric-Large. If the model was DA3-Mono-Large its depth has no unit: set scale."
_MAYBE_MOGE_1 = (
    "There are no normals here, so this may be MoGe v1, which has no scale of its own: its " + _SET_SCALE
)


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth of a batch of pictures.

    metres: `(B, H, W)` float32, > 0, +inf = sky; pixels without a measurement are filled.
    valid: `(B, H, W)` bool, True where the source gave a value (sky counts).
    fx_px: `(B,)` focal length in pixels of this map's width, or None when the source does not know.
    source: where the depth came from, for people.
    """

    metres: Tensor
    valid: Tensor
    fx_px: Tensor | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.metres.ndim != 3 or 0 in self.metres.shape:
            raise ValueError(
                f"A depth map must be (batch, height, width) with at least one pixel, "
                f"not {tuple(self.metres.shape)}."
            )
        if self.valid.shape != self.metres.shape:
            raise ValueError(
                f"The depth map is {tuple(self.metres.shape)} and its validity {tuple(self.valid.shape)}: "
                "they must be the same size."
            )

    @property
    def batch(self) -> int:
        """Number of maps."""
        return self.metres.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.metres.shape[1], self.metres.shape[2]

    @property
    def filled_share(self) -> float:
        """Share (0..1) of pixels that had no measurement."""
        return 1.0 - self.valid.double().mean().item()

    def range_m(self) -> tuple[float, float]:
        """Nearest and farthest finite distance, metres; (inf, inf) when everything is sky."""
        finite = self.metres[torch.isfinite(self.metres)]
        if finite.numel() == 0:
            return float("inf"), float("inf")
        return finite.min().item(), finite.max().item()

    def resized(self, height: int, width: int, *, bilinear: bool = False) -> DepthMap:
        """The map at another size; `fx_px` follows the width. See `resample_depth`."""
        if (height, width) == self.size:
            return self
        valid = resample_depth(self.valid.float(), height, width) > 0.5
        return replace(
            self,
            metres=resample_depth(self.metres, height, width, bilinear=bilinear),
            valid=valid,
            fx_px=None if self.fx_px is None else self.fx_px * (width / self.size[1]),
        )


def resample_depth(metres: Tensor, height: int, width: int, *, bilinear: bool = False) -> Tensor:
    """Depth at another size.

    metres: `(B, H, W)`, > 0, +inf = sky.
    bilinear: False takes the nearest pixel, which invents no distance between an object and what is behind
        it; True interpolates 1/d, in which blur is linear and sky is 0.
    Returns `(B, height, width)` metres.
    """
    if not bilinear:
        return F.interpolate(metres[:, None], size=(height, width), mode="nearest-exact")[:, 0]
    inverse = F.interpolate(1.0 / metres[:, None], size=(height, width), mode="bilinear", align_corners=False)
    return 1.0 / inverse[:, 0]


def fill_missing(metres: Tensor, valid: Tensor) -> Tensor:
    """Fill pixels without a measurement, as stereo matching does.

    A hole takes the farther of its nearest neighbours left and right (what a camera cannot see is hidden
    behind the near object, so it belongs to the far one); rows without any value do the same along columns.

    metres: `(B, H, W)`; valid: `(B, H, W)` bool. Values where `valid` is False are never read.
    Returns `(B, H, W)`, untouched where valid. Raises ValueError when a map has no valid pixel at all.
    """
    empty = ~valid.flatten(1).any(dim=1)
    if empty.any():
        which = f"Map {int(empty.nonzero()[0]) + 1} of {len(empty)}" if len(empty) > 1 else "The depth map"
        raise ValueError(
            f"{which} has no usable depth: every pixel is 0, negative or not a number. Check the unit and "
            "the channel."
        )
    filled, known = _fill_along_rows(metres, valid)
    filled, _ = _fill_along_rows(filled.mT, known.mT)
    return filled.mT.contiguous()


def _fill_along_rows(metres: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    width = metres.shape[-1]
    column = torch.arange(width, device=metres.device)
    left = torch.where(valid, column, torch.full_like(column, -1)).cummax(dim=-1).values
    right = torch.where(valid, column, torch.full_like(column, width)).flip(-1).cummin(dim=-1).values.flip(-1)

    def value_at(index: Tensor, exists: Tensor) -> Tensor:
        value = metres.gather(-1, index.clamp(0, width - 1))
        return torch.where(exists, value, torch.full_like(value, -torch.inf))

    has_left, has_right = left >= 0, right < width
    farther = torch.maximum(value_at(left, has_left), value_at(right, has_right))
    return torch.where(valid, metres, farther), valid | has_left | has_right


def _finished(
    metres: Tensor, source: str, *, known: Tensor | None = None, fx_px: Tensor | None = None
) -> DepthMap:
    """A DepthMap from raw metres: NaN, zero and negative are missing, +inf is sky."""
    metres = metres.float()
    valid = metres > 0  # NaN compares False
    if known is not None:
        valid &= known
    return DepthMap(fill_missing(metres, valid), valid, fx_px, source)


def from_units(
    values: Tensor, unit: str, *, metres_per_unit: float | None = None, source: str = ""
) -> DepthMap:
    """Depth that is measured in some unit.

    values: `(B, H, W)`. For distances 0, negative and NaN are missing and +inf is sky; for disparity
        (1/metres) 0 is sky and negative, NaN and inf are missing.
    unit: a key of `UNITS`; ignored when `metres_per_unit` is given.
    """
    if metres_per_unit is None and unit not in UNITS:
        raise ValueError(f'"{unit}" is not a known unit: use one of {", ".join(UNITS)}.')
    if metres_per_unit is not None and not 0 < metres_per_unit < float("inf"):
        raise ValueError(f"metres_per_unit is {metres_per_unit:g}: it must be greater than 0.")
    scale = UNITS[unit] if metres_per_unit is None else metres_per_unit
    if scale is not None:
        return _finished(values.double() * scale, source)
    return _finished(1.0 / values.abs(), source, known=(values >= 0) & torch.isfinite(values))


@dataclass(frozen=True)
class Converted:
    """A depth map and what the artist should know about it."""

    depth: DepthMap
    warnings: tuple[str, ...] = ()


def from_picture(
    image: Tensor, convention: str, near_m: float, far_m: float, spacing: str = "inverse depth"
) -> Converted:
    """Depth that came as a picture, whose meaning `convention` gives.

    image: `(B, H, W, C)`; colour channels beyond the first are expected to be the same, alpha is ignored.
    convention: one of `CONVENTIONS`. near_m, far_m: metres of the nearest and farthest grey; not used for
        "metres". spacing: "inverse depth" spaces greys evenly in 1/d (what Depth Anything, MiDaS and other
        disparity-like maps are), "depth" evenly in metres.
    Raises ValueError for an unknown convention and for near >= far.
    """
    warnings = []
    grey = image[..., 0].float()
    if image.shape[-1] >= 3:
        spread = (image[..., :3].amax(dim=-1) - image[..., :3].amin(dim=-1)).float()
        if torch.nan_to_num(spread).max() > 0.02:
            grey = image[..., :3].float().mean(dim=-1)
            warnings.append(
                "This depth picture is coloured. A colour map (turbo, inferno, ...) cannot be read as depth: "
                "let the estimator give grey. The mean of the channels was used."
            )
    finite = grey[torch.isfinite(grey)]
    highest = finite.max().item() if finite.numel() else 0.0
    if convention == "metres":
        if highest <= 1.0:
            warnings.append(
                f'These "metres" lie in 0..1 (the largest is {highest:.3g}): it looks like a normalised map. '
                'Choose "near is bright" or "near is dark" and give near_m and far_m.'
            )
        return Converted(_finished(grey, "picture in metres"), tuple(warnings))
    if convention not in CONVENTIONS:
        raise ValueError(f'"{convention}" is not a convention: use one of {", ".join(CONVENTIONS)}.')
    if spacing not in SPACINGS:
        raise ValueError(f'"{spacing}" is not a spacing: use one of {", ".join(SPACINGS)}.')
    if not 0 < near_m < far_m < float("inf"):
        raise ValueError(
            f"near_m is {near_m:g} and far_m is {far_m:g}: near must be greater than 0 and smaller than far."
        )
    if highest > 1.5:
        warnings.append(
            f'The brightest value is {highest:.4g}, not 1: this looks like metres. Choose "metres". '
            "Values above 1 were cut."
        )
    nearness = grey.clamp(0.0, 1.0)  # clamp keeps NaN, which is missing
    if convention == "near is dark":
        nearness = 1.0 - nearness
    if spacing == "inverse depth":
        metres = 1.0 / (nearness / near_m + (1.0 - nearness) / far_m)
    else:
        metres = far_m + (near_m - far_m) * nearness
    return Converted(_finished(metres, f"picture, {convention}"), tuple(warnings))


def is_geometry(value: Any) -> bool:
    """Whether this is a MOGE_GEOMETRY or DA3_GEOMETRY of ComfyUI."""
    return isinstance(value, dict) and isinstance(value.get("depth"), Tensor)


def from_geometry(
    geometry: dict[str, Any],
    units: str = "automatic",
    scale: float = 1.0,
    *,
    fx_per_width: float | None = None,
    da3_resolution: int = DA3_RESOLUTION,
) -> Converted:
    """Depth out of ComfyUI's MOGE_GEOMETRY or DA3_GEOMETRY.

    units: one of `GEOMETRY_UNITS`. Depth Anything 3's metric model gives depth divided by its focal length:
        metres = depth · fx / 300 with fx in pixels of the size the *network* saw. "automatic" does that
        when the geometry looks like that model's (sky map, no confidence, no intrinsics).
    scale: factor on the result, for geometry that has no scale of its own (MoGe v1, relative DA3).
    fx_per_width: focal length / width of the sensor of the camera that took the picture, for the rule
        above; None guesses 50 mm on full frame.
    da3_resolution: the resolution Depth Anything 3 ran at: pixels on the picture's longest side.
    Raises ValueError for a panorama and for a dict without depth.
    """
    if not is_geometry(geometry):
        raise ValueError("This geometry holds no depth: connect MoGe Inference or Run Depth Anything 3.")
    if units not in GEOMETRY_UNITS:
        raise ValueError(f'"{units}" is not a choice of units: use one of {", ".join(GEOMETRY_UNITS)}.')
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale is {scale:g}: it must be greater than 0.")
    depth = geometry["depth"].detach().float()
    depth = depth[None] if depth.ndim == 2 else depth
    if depth.ndim != 3:
        raise ValueError(f"Depth must be (batch, height, width); this geometry's is {tuple(depth.shape)}.")
    warnings: list[str] = []
    intrinsics, by_focal, note = geometry.get("intrinsics"), units == GEOMETRY_UNITS[2], ""
    if "mode" in geometry:
        source, sky = "Depth Anything 3 geometry", geometry.get("sky")
        sky = sky >= _SKY_PROBABILITY if isinstance(sky, Tensor) else None
        fx_px = None if intrinsics is None else _da3_fx_px(intrinsics, depth.shape[-1])
        if units == "automatic":
            by_focal = intrinsics is None and geometry.get("confidence") is None
            note = _MAYBE_MONO if by_focal else _RELATIVE
    else:
        if intrinsics is None and "points" in geometry:
            raise ValueError(
                "This MoGe geometry is a panorama: it holds distances around the viewer, not depth before "
                "one lens. Use Run MoGe Inference on an ordinary picture."
            )
        source, mask = "MoGe geometry", geometry.get("mask")
        sky = ~mask.bool() if isinstance(mask, Tensor) else None
        fx_px = None
        if intrinsics is not None:
            fx_px = intrinsics.reshape(-1, 3, 3)[:, 0, 0].float() * depth.shape[-1]
            note = "" if by_focal or "normal" in geometry else _MAYBE_MOGE_1
    if by_focal:
        depth = depth * _da3_factor(depth, fx_px, fx_per_width, da3_resolution, warnings)
    if note:
        warnings.append(note)
    if sky is not None and sky.shape == depth.shape:
        depth = torch.where(sky.to(depth.device), torch.full_like(depth, torch.inf), depth)
    return Converted(_finished(depth * scale, source, fx_px=fx_px), tuple(warnings))


def _da3_fx_px(intrinsics: Tensor, width: int) -> Tensor | None:
    """Focal length in pixels of the depth map, `(B,)`.

    The intrinsics are in pixels of what the network saw, whose width is twice cx. An identity matrix stands
    where no pose was found.
    """
    matrices = intrinsics.reshape(-1, 3, 3).float()
    focal, centre = matrices[:, 0, 0], matrices[:, 0, 2]
    return focal * (width / (2.0 * centre)) if bool((centre > 0).all()) else None


def _da3_factor(
    depth: Tensor, fx_px: Tensor | None, fx_per_width: float | None, da3_resolution: int, warnings: list[str]
) -> Tensor:
    """metres / raw depth, `(B or 1, 1, 1)`: the focal length at the network's own size, over 300."""
    height, width = depth.shape[-2:]
    if fx_px is not None:
        per_width = fx_px.reshape(-1, 1, 1).to(depth.device) / width
    else:
        if fx_per_width is None:
            warnings.append(
                f"The focal length of the camera that took the picture is not known: {ASSUMED_FOCAL_MM:g} mm "
                "on full frame was assumed, and distances are off by the same factor. Connect a camera to "
                "Depth from Geometry."
            )
            fx_per_width = ASSUMED_FOCAL_MM / ASSUMED_SENSOR_MM
        per_width = torch.full((1, 1, 1), fx_per_width, device=depth.device)
    resized = width * da3_resolution / max(height, width)
    network_width = max(round(resized / _DA3_PATCH), 1) * _DA3_PATCH
    return per_width * network_width / _DA3_FOCAL
