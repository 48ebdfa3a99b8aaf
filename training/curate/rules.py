"""The third stage: Appendix D. Which photos may be of the deep set, which of the shallow one."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lens_models.photo.exif import PhotoExif

from .flow import RowWorker, dropped, kept
from .options import Curation, Rules, digest

DEEP, SHALLOW = "deep", "shallow"
#: A line of the table: patterns of the whole names, by column; whether it is a phone.
Phone = tuple[dict[str, re.Pattern], bool]
_PHONES = Path(__file__).with_name("phones.csv")
_FULL_FRAME_MM = 36.0
#: Makers write 0.1 s as a rational that may come out a little larger.
_ROUNDING = 1.0 + 1e-9


def read_phones(path: str | Path | None = None) -> tuple[Phone, ...]:
    """The table of makers, models and lenses; its first line that fits decides. Raises ValueError."""
    path, phones = Path(path or _PHONES), []
    with path.open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            try:
                names = [name for name in ("make", "model", "lens") if line[name]]
                patterns = {name: re.compile(line[name], re.I) for name in names}
                phones.append((patterns, {"yes": True, "no": False}[line["phone"]]))
            except (KeyError, TypeError, re.error) as error:
                raise ValueError(
                    f"Line {number} of {path.name} must be maker, model, lens, yes or no: {error}."
                ) from error
    return tuple(phones)


def is_phone(phones: tuple[Phone, ...], make: str | None, model: str | None, lens: str | None = None) -> bool:
    """Whether a phone took the photo, as far as its EXIF tells.

    >>> phones = read_phones()
    >>> is_phone(phones, "samsung", "SM-G991B"), is_phone(phones, "SAMSUNG", "NX300")
    (True, False)
    """
    names = {"make": make, "model": model, "lens": lens}
    for patterns, phone in phones:
        if all((name := names[key]) is not None and p.fullmatch(name) for key, p in patterns.items()):
            return phone
    return False


class RulesWorker(RowWorker):
    """Judges a unit. set: deep or shallow; focal_mm and sensor_mm: of the stored picture's width, complete.

    The fx_px column is the focal length in px of the photo as shown, at its full size.
    """

    columns = (
        ("set", pa.string()),
        ("phone", pa.bool_()),
        ("fx_px", pa.float64()),
        ("focal_mm", pa.float64()),
    )

    def __init__(self, config: Curation):
        super().__init__(config)
        self.phones = read_phones(config.rules.phones)

    @classmethod
    def extra(cls, config: Curation, **more: Any) -> str:
        """The table of phones."""
        return digest(Path(config.rules.phones or _PHONES).read_text(encoding="utf-8"))

    def verdict(self, row: dict[str, Any]) -> dict[str, Any]:
        verdict = {"focal_mm": row["focal_mm"]} | judge_row(row, self.config.rules, self.phones)
        return verdict | {"reason": row["reason"]} if verdict["kept"] else verdict


run = RulesWorker.run


def judge_row(row: Mapping[str, Any], rules: Rules, phones: tuple[Phone, ...]) -> dict[str, Any]:
    """The verdict on one photo. row: what the EXIF stage wrote."""
    n, t = row["f_number"], row["exposure_s"]
    phone = is_phone(phones, row["make"], row["model"], row["lens"])
    if n is None or not math.isfinite(n) or n <= 0:
        nothing = all(row[name] is None for name in ("f_number", "focal_mm", "exposure_s", "make", "model"))
        return dropped("no EXIF" if nothing else "no f-number in its EXIF", phone=phone)
    if not rules.least_f_number <= n <= rules.most_f_number:
        span = f"{rules.least_f_number:g} to {rules.most_f_number:g}"
        return dropped(f"f/{n:.3g} is not within f/{span}", phone=phone)
    deep = n >= rules.split_f_number
    columns = {"phone": phone, "set": DEEP if deep else SHALLOW}
    complaint = _deep(rules, t, phone) if deep else _shallow(rules, t, phone, row)
    if complaint:
        return dropped(complaint, **columns)
    side = min(row["width"], row["height"])
    if side < rules.least_side_px:
        return dropped(f"{side} px on its shorter side, less than {rules.least_side_px}", **columns)
    return _with_camera(row, rules, columns)


def _deep(rules: Rules, t: float | None, phone: bool) -> str:
    if t is None:
        return "" if rules.no_exposure == "keep" else "deep, and no exposure time in its EXIF"
    if t > rules.deep_exposure_s * _ROUNDING:
        return f"deep, and exposed for {t:.3g} s, longer than {rules.deep_exposure_s:g} s"
    return "by a phone" if phone and rules.deep_phones == "drop" else ""


def _shallow(rules: Rules, t: float | None, phone: bool, row: Mapping[str, Any]) -> str:
    if phone:
        return "shallow, and by a phone"
    if rules.no_camera == "drop" and not (row["make"] or row["model"] or row["lens"]):
        return "shallow, and no camera named in its EXIF"
    if rules.shallow_exposure_s is not None and (t or 0.0) > rules.shallow_exposure_s * _ROUNDING:
        return f"shallow, and exposed for {t:.3g} s, longer than {rules.shallow_exposure_s:g} s"
    return ""


def _with_camera(row: Mapping[str, Any], rules: Rules, columns: dict[str, Any]) -> dict[str, Any]:
    focal = row["focal_mm"]
    if focal is None:
        if row["focal_35mm"] is None:
            return dropped("no focal length in its EXIF", **columns)
        if rules.no_focal == "drop":
            return dropped("only the 35-mm equivalent of its focal length in its EXIF", **columns)
        focal = row["focal_35mm"]
    names = ("focal_35mm", "sensor_mm", "orientation")
    settings = PhotoExif(focal_mm=focal, **{name: row[name] for name in names})
    size = (row["width"], row["height"])
    fx = settings.fx_px(*size)
    if fx is None and rules.no_sensor == "full frame":
        fx = settings.fx_px(*size, sensor_mm=_FULL_FRAME_MM)
    if fx is None:
        return dropped("the size of its sensor cannot be told from its EXIF", **columns)
    return kept(focal_mm=focal, fx_px=fx, **columns)
