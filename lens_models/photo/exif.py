"""What a photo says about the camera that took it.

Pillow reads the tags; exifread, where installed, opens kinds of files that Pillow does not (HEIC, raw).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from ..camera import equivalent_focal_px, focal_px

log = logging.getLogger("fine_defocus")

#: mm per unit of FocalPlaneResolutionUnit; most cameras write 2 (inch) and some 3 (cm).
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
#: An EXIF block starts like this, and is at most 64 KiB long, within the first segments of a JPEG.
_BLOCK_START, _BLOCK_BYTES = b"Exif\0\0", 1 << 18
_UNKNOWN_DISTANCE, _FAR_AWAY = 0, 0xFFFFFFFF


@dataclass(frozen=True)
class PhotoExif:
    """The camera's settings; None where the photo does not record them.

    f_number; focal_mm: focal length, mm; focal_35mm: its 35-mm equivalent, mm; subject_distance_m: metres,
    +inf for infinity; exposure_s: seconds; make, model, lens: names; orientation: 1..8, as stored.
    sensor_mm: length of sensor that the stored picture's width spans, mm, before `orientation` turns it.
    reason: why nothing could be read, a sentence; empty otherwise.
    """

    f_number: float | None = None
    focal_mm: float | None = None
    focal_35mm: float | None = None
    subject_distance_m: float | None = None
    exposure_s: float | None = None
    make: str | None = None
    model: str | None = None
    lens: str | None = None
    orientation: int | None = None
    sensor_mm: float | None = None
    reason: str = ""

    @property
    def camera_name(self) -> str:
        """Make and model as people say it, such as "Canon EOS R5"; empty when unknown.

        ComfyUI keeps its graph in these two tags of a WebP; that is no camera.
        """
        make, model = self.make or "", self.model or ""
        if f"{make} {model}".lstrip().startswith(("workflow:", "prompt:")):
            return ""
        if make and model.lower().startswith(make.split()[0].lower()):
            return model
        return f"{make} {model}".strip()

    def fx_px(self, width_px: int, height_px: int, sensor_mm: float | None = None) -> float | None:
        """Focal length in px of this photo shown upright at a size; None when the tags do not suffice.

        width_px, height_px: the whole photo's size, in any resolution; a crop needs the original's.
        sensor_mm: long side of the sensor, mm, where the caller knows the camera; it is used when there is no
            35-mm equivalent, and so is what the photo itself says about its sensor.
        The 35-mm equivalent compares diagonals, as camera makers define it.
        """
        if width_px < 1 or height_px < 1:
            return None
        if self.focal_35mm:
            return equivalent_focal_px(self.focal_35mm, width_px, height_px)
        if not self.focal_mm:
            return None
        if sensor_mm:
            return focal_px(self.focal_mm, sensor_mm, max(width_px, height_px))
        if self.sensor_mm:
            turned = (self.orientation or 1) >= 5
            return focal_px(self.focal_mm, self.sensor_mm, height_px if turned else width_px)
        return None


def read_exif(path: str | Path) -> PhotoExif:
    """The camera's settings out of a photo: JPEG, PNG, WebP, TIFF, and more with exifread.

    Never raises for what is in the file: a damaged one gives an empty result with a `reason`.
    """
    path = Path(path)
    try:
        if not path.is_file():
            return PhotoExif(reason=f"There is no file {path.name}.")
        tag = _with_pillow(path) or _with_exifread(path)
        if tag is None:
            return PhotoExif(reason=f"{path.name} cannot be opened as a photo.")
        return _parsed(tag)
    except Exception as error:  # damaged tags fail in every way there is
        log.debug("EXIF of %s", path, exc_info=error)
        what = str(error) or type(error).__name__
        return PhotoExif(reason=f"The camera's settings in {path.name} are damaged ({what}).")


def _with_pillow(path: Path) -> Callable[[str], Any] | None:
    """A look-up of tags by name; None when Pillow does not know such a file."""
    with _damage_ignored():
        try:
            with Image.open(path) as picture:
                main = picture.getexif()
                inner = main.get_ifd(ExifTags.IFD.Exif)
        except OSError as error:  # cut short behind the tags, or nothing but tags
            main = _bare_block(path)
            if main is None and isinstance(error, UnidentifiedImageError):
                return None
            if main is None:
                raise
            inner = main.get_ifd(ExifTags.IFD.Exif)

    # a few programs write the camera's tags beside the pointer and not behind it
    def look_up(name: str) -> Any:
        tag = ExifTags.Base[name]
        with _damage_ignored():  # Pillow decodes most tags only now
            return inner.get(tag, main.get(tag))

    return look_up


@contextmanager
def _damage_ignored() -> Iterator[None]:
    """Without Pillow's warnings of damaged tags, which come out as absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _bare_block(path: Path) -> Image.Exif | None:
    """The EXIF block near the start of a file that is no whole picture; None without one."""
    with path.open("rb") as file:
        start = file.read(_BLOCK_BYTES)
    at = start.find(_BLOCK_START)
    if at < 0:
        return None
    main = Image.Exif()
    main.load(start[at:])
    return main


def _with_exifread(path: Path) -> Callable[[str], Any] | None:
    try:
        import exifread
    except ImportError:
        return None
    with path.open("rb") as file:
        tags = exifread.process_file(file, details=False)
    if not tags:
        return None

    def look_up(name: str) -> Any:
        value = tags.get(f"EXIF {name}", tags.get(f"Image {name}"))
        return None if value is None else value.values

    return look_up


def _parsed(tag: Callable[[str], Any]) -> PhotoExif:
    aperture, shutter = _number(tag("ApertureValue")), _number(tag("ShutterSpeedValue"))
    orientation = _number(tag("Orientation"))
    return PhotoExif(
        f_number=_positive(tag("FNumber")) or _power(aperture, 0.5),
        focal_mm=_positive(tag("FocalLength")),
        focal_35mm=_positive(tag("FocalLengthIn35mmFilm")),
        subject_distance_m=_distance(tag("SubjectDistance")),
        exposure_s=_positive(tag("ExposureTime")) or _power(shutter, -1.0),
        make=_text(tag("Make")),
        model=_text(tag("Model")),
        lens=_text(tag("LensModel")),
        orientation=int(orientation) if orientation is not None and 1 <= orientation <= 8 else None,
        sensor_mm=_sensor_mm(tag),
    )


def _power(apex: float | None, per_step: float) -> float | None:
    """2 to the power of an APEX value, which counts in stops; None for values no camera has."""
    return 2.0 ** (per_step * apex) if apex is not None and -20.0 <= apex <= 30.0 else None


def _sensor_mm(tag: Callable[[str], Any]) -> float | None:
    per_unit = _positive(tag("FocalPlaneXResolution"))
    pixels = _positive(tag("ExifImageWidth"))
    if per_unit is None or pixels is None:
        return None
    width_mm = pixels / per_unit * _UNIT_MM.get(int(_number(tag("FocalPlaneResolutionUnit")) or 2), 25.4)
    # thumbnails and resized copies leave nonsense here
    return width_mm if 1.0 <= width_mm <= 200.0 else None


def _parts(value: Any) -> tuple[float, float] | None:
    """Numerator and denominator of what a reader gave: a number, a rational, a pair or a list of one."""
    while isinstance(value, (list, tuple)):
        if len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
            return float(value[0]), float(value[1])
        if len(value) != 1:
            return None
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").strip("\0 ")
    if isinstance(value, str):
        top, _, bottom = value.partition("/")
        try:
            return float(top), float(bottom or 1)
        except ValueError:
            return None
    for names in (("numerator", "denominator"), ("num", "den")):
        if all(hasattr(value, name) for name in names):
            return float(getattr(value, names[0])), float(getattr(value, names[1]))
    try:
        return float(value), 1.0
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    parts = _parts(value)
    if parts is None or parts[1] == 0 or not all(math.isfinite(p) for p in parts):
        return None
    return parts[0] / parts[1]


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _distance(value: Any) -> float | None:
    """Metres; the standard writes infinity as numerator 0xFFFFFFFF and unknown as 0."""
    parts = _parts(value)
    if parts is None or parts[0] == _UNKNOWN_DISTANCE:
        return None
    return math.inf if parts[0] == _FAR_AWAY else _positive(value)


def _text(value: Any) -> str | None:
    if isinstance(value, (list, tuple)):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return " ".join(value.split("\0")[0].split()) or None
