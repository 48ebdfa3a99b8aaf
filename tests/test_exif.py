"""The camera's settings out of photos, whole and damaged."""

from __future__ import annotations

import math
import sys
import types
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from lens_models.photo import exif as module
from lens_models.photo.exif import PhotoExif, read_exif

MAKE, MODEL, ORIENTATION = 271, 272, 274
EXPOSURE, F_NUMBER, SHUTTER_APEX, APERTURE_APEX = 33434, 33437, 37377, 37378
DISTANCE, FOCAL, PIXELS, PLANE, PLANE_UNIT, FOCAL_35, LENS = 37382, 37386, 40962, 41486, 41488, 41989, 42036


def photo(path, tags, main=None, size=(30, 20)):
    data = Image.Exif()
    data.update(main or {})
    data.get_ifd(0x8769).update(tags)
    picture = Image.new("RGB", size, (90, 120, 40))
    if path.suffix == ".tif":
        entries = ImageFileDirectory_v2()
        for tag, value in {**(main or {}), 0x8769: tags}.items():
            entries[tag] = value
        picture.save(path, tiffinfo=entries)
    else:
        picture.save(path, exif=data)
    return path


FULL = {
    EXPOSURE: IFDRational(1, 250),
    F_NUMBER: IFDRational(28, 10),
    DISTANCE: IFDRational(35, 10),
    FOCAL: IFDRational(85, 1),
    FOCAL_35: 85,
    LENS: "EF85mm f/1.2L II USM",
}
CANON = {MAKE: "Canon\0", MODEL: "Canon EOS R5", ORIENTATION: 6}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_everything_is_read(tmp_path, suffix):
    found = read_exif(photo(tmp_path / f"a.{suffix}", FULL, CANON))
    assert found == PhotoExif(2.8, 85.0, 85.0, 3.5, 0.004, "Canon", "Canon EOS R5", FULL[LENS], 6)
    assert found.camera_name == "Canon EOS R5"


def test_a_picture_without_settings(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_exif(tmp_path / "a.png") == PhotoExif()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({APERTURE_APEX: IFDRational(4, 1)}, PhotoExif(f_number=4.0)),
        ({APERTURE_APEX: IFDRational(4, 1), F_NUMBER: IFDRational(0, 0)}, PhotoExif(f_number=4.0)),
        ({APERTURE_APEX: IFDRational(4, 1), F_NUMBER: IFDRational(39, 10)}, PhotoExif(f_number=3.9)),
        ({SHUTTER_APEX: IFDRational(7, 1)}, PhotoExif(exposure_s=1 / 128)),
        ({F_NUMBER: IFDRational(28, 0), FOCAL: IFDRational(0, 1), FOCAL_35: 0}, PhotoExif()),
        ({DISTANCE: IFDRational(0, 1)}, PhotoExif()),
        ({DISTANCE: IFDRational(0xFFFFFFFF, 1)}, PhotoExif(subject_distance_m=math.inf)),
        ({PIXELS: 6000, PLANE: IFDRational(6000 * 254, 360), PLANE_UNIT: 2}, PhotoExif(sensor_mm=36.0)),
        ({PIXELS: 6000, PLANE: IFDRational(6000, 4), PLANE_UNIT: 3}, PhotoExif(sensor_mm=40.0)),
        ({PIXELS: 60, PLANE: IFDRational(1, 1)}, PhotoExif()),  # 1.5 m of sensor
    ],
)
def test_odd_values(tmp_path, tags, expected):
    found = read_exif(photo(tmp_path / "a.jpg", tags))
    assert found.reason == ""
    for name, value in vars(expected).items():
        assert getattr(found, name) == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        ((28, 10), 2.8), ([Fraction(28, 10)], 2.8), (b"2.8\0", 2.8), ("28/10", 2.8), (2.8, 2.8),
        ((1, 0), None), ("", None), ("banana", None), (None, None), ((1, 2, 3), None), (float("nan"), None),
        (types.SimpleNamespace(num=28, den=10), 2.8),
    ],
)  # fmt: skip
def test_numbers_come_in_many_dresses(raw, number):
    assert module._number(raw) == (number if number is None else pytest.approx(number))


def test_names_come_as_bytes():
    assert module._text(b"NIKON CORPORATION\0\0") == "NIKON CORPORATION"
    assert module._text([b"  Leica \0junk"]) == "Leica"
    assert module._text(3) is None
    assert PhotoExif(make="NIKON CORPORATION", model="NIKON Z 8").camera_name == "NIKON Z 8"
    assert PhotoExif(make="Apple", model="iPhone 12").camera_name == "Apple iPhone 12"
    assert PhotoExif().camera_name == ""


def test_focal_length_in_pixels():
    full_frame = PhotoExif(focal_35mm=35.0)
    assert full_frame.fx_px(3600, 2400) == pytest.approx(3500)
    assert full_frame.fx_px(2400, 3600) == pytest.approx(3500)  # the photo turned
    # 4:3 with 26 mm equivalent: 26 · 5000 / 43.27
    assert PhotoExif(focal_35mm=26.0, focal_mm=4.2).fx_px(4000, 3000) == pytest.approx(3004.6, abs=0.1)
    assert PhotoExif(focal_mm=4.2).fx_px(4000, 3000) is None
    assert PhotoExif(focal_mm=4.2).fx_px(3000, 4000, sensor_mm=5.6) == pytest.approx(3000)
    own = PhotoExif(focal_mm=50.0, sensor_mm=25.0, orientation=6)
    assert own.fx_px(400, 600) == pytest.approx(1200)  # stored 600 wide, turned when shown
    assert PhotoExif(focal_mm=50.0, sensor_mm=25.0).fx_px(600, 400) == pytest.approx(1200)
    assert PhotoExif().fx_px(600, 400) is None
    assert full_frame.fx_px(0, 400) is None


def test_missing_and_foreign_files(tmp_path):
    assert "no file nothing.jpg" in read_exif(tmp_path / "nothing.jpg").reason
    (tmp_path / "page.jpg").write_bytes(b"<!doctype html>" * 20)
    assert "page.jpg cannot be opened" in read_exif(tmp_path / "page.jpg").reason
    assert read_exif(tmp_path).reason


def test_tags_without_a_picture_are_read(tmp_path):
    whole = photo(tmp_path / "a.jpg", FULL, CANON).read_bytes()
    block = whole.index(b"Exif\0\0")
    end = whole.index(b"\xff\xdb")  # the tags end where the tables of the picture begin
    for name, content in (("cut.jpg", whole[:end]), ("bare.exif", whole[block:end])):
        (tmp_path / name).write_bytes(content)
        found = read_exif(tmp_path / name)
        assert found == PhotoExif(2.8, 85.0, 85.0, 3.5, 0.004, "Canon", "Canon EOS R5", FULL[LENS], 6), name
    (tmp_path / "none.jpg").write_bytes(whole[:block])
    assert "damaged" in read_exif(tmp_path / "none.jpg").reason


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_never_raise(tmp_path_factory, data):
    path = photo(tmp_path_factory.mktemp("damaged") / "a.jpg", FULL, CANON)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        whole[data.draw(st.integers(0, min(len(whole), 400) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = read_exif(path)
    assert isinstance(found, PhotoExif)
    for name in ("f_number", "focal_mm", "focal_35mm", "exposure_s"):
        value = getattr(found, name)
        assert value is None or 0 < value < math.inf


def test_a_failing_reader_is_a_reason(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyError("tag 37386")

    monkeypatch.setattr(module, "_with_pillow", broken)
    reason = read_exif(photo(tmp_path / "a.jpg", FULL)).reason
    assert "a.jpg are damaged" in reason
    assert "37386" in reason


def test_exifread_opens_what_pillow_does_not(tmp_path, monkeypatch):
    raw = types.SimpleNamespace(values=[types.SimpleNamespace(num=240, den=10)])
    fake = types.ModuleType("exifread")
    fake.process_file = lambda file, details: {
        "EXIF FocalLength": raw,
        "Image Make": types.SimpleNamespace(values="Fujifilm "),
    }
    monkeypatch.setitem(sys.modules, "exifread", fake)
    (tmp_path / "a.raf").write_bytes(b"FUJIFILMCCD-RAW" * 9)
    assert read_exif(tmp_path / "a.raf") == PhotoExif(focal_mm=24.0, make="Fujifilm")
    fake.process_file = lambda file, details: {}
    assert "cannot be opened" in read_exif(tmp_path / "a.raf").reason
