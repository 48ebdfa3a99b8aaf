"""Appendix D, and the photos that look the same."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.training.curate_photos import scene
from training.curate.duplicates import compare, dhash, near_pairs
from training.curate.options import Rules
from training.curate.rules import is_phone, judge_row, read_phones

PHONES = read_phones()
PHOTO = {
    "f_number": 2.8, "exposure_s": 0.01, "make": "Canon", "model": "Canon EOS R5", "lens": "RF50mm F1.2 L",
    "focal_mm": 50.0, "focal_35mm": 50.0, "sensor_mm": None, "orientation": 1, "width": 6000, "height": 4000,
    "reason": "",
}  # fmt: skip
PHONE = {"make": "Apple", "model": "iPhone 12", "lens": "iPhone 12 back camera 4.2mm f/1.6"}


def verdict(rules=None, **changes):
    found = judge_row(PHOTO | changes, rules or Rules(), PHONES)
    return found["set"] if found["kept"] else found["reason"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "shallow"),
        ({"f_number": 1.0}, "shallow"),
        ({"f_number": 9.9}, "shallow"),
        ({"f_number": 10.0}, "deep"),
        ({"f_number": 50.0}, "deep"),
        ({"f_number": 10.0, "exposure_s": 0.1}, "deep"),
        ({"f_number": 10.0, "exposure_s": 0.11}, "deep, and exposed for 0.11 s, longer than 0.1 s"),
        ({"exposure_s": 30.0}, "shallow"),
        ({"exposure_s": None}, "shallow"),
        ({"f_number": 0.95}, "f/0.95 is not within f/1 to 50"),
        ({"f_number": 51.0}, "f/51 is not within f/1 to 50"),
        ({"f_number": None}, "no f-number in its EXIF"),
        ({"f_number": float("inf")}, "no f-number in its EXIF"),
        ({"f_number": 0.0}, "no f-number in its EXIF"),
        (dict.fromkeys(("f_number", "exposure_s", "make", "model", "lens", "focal_mm")), "no EXIF"),
        (PHONE, "shallow, and by a phone"),
        (PHONE | {"f_number": 11.0}, "deep"),
        (dict.fromkeys(("make", "model", "lens")), "shallow, and no camera named in its EXIF"),
        ({"width": 1000}, "1000 px on its shorter side, less than 1024"),
        ({"focal_mm": None, "focal_35mm": None}, "no focal length in its EXIF"),
        ({"focal_mm": None}, "only the 35-mm equivalent of its focal length in its EXIF"),
        ({"focal_35mm": None}, "the size of its sensor cannot be told from its EXIF"),
        ({"focal_35mm": None, "sensor_mm": 22.3}, "shallow"),
    ],
)
def test_appendix_d(changes, expected):
    assert verdict(**changes) == expected


@pytest.mark.parametrize(
    ("option", "changes", "expected"),
    [
        ({"no_exposure": "keep"}, {"f_number": 16.0, "exposure_s": None}, "deep"),
        ({}, {"f_number": 16.0, "exposure_s": None}, "deep, and no exposure time in its EXIF"),
        ({"deep_phones": "drop"}, PHONE | {"f_number": 11.0}, "by a phone"),
        ({"no_camera": "keep"}, dict.fromkeys(("make", "model", "lens")), "shallow"),
        ({"no_sensor": "full frame"}, {"focal_35mm": None}, "shallow"),
        ({"no_focal": "35 mm equivalent"}, {"focal_mm": None}, "shallow"),
        (
            {"shallow_exposure_s": 0.1},
            {"exposure_s": 0.2},
            "shallow, and exposed for 0.2 s, longer than 0.1 s",
        ),
        ({"split_f_number": 8.0}, {"f_number": 8.0}, "deep"),
        ({"least_side_px": 4001}, {}, "4000 px on its shorter side, less than 4001"),
    ],
)
def test_what_the_paper_leaves_open_is_an_option(option, changes, expected):
    assert verdict(Rules(**option), **changes) == expected


def test_the_focal_length_in_pixels_is_the_whole_photos():
    assert judge_row(PHOTO, Rules(), PHONES)["fx_px"] == pytest.approx(
        50 * np.hypot(6000, 4000) / np.hypot(36, 24)
    )
    found = judge_row(PHOTO | {"focal_35mm": None, "sensor_mm": 24.0}, Rules(), PHONES)
    assert found["fx_px"] == pytest.approx(50 * 6000 / 24)


@pytest.mark.parametrize(
    ("make", "model", "lens", "phone"),
    [
        ("Apple", "iPhone 15 Pro", None, True),
        ("samsung", "SM-G991B", None, True),
        ("SAMSUNG", "NX300", None, False),
        ("SAMSUNG", "WB350F", None, False),
        ("Sony", "XQ-DQ72", None, True),
        ("Sony", "E6653", None, True),
        ("SONY", "ILCE-7M4", None, False),
        ("SONY", "DSC-RX100M7", None, False),
        ("SONY", "SLT-A99V", None, False),
        ("Google", "Pixel 8", None, True),
        ("HUAWEI", "ELE-L29", None, True),
        ("Xiaomi", "23127PN0CG", None, True),
        ("LGE", "Nexus 5", None, True),
        ("LG Electronics", "LG-H870", None, True),
        ("HTC", "ADR6400L", None, True),
        ("Nokia", "6350", None, True),
        ("motorola", "moto g(7)", None, True),
        ("NIKON CORPORATION", "NIKON Z 8", None, False),
        ("Leica Camera AG", "LEICA Q3", None, False),
        ("LEICA CAMERA AG", "LEITZ PHONE 1", None, True),
        ("Panasonic", "DC-S5", None, False),
        ("Panasonic", "DMC-CM1", None, True),
        ("FUJIFILM", "X-T5", None, False),
        ("Polaroid", "i533", None, False),
        ("PANTECH", "P2020", None, True),
        ("LG", "G6", None, True),
        ("Legend Optics", "L1", None, False),
        (None, "iPhone 6", None, True),
        (None, None, "iPhone 6 back camera 4.15mm f/2.2", True),
        (None, "EOS 5D", None, False),
        (None, None, None, False),
    ],
)
def test_phones(make, model, lens, phone):
    assert is_phone(PHONES, make, model, lens) is phone


def test_a_table_of_phones_of_ones_own(tmp_path):
    (tmp_path / "p.csv").write_text("make,model,lens,phone,why\nacme,,,yes,\n")
    assert is_phone(read_phones(tmp_path / "p.csv"), "ACME", "1")
    for line in ("acme,,,maybe,", "(,,,yes,", "acme"):
        (tmp_path / "p.csv").write_text(f"make,model,lens,phone,why\n{line}\n")
        with pytest.raises(ValueError, match=r"Line 2 of p\.csv"):
            read_phones(tmp_path / "p.csv")


def photos(hashes, keys=None, pixels=None, contrast=None, sets=None) -> dict[str, np.ndarray]:
    count = len(hashes)
    return dict(
        unit=np.arange(count) // 3,
        row=np.arange(count) % 3,
        set=np.array(sets or ["deep"] * count, object),
        key=np.array(keys or [f"{k:06d}" for k in range(count)], object),
        path=np.array([f"{k}.jpg" for k in range(count)], object),
        dhash=np.array(hashes, np.uint64),
        pixels=np.array(pixels or [100] * count),
        contrast=np.array(contrast or [True] * count, bool),
    )


@pytest.mark.parametrize("distance", [0, 1, 3, 7])
def test_near_pairs_are_all_pairs(distance):
    random = np.random.default_rng(0)
    base = random.integers(0, 1 << 63, 40, dtype=np.uint64)
    flips = [np.bitwise_xor.reduce(np.uint64(1) << random.choice(64, n, replace=False).astype(np.uint64))
             for n in random.integers(0, 10, 200)]  # fmt: skip
    hashes = np.concatenate([base, base[random.integers(0, 40, 200)] ^ np.array(flips, np.uint64)])
    wanted = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if int(hashes[i] ^ hashes[j]).bit_count() <= distance
    }
    found = {tuple(sorted(pair)) for pair in near_pairs(hashes, distance)}
    assert found == wanted
    assert len(wanted) > 5


def test_the_largest_of_a_group_stays_whatever_the_order():
    hashes = [0b0, 0b111, 0b111111, 0xFF << 50, 0b0]
    pixels = [100, 300, 200, 100, 100]
    reasons = compare(photos(hashes, pixels=pixels), 3)
    # 0, 1 and 2 hang together in a chain; 4 looks like 0
    assert reasons == {
        (0, 0): "looks the same as 1.jpg",
        (0, 2): "looks the same as 1.jpg",
        (1, 1): "looks the same as 1.jpg",
    }
    turned = photos(hashes[::-1], pixels=pixels[::-1])
    assert len(compare(turned, 3)) == 3
    assert (1, 0) not in compare(turned, 3)  # the one with 300 pixels
    assert compare(photos([0, 0b1111]), 3) == {}


def test_a_hundred_thousand_equal_photos_are_no_trouble():
    """Pair by pair they would be five thousand million."""
    reasons = compare(photos([7] * 100_000 + [0xFF << 40]), 3)
    assert len(reasons) == 99_999
    assert set(reasons.values()) == {"looks the same as 0.jpg"}


def test_one_scene_at_two_apertures_stays_twice():
    assert compare(photos([5, 5, 5], sets=["deep", "shallow", "deep"]), 3) == {
        (0, 2): "looks the same as 0.jpg"
    }


def test_flat_photos_are_compared_by_their_bytes():
    reasons = compare(photos([0, 0, 0], keys=["a", "b", "a"], contrast=[False] * 3), 3)
    assert reasons == {(0, 2): "the same file as 0.jpg"}
    assert compare(photos([]), 3) == {}


def test_the_hash_survives_another_size_and_jpeg(tmp_path):
    picture = scene(7, 400, 300)
    picture.resize((200, 150), Image.Resampling.LANCZOS).save(tmp_path / "small.jpg", quality=60)
    before, contrast = dhash(picture)
    with Image.open(tmp_path / "small.jpg") as small:
        after, _ = dhash(small)
    assert (before ^ after).bit_count() <= 3
    assert contrast > 4.0
    assert (before ^ dhash(scene(8, 400, 300))[0]).bit_count() > 16
    assert dhash(Image.new("RGB", (90, 80), (5, 5, 5))) == (0, 0.0)
