"""Camera, focus and circle of confusion: every unit conversion of the project lives in this file.

Distances to the scene are metres, focal lengths and sensors are millimetres, blur is pixels.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

MM_PER_M = 1000.0
FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
#: The lens assumed on full frame where none is known, mm: a normal one, as the Camera node's default, where
#: the lens itself is asked for; a wider one where a network measures depth in a picture without a camera,
#: which is mostly a phone's, or drawn to look like one.
ASSUMED_FOCAL_MM, ASSUMED_WIDE_FOCAL_MM, ASSUMED_SENSOR_MM = 50.0, 35.0, 36.0
#: Depth that is NaN, zero or negative is read as this distance: no lens sees closer, and 1/d stays finite.
NEAREST_DEPTH_M = 0.01
#: The plane of sharp focus leans at most this far: at 90° it would hold the lens and be seen edge-on.
STEEPEST_DEG = 85.0

Scalar = float | Tensor
_Number = TypeVar("_Number", float, Tensor)
_Self = TypeVar("_Self", bound="_Batch")


def _checked(name: str, value: Scalar, *, unit: str = "", positive: bool = True) -> Scalar:
    """A number or a 1-D batch of numbers, refused with a sentence when it cannot be a lens setting."""
    if isinstance(value, Tensor):
        if value.ndim > 1:
            raise ValueError(f"{name} must be one number or a 1-D batch, not of shape {tuple(value.shape)}.")
        if value.numel() == 0:
            raise ValueError(f"{name} is an empty batch: give at least one value.")
        values = value.detach().flatten().tolist()
    elif isinstance(value, Real) and not isinstance(value, bool):
        values = [float(value)]
    else:
        raise ValueError(f"{name} must be a number, not {type(value).__name__}.")
    for v in values:
        if math.isnan(v):
            raise ValueError(f"{name} is not a number (NaN).")
        if positive and not (0 < v < math.inf):
            raise ValueError(f"{name} is {v:g}{unit}: it must be greater than 0 and finite.")
    return value


def broadcast_batch(**sizes: int) -> int:
    """Common batch size of named parts: 1 goes with N, anything else is an error that names both numbers.

    >>> broadcast_batch(pictures=1, cameras=8)
    8
    """
    common, owner = 1, ""
    for name, size in sizes.items():
        if size in (1, common):
            continue
        if common != 1:
            raise ValueError(
                f"{common} {owner} do not go with {size} {name.replace('_', ' ')}: "
                f"use 1 or the same number of each (found {common} and {size})."
            )
        common, owner = size, name.replace("_", " ")
    return common


def focal_px(focal_mm: _Number, sensor_mm: _Number, width_px: float) -> _Number:
    """Focal length in px of a picture whose `width_px` span `sensor_mm`."""
    return focal_mm * (width_px / sensor_mm)


def equivalent_focal_px(focal_35mm: float, width_px: int, height_px: int) -> float:
    """Focal length in px from its 35-mm equivalent in mm, which compares diagonals as camera makers do."""
    return focal_px(focal_35mm, FULL_FRAME_DIAGONAL_MM, math.hypot(width_px, height_px))


def full_frame_equivalent_mm(focal_mm: float, diagonal_mm: float) -> float:
    """35-mm equivalent of a focal length, mm, before a sensor, or the part of it in use, of that diagonal."""
    return focal_mm * FULL_FRAME_DIAGONAL_MM / diagonal_mm


def equivalent_diagonal_mm(focal_mm: float, focal_35mm: float) -> float:
    """Diagonal of the sensor, mm, that gives a focal length this 35-mm equivalent."""
    return focal_mm * FULL_FRAME_DIAGONAL_MM / focal_35mm


def assumed_fx_px(width_px: int, focal_mm: float = ASSUMED_WIDE_FOCAL_MM) -> float:
    """Focal length in px of a picture whose lens is unknown.

    >>> assumed_fx_px(720)
    700.0
    """
    return focal_px(focal_mm, ASSUMED_SENSOR_MM, width_px)


def view_degrees(fx_px: float, width_px: int) -> float:
    """Field of view across the picture, degrees.

    >>> round(view_degrees(500.0, 1000))
    90
    """
    return math.degrees(2.0 * math.atan(width_px / (2.0 * fx_px)))


@dataclass(frozen=True, eq=False)
class _Batch:
    """What a sweep and a rack focus share: fields that are one value or `(B,)` tensors."""

    @property
    def batch(self) -> int:
        """Number of settings."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return broadcast_batch(
            **{f"values_{i}": v.numel() for i, v in enumerate(values) if isinstance(v, Tensor) and v.ndim}
        )

    def part(self: _Self, start: int, stop: int) -> _Self:
        """Settings start..stop; what is single stays single, so it answers to every index."""
        return dataclasses.replace(
            self,
            **{
                field.name: value[start:stop]
                for field in dataclasses.fields(self)
                if isinstance(value := getattr(self, field.name), Tensor) and value.numel() > 1
            },
        )


@dataclass(frozen=True, eq=False)
class Camera(_Batch):
    """A thin lens before a sensor. Every field is a float or a `(B,)` tensor; a batch is a sweep.

    f_number: aperture N = focal length / entrance pupil diameter.
    focal_mm: focal length, mm.
    sensor_mm: width of the sensor that the picture's width spans, mm (36 = long side of full frame).
    sensor_height_mm: full height of the sensor, mm, when `framed` shall find the crop; None leaves it open.

    Raises ValueError for a value that is not positive and finite.
    """

    f_number: Scalar
    focal_mm: Scalar
    sensor_mm: Scalar = 36.0
    sensor_height_mm: Scalar | None = None

    def __post_init__(self) -> None:
        _checked("f-number", self.f_number)
        _checked("focal length", self.focal_mm, unit=" mm")
        _checked("sensor width", self.sensor_mm, unit=" mm")
        if self.sensor_height_mm is not None:
            _checked("sensor height", self.sensor_height_mm, unit=" mm")
        self.batch  # noqa: B018 (refuses fields of two different batch sizes)

    def replace(self, **fields: Scalar | None) -> Camera:
        """The same camera with some fields changed."""
        return dataclasses.replace(self, **fields)

    def framed(self, width_px: int, height_px: int) -> Camera:
        """The camera with `sensor_mm` set to the width that a picture of this shape spans.

        The picture is taken as the largest crop of the sensor, the sensor turned to the picture's
        orientation: on full frame a 3:2 picture spans 36 mm, a square 24 mm, an upright 2:3 24 mm.
        Without `sensor_height_mm` the camera comes back as it is.
        """
        if self.sensor_height_mm is None:
            return self
        sides = [torch.as_tensor(v, dtype=torch.float64) for v in (self.sensor_mm, self.sensor_height_mm)]
        long_mm, short_mm = torch.maximum(*sides), torch.minimum(*sides)
        wide_mm, high_mm = (long_mm, short_mm) if width_px >= height_px else (short_mm, long_mm)
        span_mm = torch.minimum(wide_mm, high_mm * (width_px / height_px))
        return self.replace(sensor_mm=span_mm if span_mm.ndim else span_mm.item(), sensor_height_mm=None)

    def fx_px(self, width_px: int) -> Tensor:
        """Focal length in pixels of a picture `width_px` wide, `(B,)` float64."""
        focal, sensor = (torch.as_tensor(v, dtype=torch.float64) for v in (self.focal_mm, self.sensor_mm))
        return focal_px(focal, sensor, width_px).expand(self.batch)


@dataclass(frozen=True, eq=False)
class Focus(_Batch):
    """Where the lens is focused. Floats or `(B,)` tensors; a batch is a rack focus.

    distance_m: focus distance f_d, metres (eq. 4); `inf` focuses on the sky.
    scale: f_s (eq. 5), a factor on the distance in the lens equation; 1 is physical.
    tilt_deg: lean of the plane of sharp focus itself, not of the lens, in the upright section through the
        picture's centre, degrees, -85..85; > 0 leans its top away from the camera.
    swing_deg: the same in the level section; > 0 takes its right side farther away.

    A leaning plane meets the axis at `distance_m`. With X right, Y down, Z ahead it is
    Z + Y tan(tilt) - X tan(swing) = f_d: each angle is what a cut through the plane shows, in either order.
    A distance closer than the lens can focus (1:1, twice the focal length) is read as that limit.
    Raises ValueError for NaN, for a scale that is not positive, and for an angle beyond 85°.
    """

    distance_m: Scalar
    scale: Scalar = 1.0
    tilt_deg: Scalar = 0.0
    swing_deg: Scalar = 0.0

    def __post_init__(self) -> None:
        _checked("focus distance", self.distance_m, positive=False)
        _checked("focus scale", self.scale)
        for name, angle in {"tilt": self.tilt_deg, "swing": self.swing_deg}.items():
            _checked(name, angle, positive=False)
            steepest = torch.as_tensor(angle).detach().abs().max().item()
            if steepest > STEEPEST_DEG:
                raise ValueError(
                    f"The plane of sharp focus has a {name} of {steepest:g}° to one side: it can lean "
                    f"{STEEPEST_DEG:g}° at most."
                )
        self.batch  # noqa: B018 (refuses fields of two different batch sizes)

    def leaning(self, tilt_deg: Scalar, swing_deg: Scalar) -> Focus:
        """The same distance with the plane of sharp focus turned; two zeros leave the focus as it is."""
        if _is_zero(tilt_deg) and _is_zero(swing_deg):
            return self
        return dataclasses.replace(self, tilt_deg=tilt_deg, swing_deg=swing_deg)

    @property
    def upright(self) -> bool:
        """Whether the plane of sharp focus is known to face the camera squarely."""
        return _is_zero(self.tilt_deg) and _is_zero(self.swing_deg)


def _is_zero(value: Scalar) -> bool:
    # a tensor of zeros may be asked for its gradient
    return not isinstance(value, Tensor) and value == 0.0


def _columns(like: Tensor, *values: Scalar) -> list[Tensor]:
    """Scalars and `(B,)` batches as `(B, 1, 1)` tensors that broadcast with a depth map."""
    return [torch.as_tensor(v, dtype=like.dtype, device=like.device).reshape(-1, 1, 1) for v in values]


def macro_limit_m(focus: Focus, camera: Camera) -> Tensor:
    """Closest distance the lens can focus at, metres, `(B,)`: f_s F = 2f, which is 1:1."""
    focal, scale = (torch.as_tensor(v, dtype=torch.float64).detach() for v in (camera.focal_mm, focus.scale))
    return (2.0 * focal / (MM_PER_M * scale)).reshape(-1)


def macro_limited(focus: Focus, camera: Camera) -> Tensor:
    """Which settings ask for a focus closer than the lens can go, `(B,)` bool."""
    distance = torch.as_tensor(focus.distance_m, dtype=torch.float64).detach().reshape(-1)
    return distance < macro_limit_m(focus, camera)


def usable_depth(depth_m: Tensor) -> Tensor:
    """Depth with NaN, zero and negative read as `NEAREST_DEPTH_M`, without gradient there; sky stays inf."""
    return torch.where(depth_m >= NEAREST_DEPTH_M, depth_m, torch.full_like(depth_m, NEAREST_DEPTH_M))


def inverse_depth(depth_m: Tensor) -> Tensor:
    """1/d in 1/m of the usable depth; sky (inf) is 0."""
    return 1.0 / usable_depth(depth_m)


def coc_px(depth_m: Tensor, focus: Focus, camera: Camera, width_px: int) -> Tensor:
    """Signed diameter of the circle of confusion (eq. 6 with its sign kept).

    With p = 1/f_d and q = 1/d in 1/m and f in mm, eq. 6 reads

        coc = f² / N · (p - q) / (1000 f_s - f p) · width_px / sensor_mm

    which is linear in inverse depth and finite for a focus or a depth at infinity.

    A leaning plane of sharp focus, Z + Y tan(tilt) - X tan(swing) = f_d, is seen at the picture's point
    (x, y) = (X/Z, Y/Z), pixels from the centre over `Camera.fx_px`, at the inverse depth

        p(x, y) = p (1 + y tan(tilt) - x tan(swing))

    which takes the place of p before q. Why: an ideal lens with its axis along m images P to
    P / (1 - m·P / f). On a sensor at -v that is sharp for 1/Z = m_z/f - 1/v + (m_x x + m_y y) / f, affine in
    (x, y); light from elsewhere arrives v A (p(x, y) - 1/Z) away for a point A of the opening, with the
    same factor everywhere. So the sharp plane is exact. The size and roundness of the blur are those of an
    upright lens: what its own tilt t, sin(t) = f tan(tilt) / f_d, does to them is left out, shares of the
    order of x t and t² (up to 1 % at t = 2.5° and 3 % at 8°, in the corners of full frame at 50 mm). Where
    p(x, y) <= 0 the plane is not ahead, and everything lies in front of it.

    depth_m: `(B, H, W)` metres, +inf = sky; of the whole picture, whose centre the plane leans about.
    width_px: width of the picture in pixels.
    Returns `(B, H, W)` px: > 0 behind the focal plane, < 0 in front, 0 on it. Differentiable with respect
    to depth, distance, scale, tilt, swing, f-number and focal length; where the focus is closer than 1:1
    the value is clamped and the gradient passes through.
    Raises ValueError when the batch sizes of depth, focus and camera do not go together.
    """
    if depth_m.ndim != 3:
        raise ValueError(f"depth must be (batch, height, width), not {tuple(depth_m.shape)}.")
    broadcast_batch(depths=depth_m.shape[0], focus_settings=focus.batch, cameras=camera.batch)
    if depth_m.dtype not in (torch.float32, torch.float64):
        depth_m = depth_m.float()
    p, gain = _inverse_focus_and_gain(depth_m, focus, camera, width_px)
    if not focus.upright:
        p = p * (1.0 + _lean(depth_m, focus, camera))
    return gain * (p - inverse_depth(depth_m))


def lean_px(depth_m: Tensor, focus: Focus, camera: Camera, width_px: int) -> Tensor | None:
    """What the lean of the plane of sharp focus adds to `coc_px`, `(B, H, W)` px; None where it is upright.

    It belongs to the point of the sensor, the rest of the CoC to what is seen. depth_m gives the size.
    """
    if focus.upright:
        return None
    p, gain = _inverse_focus_and_gain(depth_m, focus, camera, width_px)
    return gain * p * _lean(depth_m, focus, camera)


def _lean(like: Tensor, focus: Focus, camera: Camera) -> Tensor:
    """y tan(tilt) - x tan(swing), `(B, H, W)`: how much nearer the plane is seen than on the axis, of 1."""
    tilt, swing = _columns(like, focus.tilt_deg, focus.swing_deg)
    focal, sensor = _columns(like, camera.focal_mm, camera.sensor_mm)
    height, width = like.shape[-2:]
    along = [torch.arange(n, dtype=like.dtype, device=like.device) + (0.5 - n / 2.0) for n in (width, height)]
    per_px = sensor / (width * focal)
    x, y = along[0] * per_px, along[1][:, None] * per_px
    return y * torch.tan(torch.deg2rad(tilt)) - x * torch.tan(torch.deg2rad(swing))


def _inverse_focus_and_gain(
    like: Tensor, focus: Focus, camera: Camera, width_px: int
) -> tuple[Tensor, Tensor]:
    """p in 1/m, clamped at the macro limit, and the px of CoC diameter per 1/m, both `(B, 1, 1)`."""
    distance, scale = _columns(like, focus.distance_m, focus.scale)
    f_number, focal, sensor = _columns(like, camera.f_number, camera.focal_mm, camera.sensor_mm)
    closest = (2.0 * focal / (MM_PER_M * scale)).detach()
    clamped = distance + (closest - distance).detach()  # value of the limit, gradient of the distance
    p = 1.0 / torch.where(distance < closest, clamped, distance)
    reach = focal * focal / f_number * (width_px / sensor)
    return p, reach / (MM_PER_M * scale - focal * p)


def radius_line(focus: Focus, camera: Camera, width_px: int) -> tuple[Tensor, Tensor]:
    """(p, g) of the signed blur radius g (p - 1/d) where the plane of sharp focus is upright.

    p in 1/m, clamped at the macro limit, g in px per 1/m, both `(B,)` float64.
    """
    p, gain = _inverse_focus_and_gain(torch.empty(0, dtype=torch.float64), focus, camera, width_px)
    return p.reshape(-1), gain.reshape(-1) / 2.0


def capped_share(coc: Tensor, max_radius_px: float) -> float:
    """Share (0..1) of pixels whose blur radius is larger than `max_radius_px` and will be capped."""
    return (coc.abs() > 2.0 * max_radius_px).double().mean().item()


def sharp_limits_m(focus: Focus, camera: Camera, width_px: int, sharp_px: float) -> tuple[Tensor, Tensor]:
    """Nearest and farthest distance at which a blur diameter stays within `sharp_px`.

    |coc| = c on both sides of the focal plane: 1/near = 1/f_d + c/g, 1/far = 1/f_d - c/g, g in px per 1/m.
    Returns two `(B,)` float64 tensors in metres; the far limit is inf from the hyperfocal distance on.
    """
    p, radius = radius_line(focus, camera, width_px)
    reach = sharp_px / (2.0 * radius)
    far = p - reach
    return 1.0 / (p + reach), torch.where(far > 0, 1.0 / far.clamp_min(1e-12), torch.inf)


def hyperfocal_m(camera: Camera, width_px: int, sharp_px: float, scale: Scalar = 1.0) -> Tensor:
    """Nearest focus that keeps infinity within `sharp_px` of blur, metres, `(B,)` float64.

    H = (f² / (N c) + f) / f_s with c the blur diameter on the sensor in mm.
    """
    f_number, focal, sensor, scale = (
        torch.as_tensor(v, dtype=torch.float64).reshape(-1)
        for v in (camera.f_number, camera.focal_mm, camera.sensor_mm, scale)
    )
    return (focal * focal / (f_number * (sharp_px * sensor / width_px)) + focal) / (MM_PER_M * scale)
