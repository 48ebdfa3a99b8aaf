"""Depth files: what is read, which part of them, and what an artist is told when it cannot be."""

import sys

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from lens_models.depth.files import read_depth_file

RAMP = np.linspace(0.25, 9.0, 20 * 33, dtype=np.float32).reshape(20, 33)


def write_exr(path, channels, *, compression="ZIP", tiled=False):
    header = {
        "compression": getattr(OpenEXR, f"{compression}_COMPRESSION"),
        "type": OpenEXR.tiledimage if tiled else OpenEXR.scanlineimage,
    }
    if tiled:
        header["tiles"] = OpenEXR.TileDescription()
    OpenEXR.File(header, channels).write(str(path))


@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("tiled", [False, True])
def test_exr_channel_z(tmp_path, compression, dtype, tiled):
    flat = np.where(RAMP < 4, np.float32(2.5), RAMP)
    flat[3, 4] = np.inf
    colour = {c: np.zeros_like(flat) for c in "RGBA"}
    write_exr(tmp_path / "a.exr", {**colour, "Z": flat.astype(dtype)}, compression=compression, tiled=tiled)
    found = read_depth_file(tmp_path / "a.exr")
    np.testing.assert_array_equal(found.values[0].numpy(), flat.astype(dtype).astype(np.float32))
    assert found.channel == "Z"
    assert found.warnings == ()


def test_exr_of_several_parts(tmp_path):
    parts = [
        OpenEXR.Part({"type": OpenEXR.scanlineimage}, {"RGB": np.zeros((20, 33, 3), np.float16)}, "beauty"),
        OpenEXR.Part({"type": OpenEXR.scanlineimage}, {"Z": RAMP}, "depth"),
    ]
    OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(read_depth_file(tmp_path / "a.exr").values[0].numpy(), RAMP)


@pytest.mark.parametrize(
    ("channels", "asked", "expected"),
    [
        (["Y"], "", "Y"),
        (["anything"], "", "anything"),
        (["R", "G", "B"], "", "R"),
        (["ViewLayer.Combined.R", "ViewLayer.Depth.Z"], "", "ViewLayer.Depth.Z"),
        (["ViewLayer.Combined.R", "ViewLayer.Depth.V"], "", "ViewLayer.Depth.V"),
        (["Z", "dist.z2"], "DIST.Z2", "dist.z2"),
        (["front.Z", "back.W"], "w", "back.W"),
    ],
)
def test_exr_finds_the_depth(tmp_path, channels, asked, expected):
    write_exr(tmp_path / "a.exr", {n: RAMP * (n == expected) for n in channels})
    found = read_depth_file(tmp_path / "a.exr", asked)
    assert found.channel == expected
    np.testing.assert_array_equal(found.values[0].numpy(), RAMP)


def test_exr_channels_are_named_when_the_choice_is_wrong(tmp_path):
    write_exr(tmp_path / "a.exr", {"a.q": RAMP, "b.q": RAMP, "c": RAMP})
    with pytest.raises(ValueError, match=r"no channel that looks like depth: write one of a\.q, b\.q, c"):
        read_depth_file(tmp_path / "a.exr")
    with pytest.raises(ValueError, match=r'no channel "Z": it has a\.q, b\.q, c'):
        read_depth_file(tmp_path / "a.exr", "Z")
    with pytest.raises(ValueError, match=r'Several channels .* "q"'):
        read_depth_file(tmp_path / "a.exr", "q")


@pytest.mark.parametrize("keep", [4, 60, 300, 700])
def test_a_cut_exr_is_a_sentence(tmp_path, keep):
    write_exr(tmp_path / "a.exr", {"Z": RAMP})
    data = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "a.exr").write_bytes(data[:keep])
    with pytest.raises(ValueError, match=r"a\.exr cannot be read"):
        read_depth_file(tmp_path / "a.exr")


def test_exr_without_the_library(tmp_path, monkeypatch):
    write_exr(tmp_path / "a.exr", {"Z": RAMP})
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(ValueError, match="pip install OpenEXR"):
        read_depth_file(tmp_path / "a.exr")


def test_png_16_bit(tmp_path):
    stored = (RAMP * 1000).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    found = read_depth_file(tmp_path / "a.png")
    np.testing.assert_array_equal(found.values[0].numpy(), stored.astype(np.float32))
    assert found.warnings == ()


def test_png_8_bit_says_how_coarse_it_is(tmp_path):
    Image.fromarray((RAMP * 20).astype(np.uint8)).save(tmp_path / "a.png")
    (warning,) = read_depth_file(tmp_path / "a.png").warnings
    assert "8 bits" in warning
    assert "176 different distances" in warning


def test_grey_in_three_channels_is_read_and_colour_is_said(tmp_path):
    grey = np.repeat((RAMP * 20).astype(np.uint8)[..., None], 3, axis=-1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert len(read_depth_file(tmp_path / "grey.png").warnings) == 1
    grey[..., 2] = 0
    Image.fromarray(grey).save(tmp_path / "colour.png")
    found = read_depth_file(tmp_path / "colour.png")
    assert "colour" in found.warnings[0]
    np.testing.assert_array_equal(found.values[0].numpy(), grey[..., 0])


def test_16_bit_colour_png_keeps_its_bits(tmp_path):
    cv2 = pytest.importorskip("cv2")
    stored = np.repeat((RAMP * 1000).astype(np.uint16)[..., None], 3, axis=-1)
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    found = read_depth_file(tmp_path / "a.png")
    np.testing.assert_array_equal(found.values[0].numpy(), stored[..., 0])
    assert found.warnings == ()


def test_palette_png_is_refused(tmp_path):
    Image.fromarray((RAMP * 20).astype(np.uint8)).convert("P").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="palette"):
        read_depth_file(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["tif", "tiff"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_tiff(tmp_path, suffix, dtype):
    stored = (RAMP * 1000).astype(dtype)
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}")
    found = read_depth_file(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found.values[0].numpy(), stored.astype(np.float32))
    assert found.warnings == ()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.int32])
@pytest.mark.parametrize("shape", [(20, 33), (1, 20, 33), (20, 33, 1), (1, 20, 33, 1), (1, 1, 20, 33)])
def test_npy(tmp_path, dtype, shape):
    stored = (RAMP * 100).astype(dtype)
    np.save(tmp_path / "a.npy", stored.reshape(shape))
    values = read_depth_file(tmp_path / "a.npy").values
    assert values.dtype == torch.float32
    np.testing.assert_array_equal(values[0].numpy(), stored.astype(np.float32))


def test_npy_batch(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([RAMP, RAMP, RAMP]))
    assert read_depth_file(tmp_path / "a.npy").values.shape == (3, 20, 33)


def test_npz(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", other=RAMP * 0, depth=RAMP)
    found = read_depth_file(tmp_path / "a.npz")
    assert found.channel == "depth"
    np.testing.assert_array_equal(found.values[0].numpy(), RAMP)
    assert read_depth_file(tmp_path / "a.npz", "other").values.max() == 0
    with pytest.raises(ValueError, match='no array "z": it has other, depth'):
        read_depth_file(tmp_path / "a.npz", "z")


def test_pickles_stay_shut(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", depth=np.array([Trap()], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_depth_file(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_not_there_or_not_depth(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.exr is not there"):
        read_depth_file(tmp_path / "gone.exr")
    (tmp_path / "a.txt").write_text("2.5")
    with pytest.raises(ValueError, match="not a depth file"):
        read_depth_file(tmp_path / "a.txt")
    for name in ("a.png", "a.npy", "a.npz", "a.exr"):
        (tmp_path / name).write_bytes(b"not what the name says")
        with pytest.raises(ValueError, match=r"a\.\w+ (cannot be read|is not an OpenEXR)"):
            read_depth_file(tmp_path / name)
    np.save(tmp_path / "b.npy", np.zeros((0, 4)))
    np.save(tmp_path / "c.npy", np.zeros(4))
    np.save(tmp_path / "d.npy", np.array(["far"]))
    for name, message in (("b", "at least one pixel"), ("c", r"shape \(4,\)"), ("d", "not numbers")):
        with pytest.raises(ValueError, match=message):
            read_depth_file(tmp_path / f"{name}.npy")
