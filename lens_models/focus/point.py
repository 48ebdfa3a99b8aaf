"""Focus at a point of the picture, or across two: what depth says there, and the aperture a range needs.

Points are shares of the picture's width and height, 0..1 from the top left, so they outlive a resize.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..camera import Camera, Focus, inverse_depth, radius_line
from ..depth.convert import DepthMap
from ..labels import metres_label
from ..stops import THIRD_STOPS
from .distance import FoundDistance, focus_from_mask

POINT, PATCH, SUBJECT = "point", "small patch", "subject"
SAMPLES = (POINT, PATCH, SUBJECT)
#: Where a click on the sky focuses: no lens can tell it from infinity, and a FLOAT can carry it.
FAR_M = 10_000.0

#: Side of the small patch, as a share of the map's shorter side.
_PATCH_SHARE = 0.015
_CODES = 65534


def pixel_at(x: float, y: float, width: int, height: int) -> tuple[int, int]:
    """Column and row of the pixel that holds a point; the right and lower edges belong to the last one.

    Raises ValueError for a point outside 0..1.

    >>> pixel_at(0.5, 1.0, 640, 480)
    (320, 479)
    """
    for name, value in (("x", x), ("y", y)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(
                f"The point's {name} is {value:g}: it must lie between 0 (left, top) and 1 (right, bottom)."
            )
    return min(int(x * width), width - 1), min(int(y * height), height - 1)


def distance_at(
    depth: DepthMap, x: float, y: float, sample: str = POINT, subject: Tensor | None = None
) -> FoundDistance:
    """Distance of what a point shows, of each map of a batch.

    sample: "point" is that pixel; "small patch" the median of a square of 1.5 % of the shorter side, of its
        measured pixels where it has any; "subject" the median of what `subject` covers.
    subject: mask `(B, H, W)` 0..1 of any size, for "subject"; without it that is a small patch.
    Returns `(B,)` metres, `FAR_M` for sky, with warnings.
    Raises ValueError for a point outside 0..1 and for an unknown sample.
    """
    if sample not in SAMPLES:
        raise ValueError(f'"{sample}" is not a way to sample: use one of {", ".join(SAMPLES)}.')
    height, width = depth.size
    column, row = pixel_at(x, y, width, height)
    warnings: tuple[str, ...] = ()
    if sample == SUBJECT and subject is not None:
        covered = focus_from_mask(depth.metres, subject.to(depth.metres.device))
        metres, warnings = covered.metres, covered.warnings
    else:
        if sample == SUBJECT:
            warnings = ("Nothing is connected to subject, so a small patch at the point was measured.",)
        reach = 0 if sample == POINT else max(1, round(_PATCH_SHARE * min(height, width) / 2.0))
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        patch, valid = (t[:, rows, columns].flatten(1) for t in (depth.metres, depth.valid))
        unmeasured = ~valid.any(dim=1)
        counted = valid | unmeasured[:, None]
        metres = torch.stack([p[c].median() for p, c in zip(patch, counted, strict=True)])
        if bool(unmeasured.any()):
            warnings += (
                "The depth has no measurement at the point; the distance filled in there, "
                f"{metres_label(metres[unmeasured][0].item())}, was taken.",
            )
    sky = torch.isinf(metres)
    if bool(sky.any()):
        where = "" if bool(sky.all()) else f"In {int(sky.sum())} of {sky.numel()} pictures: "
        far = f"{where}The point is on the sky, so the focus is far away, at {metres_label(FAR_M)}."
        warnings = (*(w for w in warnings if "infinity" not in w), far)
    return FoundDistance(torch.where(sky, torch.full_like(metres, FAR_M), metres), warnings)


def range_focus_m(one_m: Tensor, other_m: Tensor) -> Tensor:
    """Focus that blurs two distances alike: 1/f_d = (1/a + 1/b)/2, their harmonic mean.

    The circle of confusion is linear in inverse depth (eq. 6), so its size is the same at both ends and
    smaller everywhere between them. Distances in metres; +inf focuses at twice the other one.
    """
    return 2.0 / (inverse_depth(one_m) + inverse_depth(other_m))


def range_coc_px(one_m: float, other_m: float, camera: Camera, width_px: int) -> float:
    """Diameter of the circle of confusion at both ends of a range that is focused at `range_focus_m`, px."""
    ends = torch.tensor([one_m, other_m], dtype=torch.float64)
    focus = Focus(range_focus_m(*ends).item())
    gain = radius_line(focus, camera, width_px)[1][0].item()
    return gain * inverse_depth(ends).diff().abs().item()


def f_number_for_range(one_m: float, other_m: float, camera: Camera, width_px: int, sharp_px: float) -> float:
    """Widest aperture that keeps both ends of a range within `sharp_px` of blur.

    Blur is proportional to 1/N. Returns the first mark of the third-stop scale that is narrow enough, or
    the exact number where the scale ends.
    """
    f_number = torch.as_tensor(camera.f_number, dtype=torch.float64).reshape(-1)[0].item()
    needed = f_number * range_coc_px(one_m, other_m, camera, width_px) / sharp_px
    return next((mark for mark in THIRD_STOPS if mark >= needed * (1.0 - 1e-6)), needed)


def points_json(points: list[tuple[float, float]], width: int, height: int) -> str:
    """Points in pixels of the picture, as ComfyUI's SAM3 Detect reads them: `[{"x": 320, "y": 240}]`."""
    pixels = (pixel_at(x, y, width, height) for x, y in points)
    return "[" + ", ".join(f'{{"x": {column}, "y": {row}}}' for column, row in pixels) + "]"


def packed_depth(depth: DepthMap) -> tuple[Tensor, float | None, float | None]:
    """The first depth map for a browser, 16 bits in two 8-bit channels, and the range they span.

    Code 0 is sky; 1..65535 are inverse distances, evenly from 1/far to 1/near. Channels: high byte, low
    byte, 255 where measured. Returns `(H, W, 3)` uint8, near and far in metres (None where all is sky).
    """
    metres, measured = depth.metres[0], depth.valid[0].to(torch.uint8) * 255
    finite = torch.isfinite(metres)
    if not bool(finite.any()):
        return torch.stack([torch.zeros_like(measured)] * 2 + [measured], dim=-1), None, None
    q = torch.where(finite, inverse_depth(metres.double()), torch.zeros_like(metres, dtype=torch.float64))
    high, low = q[finite].max().item(), q[finite].min().item()
    share = (q - low) / max(high - low, 1e-12)
    code = 1 + (share * _CODES).round().clamp(0, _CODES)
    code = torch.where(finite, code, torch.zeros_like(q)).to(torch.int32)
    planes = [(code // 256).to(torch.uint8), (code % 256).to(torch.uint8), measured]
    return torch.stack(planes, dim=-1), 1.0 / high, 1.0 / low


def fitted_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height of a picture brought to at most `longest` pixels on its longer side.

    >>> fitted_size(3000, 2000, 768), fitted_size(640, 480, 768)
    ((768, 512), (640, 480))
    """
    shrink = min(1.0, longest / max(width, height))
    return max(1, math.floor(width * shrink + 0.5)), max(1, math.floor(height * shrink + 0.5))
