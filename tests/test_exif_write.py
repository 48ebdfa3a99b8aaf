"""What is written into a photo is what is read out of it, and no file is lost or overwritten."""

from __future__ import annotations

import doctest
import io
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lens_models import Camera, Focus
from lens_models.photo import camera as photo_camera
from lens_models.photo import save as exif_write
from lens_models.photo.camera import camera_of_photo
from lens_models.photo.exif import PhotoExif, read_exif
from lens_models.photo.save import JPEG, PNG, SUFFIXES, WEBP, camera_tags, encoded, values_name, write_new

FORMATS = (PNG, JPEG, WEBP)
WORKFLOW = {"prompt": '{"1": {}}', "workflow": '{"nodes": ["\\u00e9"]}', "extra": "[1]"}
# a fraction of two 32-bit numbers with a denominator up to 10^6 is within 1e-6 / 2 of any value from 0.5 up
RATIONAL = 1e-6


def grey(height=40, width=60, channels=3):
    ramp = torch.linspace(0, 1, width).expand(height, width)
    return ramp[..., None].repeat(1, 1, channels)


def round_trip(folder, camera, focus, size=(60, 40), file_format=PNG):
    width, height = size
    tags = camera_tags(camera, focus, width, height)
    path = folder / f"a{SUFFIXES[file_format]}"
    path.write_bytes(encoded(grey(height, width), file_format, 92, tags, WORKFLOW))
    return camera_of_photo(read_exif(path), width, height), path


@pytest.mark.parametrize("module", [exif_write, photo_camera])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (64, 36)])
def test_the_same_camera_comes_back(tmp_path, file_format, size):
    camera = Camera(2.8, 6.9, 9.8, 7.3)
    found, path = round_trip(tmp_path, camera, Focus(1.53), size, file_format)
    assert found.warnings == []
    assert (found.camera.f_number, found.camera.focal_mm, found.distance_m) == (2.8, 6.9, 1.53)
    framed = found.camera.framed(*size)
    assert framed.sensor_mm == pytest.approx(camera.framed(*size).sensor_mm, rel=RATIONAL)
    with Image.open(path) as picture:
        outer = picture.getexif()
        inner = outer.get_ifd(0x8769)
    assert outer[0x0131] == "Fine Defocus for ComfyUI"
    assert inner[0xA405] == round(
        6.9 * math.hypot(36, 24) / math.hypot(1, size[1] / size[0]) / framed.sensor_mm
    )
    assert inner[0x9000] == b"0232"


@settings(max_examples=60)
@given(
    st.floats(0.5, 256.0), st.floats(1.0, 2000.0), st.floats(1.0, 200.0), st.floats(0.01, 1e5),
    st.integers(8, 80), st.integers(8, 80),
)  # fmt: skip
def test_any_camera_comes_back(tmp_path_factory, f_number, focal, sensor, distance, width, height):
    """Sensors from 1 to 200 mm: what is outside, a reader takes for nonsense."""
    found, _ = round_trip(
        tmp_path_factory.mktemp("a"), Camera(f_number, focal, sensor), Focus(distance), (width, height)
    )
    assert found.camera.f_number == pytest.approx(f_number, rel=RATIONAL)
    assert found.camera.focal_mm == pytest.approx(focal, rel=RATIONAL)
    # 1e-6 absolute is the step of a fraction for distances below half a metre
    assert found.distance_m == pytest.approx(distance, rel=RATIONAL, abs=1e-6)
    assert found.camera.framed(width, height).sensor_mm == pytest.approx(sensor, rel=3 * RATIONAL)


def test_float32_settings_are_written_as_the_marks_they_are():
    sweep = Camera(torch.tensor([1.8, 2.8]), 85.0)
    tags = camera_tags(sweep.part(1, 2), Focus(torch.tensor([1.3])), 60, 40)
    assert (str(tags[0x829D]), str(tags[0x920A]), str(tags[0x9206])) == ("14/5", "85", "13/10")


def test_infinity_and_unknown_distances(tmp_path):
    assert round_trip(tmp_path, Camera(2.8, 50.0), Focus(math.inf))[0].distance_m == math.inf
    assert 0x9206 not in camera_tags(None, Focus(0.0), 60, 40)
    assert 0x829D not in camera_tags(None, None, 60, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_spans_the_turned_sensor(orientation):
    # 60 × 40 px are stored on 36 mm; from 5 on they are shown as 40 × 60
    exif = PhotoExif(f_number=2.0, focal_mm=50.0, sensor_mm=36.0, orientation=orientation)
    size, span = ((40, 60), 24.0) if orientation >= 5 else ((60, 40), 36.0)
    assert camera_of_photo(exif, *size).camera.sensor_mm == pytest.approx(span)


def test_what_the_photo_does_not_tell_is_said_and_can_be_given():
    found = camera_of_photo(PhotoExif(), 60, 40)
    assert (found.camera.f_number, found.camera.focal_mm, found.camera.sensor_mm) == (2.8, 50.0, 36.0)
    assert [w.split(":")[0] for w in found.warnings[:2]] == [
        "The photo records no aperture",
        "The photo records no focal length",
    ]
    assert found.distance_m == 0.0
    assert "distance_m is 0" in found.warnings[-1]
    assert found.summary.startswith("Camera unknown\nf/2.8, 50 mm; 60 × 40 px on 36 mm")
    given = camera_of_photo(
        PhotoExif(), 40, 40, f_number=4.0, focal_mm=6.9, sensor=(9.8, 7.3), distance_m=2.0
    )
    assert given.warnings == []
    assert (given.camera.f_number, given.camera.focal_mm, given.distance_m) == (4.0, 6.9, 2.0)
    assert given.camera.framed(40, 40).sensor_mm == 7.3


def test_what_is_given_wins_over_the_photo_and_leaves_its_sensor():
    phone = PhotoExif(f_number=1.8, focal_mm=6.9, focal_35mm=26.0, subject_distance_m=0.5)
    own, longer = camera_of_photo(phone, 4000, 3000), camera_of_photo(phone, 4000, 3000, focal_mm=20.0)
    # 26 mm on 43.27 mm is 6.9 mm on 11.48 mm, of which 4:3 makes 9.19 mm wide
    assert own.camera.sensor_mm == pytest.approx(9.186, abs=1e-3)
    assert longer.camera.sensor_mm == own.camera.sensor_mm
    assert longer.camera.focal_mm == 20.0
    assert camera_of_photo(phone, 4000, 3000, sensor=(36.0, 24.0)).camera.framed(400, 300).sensor_mm == 32.0


@pytest.mark.parametrize(
    ("exif", "sentence", "span"),
    [
        (PhotoExif(2.0, 50.0), "size of its sensor: full frame, 36 × 24 mm", 36.0),
        (PhotoExif(2.0, None, 26.0), "only the 35-mm equivalent of its focal length, 26 mm", 36.0),
        # a copy made smaller, whose plane is still that of the camera: the equivalent is believed
        (PhotoExif(2.0, 50.0, 75.0, sensor_mm=4.0), "", 24.0),
        (PhotoExif(reason="a.jpg is damaged."), "a.jpg is damaged.", 36.0),
    ],
)
def test_half_told_sensors(exif, sentence, span):
    found = camera_of_photo(exif, 60, 40)
    assert sentence in "\n".join(found.warnings)
    assert found.camera.sensor_mm == pytest.approx(span)


def test_comfyuis_webp_has_no_camera_name(tmp_path):
    _, path = round_trip(tmp_path, Camera(2.8, 50.0), None, file_format=WEBP)
    exif = read_exif(path)
    assert exif.make.startswith("workflow:")
    assert exif.camera_name == ""
    assert PhotoExif(make="Canon", model="Canon EOS R5").camera_name == "Canon EOS R5"


def test_webp_has_room_for_any_number_of_texts():
    texts = {"prompt": "{}", "workflow": "{}", **{f"pack {i}": f"[{i}]" for i in range(20)}}
    with Image.open(io.BytesIO(encoded(grey(), WEBP, 90, {}, texts))) as image:
        stored = image.getexif()
    assert (stored[0x0110], stored[0x010F]) == ("prompt:{}", "workflow:{}")
    kept = dict(text.split(":", 1) for text in stored.values() if isinstance(text, str) and ":" in text)
    assert kept == texts


def test_pngs_keep_the_workflow_as_text_and_values_as_they_are():
    picture = (torch.arange(256).reshape(16, 16, 1) / 255.0).repeat(1, 1, 4)
    with Image.open(io.BytesIO(encoded(picture, PNG, 1, {}, WORKFLOW))) as image:
        assert {name: image.text[name] for name in WORKFLOW} == WORKFLOW
        assert image.mode == "RGBA"
        assert list(image.getchannel("R").tobytes()) == list(range(256))


def test_webp_of_quality_100_is_lossless_even_where_it_is_transparent():
    noise = torch.rand(32, 32, 4, generator=torch.Generator().manual_seed(3))
    noise[:8, :, 3] = 0.0
    with Image.open(io.BytesIO(encoded(noise, WEBP, 100, {}))) as image:
        assert image.tobytes() == (noise * 255).round().to(torch.uint8).numpy().tobytes()
    small = len(encoded(noise, WEBP, 40, {}))
    assert small < 0.7 * len(encoded(noise, WEBP, 100, {}))


def test_jpeg_lays_transparency_over_white_in_linear_light():
    picture = torch.zeros(16, 16, 4)
    picture[..., 3] = 0.5
    with Image.open(io.BytesIO(encoded(picture, JPEG, 95, {}, WORKFLOW))) as image:
        assert image.mode == "RGB"
        # half of white light is sRGB 187.5; JPEG moves a flat colour by a step or two
        assert abs(image.getpixel((8, 8))[0] - 187.5) < 3
        assert 0x010F not in image.getexif()


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_tags_is_no_metadata(file_format):
    with Image.open(io.BytesIO(encoded(grey(), file_format, 90, None, WORKFLOW))) as image:
        assert dict(image.getexif()) == {}
        assert "workflow" not in image.info


def test_odd_pictures():
    with Image.open(io.BytesIO(encoded(grey(channels=1), PNG, 90, {}))) as image:
        assert image.mode == "L"
    wild = torch.tensor([[[math.nan, -1.0, 7.0]]])
    with Image.open(io.BytesIO(encoded(wild, PNG, 90, {}))) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(ValueError, match=r"WebP holds at most 16383 px a side, .* is 16384 × 1 px"):
        encoded(grey(1, 16384), WEBP, 90, {})


@pytest.mark.parametrize(
    ("f_number", "distance", "name"),
    [
        (2.8, 1.5, "_f2.8_1.5m"), (11.0, 1234.5, "_f11_1234m"), (0.95, 0.085, "_f0.95_0.085m"),
        (5.6, 1e-6, "_f5.6_0.000001m"), (22.0, 0.0, "_f22_0m"), (1.8, 10.0, "_f1.8_10m"),
    ],
)  # fmt: skip
def test_names(f_number, distance, name):
    assert values_name(Camera(f_number, 50.0), Focus(distance)) == name
    assert values_name(None, Focus(distance)) == "_" + name.split("_")[2]
    assert values_name(None, None) == ""


def test_no_file_is_overwritten(tmp_path):
    taken = tmp_path / "a_1.png"
    taken.write_bytes(b"mine")
    path = write_new(tmp_path, lambda n: f"a_{n}.png", 1, b"new")
    assert (path.name, path.read_bytes()) == ("a_2.png", b"new")
    assert taken.read_bytes() == b"mine"
    with pytest.raises(ValueError, match=r"b_1\.png cannot be written into .*none: no such file"):
        write_new(tmp_path / "none", lambda n: f"b_{n}.png", 1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_file_that_does_not_fit_leaves_nothing(tmp_path):
    """The system refuses the second half, as it does when a disk is full."""
    code = f"""
import pathlib, resource
from lens_models.photo.save import write_new
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = pathlib.Path({str(tmp_path)!r})
write_new(folder, "small_{{}}.png".format, 1, bytes(4000))
try:
    write_new(folder, "large_{{}}.png".format, 1, bytes(100000))
except ValueError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "large_1.png (0.1 MB) was not saved: file too large. Make room in" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["small_1.png"]


def test_a_full_disk_is_named():
    full = OSError(exif_write.errno.ENOSPC, "No space left on device")
    assert exif_write._why(full) == "the disk is full"
