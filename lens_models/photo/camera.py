"""The camera that took a photo, from its EXIF and what has to be assumed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..camera import ASSUMED_FOCAL_MM, Camera, equivalent_diagonal_mm, full_frame_equivalent_mm
from ..labels import metres_label
from ..stops import label as f_label
from .exif import PhotoExif

#: What is assumed when neither the photo nor the artist gives it: the defaults of the Camera node.
F_NUMBER, SENSOR_MM = 2.8, (36.0, 24.0)
#: The integer 35-mm equivalent is rounded; some makers round down.
_ROUNDING_MM = 1.0


@dataclass(frozen=True)
class PhotoCamera:
    """camera: f-number, focal length and the sensor the whole photo spans. distance_m: subject distance in
    metres, 0 = unknown. summary: camera, lens and exposure in words. warnings: a sentence per assumption."""

    camera: Camera
    distance_m: float
    summary: str
    warnings: list[str]


def camera_of_photo(
    exif: PhotoExif,
    width_px: int,
    height_px: int,
    *,
    f_number: float = 0.0,
    focal_mm: float = 0.0,
    sensor: tuple[float, float] | None = None,
    distance_m: float = 0.0,
) -> PhotoCamera:
    """The camera of a photo shown upright at a size, px.

    f_number, focal_mm (mm), distance_m (metres): used instead of the photo's own where not 0.
    sensor: width and height in mm, used instead of what the photo records; the photo is its largest crop.
    The sensor follows from the 35-mm equivalent, whose definition compares diagonals, or from the focal
    plane's resolution, which is exact where both agree.
    """
    warnings = [exif.reason] if exif.reason else []
    if not (f_number or exif.f_number):
        warnings.append(
            f"The photo records no aperture: {f_label(F_NUMBER)} assumed. Set f_number if you know it."
        )
    if not (focal_mm or exif.focal_mm or exif.focal_35mm):
        warnings.append(
            f"The photo records no focal length: {ASSUMED_FOCAL_MM:g} mm on full frame assumed. Set "
            "focal_mm and sensor if you know them."
        )
    n = f_number or exif.f_number or F_NUMBER
    own_mm = exif.focal_mm
    if not (own_mm or focal_mm) and exif.focal_35mm:
        warnings.append(
            f"The photo records only the 35-mm equivalent of its focal length, {exif.focal_35mm:g} mm: a "
            "full-frame camera assumed, which blurs more than a small one at the same f-number. Set focal_mm "
            "to the lens's own focal length if you know it."
        )
    focal = focal_mm or own_mm or exif.focal_35mm or ASSUMED_FOCAL_MM
    width_mm, height_mm = sensor or SENSOR_MM
    if sensor is None:
        span = _span_mm(exif, own_mm or focal, width_px, height_px)
        if span:
            width_mm, height_mm = span, span * height_px / width_px
        elif focal_mm or own_mm:
            warnings.append(
                f"The photo does not record the size of its sensor: full frame, {SENSOR_MM[0]:g} × "
                f"{SENSOR_MM[1]:g} mm, assumed. Choose the sensor if you know the camera."
            )
    distance = distance_m or exif.subject_distance_m or 0.0
    if not distance:
        warnings.append(
            "The photo records no subject distance, so distance_m is 0: set distance_m, or focus "
            "with Focus Point."
        )
    camera = Camera(float(n), float(focal), float(width_mm), float(height_mm))
    summary = _summary(exif, camera, distance, width_px, height_px)
    return PhotoCamera(camera, float(distance), summary, warnings)


def _span_mm(exif: PhotoExif, focal_mm: float, width_px: int, height_px: int) -> float | None:
    """Length of sensor that the upright photo's width spans, mm; None when the tags do not suffice."""
    turned = (exif.orientation or 1) >= 5
    # what is stored as width is shown as height when the photo is turned
    plane = exif.sensor_mm * (width_px / height_px if turned else 1.0) if exif.sensor_mm else None
    shape = math.hypot(1.0, height_px / width_px)
    if not exif.focal_35mm:
        return plane
    if plane:
        equivalent = full_frame_equivalent_mm(focal_mm, plane * shape)
        if abs(equivalent - exif.focal_35mm) <= _ROUNDING_MM:
            return plane
    return equivalent_diagonal_mm(focal_mm, exif.focal_35mm) / shape


def _summary(exif: PhotoExif, camera: Camera, distance_m: float, width_px: int, height_px: int) -> str:
    framed = camera.framed(width_px, height_px)
    names = ", ".join(filter(None, (exif.camera_name, exif.lens))) or "Camera unknown"
    exposure = f", {exposure_label(exif.exposure_s)}" if exif.exposure_s else ""
    where = f"\nSubject at {metres_label(distance_m)}" if distance_m else ""
    size = f"{width_px} × {height_px} px on {framed.sensor_mm:.3g} mm of sensor"
    return f"{names}\n{f_label(float(camera.f_number))}, {camera.focal_mm:.4g} mm{exposure}; {size}{where}"


def exposure_label(seconds: float) -> str:
    """An exposure time as cameras show it.

    >>> exposure_label(0.004), exposure_label(0.5), exposure_label(2.5)
    ('1/250 s', '1/2 s', '2.5 s')
    """
    if seconds < 1.0 and abs(1.0 / seconds - round(1.0 / seconds)) < 0.05 / seconds:
        return f"1/{round(1.0 / seconds)} s"
    return f"{seconds:.3g} s"
