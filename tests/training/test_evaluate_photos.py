"""The lenses alone on real and ray-traced pictures, and pairs of photos as in EBB!."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from optics.shots import shot
from PIL import Image

from lens_models import Camera, Focus, taf_lens
from lens_models.light import linear_to_srgb, srgb_to_linear
from tools import motorcycle
from training.evaluate import ebb, renderers
from training.evaluate.options import Evaluation

WIDTH = 370  # half of Motorcycle's: Dr.Bokeh Lens takes a minute for the whole


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    shown, metres = motorcycle.load()
    small = Image.fromarray(shown).resize((WIDTH, 250), Image.Resampling.BOX)
    small.save(folder / "motorcycle.png")
    metres = np.nan_to_num(metres[::2, ::2][:250, :WIDTH], nan=0.0).astype(np.float32)
    np.save(folder / "motorcycle_depth.npy", metres)
    small.save(folder / "no_depth.png")
    return folder


@pytest.mark.slow
def test_a_real_photo_scores_100_through_both_lenses(photo_folder, tmp_path, caplog):
    found = renderers.judge(renderers.photos(photo_folder), Evaluation(), tmp_path)
    assert "no_depth.png has no depth beside it" in caplog.text
    assert [s["scene"] for s in found["samples"]] == ["motorcycle", "motorcycle"]
    for lens in ("taf", "dr_bokeh"):
        columns = found["lenses"][lens]["columns"]
        assert columns["energy_linear"]["value"] == 100.0
        assert columns["energy_linear_mean_removed"]["value"] == 100.0
        # blurred light makes sRGB values brighter: what is told of these must not be mended
        assert columns["energy_srgb"]["value"] < 50.0
        assert columns["lpips"] is None
    assert "no weights" in (tmp_path / "renderers.md").read_text()
    with Image.open(tmp_path / "sheets" / "motorcycle.png") as sheet:
        assert sheet.width > 8 * 256
    assert json.loads((tmp_path / "renderers.json").read_text())["samples"] == found["samples"]


def scene(name):
    traced = shot(name)
    return renderers.Sharp(name, traced.sharp(), traced.depth_m(), traced.lens.focus_m, traced.lens.focal_mm)


@pytest.mark.slow
def test_ray_traced_scenes_score_100_through_both_lenses(tmp_path):
    found = renderers.judge(map(scene, ("slant", "portrait", "behind")), Evaluation(), tmp_path)
    for lens in found["lenses"].values():
        assert lens["scenes"] == 3
        assert lens["columns"]["energy_linear"]["value"] == 100.0
        assert lens["columns"]["energy_linear_mean_removed"]["value"] == 100.0


def test_a_lens_that_slips_is_seen(tmp_path, monkeypatch):
    def slips(radiance, depth_m, focus, camera, **more):
        wrong = camera.f_number.clone()
        wrong[3] = wrong[2]
        return taf_lens(radiance, depth_m, focus, dataclasses.replace(camera, f_number=wrong), **more)

    monkeypatch.setitem(renderers.LENSES, "taf", slips)
    found = renderers.judge([scene("slant")], Evaluation(), tmp_path, ["taf"])
    assert found["lenses"]["taf"]["columns"]["energy_linear"]["value"] == pytest.approx(100 * 6 / 7)


def test_depth_comes_from_the_neighbours_where_it_is_missing(photo_folder):
    (sharp,) = renderers.photos(photo_folder)
    assert sharp.depth_m.min() > 2.0  # Motorcycle's nearest measurement is 2.11 m
    assert 2.1 < sharp.focus < 5.1


def test_folders_that_cannot_be_used_are_explained(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        list(renderers.photos(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no picture with depth"):
        list(renderers.photos(tmp_path))
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.ones((6, 7), np.float32))
    with pytest.raises(ValueError, match=r"a.png is 8 × 6 px and a.npy 7 × 6"):
        list(renderers.photos(tmp_path))
    with pytest.raises(ValueError, match="has no pairs"):
        ebb.find_pairs(tmp_path)


def test_float_maps_are_read_from_the_bottom_up(tmp_path):
    path, values = tmp_path / "depth.pfm", np.arange(6, dtype="<f4").reshape(2, 3)
    path.write_bytes(b"Pf\n3 2\n-1.0\n" + values[::-1].tobytes())
    assert torch.equal(renderers.read_pfm(path), torch.from_numpy(values)[None])
    path.write_bytes(b"Pf\n3 2\n-1.0\n" + values.tobytes()[:-4])
    with pytest.raises(ValueError, match=r"depth\.pfm is no grey float map, or damaged: .*truncated"):
        renderers.read_pfm(path)


@pytest.fixture
def pairs(tmp_path):
    """Three scenes in focus at their left; the third pair is the wrong way round."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for k in range(3):
        random = torch.Generator().manual_seed(k)
        sharp = (torch.rand(1, 3, 48, 64, generator=random) > 0.5).float()
        depth = torch.linspace(1.0, 6.0, 64).expand(1, 48, 64)
        for f_number in (16.0, 1.8):
            camera = Camera(f_number if k < 2 else 17.8 - f_number, 50.0, 36.0)
            shown = linear_to_srgb(taf_lens(srgb_to_linear(sharp), depth, Focus(1.0), camera)).clamp(0, 1)
            pixels = (shown[0] * 255).round().to(torch.uint8).movedim(0, -1).numpy()
            Image.fromarray(pixels).save(folder / f"scene{k}_f{f_number:g}.png")
    return folder


def test_pairs_are_counted_and_shown(pairs, tmp_path):
    (pairs / "scene9_f16.png").write_bytes(b"not a picture")
    (pairs / "scene9_f1.8.png").write_bytes(b"not a picture")
    (pairs / "lonely_f16.png").write_bytes(b"nothing")
    found = ebb.judge_pairs(pairs, tmp_path / "out")
    assert found["pairs"] == 3
    assert list(found["left_out"]) == ["scene9"]
    column = found["columns"]["srgb_mean_removed"]
    assert column["hits"] == 2
    # Wilson's interval of 2 in 3, from its closed form
    assert column["interval"] == (pytest.approx(0.2077, abs=1e-4), pytest.approx(0.9385, abs=1e-4))
    assert "The paper found 96 %" in (tmp_path / "out" / "ebb.md").read_text()
    with Image.open(tmp_path / "out" / "sheets" / "pairs_000.png") as sheet:
        assert sheet.width > 2 * 384


def test_the_data_sets_own_folders_give_the_same(pairs, tmp_path):
    for kind, f_number in (("original", "16"), ("bokeh", "1.8")):
        (tmp_path / "ebb" / kind).mkdir(parents=True)
        for k in range(3):
            source = pairs / f"scene{k}_f{f_number}.png"
            (tmp_path / "ebb" / kind / f"scene{k}.png").write_bytes(source.read_bytes())
    one, other = (ebb.judge_pairs(folder, tmp_path / "out") for folder in (pairs, tmp_path / "ebb"))
    assert one["columns"] == other["columns"]
